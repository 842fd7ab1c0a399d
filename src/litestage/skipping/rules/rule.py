"""What a rule is: scores or counts in, a skip schedule out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from litestage.core import CompensationKind, OptionError, Ranking, SkipSchedule


@dataclass(frozen=True)
class Scores:
    """What rules may look at, measured once on full-depth prefills of a task's own prompts."""

    num_blocks: int
    ranking: Ranking
    """Redundancy over all prompts, averaged over stages: LiteStage's Step 1."""
    first_prompts: Ranking
    """Redundancy over the first prompts of the run only: AdaSkip's."""
    influence: tuple[float, ...]
    """By block: 1 - mean cos(block input, block output): ShortGPT's."""


@dataclass(frozen=True)
class Rule:
    """One method's answer to "leave out this much": the same for every stage."""

    name: str
    title: str
    """As tables and charts call it."""
    unit: Literal["sub-layers", "blocks"]
    """What the requested amount counts."""
    choose: Callable[[int, Scores], SkipSchedule]
    compensation: CompensationKind = "none"

    def schedule(self, amount: int, scores: Scores) -> SkipSchedule:
        """The schedule for a requested ``amount``; raises `OptionError` when the model has not so much."""
        most = scores.num_blocks * (2 if self.unit == "sub-layers" else 1)
        if not 0 <= amount <= most:
            raise OptionError(
                f"{self.title} cannot skip {amount} {self.unit}: the model has {most}. Choose 0 to {most}."
            )
        return self.choose(amount, scores) if amount else SkipSchedule()
