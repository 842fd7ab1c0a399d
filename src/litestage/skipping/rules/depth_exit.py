"""Depth exit: the last blocks are left out."""

from __future__ import annotations

from litestage.core import SkipSchedule, whole_blocks
from litestage.skipping.rules.rule import Rule, Scores


def choose(amount: int, scores: Scores) -> SkipSchedule:
    return SkipSchedule.fixed(whole_blocks(range(scores.num_blocks - amount, scores.num_blocks)))


RULE = Rule("depth_exit", "Depth exit", "blocks", choose)
