"""AdaSkip as released: the sub-layers most redundant over the first prompts, each scaled by its norm ratio."""

from __future__ import annotations

from litestage.core import SkipSchedule
from litestage.skipping.rules.rule import Rule, Scores


def choose(amount: int, scores: Scores) -> SkipSchedule:
    return SkipSchedule.fixed(scores.first_prompts.skip_set(amount))


RULE = Rule("adaskip", "AdaSkip", "sub-layers", choose, compensation="norm_ratio")
