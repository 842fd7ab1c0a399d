"""One stage's profile: the budgets, what each one costs in accuracy and gives in latency, and the choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Self

from litestage.core.layers import Record
from litestage.search.trial import TINY, TrialResult

Verdict = Literal[
    "chosen",
    "keeps the target",
    "misses the target",
    "misses the target, ended early",
    "slower than the best, ended early",
    "less accurate than another, ended early",
]
"""What became of a candidate."""


class TrialSummary(Record):
    """What a candidate reached, end to end."""

    questions: int
    measured: int
    """Fewer than ``questions`` when the point was ended early, because it could not be chosen any more."""
    correct: int
    accuracy: float
    """Percent; for a point ended early the most that it could have reached."""
    seconds: float | None
    """Latency a question; None for a point ended early."""
    feasible: bool | None
    """Whether it keeps the target; None when it was ended early before that was certain."""

    @property
    def cut_short(self) -> bool:
        return self.measured < self.questions

    @classmethod
    def of(cls, measurement: TrialResult, needed: int, **more: object) -> Self:
        return cls.model_validate(
            {
                "questions": len(measurement.outcomes),
                "measured": measurement.measured,
                "correct": measurement.correct,
                "accuracy": 100 * measurement.at_most / len(measurement.outcomes),
                "seconds": measurement.seconds,
                "feasible": measurement.keeps(needed),
                **more,
            }
        )


class ProfilePoint(TrialSummary):
    """One budget of a profile."""

    budget: int
    policy: str = ""
    agreement: float | None = None
    """Why it was taken: the share of tokens that it leaves as they were, 0 to 1, where policies were compared."""
    seconds_at_least: float | None = None
    """For a point ended early because it was slower than the best."""

    @property
    def verdict(self) -> Verdict:
        """What these questions say of it, whichever point is chosen in the end."""
        if self.cut_short:
            return "misses the target, ended early" if self.feasible is False else "slower than the best, ended early"
        return "keeps the target" if self.feasible else "misses the target"


class Profile(Record):
    """The points of one stage with the stages before it at their chosen budgets and the others at full depth."""

    stage: str
    points: tuple[ProfilePoint, ...]
    chosen: int
    """The chosen budget."""
    left_out: int
    """Budgets not measured, because several in a row before them missed the target."""

    @property
    def chosen_point(self) -> ProfilePoint:
        return next(point for point in self.points if point.budget == self.chosen)

    def verdict(self, point: ProfilePoint) -> Verdict:
        """What became of a budget."""
        return "chosen" if point.budget == self.chosen else point.verdict


def budgets(num_blocks: int, step: int) -> tuple[int, ...]:
    """0, step, 2 step, ... up to 2L - 4 sub-layers."""
    return tuple(range(0, max(0, 2 * num_blocks - 4) + 1, step))


def needed_correct(questions: int, target: float) -> int:
    """The fewest right answers that make ``target`` percent."""
    return max(0, math.ceil(questions * (target - TINY) / 100))


def choose(points: Sequence[ProfilePoint], target: float) -> ProfilePoint | None:
    """The fastest point that keeps ``target`` percent; ties go to the smaller budget. None when no point keeps it."""
    timed = [
        (point.seconds, point.budget, point)
        for point in points
        if point.seconds is not None and point.accuracy >= target - TINY
    ]
    return min(timed, key=lambda entry: entry[:2])[2] if timed else None
