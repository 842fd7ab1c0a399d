"""UnifiedSkip as its paper has it: the first and the last block are kept, and others at equal distances between."""

from __future__ import annotations

from itertools import islice

from litestage.core import SkipSchedule, whole_blocks
from litestage.skipping.rules.rule import Rule, Scores


def choose(amount: int, scores: Scores) -> SkipSchedule:
    """Keep n = L - N blocks: the ends, then multiples of floor(L / (n - 1)) until there are n."""
    blocks = scores.num_blocks
    keep = max(2, blocks - amount)
    between = (i for i in range(0, blocks, blocks // (keep - 1)) if 0 < i < blocks - 1)
    kept = {0, blocks - 1, *islice(between, keep - 2)}
    return SkipSchedule.fixed(whole_blocks(i for i in range(blocks) if i not in kept))


RULE = Rule("unifiedskip_original", "UnifiedSkip (original)", "blocks", choose)
