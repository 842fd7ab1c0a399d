"""Requests that come and go at any moment, of any plan and sampling: bit for bit what each gets alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import GUESSES, REQUESTS, STEM, alone, drafting, engine

from litestage.core import (
    Completion,
    Event,
    Finished,
    MeanConfidence,
    NewText,
    NewToken,
    Prefill,
    Request,
    Segment,
    SkipSchedule,
    StagePlan,
    SubLayer,
    TokenIds,
    sub_layers,
)
from litestage.engine import TorchEngine
from litestage.kernels import find_kernels
from litestage.models import Affine
from litestage.models.decoder import Skips, interleave

pytestmark = pytest.mark.skipif(find_kernels() is None, reason="needs a C compiler")


def test_there_is_something_to_mix_up() -> None:
    assert {one.finish_reason for one in alone()} >= {"length", "stop", "low_confidence"}
    assert tiny.packed().decoder.is_exact
    assert not tiny.loaded("llama").decoder.is_exact, "torch's products in fp32 add up in another order"


@pytest.mark.parametrize("fixed_steps", [False, True])
@given(data=st.data())
@settings(max_examples=20)
def test_requests_that_join_and_leave_get_what_each_gets_alone(fixed_steps: bool, data: st.DataObject) -> None:
    """All of a completion, confidences too, however few rows and slots there are; nothing of the cancelled.

    So it is by steps of fixed shapes, which run ahead of who reads them.
    """
    used = drafting(
        data.draw(st.sampled_from([None, *GUESSES]), "drafts"),
        batch_size=data.draw(st.integers(1, 6), "rows"),
        cache_tokens=data.draw(st.sampled_from([None, 256, 300]), "cache"),
        fixed_steps=fixed_steps,
    )
    free = used.free_rows
    asked: dict[int, int] = {}
    events: list[Event] = []
    cancelled: dict[int, int] = {}
    for which in data.draw(st.lists(st.integers(0, len(REQUESTS) - 1), min_size=1, max_size=10), "requests"):
        asked[used.add(REQUESTS[which], stream=which % 2 == 0)] = which
        for _ in range(data.draw(st.integers(0, 5), "steps")):
            events += used.step()
        running = [id for id in asked if id not in cancelled]
        if running and data.draw(st.integers(0, 3), "cancel") == 0:
            id = data.draw(st.sampled_from(running), "which")
            used.cancel(id)
            cancelled[id] = len(events)
    wanted = asked.keys() - cancelled.keys()
    while wanted - {event.id for event in events if isinstance(event, Finished)}:
        events += used.step()
    assert used.step() == []
    done = {event.id: event.completion for event in events if isinstance(event, Finished)}
    for id in wanted:
        assert done[id] == alone()[asked[id]]
    for id, at in cancelled.items():
        assert all(event.id != id for event in events[at:])
    assert_in_order(events, {id for id in asked if asked[id] % 2 == 0})
    assert used.free_rows == free, "all are free again"


LAYERS = sub_layers(tiny.BLOCKS)
skip_sets = st.sets(st.sampled_from(LAYERS)).map(frozenset)


@given(skipped=st.lists(skip_sets, min_size=1, max_size=4), used=st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_every_row_of_a_batch_meets_its_own_program(skipped: list[frozenset[SubLayer]], used: list[int]) -> None:
    """Part by part and in order; and no sub-layer runs twice."""
    weights = {layer: Affine(scale=torch.tensor(float(i))) for i, layer in enumerate(LAYERS) if i % 3}
    rows = [which % len(skipped) for which in used]
    numbers = sorted(set(rows))
    programs = [Skips(skipped[which], weights).program(LAYERS) for which in numbers]
    stretches = interleave(programs, [numbers.index(which) for which in rows])
    for place, which in enumerate(rows):
        met = [part for parts, some in stretches if some is None or place in some.tolist() for part in parts]
        assert all(one is other for one, other in zip(met, programs[numbers.index(which)], strict=True))
    run = [part for parts, _ in stretches for part in parts if isinstance(part, SubLayer)]
    assert len(run) == len(set(run))


def assert_in_order(events: Sequence[Event], streamed: set[int]) -> None:
    """A request's tokens and pieces of text, and then that it is finished; of others that alone."""
    for id in {event.id for event in events}:
        own = [event for event in events if event.id == id]
        last = own[-1]
        if not isinstance(last, Finished):
            continue  # cancelled
        assert [event for event in own if isinstance(event, Finished)] == [last]
        if id in streamed:
            assert tuple(e.token for e in own if isinstance(e, NewToken)) == last.completion.token_ids
            assert "".join(e.text for e in own if isinstance(e, NewText)) == last.completion.text
        else:
            assert own == [last]


