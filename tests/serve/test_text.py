"""Bare texts, by OpenAI's own client: what comes is what the engine writes without a server."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
import torch
from serving import QUESTION, Served

from litestage.core import Request, Sampling, SkipSchedule, StagePlan
from litestage.jobs.session import Session

MODEL = "everyday-base"
PROMPT = "Which of these gives off light?"


@pytest.fixture(scope="module")
def client(server: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def written(session: Session, text: str = PROMPT, **how: Any) -> Any:
    (done,) = session.engine.generate([Request(prompt_ids=session.engine.encode(text), **how)])
    return done


def test_a_text_is_the_engines_own(client: openai.OpenAI, session: Session) -> None:
    expected = written(session, max_new_tokens=12)
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=12, temperature=0)
    assert answer.choices[0].text == expected.text
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(expected.token_ids)
    assert answer.usage.prompt_tokens == len(session.engine.encode(PROMPT))
    ids = list(session.engine.encode(PROMPT))
    assert client.completions.create(model=MODEL, prompt=ids, max_tokens=12, temperature=0).choices == answer.choices


def test_sampling_is_the_seeds_alone(client: openai.OpenAI, session: Session) -> None:
    how: Any = {"model": MODEL, "prompt": PROMPT, "max_tokens": 8, "temperature": 0.9, "top_p": 0.9, "seed": 5}
    several = client.completions.create(n=3, **how).choices
    assert [choice.index for choice in several] == [0, 1, 2]
    assert len({choice.text for choice in several}) > 1
    alone = client.completions.create(**how).choices[0].text
    sampling = Sampling(temperature=0.9, top_p=0.9)
    assert alone == several[0].text == written(session, max_new_tokens=8, sampling=sampling, seed=5).text


def test_several_prompts_have_their_choices_in_order(client: openai.OpenAI, session: Session) -> None:
    prompts = [PROMPT, "A lantern is", "So the answer is"]
    answer = client.completions.create(model=MODEL, prompt=prompts, max_tokens=6, temperature=0, n=2)
    texts = [written(session, prompt, max_new_tokens=6).text for prompt in prompts]
    assert [choice.text for choice in answer.choices] == [text for text in texts for _ in range(2)]


def test_a_stream_is_the_whole_text_in_pieces(client: openai.OpenAI, session: Session) -> None:
    expected = written(session, max_new_tokens=12, stop=("light",))
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    chunks = list(
        client.completions.create(
            model=MODEL, prompt=PROMPT, max_tokens=12, temperature=0, stop="light", stream=True, stream_options=options
        )
    )
    *pieces, last = chunks
    assert "".join(piece.choices[0].text for piece in pieces) == expected.text
    assert pieces[-1].choices[0].finish_reason == {"stop": "stop", "eos": "stop"}.get(expected.finish_reason, "length")
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == len(expected.token_ids)
    assert [piece.usage.completion_tokens for piece in pieces if piece.usage][-1] == len(expected.token_ids)


def test_no_usage_in_a_stream_that_does_not_ask_for_it(client: openai.OpenAI) -> None:
    for chunk in client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=3, stream=True):
        assert chunk.choices
        assert chunk.usage is None


def test_log_probabilities_of_a_prompt_are_the_models(client: openai.OpenAI, session: Session) -> None:
    """As lm-evaluation-harness asks for them: echo, one token more, the likeliest."""
    text = "A candle gives light because its wick burns. " * 12  # longer than a piece that is scored at once
    ids = session.engine.encode(text)
    assert len(ids) > 128
    answer = client.completions.create(
        model=MODEL, prompt=list(ids), max_tokens=1, temperature=0, echo=True, logprobs=2
    )
    found = answer.choices[0].logprobs
    assert found is not None
    assert found.token_logprobs is not None
    assert found.top_logprobs is not None
    assert len(found.token_logprobs) == len(ids) + 1
    assert found.token_logprobs[0] is None
    for at in (1, 64, 127, 128, 129, len(ids) - 1):
        (logits,) = logits_behind(session, ids[:at])
        logprobs = logits.log_softmax(-1)
        assert found.token_logprobs[at] == pytest.approx(float(logprobs[ids[at]]), abs=1e-4)
        assert max(found.top_logprobs[at].values()) == pytest.approx(float(logprobs.max()), abs=1e-4)
    assert answer.choices[0].text.startswith(session.engine.decode(ids))


def logits_behind(session: Session, ids: tuple[int, ...]) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    session.engine.on_logits = lambda _, logits: seen.append(logits.float().clone())
    try:
        session.engine.generate([Request(prompt_ids=ids, max_new_tokens=1)])
    finally:
        session.engine.on_logits = None
    return seen[0]


@pytest.mark.parametrize("logprobs", [0, None])
def test_echo_alone_writes_nothing(server: Served, client: openai.OpenAI, logprobs: int | None) -> None:
    done = server.metric("e2e_request_latency_seconds_count")
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=0, echo=True, logprobs=logprobs)
    assert answer.choices[0].text == PROMPT
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 0
    server.wait_for(lambda: server.metric("e2e_request_latency_seconds_count") == done + 1)


def test_a_part_of_a_character_is_told_by_its_bytes(client: openai.OpenAI, session: Session) -> None:
    text = "é漢"
    ids = session.engine.model.tokenizer(text)["input_ids"]
    answer = client.completions.create(model=MODEL, prompt=list(ids), max_tokens=0, echo=True, logprobs=1)
    assert b"".join(map(session.engine.detokeniser.raw, ids)) == text.encode()
    assert answer.choices[0].logprobs is not None
    tokens = answer.choices[0].logprobs.tokens
    assert tokens is not None
    assert len({*tokens}) == len({*ids}) > 2
    assert {f"bytes:\\x{byte:02x}" for byte in "漢".encode()} & {*tokens}


def test_log_probabilities_of_what_is_written(server: Served, session: Session) -> None:
    expected = written(session, max_new_tokens=6)
    whole = server.post("completions", model=MODEL, prompt=PROMPT, max_tokens=6, temperature=0, logprobs=3).json()
    logprobs = whole["choices"][0]["logprobs"]
    confidences = [2.718281828459045**value for value in logprobs["token_logprobs"]]
    assert confidences == pytest.approx(list(expected.confidences), abs=1e-4)
    body = {"model": MODEL, "prompt": PROMPT, "max_tokens": 6, "temperature": 0, "logprobs": 3, "stream": True}
    told: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for event in events(server, "completions", body):
        for key, values in (event["choices"][0]["logprobs"] or {}).items():
            told[key] += values
    assert told == logprobs


def events(server: Served, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    with server.http.stream("POST", f"/v1/{path}", json=body) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_skip_sets_by_hand_where_they_are_allowed(server: Served, session: Session) -> None:
    plan = StagePlan(schedule=SkipSchedule.fixed(["2.attention", "3.ffn"]))
    expected = written(session, max_new_tokens=12, stage_plan=plan)
    assert expected.text != written(session, max_new_tokens=12).text
    body = {"model": MODEL, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    found = server.post("completions", **body, litestage={"skip": ["2.attention", "3.ffn"]}).json()
    assert found["choices"][0]["text"] == expected.text


@pytest.mark.parametrize(
    ("path", "body", "status", "named"),
    [
        ("completions", {"model": "gpt-5", "prompt": "x"}, 404, "gpt-5"),
        ("completions", {"model": "everyday", "prompt": "x"}, 400, MODEL),
        ("completions", {"model": MODEL}, 422, "prompt"),
        ("completions", {"model": MODEL, "prompt": ""}, 400, "prompt"),
        ("completions", {"model": MODEL, "prompt": []}, 400, "prompt"),
        ("completions", {"model": MODEL, "prompt": [1, 1 << 30]}, 400, str(1 << 30)),
        ("completions", {"model": MODEL, "prompt": [-1]}, 400, "-1"),
        ("completions", {"model": MODEL, "prompt": [5] * 5000}, 400, "5000"),
        ("completions", {"model": MODEL, "prompt": "x", "temperature": -1}, 422, "temperature"),
        ("completions", {"model": MODEL, "prompt": "x", "n": 0}, 422, "n"),
        ("completions", {"model": MODEL, "prompt": "x", "stop": ""}, 422, "stop"),
        ("completions", {"model": MODEL, "prompt": "x", "logit_bias": {"5": 100}}, 422, "logit_bias"),
        ("completions", {"model": MODEL, "prompt": "x", "max_tokens": 0}, 400, "max_tokens"),
        ("completions", {"model": MODEL, "prompt": "x", "litestage": {"skp": []}}, 422, "skp"),
        ("completions", {"model": MODEL, "prompt": "x", "litestage": {"skip": ["99.ffn"]}}, 400, "99.ffn"),
        ("chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}, 400, "chat template"),
        ("chat/completions", {"model": MODEL, "messages": []}, 422, "messages"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    server: Served, path: str, body: dict[str, Any], status: int, named: str
) -> None:
    answer = server.post(path, **body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert named in error["message"]
    assert set(error) == {"message", "type", "param", "code"}


def test_what_is_not_known_is_ignored_and_named(server: Served) -> None:
    body = {"model": MODEL, "prompt": "x", "max_tokens": 1, "presence_penalty": 0, "best_of": 1}
    answer = server.post("completions", **body, favourite_colour="blue", **{"a\nb\b": 1, "ü": 1})
    assert answer.status_code == 200
    assert answer.headers["x-litestage-ignored"] == "favourite_colour, a\\nb\\x08, \\xfc"


TEMPLATE = "{% for one in messages %}{{ one.role }}: {{ one.content }}\n{% endfor %}assistant:"


@pytest.fixture
def chatty(server: Served, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded model has no chat template; here it has one."""
    monkeypatch.setattr(server.serving.worker.engine.model.tokenizer, "chat_template", TEMPLATE)


