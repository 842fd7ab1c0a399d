"""When further votes on a question can be left undrawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from scipy.stats import beta

from litestage.core.layers import Record
from litestage.evaluation.accuracy import majority


class VoteStop(Record):
    """Ends a question's votes before all are drawn.

    ``decided``: no distribution of the remaining votes can change the majority, ties included. ``likely``: earlier,
    once the leader's share exceeds the runner-up's with a posterior probability of at least ``confidence``, from a
    uniform prior over how the two share their votes (adaptive consistency): P(Beta(a + 1, b + 1) > 1/2).
    """

    kind: Literal["decided", "likely"]
    votes: int = Field(ge=1)
    """Votes of a question that is not ended early."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)

    def settled(self, answers: Sequence[int | None]) -> bool:
        """Whether these votes, in the order drawn, are enough."""
        if len(answers) >= self.votes:
            return True
        if not answers:
            return False
        if decided(answers, self.votes - len(answers)):
            return True
        return self.kind == "likely" and leads_with_probability(answers) >= self.confidence

    def fewest(self, answers: Sequence[int | None]) -> int:
        """How many more votes could settle it at the earliest: if all went to the leader, or to one answer."""
        leader = majority(answers) if answers else 0
        count = 0
        while not self.settled([*answers, *[leader] * count]):
            count += 1
        return count


def decided(answers: Sequence[int | None], remaining: int) -> bool:
    """Whether the leader of at least one vote stays ahead wherever the remaining ones go; ties go to the first seen."""
    counts = Counter(answers)  # in the order first seen
    leader = majority(answers)
    seen = list(counts)
    return (
        all(
            counts[rival] + remaining < counts[leader]
            or (counts[rival] + remaining == counts[leader] and seen.index(leader) < seen.index(rival))
            for rival in seen
            if rival != leader
        )
        and remaining <= counts[leader]
    )


def leads_with_probability(answers: Sequence[int | None]) -> float:
    """Posterior probability that the leader is ahead of the runner-up, from a uniform prior (0 to 1)."""
    (_, first), *rest = Counter(answers).most_common(2)
    second = rest[0][1] if rest else 0
    return float(beta.sf(0.5, first + 1, second + 1))