@pytest.mark.parametrize("kind", ["bf16", "int8", "int4"])
def test_what_full_depth_wrote_is_a_beginning_like_any_other(kind: str) -> None:
    """The next stage's prompt holds the text of this one: nothing of it is run again, and not a bit changes."""

    def continued(plan: StagePlan, wanted: int) -> None:
        used = TorchEngine(tiny.packed(kind))
        (first,) = used.generate(tiny.requests([STEM], max_new_tokens=9, stage_plan=plan))
        work: list[int] = []
        used.on_pass = lambda one: work.append(one.tokens if isinstance(one, Prefill) else 0)
        later = tiny.requests([STEM + first.token_ids + (7, 8)], max_new_tokens=9)
        assert used.generate(later) == TorchEngine(tiny.packed(kind)).generate(later)
        assert sum(work) == wanted

    growing = SkipSchedule(segments=(Segment(), Segment(first_step=3, skipped={"1.ffn", "2.attention"})))
    continued(StagePlan(), 3)
    continued(StagePlan(schedule=growing), 9 - 3 + 2)
    continued(StagePlan(schedule=SkipSchedule.fixed(["1.ffn"])), 9 + 2)
    continued(StagePlan(exit=MeanConfidence(window=200)), 3)


def test_a_cancelled_request_frees_its_row() -> None:
    """The only one there is: what waits behind it goes on at once."""
    used = engine(batch_size=1)
    first = used.add(Request(prompt_ids=STEM, max_new_tokens=200), stream=True)
    second = used.add(Request(prompt_ids=STEM[:5], max_new_tokens=3), stream=True)
    free = used.free_rows
    heard = {event.id for _ in range(6) for event in used.step()}
    assert (heard, used.free_rows) == ({first}, free - 1)
    used.cancel(first)
    assert used.free_rows == free
    events = [event for _ in range(4) for event in used.step()]
    assert {event.id for event in events} == {second}
    assert isinstance(events[-1], Finished)


def test_an_interrupt_within_a_prefill_leaves_the_engine_whole() -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    engine = tiny.engine(batch_size=2)
    requests = tiny.requests([tiny.prompt(9), tiny.prompt(12), tiny.prompt(7)], max_new_tokens=4)
    free, texts = engine.free_rows, engine.generate(requests)
    engine.forget()
    engine.on_pass = interrupt
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            engine.generate(requests)
    engine.on_pass = None
    assert engine.free_rows == free
    assert engine.generate(requests) == texts


def test_a_longer_request_finds_room_in_the_same_memory() -> None:
    """Rows become longer and fewer while others run; they all write what they write alone."""
    used = engine(batch_size=4, cache_tokens=512)
    short = [Request(prompt_ids=tiny.prompt(20, seed=i), max_new_tokens=30) for i in range(6)]
    long = Request(prompt_ids=tiny.prompt(180), max_new_tokens=40)
    ids = [used.add(request) for request in short]
    done: dict[int, Completion] = {}
    size = used.cache_bytes
    for step in range(400):
        if step == 7:
            ids.append(used.add(long))
        done |= {event.id: event.completion for event in used.step() if isinstance(event, Finished)}
    assert [done[id] for id in ids] == [engine().generate([request])[0] for request in (*short, long)]
    assert used.cache_bytes == size


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_memory_stays_what_it_is(count: int) -> None:
    used = engine(batch_size=8, cache_tokens=2048)

    def ask(first: int, last: int) -> None:
        for start in range(first, last, 40):
            prompts = [STEM[: i % 16] + tiny.prompt(1 + i % 7, seed=i) for i in range(start, start + 40)]
            used.generate(tiny.requests(prompts, max_new_tokens=2))

    ask(0, 400)
    before = resident()
    ask(400, 400 + count)
    assert resident() - before < 8 << 20


@given(
    text=st.text(st.sampled_from("ab .\n\u00e9\u4f60\U0001f600\U0001f468\u200d"), max_size=20),
    stop=st.lists(st.sampled_from(["a", "ab", "b .", "\u00e9", "\U0001f600", "\n\n"]), max_size=2),
)
def test_pieces_are_the_text_and_break_no_character(text: str, stop: list[str]) -> None:
    """Token by token, each at most a byte of a character: what was told is never taken back."""
    from litestage.engine.detokeniser import Detokeniser, TextStream

    detokeniser = Detokeniser(tiny.tokenizer())
    tokens: TokenIds = tuple(tiny.tokenizer()(text)["input_ids"])
    stream, pieces, end = TextStream(detokeniser, stop), [], len(tokens)
    for count in range(1, len(tokens) + 1):
        if detokeniser.stops(tokens[:count], stop):
            end = count
            break
        pieces.append(stream.next(tokens[:count]))
        assert not any(mark in "".join(pieces) for mark in stop)
    whole = detokeniser.until(tokens[:end], stop)
    pieces.append(stream.last(whole))
    assert "".join(pieces) == whole
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