MESSAGES: Any = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": [{"type": "text", "text": PROMPT}]},
]


@pytest.mark.usefixtures("chatty")
def test_a_bare_chat_is_a_text_behind_the_models_template(client: openai.OpenAI, session: Session) -> None:
    expected = written(session, f"system: Be short.\nuser: {PROMPT}\nassistant:", max_new_tokens=12)
    how: Any = {"model": MODEL, "messages": MESSAGES, "max_completion_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**how, logprobs=True, top_logprobs=2)
    assert whole.choices[0].message.content == expected.text
    assert whole.usage is not None
    assert whole.usage.completion_tokens == len(expected.token_ids)
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.content is not None
    confidences = [2.718281828459045**one.logprob for one in whole.choices[0].logprobs.content]
    assert confidences == pytest.approx(list(expected.confidences), abs=1e-4)
    *pieces, last = client.chat.completions.create(**how, stream=True, stream_options={"include_usage": True})
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == expected.text
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert (last.choices, last.usage) == ([], whole.usage)


@pytest.mark.usefixtures("chatty")
@pytest.mark.parametrize("way", ["completions", "chat", "staged"])
def test_a_stream_that_openais_client_closes_frees_its_rows(server: Served, client: openai.OpenAI, way: str) -> None:
    aborted = server.metric("requests_aborted_total")
    endless: Any = {"model": MODEL, "max_tokens": 900, "temperature": 100, "stream": True}
    if way == "completions":
        stream: Any = client.completions.create(prompt=PROMPT, n=2, **endless)
    elif way == "chat":
        stream = client.chat.completions.create(messages=MESSAGES, **endless)
    else:
        question: Any = [{"role": "user", "content": QUESTION}]
        stream = client.chat.completions.create(model="everyday", messages=question, n=20, stream=True)
    next(stream)
    stream.close()
    server.settled(aborted + 1)
    assert server.metric("requests_aborted_total") == aborted + 1


def test_a_client_that_waits_no_longer_frees_its_rows(server: Served) -> None:
    aborted = server.metric("requests_aborted_total")
    hasty = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=0.3)
    with pytest.raises(openai.APITimeoutError):
        hasty.completions.create(model=MODEL, prompt=PROMPT, max_tokens=900, n=8, temperature=100)
    server.settled(aborted + 1)
    assert server.metric("requests_aborted_total") == aborted + 1


def test_openais_client_knows_our_refusals(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-5"):
        client.completions.create(model="gpt-5", prompt="x")
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=MODEL, prompt=[5] * 5000)
    assert refused.value.code == "context_length_exceeded"
