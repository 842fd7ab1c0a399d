"""What a search may ask for, and what it is told: candidates and measurements, without a tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import Field, model_validator

from litestage.core.errors import OptionError
from litestage.core.layers import Record

TINY = 1e-9
"""Points of accuracy that rounding may cost."""


class SearchOptions(Record):
    """How to search. Raises `OptionError` for a value that cannot work."""

    max_drop: float = 1.0
    """Epsilon: points of accuracy that the plan may lose (0 to 100)."""
    step: int = 2
    """Sub-layers between two budgets."""
    patience: int = 3
    """A stage's profile ends after so many budgets in a row that miss the target."""
    exhaustive: bool = False
    """Profile every budget, patience or not, and time it even when it is slow: this draws the whole profile."""
    end_points_early: bool = True
    """End a point as soon as it cannot be chosen any more. The choice is the same either way."""
    use_exit: bool = True
    """Add the exit rule when the budgets are chosen (paper, 4.4)."""
    search_exit: bool = False
    """Profile with exit on in every stage already."""

    @model_validator(mode="after")
    def _usable(self) -> SearchOptions:
        if not 0 <= self.max_drop <= 100:
            raise OptionError(
                f"--max-drop {self.max_drop:g} cannot be a number of accuracy points to lose. "
                "Give 0 (lose nothing) to 100, for example --max-drop 1."
            )
        if self.step < 1 or self.patience < 1:
            name, value = ("--step", self.step) if self.step < 1 else ("patience", self.patience)
            raise OptionError(f"{name} {value} would never end the search. Give 1 or more.")
        if self.search_exit and not self.use_exit:
            raise OptionError("--search-exit and --no-exit contradict each other. Leave one out.")
        return self

    def check_fits(self, num_blocks: int) -> None:
        """Raise `OptionError` for a step that tries no budget on a model of so many blocks."""
        if self.step > 2 * num_blocks - 4:
            raise OptionError(
                f"--step {self.step} would try nothing: with {num_blocks} blocks, budgets end at {2 * num_blocks - 4} "
                "sub-layers. Give a smaller --step."
            )


