"""What every engine promises whoever asks it: one suite for the engine, those around it, and transformers' own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache, partial
from math import log
from typing import TYPE_CHECKING

import pytest
import tiny
from torch.distributions import Categorical

from litestage.benchmarks.peers import TransformersEngine
from litestage.core import (
    CalibratedConfidence,
    Completion,
    Engine,
    Event,
    ExitRule,
    Finished,
    MeanConfidence,
    MeanEntropy,
    NewText,
    NewToken,
    OptionError,
    PlanError,
    Request,
    Sampling,
    SettledAnswer,
    SkipSchedule,
    StagePlan,
    TokenIds,
)
from litestage.engine import CachedEngine
from litestage.engine.processes import ParallelEngine

if TYPE_CHECKING:
    from litestage.cluster.pool import RayPool

ROWS = 3
PROMPTS = tuple(tiny.prompt(length) for length in (3, 21, 11, 1, 30, 8, 14))
NEW = 10
SKIPPING = StagePlan(schedule=SkipSchedule.fixed(["1.attention", "2.ffn"]))
EXITING = StagePlan(exit=MeanConfidence(window=3, threshold=0.1))
EXITS: tuple[ExitRule, ...] = (
    MeanConfidence(window=3, threshold=0.1),
    CalibratedConfidence(window=2, threshold=0.09),
    MeanEntropy(window=3, bits=6.4),
    SettledAnswer(window=3, pattern="([aeiou])"),
)
AROUND = ("torch", "stored", "processes", pytest.param("ray", marks=pytest.mark.xdist_group("test_ray")))
"""Engines that obey stage plans and seeds; transformers, the reference, knows neither."""


@cache
def processes() -> ParallelEngine:
    """Two of them, both ready."""
    engine = ParallelEngine(tiny.engine(batch_size=ROWS), partial(tiny.engine, batch_size=ROWS), 1)
    while not all(other.is_ready() for other in engine.others()):
        time.sleep(0.05)
    return engine


@cache
def pool() -> RayPool:
    """Two workers of a Ray cluster."""
    from litestage.cluster.pool import RayPool

    return RayPool(tiny.engine(batch_size=ROWS), partial(tiny.engine, batch_size=ROWS), 2)


@pytest.fixture(scope="module", autouse=True)
def _processes_end() -> Iterator[None]:
    yield
    for made in (processes, pool):
        if made.cache_info().currsize:
            made().close()


def make(request: pytest.FixtureRequest) -> Engine:
    match request.param:
        case "ray":
            request.getfixturevalue("ray_cluster")
            return pool()
        case "torch":
            return tiny.engine(batch_size=ROWS)
        case "stored":
            return CachedEngine(tiny.engine(batch_size=ROWS))
        case "processes":
            return processes()
    return TransformersEngine(tiny.transformers_model("llama"), tiny.engine(), ROWS)


@pytest.fixture(params=[*AROUND, "transformers"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return make(request)


@pytest.fixture(params=AROUND)
def ours(request: pytest.FixtureRequest) -> Engine:
    return make(request)


def said(completions: list[Completion]) -> list[tuple[TokenIds, str, str]]:
    return [(one.token_ids, one.text, one.finish_reason) for one in completions]


def expected(prompt: TokenIds, tokens: int = NEW) -> TokenIds:
    return tiny.generate_by_transformers("llama", prompt, tokens)


def test_it_is_an_engine(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    assert engine.identity.num_blocks == tiny.BLOCKS
    assert engine.max_context == 256
    assert engine.eos_id == tiny.tokenizer().eos_token_id
    text = "A candle gives light."
    assert engine.decode(engine.encode(text)) == text


def test_greedy_texts_are_transformers_own_in_the_order_of_the_requests(engine: Engine) -> None:
    """Ragged prompts, more than there are rows, each with a limit of its own."""
    limits = [NEW - i for i in range(len(PROMPTS))]
    requests = [Request(prompt_ids=p, max_new_tokens=n) for p, n in zip(PROMPTS, limits, strict=True)]
    for order in (requests, requests[::-1]):
        got = engine.generate(order)
        assert [one.token_ids for one in got] == [expected(r.prompt_ids, r.max_new_tokens) for r in order]
        assert [one.text for one in got] == [engine.decode(one.token_ids) for one in got]
        assert {one.finish_reason for one in got} == {"length"}


def test_nothing_asked_nothing_answered(engine: Engine) -> None:
    assert engine.generate([]) == []


def test_equal_requests_have_equal_completions(engine: Engine) -> None:
    requests = tiny.requests([PROMPTS[1], PROMPTS[2], PROMPTS[1], PROMPTS[1]], max_new_tokens=NEW)
    got = said(engine.generate(requests))
    assert got[0] == got[2] == got[3] != got[1]
    assert said(engine.generate(requests)) == got, "and so they have when they are asked again"


def test_a_text_ends_before_its_own_stop_string(engine: Engine) -> None:
    """Each request has its own; the reason says so, and the tokens end with the one that completed it."""
    mark = engine.decode(expected(PROMPTS[1])[4:6])
    requests = [
        Request(prompt_ids=PROMPTS[1], max_new_tokens=NEW, stop=(mark, "never said")),
        Request(prompt_ids=PROMPTS[1], max_new_tokens=NEW),
    ]
    stopped, whole = engine.generate(requests)
    assert (stopped.finish_reason, whole.finish_reason) == ("stop", "length")
    assert stopped.text == whole.text[: whole.text.index(mark)]
    assert stopped.token_ids == whole.token_ids[: len(stopped.token_ids)]
    assert mark in engine.decode(stopped.token_ids)
    assert mark not in engine.decode(stopped.token_ids[:-1])


def test_every_token_has_a_confidence_and_every_completion_its_counts(engine: Engine) -> None:
    for prompt, one in zip(PROMPTS, engine.generate(tiny.requests(PROMPTS, max_new_tokens=NEW)), strict=True):
        assert len(one.confidences) == len(one.token_ids)
        assert all(0 < sure <= 1 for sure in one.confidences)
        assert one.counts.prefilled + one.counts.reused == len(prompt)
        assert one.counts.decoded == len(one.token_ids) - 1


def test_tokens_and_text_are_heard_in_their_order_and_all_of_them(engine: Engine) -> None:
    """Of every request its tokens, the pieces of its text, and then that it is finished."""
    heard: list[Event] = []
    mark = engine.decode(expected(PROMPTS[1])[4:6])
    requests = tiny.requests([*PROMPTS, PROMPTS[0]], max_new_tokens=NEW, stop=(mark,))
    done = engine.generate(requests, heard.append)
    for index, one in enumerate(done):
        own = [event for event in heard if event.id == index]
        assert tuple(event.token for event in own if isinstance(event, NewToken)) == one.token_ids
        assert "".join(event.text for event in own if isinstance(event, NewText)) == one.text
        assert [event for event in own if isinstance(event, Finished)] == own[-1:] == [Finished(index, one)]


def test_an_answer_by_choice_is_the_likeliest_of_those_allowed(engine: Engine) -> None:
    """Beside free ones, told like them, with the probability of each."""
    heard: list[Event] = []
    text = "Which would float?\nSummarize:"
    choices = engine.continuations(text, [f"So the answer is option {letter}." for letter in "ABC"])
    prompts = [engine.encode(text), *PROMPTS[:3]]
    by_choice = [Request(prompt_ids=prompt, choices=choices, max_new_tokens=2) for prompt in prompts]
    done = engine.generate([*by_choice, *tiny.requests(PROMPTS[:2], max_new_tokens=NEW)], heard.append)
    fork = next(at for at in range(len(choices[0])) if len({one[at] for one in choices}) > 1)
    for index, (prompt, one) in enumerate(zip(prompts, done, strict=False)):
        logits = tiny.raw_logits("llama", [*prompt, *choices[0][:fork]], len(prompt))[-1]
        wanted = logits[[ids[fork] for ids in choices]].softmax(-1)
        assert one.chosen == int(wanted.argmax())
        assert one.token_ids == choices[one.chosen]
        assert one.choices == pytest.approx(wanted.tolist(), rel=1e-3)
        own = [event for event in heard if event.id == index]
        assert tuple(event.token for event in own if isinstance(event, NewToken)) == one.token_ids
        assert "".join(event.text for event in own if isinstance(event, NewText)) == one.text
        assert own[-1] == Finished(index, one)
    assert [one.token_ids for one in done[4:]] == [expected(prompt) for prompt in PROMPTS[:2]]


def test_requests_join_while_others_run(engine: Engine) -> None:
    wanted: dict[int, Request] = {}
    done: dict[int, Completion] = {}
    for request in tiny.requests(PROMPTS, max_new_tokens=NEW):
        wanted[engine.add(request)] = request
        done |= {event.id: event.completion for event in engine.step() if isinstance(event, Finished)}
    while len(done) < len(wanted):
        done |= {event.id: event.completion for event in engine.step() if isinstance(event, Finished)}
    assert {id: one.token_ids for id, one in done.items()} == {id: expected(r.prompt_ids) for id, r in wanted.items()}
    assert engine.step() == []


def test_nothing_more_is_heard_of_a_cancelled_request(engine: Engine) -> None:
    requests = tiny.requests(PROMPTS, max_new_tokens=NEW)
    ids = [engine.add(request) for request in requests]
    first = engine.step()
    for id in ids[::2]:
        engine.cancel(id)
        engine.cancel(id)
    left = set(ids[1::2])
    done = {event.id: event.completion for event in first if isinstance(event, Finished) and event.id in left}
    while len(done) < len(left):
        for event in engine.step():
            assert event.id in left
            if isinstance(event, Finished):
                done[event.id] = event.completion
    assert [done[id].token_ids for id in ids[1::2]] == [expected(prompt) for prompt in PROMPTS[1::2]]
    assert engine.step() == []


def test_tokens_are_told_to_those_who_asked_for_them(engine: Engine) -> None:
    """Also where another asked for the same text, and is gone."""
    (request,) = tiny.requests([tiny.prompt(9)], max_new_tokens=NEW)
    streaming, patient = engine.add(request, stream=True), engine.add(request)
    engine.cancel(streaming)
    heard: list[Event] = []
    while not any(isinstance(event, Finished) for event in heard):
        heard += engine.step()
    assert [(event.id, type(event)) for event in heard] == [(patient, Finished)]


def test_who_generates_takes_nothing_from_who_steps(engine: Engine) -> None:
    id = engine.add(tiny.requests(PROMPTS[3:4], max_new_tokens=NEW)[0])
    (other,) = engine.generate(tiny.requests(PROMPTS[:1], max_new_tokens=2 * NEW))
    assert other.token_ids == expected(PROMPTS[0], 2 * NEW)
    events: list[Event] = []
    while not any(isinstance(event, Finished) for event in events):
        events += engine.step()
    assert [(event.id, event.completion.token_ids) for event in events if isinstance(event, Finished)] == [
        (id, expected(PROMPTS[3]))
    ]


@pytest.mark.parametrize("length", [0, 256, 300])
def test_a_prompt_that_leaves_no_room_is_refused_and_the_engine_goes_on(engine: Engine, length: int) -> None:
    bad = Request(prompt_ids=tiny.prompt(length) if length else ())
    with pytest.raises(OptionError, match=rf"A prompt has {length} tokens; tiny-llama takes 1 to 255"):
        engine.generate([*tiny.requests(PROMPTS[:2], max_new_tokens=NEW), bad])
    (after,) = engine.generate(tiny.requests(PROMPTS[:1], max_new_tokens=NEW))
    assert after.token_ids == expected(PROMPTS[0])


def test_the_context_limits_what_is_written(engine: Engine) -> None:
    prompt = tiny.prompt(250)
    (done,) = engine.generate([Request(prompt_ids=prompt, max_new_tokens=50)])
    assert (done.token_ids, done.finish_reason) == (expected(prompt, 6), "length")


def test_a_plan_is_obeyed_or_refused(engine: Engine) -> None:
    requests = [Request(prompt_ids=PROMPTS[4], max_new_tokens=NEW, stage_plan=SKIPPING)]
    if isinstance(engine, TransformersEngine):
        with pytest.raises(OptionError, match="full depth"):
            engine.generate(requests)
        return
    (done,) = engine.generate(requests)
    assert done.token_ids == tiny.decode_by_hooks("llama", PROMPTS[4], NEW, SKIPPING.schedule) != expected(PROMPTS[4])


def looked_at(engine: Engine, rule: ExitRule, prompt: TokenIds, one: Completion) -> list[float] | list[str | None]:
    """What a rule looks at in each token of a text: confidences, transformers' own entropies, the answer so far."""
    match rule.looks_at:
        case "answer":
            return [rule.read(engine.decode(one.token_ids[: end + 1])) for end in range(len(one.token_ids))]
        case "entropy":
            logits = tiny.raw_logits("llama", [*prompt, *one.token_ids[:-1]], len(prompt), SkipSchedule())
            return [Categorical(logits=row).entropy().item() / log(2) for row in logits[len(prompt) - 1 :]]
    return list(one.confidences)


