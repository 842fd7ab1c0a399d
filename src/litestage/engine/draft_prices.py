"""Times decode forwards of several tokens on this machine. How long a draft is, `core.drafts` says by these prices."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import accumulate

import torch

from litestage.core import EMPTY, FULL_DEPTH, Request
from litestage.core.drafts import Prices
from litestage.engine.batch import Batch
from litestage.engine.engine import TorchEngine
from litestage.engine.row import Generation

SIZES = (1, 2, 4, 12)
"""Tokens of the forwards that are timed."""
CONTEXT = 64
"""Tokens before them."""
TURNS, SECONDS = (3, 40), 0.15
"""They are timed so often, at least and at most, and in between for so many seconds."""


@torch.inference_mode()
def time_forwards(engine: TorchEngine) -> Prices:
    """Time decode forwards of one row and several tokens: the fastest of a few turns, before which one warms up.

    What else a machine does only adds to a time, so no forward counts as slower than one of more tokens.
    """
    decoder = engine.model.decoder
    cache = decoder.new_cache(2, 2 * CONTEXT)
    batch = Batch(decoder, cache, engine.fixed_steps(cache))
    program = batch.program(EMPTY, FULL_DEPTH.compensation, {})
    request = Request(prompt_ids=(0,) * CONTEXT)
    least = dict.fromkeys(SIZES, float("inf"))
    began = time.perf_counter()
    for turn in range(TURNS[1] + 1):
        if turn > TURNS[0] and time.perf_counter() - began > SECONDS:
            break
        for tokens in SIZES:
            batch.active = [Generation(0, request, CONTEXT, tokens=[0], programs=(program,), cache_row=0)]
            begun = time.perf_counter()
            for due in batch.decode(False, lambda rows, more=tokens - 1: [(0,) * more]):  # type: ignore[misc]
                due.pending.wait()
            if turn:
                least[tokens] = min(least[tokens], time.perf_counter() - begun)
    return Prices(tokens=SIZES, seconds=at_their_lowest([*least.values()]))


def at_their_lowest(seconds: Sequence[float]) -> tuple[float, ...]:
    """Of ascending tokens: none slower than those behind it."""
    return tuple(accumulate(reversed(seconds), min))[::-1]
