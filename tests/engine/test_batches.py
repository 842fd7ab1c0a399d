"""A row alone equals the same row in any company: batches, refills, plans, sampling, exits, beginnings."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from litestage.core import (
    Completion,
    Event,
    MeanConfidence,
    NewToken,
    Request,
    Sampling,
    Segment,
    SkipSchedule,
    StagePlan,
    whole_blocks,
)

_GROWING = SkipSchedule(
    segments=(
        Segment(),
        Segment(first_step=2, skipped=whole_blocks([1])),
        Segment(first_step=5, skipped=whole_blocks([1, 2])),
    )
)
PLANS = (
    StagePlan(),
    StagePlan(schedule=SkipSchedule.fixed(["0.attention", "2.ffn"])),
    StagePlan(schedule=_GROWING),
    StagePlan(exit=MeanConfidence(window=3, threshold=0.1)),
    StagePlan(schedule=SkipSchedule.fixed(whole_blocks([3])), exit=MeanConfidence(window=2, threshold=0.12)),
)
SAMPLINGS = (Sampling(), Sampling(temperature=0.7), Sampling(temperature=1.5, top_k=20, top_p=0.9))
STEM = tiny.prompt(12, seed=9)


def mixed_requests() -> list[Request]:
    """Forty requests of mixed lengths, plans, sampling, limits and stops, half of them with a common beginning."""
    choose = random.Random(1)
    decode = tiny.tokenizer().decode
    return [
        Request(
            prompt_ids=(STEM if i % 2 else ()) + tiny.prompt(choose.randint(1, 25), seed=i),
            stage_plan=choose.choice(PLANS),
            max_new_tokens=choose.randint(1, 16),
            stop=(decode([choose.randint(100, 300)]),) if i % 5 == 0 else (),
            sampling=choose.choice(SAMPLINGS),
            seed=choose.randint(0, 3),
        )
        for i in range(40)
    ]


REQUESTS = mixed_requests()


@cache
def alone(family: str) -> list[Completion]:
    engine = tiny.engine(family)
    return [engine.generate([request])[0] for request in REQUESTS]


def assert_same(got: Sequence[Completion], expected: Sequence[Completion]) -> None:
    """Equal but for the last digits of confidences (sums differ with the batch), and who is counted for a prefix."""
    for one, other in zip(got, expected, strict=True):
        assert (one.token_ids, one.text, one.finish_reason) == (other.token_ids, other.text, other.finish_reason)
        assert one.confidences == pytest.approx(other.confidences, rel=1e-3)
        assert one.counts.decoded == other.counts.decoded == len(one.token_ids) - 1


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2-window", "qwen3"])
def test_a_row_alone_equals_the_row_in_a_batch(family: str) -> None:
    """All plans and samplings in one call, slots refilled as rows end at different steps for different reasons."""
    expected = alone(family)
    for batch_size in (2, 7, 64):
        assert_same(tiny.engine(family, batch_size=batch_size).generate(REQUESTS), expected)
    assert_same(tiny.engine(family, batch_size=5).generate(REQUESTS), expected)
    assert {completion.finish_reason for completion in expected} >= {"length", "stop", "low_confidence"}


@given(order=st.permutations(range(12)), batch_size=st.integers(1, 12))
@settings(max_examples=8)
def test_completions_come_in_the_order_of_the_requests(order: list[int], batch_size: int) -> None:
    """Whatever the order and whoever the neighbours are, sampled rows included."""
    expected = alone("llama")
    got = tiny.engine(batch_size=batch_size).generate([REQUESTS[i] for i in order])
    assert_same(got, [expected[i] for i in order])


def test_an_engine_remembers_nothing_but_beginnings() -> None:
    """The same call again, and after longer and shorter ones, gives the same."""
    engine = tiny.engine(batch_size=4)
    first = engine.generate(REQUESTS[:9])
    engine.generate(tiny.requests([tiny.prompt(150)], max_new_tokens=60))
    engine.generate(tiny.requests([tiny.prompt(2)] * 11, max_new_tokens=3))
    assert_same(engine.generate(REQUESTS[:9]), first)
    engine.forget()
    assert_same(engine.generate(REQUESTS[:9]), first)


def test_seeds_matter_when_sampling_and_only_then() -> None:
    prompts = [tiny.prompt(9)] * 6
    sampled, greedy = (
        [
            Request(prompt_ids=ids, sampling=sampling, seed=seed, max_new_tokens=12)
            for seed, ids in enumerate(prompts)
        ]
        for sampling in (Sampling(temperature=1.0), Sampling())
    )  # fmt: skip
    assert len({c.token_ids for c in tiny.engine().generate(sampled)}) == len(prompts)
    assert len({c.token_ids for c in tiny.engine().generate(greedy)}) == 1


def test_no_requests_no_completions() -> None:
    assert tiny.engine().generate([]) == []


def test_tokens_are_reported_as_they_are_decided() -> None:
    """In each row's order, with the request's index, the last token included."""
    seen: dict[int, list[int]] = {}
    engine = tiny.engine(batch_size=3)

    def hear(event: Event) -> None:
        if isinstance(event, NewToken):
            seen.setdefault(event.id, []).append(event.token)

    completions = engine.generate(REQUESTS[:20], hear)
    assert {index: tuple(tokens) for index, tokens in seen.items()} == {
        index: completion.token_ids for index, completion in enumerate(completions)
    }