@pytest.mark.parametrize("rule", EXITS, ids=str)
def test_an_exit_rule_ends_a_text_where_it_says(ours: Engine, rule: ExitRule) -> None:
    """Whether or not the text without it is known."""
    free = ours.generate(tiny.requests(PROMPTS, max_new_tokens=NEW))
    cut = ours.generate(tiny.requests(PROMPTS, max_new_tokens=NEW, stage_plan=StagePlan(exit=rule)))
    ends = [rule.first_exit(looked_at(ours, rule, ids, one)) for ids, one in zip(PROMPTS, free, strict=True)]
    assert None in ends
    assert len(set(ends)) > 1
    for one, other, end in zip(free, cut, ends, strict=True):
        assert other.token_ids == (one.token_ids if end is None else (*one.token_ids[:end], ours.eos_id))
        assert other.finish_reason == (one.finish_reason if end is None else rule.reason)
        assert other.text == ours.decode(one.token_ids[:end])


@pytest.mark.parametrize("rule", [CalibratedConfidence(), SettledAnswer()], ids=str)
def test_a_rule_that_lacks_something_is_refused(ours: Engine, rule: ExitRule) -> None:
    with pytest.raises(PlanError, match=f"{rule} lacks a"):
        ours.generate(tiny.requests(PROMPTS[:1], stage_plan=StagePlan(exit=rule)))


