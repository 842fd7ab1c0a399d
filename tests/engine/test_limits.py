"""Where a generation ends: stop strings, token limits, the context, and prompts that cannot run."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import tiny
import torch
from tokenizers import AddedToken

from litestage.core import Chat, Completion, ModelError, OptionError, Request, SkipSchedule, StagePlan
from litestage.engine import TorchEngine

PROMPT = tiny.prompt(10)
DECODE = tiny.tokenizer().decode


def run(**options: object) -> Completion:
    return tiny.engine().generate([Request(prompt_ids=PROMPT, **options)])[0]


FREE = run(max_new_tokens=30)


@pytest.mark.parametrize("length", [1, 2, 7, 29])
def test_max_new_tokens(length: int) -> None:
    completion = run(max_new_tokens=length)
    assert completion.token_ids == FREE.token_ids[:length]
    assert (completion.finish_reason, completion.counts.decoded) == ("length", length - 1)
    assert len(completion.confidences) == length


@pytest.mark.parametrize(("first", "count"), [(0, 1), (6, 1), (8, 2), (5, 3), (3, 9), (2, 25)])
def test_the_text_ends_before_a_stop_string_and_the_tokens_after_it(first: int, count: int) -> None:
    """Stops of one to many tokens, the first token's among them; the decision falls at the earliest possible token."""
    stop = DECODE(FREE.token_ids[first : first + count])
    completion = run(max_new_tokens=30, stop=(stop, "never said"))
    steps = [DECODE(FREE.token_ids[:n]) for n in range(1, 31)]
    end = next(n for n, text in enumerate(steps) if stop in text)
    assert completion.token_ids == FREE.token_ids[: end + 1]
    assert completion.finish_reason == "stop"
    assert completion.text == steps[end][: steps[end].index(stop)]


def test_the_first_of_several_stops_counts() -> None:
    early, late = DECODE(FREE.token_ids[4:5]), DECODE(FREE.token_ids[9:10])
    assert run(max_new_tokens=30, stop=(late, early)) == run(max_new_tokens=30, stop=(early, late))
    assert len(run(max_new_tokens=30, stop=(late, early)).token_ids) <= 5


def test_a_stop_in_the_middle_of_a_token_cuts_inside_it() -> None:
    """The trained tokenizer knows longer pieces; one of them is said because all others are made impossible."""
    token = max(range(1, len(tiny.tokenizer())), key=lambda i: len(DECODE([i])))
    model = tiny.from_transformers(tiny.transformers_model("llama"), tiny.tokenizer(), "one word", device="cpu")
    head = model.decoder.head
    bias = torch.zeros(len(head.weight))
    bias[token] = 1e6
    model.decoder.head = replace(head, bias=bias)
    word = DECODE([token])
    assert len(word) >= 3
    completion = TorchEngine(model).generate([Request(prompt_ids=PROMPT, stop=(word[1:3],))])[0]
    assert (completion.token_ids, completion.text, completion.finish_reason) == ((token,), word[:1], "stop")


def test_a_stop_at_the_last_allowed_token_is_a_stop() -> None:
    stop = DECODE(FREE.token_ids[6:7])
    end = next(n for n in range(1, 31) if stop in DECODE(FREE.token_ids[:n]))
    assert run(max_new_tokens=end, stop=(stop,)).finish_reason == "stop"
    assert run(max_new_tokens=end).finish_reason == "length"


def test_a_special_token_is_a_stop_string() -> None:
    """One of the tokens that the model writes is made special: it is no part of a text and yet ends it."""
    end, token = next(
        (i, token)
        for i, token in enumerate(FREE.token_ids)
        if i > 2 and DECODE([token]) in tiny.tokenizer().get_vocab()
    )
    special = deepcopy(tiny.tokenizer())
    special.add_tokens(AddedToken(DECODE([token]), special=True))
    engine = TorchEngine(replace(tiny.loaded("llama"), tokenizer=special))
    stop = (DECODE([token]),)
    completion = engine.generate([Request(prompt_ids=PROMPT, max_new_tokens=30, stop=stop)])[0]
    assert (completion.token_ids, completion.finish_reason) == (FREE.token_ids[: end + 1], "stop")
    assert completion.text == DECODE(FREE.token_ids[:end])


def test_a_stop_in_the_prompt_is_no_stop() -> None:
    assert run(max_new_tokens=3, stop=(DECODE(PROMPT[-2:]),)).finish_reason == "length"


@pytest.mark.parametrize(("prompt", "asked", "given"), [(240, 50, 16), (255, 50, 1), (206, 50, 50)])
def test_the_context_limits_what_is_generated(prompt: int, asked: int, given: int) -> None:
    """256 tokens of prompt and completion together; the last row fits exactly."""
    request = Request(prompt_ids=tiny.prompt(prompt), max_new_tokens=asked)
    engine = tiny.engine()
    assert engine.max_context == 256
    short = tiny.requests([PROMPT], max_new_tokens=4)
    completion = engine.generate([*short, request])[1]
    assert len(completion.token_ids) == given
    assert completion.finish_reason == "length"
    assert completion.token_ids == tiny.generate_by_transformers("llama", request.prompt_ids, given)


@pytest.mark.parametrize("length", [0, 256, 300])
def test_a_prompt_that_leaves_no_room_is_refused(length: int) -> None:
    with pytest.raises(OptionError, match=rf"A prompt has {length} tokens; tiny-llama takes 1 to 255.*--shots"):
        tiny.engine().generate(tiny.requests([PROMPT, tiny.prompt(length) if length else ()]))


def test_a_schedule_for_a_larger_model_is_refused() -> None:
    plan = StagePlan(schedule=SkipSchedule.fixed(["4.ffn"]))
    with pytest.raises(OptionError, match=r"4\.ffn cannot be skipped: the model has 4 blocks, 0 to 3"):
        tiny.engine().generate(tiny.requests([PROMPT], stage_plan=plan))


def test_an_engine_without_slots_is_refused() -> None:
    with pytest.raises(OptionError, match="--batch-size 0"):
        tiny.engine(batch_size=0)


def test_encode() -> None:
    engine = tiny.engine()
    text = "A candle gives light.\nRecall:"
    assert DECODE(engine.encode(text)) == text
    with pytest.raises(ModelError, match="chat template, and tiny-llama has none"):
        engine.encode(text, chat=Chat())
    chatty = tiny.tokenizer_with_chat()
    engine = TorchEngine(replace(tiny.loaded("llama"), tokenizer=chatty))
    assert DECODE(engine.encode("Why?", chat=Chat())) == "user: Why?\nassistant:"
