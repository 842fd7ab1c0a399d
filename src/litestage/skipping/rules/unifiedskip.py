"""UnifiedSkip as released: every P-th block, from block 1 on. Beyond half the blocks P is 1, and nothing is skipped."""

from __future__ import annotations

from litestage.core import SkipSchedule, whole_blocks
from litestage.skipping.rules.rule import Rule, Scores


def choose(amount: int, scores: Scores) -> SkipSchedule:
    """Blocks i with i mod P = 1, where P = floor(L / N)."""
    period = scores.num_blocks // amount
    return SkipSchedule.fixed(whole_blocks(i for i in range(scores.num_blocks) if i % period == 1))


RULE = Rule("unifiedskip", "UnifiedSkip", "blocks", choose)
