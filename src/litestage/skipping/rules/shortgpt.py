"""ShortGPT: the blocks whose output is most like their input."""

from __future__ import annotations

from litestage.core import SkipSchedule, whole_blocks
from litestage.skipping.rules.rule import Rule, Scores


def choose(amount: int, scores: Scores) -> SkipSchedule:
    """The N blocks of the lowest influence; ties prefer the lower block."""
    order = sorted(range(scores.num_blocks), key=lambda block: (scores.influence[block], block))
    return SkipSchedule.fixed(whole_blocks(order[:amount]))


RULE = Rule("shortgpt", "ShortGPT", "blocks", choose)
