"""SkipDecode as released: one block more after every stretch of steps, from block 1 on; block 0 always runs."""

from __future__ import annotations

from litestage.core import Segment, SkipSchedule, whole_blocks
from litestage.skipping.rules.rule import Rule, Scores

STEPS = 512
"""Decode steps over which the amount is reached."""


def choose(amount: int, scores: Scores) -> SkipSchedule:
    """K(t) = min(N, ceil(t / 512 * (N - 1)) + 1) blocks at step t."""
    starts = [0, *((step_of(count, amount)) for count in range(2, amount + 1))]
    return SkipSchedule(
        segments=tuple(
            Segment(first_step=start, skipped=whole_blocks(range(1, min(count, scores.num_blocks - 1) + 1)))
            for count, start in enumerate(starts, 1)
        )
    )


def step_of(count: int, amount: int) -> int:
    """The first step that skips ``count`` blocks of 2 to ``amount``: t > 512 (count - 2) / (amount - 1)."""
    return STEPS * (count - 2) // (amount - 1) + 1


RULE = Rule("skipdecode", "SkipDecode", "blocks", choose)
