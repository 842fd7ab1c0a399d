"""How a candidate stands so far, beside full depth on the same questions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import TypeVar

from litestage.search.trial import Candidate, TrialResult

ONE_SIDED = 1.645
"""Standard errors to a one-sided limit of 95 %."""
PATH = 6
"""Plans on the path."""
FASTER = 0.03
"""Share by which each plan on the path is faster than the one before, and the first than full depth."""
CHANGED = 10
"""Flips assumed besides, were all tokens of a stage changed."""
SURE = 0.95
"""Level of the interval by which a candidate is dropped."""


@dataclass
class Standing:
    """Outcomes and seconds of one candidate, by question."""

    candidate: Candidate
    correct: dict[int, bool] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    def take(self, told: TrialResult) -> None:
        """Add what a trial showed."""
        for i, outcome in enumerate(told.outcomes):
            if outcome is not None:
                self.correct[i] = outcome
                self.seconds[i] = told.question_seconds[i] or 0.0

    @property
    def n(self) -> int:
        return len(self.correct)


@dataclass(frozen=True)
class Flips:
    """Shares of questions that turn wrong and right."""

    lost: float
    gained: float
    n: int

    @property
    def loss(self) -> float:
        """Points of accuracy."""
        return 100 * (self.lost - self.gained)

    def risk(self, questions: int, changed: float = 0.0) -> float:
        """Points: about the bound that so many questions would give, if what was seen is the truth.

        One flip more than was seen is assumed, so that few questions look safer than none, and many safer than few; and
        more where a larger share of tokens is ``changed``: of plans that flipped nothing yet, the bolder is less safe.
        """
        flips = self.lost + self.gained + (1 + CHANGED * changed) / max(1, self.n)
        return self.loss + 100 * ONE_SIDED * sqrt(flips / questions)

    @property
    def surely_loses(self) -> float:
        """Points that are lost at least, as far as these questions can be sure."""
        from litestage.evaluation.tango import interval  # with scipy, which no option needs

        return 100 * max(0.0, interval(round(self.lost * self.n), round(self.gained * self.n), self.n, SURE)[0])


def flips(standing: Standing, other: Standing) -> Flips:
    """``standing`` beside ``other``, on the questions that both answered."""
    both = standing.correct.keys() & other.correct.keys()
    lost = sum(other.correct[i] and not standing.correct[i] for i in both)
    gained = sum(standing.correct[i] and not other.correct[i] for i in both)
    return Flips(lost / len(both), gained / len(both), len(both))


def pace(standing: Standing, other: Standing) -> float:
    """Seconds of ``standing`` as a share of ``other``'s, on the questions that both answered."""
    both = standing.seconds.keys() & other.seconds.keys()
    return sum(standing.seconds[i] for i in both) / sum(other.seconds[i] for i in both)


Place = tuple[float, float]
"""Pace and risk of a plan."""
K = TypeVar("K", bound=Hashable)


def undominated(places: Mapping[K, Place]) -> list[K]:
    """Plans that no other beats in both, from the slowest and safest to the fastest."""
    kept: list[K] = []
    best = float("inf")
    for plan, (_, risk) in sorted(places.items(), key=lambda entry: entry[1]):
        if risk < best:
            kept.append(plan)
            best = risk
    return kept[::-1]


def path_of(places: Mapping[K, Place], most: int = PATH) -> list[K]:
    """The path: of the undominated plans a few that are worth telling apart, each faster than the one before."""
    path: list[K] = []
    for plan in reversed(undominated(places)):  # the fastest is on it in any case
        pace = places[plan][0]
        if pace <= 1 - FASTER and (not path or places[path[-1]][0] <= (1 - FASTER) * pace):
            path.append(plan)
    return spread(path[::-1], most)


def spread(path: Sequence[K], most: int) -> list[K]:
    """At most so many of a path: both its ends, and even steps between them."""
    if len(path) <= most:
        return list(path)
    places = {round(i * (len(path) - 1) / max(1, most - 1)) for i in range(most)}
    return [path[i] for i in sorted(places)]
