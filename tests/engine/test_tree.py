"""Shared beginnings: found without being named, computed once, and without influence on what comes out."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from litestage.core import Completion, Prefill, Sampling, StagePlan, TokenIds
from litestage.core.rows import common_length
from litestage.engine import TorchEngine
from litestage.engine.tree import Found, TokenTree, shared_prefixes
from litestage.models import Cache

STEM = tiny.prompt(24)
PROMPTS = [STEM[:n] + tiny.prompt(m, seed=m) for n, m in [(24, 5), (24, 1), (15, 9), (6, 30), (0, 12), (20, 4)]] + [
    STEM
]


def answers(completions: Sequence[Completion]) -> list[tuple[TokenIds, str]]:
    return [(completion.token_ids, completion.finish_reason) for completion in completions]


def forwarded(engine: TorchEngine, prompts: Sequence[TokenIds], **options: object) -> int:
    """Prompt tokens that were really run."""
    tokens: list[int] = []
    engine.on_pass = lambda work: tokens.append(work.tokens if isinstance(work, Prefill) else 0)
    engine.generate(tiny.requests(prompts, **({"max_new_tokens": 3} | options)))
    engine.on_pass = None
    return sum(tokens)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_beginnings_change_nothing(family: str) -> None:
    requests = tiny.requests(PROMPTS, max_new_tokens=9)
    without = answers(tiny.engine(family, share=False).generate(requests))
    for batch_size, cache_tokens in ((32, None), (2, None), (2, 256)):
        engine = tiny.engine(family, batch_size=batch_size, cache_tokens=cache_tokens)
        for order in (1, -1):
            assert answers(engine.generate(requests[::order])) == without[::order]


def test_a_row_that_held_another_text_has_forgotten_what_followed_it() -> None:
    """Few rows, many texts and their beginnings, so that each row holds one after the other."""
    known = [tiny.prompt(12, seed=seed) for seed in range(9)]
    asked = [text[:length] for text in known for length in (12, 7, 3)]
    expected = {prompt: tiny.generate_by_transformers("llama", prompt, 2) for prompt in asked}
    engine, order = tiny.engine(batch_size=3, cache_tokens=8 * 256), random.Random(0)
    for _ in range(12):
        prompts = order.sample(asked, 9)
        got = engine.generate(tiny.requests(prompts, max_new_tokens=2))
        assert [one.token_ids for one in got] == [expected[prompt] for prompt in prompts]


def test_a_completion_does_not_tell_what_was_there() -> None:
    """Its counts are of the request alone, so that equal requests have equal completions."""
    engine = tiny.engine()
    first, again = (engine.generate(tiny.requests(PROMPTS, max_new_tokens=3)) for _ in range(2))
    assert [one.counts for one in first] == [one.counts for one in again]
    assert [one.counts.prefilled for one in first] == [len(ids) for ids in PROMPTS]


def test_what_prompts_share_is_forwarded_once() -> None:
    tree = 24 + 5 + 1 + 9 + 30 + 12 + 4
    assert forwarded(tiny.engine(), PROMPTS) == tree, "24 tokens of the stem, and what each has of its own"
    assert forwarded(tiny.engine(share=False), PROMPTS) == sum(map(len, PROMPTS))


def test_ten_votes_prefill_their_prompt_once() -> None:
    ids = tiny.prompt(33)
    engine = tiny.engine(batch_size=4)
    assert forwarded(engine, [ids] * 10) == 33
    assert forwarded(engine, [ids] * 10) == 0, "and a later call finds it there"
    votes = [
        request.model_copy(update={"sampling": Sampling(temperature=1.0), "seed": seed})
        for seed, request in enumerate(tiny.requests([ids] * 10, max_new_tokens=8))
    ]
    assert answers(engine.generate(votes)) == answers(tiny.engine().generate(votes))


def test_a_longer_prompt_continues_what_is_there() -> None:
    """The next stage's prompt starts with this stage's."""
    engine = tiny.engine()
    assert forwarded(engine, [STEM[:15]]) == 15
    assert forwarded(engine, [STEM]) == 9
    engine.forget(but=[STEM[:10]])
    assert forwarded(engine, [STEM]) == 14
    engine.forget()
    assert forwarded(engine, [STEM, STEM[:15]]) == 24


def test_what_one_plan_needed_serves_another() -> None:
    """Prefill is full depth whatever the plan."""
    engine = tiny.engine()
    skipping = StagePlan(schedule={"segments": [{"skipped": ["0.attention"]}]})
    assert forwarded(engine, PROMPTS) > 0
    assert forwarded(engine, PROMPTS, stage_plan=skipping) == 0


def test_little_is_kept_when_nobody_asks() -> None:
    """The least recently used goes."""
    engine = tiny.engine(kept_tokens=50)
    one, two, three = (tiny.prompt(n) for n in (20, 21, 22))
    for prompts in ([one], [two], [one], [three]):
        forwarded(engine, prompts)
    assert forwarded(engine, [one]) == 0
    assert forwarded(engine, [two]) == 21, "one was used after two"
    assert forwarded(tiny.engine(kept_tokens=0), [one, one]) == 20


KNOWN = [STEM[:n] + tiny.prompt(m, seed=n + m) if m else STEM[:n] for n in (0, 4, 9, 24) for m in (5, 1, 3, 0)]


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[list[int], list[int]]]:
    """What enters together, as prompts by number, and which of those that are in use leave then."""
    entering, leaving = st.lists(st.integers(0, len(KNOWN) - 1), max_size=4), st.lists(st.integers(0, 7), max_size=4)
    return draw(st.lists(st.tuples(entering, leaving), max_size=12))


@given(lives=lives(), rows=st.integers(1, 6), most=st.integers(0, 60))
def test_a_row_holds_what_it_says(lives: list[tuple[list[int], list[int]]], rows: int, most: int) -> None:
    """In place of keys and values the cache holds the tokens themselves, and logits tell whose they are: what is found
    must be there, and what rows in use hold must stay."""
    cache = Cache(1, rows, 40, 1, 1, torch.float32, torch.device("cpu"))
    tree = TokenTree(cache, rows)
    used: dict[int, TokenIds] = {}
    for entering, leaving in lives:
        prompts = [KNOWN[i] for i in entering if KNOWN[i]][: tree.free]
        found = [tree.find(prompt) for prompt in prompts]
        held = [tuple(cache.data[0, row, :, 0, 0, 0].int().tolist()) for row in range(rows)]
        for prompt, one in zip(prompts, found, strict=True):
            assert held[one.row][: one.length] == prompt[: one.length]
            assert one.logits is None or int(one.logits) == KNOWN.index(prompt)
        places = tree.place(found)
        assert len({*places, *used}) == len(places) + len(used), "each has a row of its own"
        for prompt, place, one in zip(prompts, places, found, strict=True):
            assert tuple(cache.data[0, place, : one.length, 0, 0, 0].int().tolist()) == prompt[: one.length]
        for prompt, place in zip(prompts, places, strict=True):
            cache.data[0, place, : len(prompt)] = torch.tensor(prompt)[:, None, None, None].float()
            tree.hold(place, prompt, torch.tensor([float(KNOWN.index(prompt))]))
            used[place] = prompt
        for row, prompt in used.items():
            assert tuple(cache.data[0, row, : len(prompt), 0, 0, 0].int().tolist()) == prompt
            assert tree.find(prompt).length == len(prompt)
        for row in {*leaving} & used.keys():
            del used[row]
            tree.release(row)
        tree.trim(most)
        assert tree.free == rows - len(used)


def test_the_longest_beginning_is_found() -> None:
    tree = TokenTree(Cache(1, 3, 40, 1, 1, torch.float32, torch.device("cpu")), 3)
    rows = tree.place([Found(0, 0)] * 3)
    for row, length in zip(rows, (5, 24, 12), strict=True):
        tree.hold(row, STEM[:length], torch.ones(1) * length)
    assert tree.find(STEM[:20]) == Found(rows[1], 19), "nobody knows the logits after 20: its last token is run again"
    assert tree.find(STEM[:12])[:2] == (rows[2], 12)
    assert tree.find(STEM[:12]).logits == 12
    assert tree.find((*STEM[:7], 0, 0))[1] == 7
    assert tree.find((0, 0))[1] == 0


def test_rows_are_alike_as_deep_as_spares_the_most_reading() -> None:
    question, other = (STEM + (n,) * 6 for n in (1, 2))
    assert shared_prefixes([(0, tiny.prompt(9)), (1, question)]) is None
    assert shared_prefixes([]) is None
    prompts = [tiny.prompt(9), question, question, tiny.prompt(4, seed=8), other, STEM]
    found = shared_prefixes(list(enumerate(prompts)))
    assert found is not None, "24 slots of four rows spare 72, 30 of two only 30"
    leaders, slots = (tensor.tolist() for tensor in found)
    assert [slots[row] for row in (1, 2, 4, 5)] == [24] * 4
    assert len({leaders[row] for row in (1, 2, 4, 5)}) == 1
    assert (leaders[0], leaders[3], slots[0], slots[3]) == (0, 3, 0, 0)
    found = shared_prefixes([(10 + row, question if row < 6 else other) for row in range(12)])
    assert found is not None, "24 slots of twelve rows spare 264, 30 of twice six rows 300"
    assert [tensor.tolist() for tensor in found] == [[10] * 6 + [16] * 6, [30] * 12]


@given(st.lists(st.tuples(st.integers(0, 24), st.integers(0, 3)).filter(any), max_size=9))
def test_rows_that_are_alike_begin_alike(shapes: list[tuple[int, int]]) -> None:
    prompts = [STEM[:n] + tiny.prompt(m, seed=n) if m else STEM[:n] for n, m in shapes]
    if (found := shared_prefixes(list(enumerate(prompts)))) is not None:
        for row, (leader, slots) in enumerate(zip(*(tensor.tolist() for tensor in found), strict=True)):
            assert common_length(prompts[row], prompts[leader]) >= slots
