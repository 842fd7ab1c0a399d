"""The forwards that the engine runs are those that pure functions foretell from prompts and lengths."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from litestage.core import Decode, Prefill, Request, StagePlan, TokenIds, passes, rows
from litestage.core.rows import Row, common_length, rows_to_admit, shared_beginnings

STEM = tuple(range(1, 31))


def prompt(shared: int, own: int, seed: int) -> TokenIds:
    """The first tokens of the stem, then others that the stem does not have."""
    return STEM[:shared] + tuple(100 + token % 200 for token in tiny.prompt(own, seed)) if own else STEM[:shared]


def foretold(prompts: Sequence[TokenIds], decoded: Sequence[int], capacity: int) -> list[Prefill | Decode]:
    """Beginnings that several prompts share first, then the rows; for an engine with room for all of them."""
    log: list[Prefill | Decode] = []
    there: dict[TokenIds, None] = {}

    def held(ids: TokenIds) -> int:
        """A whole prompt counts where it was prefilled to its end, for only then are its logits there."""
        return (
            len(ids) if ids in there else min(len(ids) - 1, max((common_length(ids, one) for one in there), default=0))
        )

    while wave := shared_beginnings(prompts, [held(ids) for ids in prompts]):
        wave = wave[: rows_to_admit(0, [len(ids) - held(ids) for ids in wave], capacity)]
        log.append(Prefill(len(wave), sum(len(ids) - held(ids) for ids in wave), max(map(len, wave))))
        there |= dict.fromkeys(wave)
    log += passes(
        [Row(len(ids) - held(ids), held(ids), steps) for ids, steps in zip(prompts, decoded, strict=True)], capacity
    )
    return log


lengths = st.tuples(st.integers(0, 30), st.integers(0, 12), st.integers(1, 8)).filter(lambda row: row[0] + row[1] > 0)


@given(
    rows_asked=st.lists(lengths, min_size=1, max_size=14),
    capacity=st.integers(1, 16),
    prefill_tokens=st.sampled_from([8192, 40]),
)
def test_the_engine_obeys_the_schedule(
    rows_asked: list[tuple[int, int, int]], capacity: int, prefill_tokens: int
) -> None:
    """Ragged rows, some of which begin alike or are equal; those that enter later find what is there."""
    requests = [
        Request(prompt_ids=prompt(shared, own, seed), max_new_tokens=new)
        for seed, (shared, own, new) in enumerate(rows_asked)
    ]
    engine, log = tiny.engine(batch_size=capacity, cache_tokens=1 << 14), []
    engine.on_pass = log.append
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "PREFILL_TOKENS", prefill_tokens)
        completions = engine.generate(requests)
        decoded = [completion.counts.decoded for completion in completions]
        expected = foretold([request.prompt_ids for request in requests], decoded, capacity)
    prefills = [[one for one in some if isinstance(one, Prefill)] for some in (log, expected)]
    assert sum(one.tokens for one in prefills[0]) <= sum(one.tokens for one in prefills[1]), "a later row may find more"
    if capacity >= len(requests) and prefill_tokens > 40:
        assert log == expected


def test_rows_of_different_plans_run_together() -> None:
    plans = [StagePlan(), StagePlan(exit={"window": 200}), StagePlan(schedule={"segments": [{"skipped": ["1.ffn"]}]})]
    requests = [Request(prompt_ids=tiny.prompt(5 + i), max_new_tokens=2 + i, stage_plan=plans[i % 3]) for i in range(6)]
    engine, log = tiny.engine(batch_size=4), []
    engine.on_pass = log.append
    engine.generate(requests)
    assert log == list(passes([Row(5 + i, 0, 1 + i) for i in range(6)], 4))


def test_a_prompt_that_is_there_needs_no_prefill_of_its_own() -> None:
    engine, log = tiny.engine(), []
    engine.on_pass = log.append
    engine.generate(tiny.requests([STEM, STEM], max_new_tokens=2))
    assert log == [Prefill(1, 30, 30), Decode(2, 31, 0)]