class StageCandidate(Record):
    """One stage: how many sub-layers it skips, and whether it may exit early."""

    stage: str
    budget: int = Field(default=0, ge=0)
    exit: bool = False
    rule: str = Field(default="", exclude_if=lambda value: not value)
    """By which rule it exits, by the name that whoever measures knows it by; empty where there is only one."""
    policy: str = ""
    """Which sub-layers a budget means and what stands in for them, by the name that whoever measures knows it by."""
    left_out: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether the stage is not run at all."""


class Candidate(Record):
    """A budget, a policy to leave so much out, and an exit switch for each stage, in task order."""

    stages: tuple[StageCandidate, ...]

    @classmethod
    def full_depth(cls, stages: Sequence[str], exits: bool = False) -> Candidate:
        return cls(stages=tuple(StageCandidate(stage=stage, exit=exits) for stage in stages))

    @property
    def budgets(self) -> dict[str, int]:
        return {stage.stage: stage.budget for stage in self.stages}

    @property
    def exits(self) -> tuple[str, ...]:
        """Stages that may exit early."""
        return tuple(stage.stage for stage in self.stages if stage.exit)

    def __str__(self) -> str:
        """What it leaves out, stage by stage: ``recall −4, analysis −6 and exit``."""
        parts = []
        for stage in self.stages:
            done = [f"\N{MINUS SIGN}{stage.budget}"] * bool(stage.budget) + [f"exit {stage.rule}".rstrip()] * stage.exit
            done = ["left out"] if stage.left_out else done
            parts += [f"{stage.stage} {' and '.join(done)}"] * bool(done)
        return ", ".join(parts) or "full depth"

    def with_budget(self, stage: str, budget: int, policy: str = "") -> Candidate:
        return self._with(stage, budget=budget, policy=policy if budget else "")

    def with_exit(self, stage: str, on: bool, rule: str = "") -> Candidate:
        return self._with(stage, exit=on, rule=rule)

    def without(self, stage: str) -> Candidate:
        """The candidate with a stage not run at all."""
        return self._with(stage, budget=0, policy="", exit=False, left_out=True)

    def _with(self, name: str, **update: int | bool | str) -> Candidate:
        return Candidate(
            stages=tuple(stage.model_copy(update=update) if stage.stage == name else stage for stage in self.stages)
        )


Purpose = Literal["full", "profile", "exit", "path"]


class Trial(Record):
    """One measurement that the search wants."""

    candidate: Candidate
    needed: int
    """Right answers below which the measurement may be cut short: see `hopeless`."""
    too_slow: float | None = None
    """Seconds a question above which it may be cut short as well; None when being slow is no reason."""
    order: tuple[int, ...]
    """Questions, the likeliest misses first. Any order gives the same choice; this one shows the earliest who fails."""
    purpose: Purpose
    stage: str | None = None
    """The stage being profiled."""
    whole: bool = True
    """Whether ``order`` is all questions; otherwise those in it alone are answered, all of them."""

    def is_too_slow(self, seconds: float | None) -> bool:
        """Whether a measurement of at least so many seconds a question may be cut short."""
        return self.too_slow is not None and seconds is not None and seconds > self.too_slow

    def is_settled_by(self, told: TrialResult) -> bool:
        """Whether a measurement says what this asks: it is whole, or was cut short for one of the two reasons."""
        return not told.cut_short or told.at_most < self.needed or self.is_too_slow(told.seconds_at_least)

    def check(self, told: TrialResult) -> None:
        """Raise ValueError for a result that does not settle this: a choice is exact only if none is cut short that
        could still be chosen."""
        if not self.whole:
            if missing := [i for i in self.order if told.outcomes[i] is None or told.question_seconds[i] is None]:
                raise ValueError(f"asked for {len(self.order)} questions, told nothing of {missing[0]}")
            return
        if len(told.outcomes) != len(self.order):
            raise ValueError(f"asked for {len(self.order)} questions, told of {len(told.outcomes)}")
        if not self.is_settled_by(told):
            raise ValueError(
                f"cut short though it could reach {told.at_most} right answers of {self.needed} needed, in "
                f"{told.seconds_at_least} seconds a question or more, where {self.too_slow} are too many"
            )
        if not told.cut_short and told.seconds is None:
            raise ValueError("a whole measurement needs its seconds a question")


class TrialResult(Record):
    """What running a candidate over the questions showed."""

    outcomes: tuple[bool | None, ...]
    """Right or wrong for each question, in question order whatever was asked first; None where it was cut short."""
    seconds: float | None = None
    """Latency a question; None when cut short."""
    seconds_at_least: float | None = None
    """When cut short: the seconds of the questions measured, shared by all. Needed where being slow was the reason."""
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    """Latency a question of each stage; needed of the full model, whose slowest stage is searched first."""
    question_seconds: tuple[float | None, ...] = ()
    """By question, as ``outcomes``; needed where only some are asked for."""
    tokens: int = 0
    """Tokens that had to be decoded for it."""

    @property
    def correct(self) -> int:
        return sum(outcome is True for outcome in self.outcomes)

    @property
    def measured(self) -> int:
        return sum(outcome is not None for outcome in self.outcomes)

    @property
    def at_most(self) -> int:
        """Right answers if every question not measured were right."""
        return self.correct + len(self.outcomes) - self.measured

    @property
    def cut_short(self) -> bool:
        return self.measured < len(self.outcomes)

    def keeps(self, needed: int) -> bool | None:
        """Whether ``needed`` answers are right; None while the questions not measured could decide it either way."""
        if self.at_most < needed:
            return False
        return True if self.correct >= needed else None


Measure = Callable[[Trial], TrialResult]


class ScreenedPolicy(Record):
    """The policy chosen for a budget, before anything was decoded with it."""

    policy: str = ""
    agreement: float | None = None
    """Share of the full model's tokens, 0 to 1, that stay the likeliest when its texts are teacher-forced."""


Screen = Callable[[str, int], ScreenedPolicy]
"""Called with a stage and a budget."""


def only_policy(stage: str, budget: int) -> ScreenedPolicy:
    """The screen of a search that has nothing to choose from."""
    return ScreenedPolicy()


def hopeless(correct: int, measured: int, questions: int, needed: int) -> bool:
    """Whether ``needed`` right answers are out of reach: a reason to cut a measurement short."""
    return misses_to_go(correct, measured, questions, needed) <= 0


def misses_to_go(correct: int, measured: int, questions: int, needed: int) -> int:
    """How many more wrong answers put ``needed`` right ones out of reach."""
    return correct + questions - measured - needed + 1
