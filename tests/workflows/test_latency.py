"""Which forwards are timed, for traces of any shape: always enough to fit a latency model, never many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litestage.core import Decode, Prefill, StageTrace, Trace
from litestage.evaluation import fit
from litestage.workflows.latency import decode_sizes, prefill_sizes

MakeStage = Callable[..., StageTrace]


@dataclass(frozen=True)
class Timed:
    work: Prefill | Decode
    seconds: float
    attentions: int = 0
    ffns: int = 0
    compensated: int = 0


def prefill_seconds(work: Prefill) -> float:
    return 3 + 0.5 * work.tokens + 0.25 * work.rows + 0.125 * work.tokens * work.context


DECODES = [
    Timed(Decode(rows, context, 0), 1 + a + 0.5 * f + 0.01 * a * context, a, f)
    for rows in (1, 2)
    for context in (8, 80)
    for a, f in [(4, 4), (2, 2), (1, 4), (4, 1)]
]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_prefills_to_time_settle_every_part_of_a_price(make_stage: MakeStage, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 400), min_size=1, max_size=12))
    branches = data.draw(st.integers(1, 5))
    shared = data.draw(st.integers(0, min(lengths)))
    traces = [
        Trace(
            question_id=str(i),
            stages=(
                make_stage("think", [length] * branches, [3] * branches, shared=shared),
                make_stage("say", [length + 2], [1], reused=shared),
            ),
            answer=0,
            gold=0,
        )
        for i, length in enumerate(lengths)
    ]
    _, contexts = decode_sizes(traces)
    prefills = prefill_sizes(traces, contexts[-1])
    assert len(prefills) <= 14
    assert all(work.tokens >= work.rows and work.context >= work.tokens // work.rows for work in prefills)
    model = fit([*DECODES, *(Timed(work, prefill_seconds(work)) for work in prefills)])
    for work in prefills:
        assert model.prefill_seconds(work) == pytest.approx(prefill_seconds(work), rel=1e-3)
