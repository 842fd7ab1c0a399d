"""LiteStage's nested sets: the most redundant sub-layers (paper, 4.2). The search gives each stage its own budget."""

from __future__ import annotations

from litestage.core import SkipSchedule
from litestage.skipping.rules.rule import Rule, Scores


def choose(amount: int, scores: Scores) -> SkipSchedule:
    return SkipSchedule.fixed(scores.ranking.skip_set(amount))


RULE = Rule("litestage", "LiteStage", "sub-layers", choose)