def test_requests_of_many_kinds_are_answered_together_as_each_is_alone(ours: Engine) -> None:
    kinds = [(plan, sampling) for plan in (StagePlan(), SKIPPING, EXITING) for sampling in (0.0, 0.8)]
    requests = [
        Request(prompt_ids=ids, stage_plan=plan, sampling=Sampling(temperature=heat), seed=7, max_new_tokens=NEW)
        for ids, (plan, heat) in zip(PROMPTS, kinds, strict=False)
    ]
    together = said(ours.generate(requests))
    assert together == said([tiny.engine().generate([request])[0] for request in requests])


def test_a_seed_decides_a_draw_and_nothing_else_does(ours: Engine) -> None:
    sampled = [
        Request(prompt_ids=PROMPTS[2], sampling=Sampling(temperature=1.0), seed=seed, max_new_tokens=NEW)
        for seed in range(5)
    ]
    got = said(ours.generate(sampled))
    assert len(set(got)) == 5
    assert said(ours.generate(sampled[::-1])) == got[::-1]
    assert said(ours.generate(sampled[3:4])) == got[3:4]


def test_a_schedule_for_a_larger_model_is_refused(ours: Engine) -> None:
    plan = StagePlan(schedule=SkipSchedule.fixed(["4.ffn"]))
    with pytest.raises(OptionError, match=r"4\.ffn cannot be skipped: the model has 4 blocks"):
        ours.generate(tiny.requests(PROMPTS, stage_plan=plan))
