"""Shared beginnings: computed once, counted once, and without influence on what comes out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from litestage.core import Completion, Prefill, Sampling, StagePlan, TokenIds
from litestage.engine import TorchEngine
from litestage.engine.prefixes import Prefix, alike, waves

STEM = tiny.prompt(24)
NESTED = [STEM[:6], STEM[:15], STEM]
PROMPTS = [STEM[:n] + tiny.prompt(m, seed=m) for n, m in [(24, 5), (24, 1), (15, 9), (6, 30), (0, 12), (20, 4)]] + [
    STEM
]


def answers(completions: Sequence[Completion]) -> list[tuple[TokenIds, str]]:
    return [(completion.token_ids, completion.finish_reason) for completion in completions]


def count(engine: TorchEngine, prompts: Sequence[TokenIds], prefixes: Sequence[TokenIds] = ()) -> tuple[list[int], int]:
    """Tokens prefilled as each row counts them, and as they were really forwarded."""
    forwarded: list[int] = []
    engine.on_pass = lambda work: forwarded.append(work.tokens if isinstance(work, Prefill) else 0)
    completions = engine.generate(tiny.requests(prompts, max_new_tokens=3), prefixes)
    for ids, completion in zip(prompts, completions, strict=True):
        assert completion.counts.prefilled + completion.counts.reused == len(ids)
    return [completion.counts.prefilled for completion in completions], sum(forwarded)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("prefixes", [[STEM], NESTED, NESTED[::-1], [tiny.prompt(5, seed=77), STEM[:1]]])
def test_prefixes_change_nothing(family: str, prefixes: list[TokenIds]) -> None:
    requests = tiny.requests(PROMPTS, max_new_tokens=9)
    without = answers(tiny.engine(family).generate(requests))
    for batch_size in (32, 2):
        engine = tiny.engine(family, batch_size=batch_size)
        assert answers(engine.generate(requests, prefixes)) == without
        assert answers(engine.generate(requests)) == without, "nor do those kept from an earlier call"


def test_a_token_after_a_prefix_goes_to_its_own_row() -> None:
    """Rows that have one token left to prefill, entering beside rows that already decode."""
    prompts = [tiny.prompt(7), (*STEM, 5), (*STEM, 9), (*STEM[:6], 8), (3,), (*STEM, 11)]
    requests = tiny.requests(prompts, max_new_tokens=9)
    requests = [r.model_copy(update={"max_new_tokens": 4 + 2 * i}) for i, r in enumerate(requests)]
    expected = [tiny.generate_by_transformers("llama", r.prompt_ids, r.max_new_tokens) for r in requests]
    for batch_size in (1, 2, 4, 32):
        got = tiny.engine(batch_size=batch_size).generate(requests, prefixes=NESTED)
        assert [completion.token_ids for completion in got] == expected


@pytest.mark.parametrize("family", ["mistral", "qwen2-window"])
def test_padding_far_beyond_a_window_does_no_harm(family: str) -> None:
    """A short rest after a long prefix is padded to positions whose whole window lies beyond every row."""
    prompts = [(*STEM, 5, 6), tiny.prompt(40)]
    got = tiny.engine(family).generate(tiny.requests(prompts, max_new_tokens=12), prefixes=[STEM])
    assert [c.token_ids for c in got] == [tiny.generate_by_transformers(family, ids, 12) for ids in prompts]


def test_every_prompt_token_is_forwarded_once() -> None:
    """Rows count what was computed for them; the first row that uses a prefix counts it too."""
    prefilled, forwarded = count(tiny.engine(), PROMPTS, NESTED)
    assert sum(prefilled) == forwarded == 24 + 5 + 1 + 9 + 30 + 12 + (5 + 4)
    assert prefilled == [29, 1, 9, 30, 12, 9, 0]
    prefilled, forwarded = count(tiny.engine(), PROMPTS)
    assert prefilled == [len(ids) for ids in PROMPTS]
    assert sum(prefilled) == forwarded


def test_ten_votes_prefill_their_prompt_once() -> None:
    ids = tiny.prompt(33)
    engine = tiny.engine(batch_size=4)
    assert count(engine, [ids] * 10, [ids]) == ([33] + [0] * 9, 33)
    assert count(engine, [ids] * 10, [ids]) == ([0] * 10, 0), "and a later call finds it there"
    votes = [
        request.model_copy(update={"sampling": Sampling(temperature=1.0), "seed": seed})
        for seed, request in enumerate(tiny.requests([ids] * 10, max_new_tokens=8))
    ]
    assert answers(engine.generate(votes)) == answers(tiny.engine().generate(votes))


def test_a_longer_prompt_continues_the_kept_one() -> None:
    """The next stage's prompt starts with this stage's."""
    engine = tiny.engine()
    assert count(engine, [STEM[:15]], [STEM[:15]]) == ([15], 15)
    assert count(engine, [STEM, STEM[:15]], [STEM]) == ([9, 0], 9)
    engine.forget(but=[STEM])
    assert count(engine, [STEM, STEM[:15]]) == ([0, 0], 0), "what a kept prefix continues is kept with it"
    engine.forget()
    assert count(engine, [STEM, STEM[:15]]) == ([24, 15], 39)


def test_prefixes_of_a_plan_serve_rows_of_another() -> None:
    """Prefill is full depth whatever the plan, and a prefix is counted once in all."""
    plans = [StagePlan(), StagePlan(schedule={"segments": [{"skipped": ["0.attention"]}]})]
    requests = [r for plan in plans for r in tiny.requests(PROMPTS, max_new_tokens=6, stage_plan=plan)]
    engine = tiny.engine()
    together = engine.generate(requests, NESTED)
    assert answers(together) == answers([tiny.engine().generate([request])[0] for request in requests])
    assert sum(c.counts.prefilled for c in together) == 24 + 2 * (5 + 1 + 9 + 30 + 12 + (5 + 4))


def held(engine: TorchEngine) -> dict[int, int]:
    """Tokens stored by length of the prefixes that the store holds."""
    return {len(tokens): prefix.content.shape[1] for tokens, prefix in engine._store._held.items()}


def test_the_store_forgets_the_least_recently_used() -> None:
    engine = tiny.engine(prefix_tokens=50)
    prefixes = [tiny.prompt(n) for n in (20, 21, 22)]
    engine.generate(tiny.requests([prefixes[0]]), prefixes[:2])
    assert set(held(engine)) == {20, 21}
    engine.generate(tiny.requests([prefixes[0]], max_new_tokens=2))
    engine.generate(tiny.requests([prefixes[2]], max_new_tokens=2), prefixes[2:])
    assert set(held(engine)) == {20, 22}, "21 was used before 20"


@given(
    calls=st.lists(st.lists(st.integers(0, len(NESTED)), min_size=1, max_size=3), min_size=1, max_size=4),
    prefix_tokens=st.integers(0, 60),
)
def test_the_store_keeps_what_it_may_and_no_more(calls: list[list[int]], prefix_tokens: int) -> None:
    """A prefix goes before the one it continues, so that what is held is also all that lives."""
    engine = tiny.engine(prefix_tokens=prefix_tokens)
    known = [*NESTED, tiny.prompt(18, seed=3)]
    for call in calls:
        prefixes = [known[i] for i in call]
        completions = engine.generate(tiny.requests(prefixes, max_new_tokens=1), prefixes)
        assert [c.token_ids for c in completions] == [tiny.generate_by_transformers("llama", p, 1) for p in prefixes]
        alive = {part for prefix in engine._store._held.values() for part in prefix.chain()}
        assert alive == set(engine._store._held.values())
        assert sum(part.content.shape[1] for part in alive) <= prefix_tokens


def test_nothing_is_kept_that_was_not_asked_for() -> None:
    engine = tiny.engine()
    engine.generate(tiny.requests(PROMPTS, max_new_tokens=2))
    assert held(engine) == {}
    engine.generate(tiny.requests(PROMPTS, max_new_tokens=2), [(), STEM, STEM[:6], STEM])
    assert held(engine) == {6: 6, 24: 18}


def test_rows_are_alike_as_deep_as_spares_the_most_reading() -> None:
    kept = torch.zeros(1, 0, 2, 1, 1), torch.zeros(0)
    stem = Prefix(STEM, None, *kept, 0)
    question, other = (Prefix(STEM + (n,) * 6, stem, *kept, 0) for n in (1, 2))
    assert alike([None, stem, None]) is None
    assert alike([]) is None
    found = alike([None, question, question, None, other, stem])
    assert found is not None, "24 slots of four rows spare 72, 30 of two only 30"
    assert [tensor.tolist() for tensor in found] == [[0, 1, 1, 3, 1, 1], [0, 24, 24, 0, 24, 24]]
    found = alike([question] * 6 + [other] * 6)
    assert found is not None, "24 slots of twelve rows spare 264, 30 of twice six rows 300"
    assert [tensor.tolist() for tensor in found] == [[0] * 6 + [6] * 6, [30] * 12]


def test_waves_put_a_prefix_after_those_it_continues() -> None:
    a, ab, abc, x = (1,), (1, 2), (1, 2, 3), (9, 9)
    assert [sorted(wave) for wave in waves([abc, x, ab, a, x])] == [[a, x], [ab], [abc]]
    assert waves([]) == []
