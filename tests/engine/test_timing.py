"""Which forwards are timed; never how long they take."""

from __future__ import annotations

from collections import Counter

import tiny

from litestage.core import Decode, Prefill
from litestage.engine import time_passes


def test_every_combination_is_timed_as_often_as_asked() -> None:
    progress: list[tuple[int, int]] = []
    prefills = [Prefill(rows, rows * each, context) for rows in (1, 3) for each, context in [(4, 4), (16, 40)]]
    times = time_passes(
        tiny.engine(),
        rows=[1, 3],
        contexts=[8, 40],
        prefills=prefills,
        repeats=2,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert progress == [(0, 2), (1, 2), (2, 2)]
    assert all(time.seconds > 0 for time in times)
    seen = Counter((time.work, time.attentions, time.ffns, time.compensated) for time in times)
    assert set(seen.values()) == {2}
    kept = [(4, 4, 0), (2, 2, 0), (1, 4, 0), (4, 1, 0), (2, 2, 2)]  # two runs, one block each
    decodes = [(Decode(rows, context, 0), *parts) for rows in (1, 3) for context in (8, 40) for parts in kept]
    assert set(seen) == {*decodes, *((work, 0, 0, 0) for work in prefills)}


def test_timing_leaves_the_engine_as_it_was() -> None:
    engine = tiny.engine()
    requests = tiny.requests([tiny.prompt(9), tiny.prompt(4)], max_new_tokens=6)
    before = engine.generate(requests)
    time_passes(engine, [2], [16], [Prefill(1, 8, 8)], repeats=1)
    work: list[Prefill | Decode] = []
    engine.on_pass = work.append
    after = engine.generate(requests)
    assert [c.token_ids for c in after] == [c.token_ids for c in before]
    assert not any(isinstance(one, Prefill) for one in work), "the prompts are still there"
