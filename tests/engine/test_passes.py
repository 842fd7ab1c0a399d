"""The forwards that the engine runs are those that `litestage.core.rows.passes` foretells from lengths."""

from __future__ import annotations

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from litestage.core import Decode, Prefill, Request, StagePlan, TokenIds, passes, rows
from litestage.core.rows import Row

STEM = tuple(range(1, 31))


def prompt(shared: int, own: int, seed: int) -> TokenIds:
    """The first tokens of the stem, then others that the stem does not have."""
    return STEM[:shared] + tuple(100 + token % 200 for token in tiny.prompt(own, seed)) if own else STEM[:shared]


lengths = st.tuples(st.integers(0, 30), st.integers(0, 12), st.integers(1, 8)).filter(lambda row: row[0] + row[1] > 0)


@given(
    rows_asked=st.lists(lengths, min_size=1, max_size=14),
    prefixes=st.sets(st.integers(1, 30), max_size=3),
    capacity=st.integers(1, 16),
    prefill_tokens=st.sampled_from([8192, 40]),
)
def test_the_engine_obeys_the_schedule(
    rows_asked: list[tuple[int, int, int]], prefixes: set[int], capacity: int, prefill_tokens: int
) -> None:
    """Ragged rows, some answered by a prefix alone; a prefix that continues another needs only its own tokens."""
    requests = [
        Request(prompt_ids=prompt(shared, own, seed), max_new_tokens=new)
        for seed, (shared, own, new) in enumerate(rows_asked)
    ]
    engine, log = tiny.engine(batch_size=capacity), []
    engine.on_pass = log.append
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "PREFILL_TOKENS", prefill_tokens)
        completions = engine.generate(requests, prefixes=[STEM[:length] for length in prefixes])
        expected: list[Prefill | Decode] = []
        for length in sorted(prefixes):
            reused = max([p for p in prefixes if p < length], default=0)
            expected += passes([Row(length - reused, reused, 0)], capacity)
        realised = []
        for (shared, own, _), completion in zip(rows_asked, completions, strict=True):
            reused = max([p for p in prefixes if p <= shared], default=0)
            realised.append(Row(shared + own - reused, reused, completion.counts.decoded))
        expected += passes(realised, capacity)
    assert log == expected


def test_rows_of_different_plans_run_one_group_after_the_other() -> None:
    plans = [StagePlan(), StagePlan(exit={"window": 200})]
    requests = [Request(prompt_ids=tiny.prompt(5 + i), max_new_tokens=2 + i, stage_plan=plans[i % 2]) for i in range(6)]
    engine, log = tiny.engine(batch_size=2), []
    engine.on_pass = log.append
    engine.generate(requests)
    groups = [[Row(5 + i, 0, 1 + i) for i in range(first, 6, 2)] for first in (0, 1)]
    assert log == [step for group in groups for step in passes(group, 2)]


def test_a_prompt_that_is_a_prefix_needs_no_prefill_of_its_own() -> None:
    engine, log = tiny.engine(), []
    engine.on_pass = log.append
    engine.generate(tiny.requests([STEM, STEM], max_new_tokens=2), prefixes=[STEM])
    assert log == [Prefill(1, 30, 30), Decode(2, 31, 0)]
