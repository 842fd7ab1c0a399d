"""Staged answers over HTTP: the spine's own, as a chat, as a stream and as typed decisions."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from serving import QUESTION, Served, served

from litestage.core import Plan, SkipSchedule, StagePlan, Trace
from litestage.jobs.answer import read_question
from litestage.jobs.options import DataOptions
from litestage.jobs.session import Session, load
from litestage.pipeline import ONCE, Spine, Votes, run
from litestage.serve.staged import most_tokens

OTHER = "Tom wants something sweet and cold. Which of these would do? (A) a candle (B) an ice cream (C) a glove"


def traces(session: Session, plan: Plan | None = None, votes: Votes = ONCE, asked: str = QUESTION) -> list[Trace]:
    return run(session.engine, session.task, [read_question(asked, ())], plan or session.full_plan(), votes)


def as_told(trace: Trace) -> Any:
    return trace.model_dump(mode="json")


def test_a_chat_is_the_spines_answer(server: Served, session: Session) -> None:
    (trace,) = traces(session)
    answer = server.ask(litestage={"trace": True}).json()
    message = answer["choices"][0]["message"]
    assert message["content"] == "(D) a lantern"
    assert [line.partition(":")[0] for line in message["reasoning_content"].splitlines()] == [*session.task.stage_names]
    for stage in trace.stages:
        for completion in stage.completions:
            assert completion.text.strip() in message["reasoning_content"]
    assert answer["litestage"]["traces"] == [as_told(trace)]
    written = sum(len(c.token_ids) for stage in trace.stages for c in stage.completions)
    assert answer["usage"]["completion_tokens"] == written
    assert answer["usage"]["prompt_tokens"] == sum(sum(stage.prompt_tokens) for stage in trace.stages)


def test_a_stream_comes_to_the_same(server: Served) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    reasoning, content, last = "", "", None
    for chunk in client.chat.completions.create(
        model="everyday",
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
        stream_options={"include_usage": True},
    ):
        last = chunk
        if chunk.choices:
            reasoning += (chunk.choices[0].delta.model_extra or {}).get("reasoning_content", "")
            content += chunk.choices[0].delta.content or ""
    whole = server.ask().json()
    assert content == whole["choices"][0]["message"]["content"]
    assert reasoning == whole["choices"][0]["message"]["reasoning_content"]
    assert last is not None
    assert last.usage is not None
    assert last.usage.model_dump(exclude_none=True) == whole["usage"]


def test_the_stages_are_there_before_the_answer(server: Served, session: Session) -> None:
    """With the trace, a stream tells every piece with its stage and branch; together they are the texts."""
    (trace,) = traces(session)
    body = {"model": "everyday", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
    texts: dict[tuple[str, int], str] = {}
    ended: list[str] = []
    with server.http.stream("POST", "/v1/chat/completions", json=body | {"litestage": {"trace": True}}) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: ")).get("litestage", {})
            if "text" in event:
                place = event["stage"], event["branch"]
                texts[place] = texts.get(place, "") + event["text"]
                assert event["stage"] not in ended
            elif "ended" in event:
                ended.append(event["stage"])
    assert ended == list(session.task.stage_names)
    assert texts == {(s.name, at): c.text for s in trace.stages for at, c in enumerate(s.completions)}


@pytest.mark.parametrize("how", [{"model": "everyday:fast"}, {"litestage": {"plan": "fast"}}])
def test_a_plan_is_named_by_the_model_or_beside_it(
    server: Served, session: Session, plan_folder: Path, how: dict[str, Any]
) -> None:
    (trace,) = traces(session, session.load_plan(plan_folder))
    assert trace != traces(session)[0]
    settings = how.pop("litestage", {}) | {"trace": True}
    answer = server.ask(litestage=settings, **how).json()
    assert answer["litestage"]["plan"] == "fast"
    assert answer["litestage"]["traces"] == [as_told(trace)]


def test_skip_sets_by_hand_go_over_a_plan(server: Served, session: Session, plan_folder: Path) -> None:
    by_hand = StagePlan(schedule=SkipSchedule.fixed(["2.ffn"]))
    plan = session.load_plan(plan_folder)
    plan = plan.model_copy(update={"stages": plan.stages | {"recall": by_hand}})
    settings = {"plan": "fast", "stages": {"recall": {"skip": ["2.ffn"]}}, "trace": True}
    assert server.ask(litestage=settings).json()["litestage"]["traces"] == [as_told(traces(session, plan)[0])]


def test_n_are_votes(server: Served, session: Session) -> None:
    """Each is a choice of its own; ``votes`` alone are told as one answer, the majority's."""
    expected = traces(session, votes=Votes(3, seed=7))
    several = server.ask(n=3, seed=7, litestage={"trace": True}).json()
    assert several["litestage"]["traces"] == [as_told(trace) for trace in expected]
    letters = [None if trace.answer is None else "ABCD"[trace.answer] for trace in expected]
    assert several["litestage"]["votes"] == letters
    assert [choice["message"]["content"][1:2] or None for choice in several["choices"]] == letters
    one = server.ask(seed=7, litestage={"votes": 3}).json()
    assert len(one["choices"]) == 1
    assert one["litestage"]["votes"] == letters
    assert sum(one["litestage"]["probabilities"].values()) == pytest.approx(sum(x is not None for x in letters) / 3)


def test_decisions_are_typed(server: Served, session: Session) -> None:
    def question(text: str, **more: Any) -> dict[str, Any]:
        words, *choices = [part.strip() for part in text.replace("(A)", "|").replace("(B)", "|").split("|")]
        return {"type": "choice", "instructions": words, "choices": [{"value": c} for c in choices]} | more

    asked = [question("Which of these gives off light? (A) a glove (B) a lantern", name="light")]
    asked.append(question("Which of these is sweet? (A) an ice cream (B) a lantern"))
    asked[1]["choices"] = [{"value": True, "description": "an ice cream"}, {"value": False, "description": "a lantern"}]
    answer = server.post("decisions", model="everyday", questions=asked, seed=1, litestage={"votes": 3}).json()
    first, second = answer["answers"]
    assert (first["type"], first["name"], second["name"]) == ("choice", "light", None)
    assert first["choice"] in ("a glove", "a lantern")
    assert second["choice"] in (True, False)
    for one in (first, second):
        assert one["confidence"] == max(part["probability"] for part in one["probabilities"])
        assert sum(part["probability"] for part in one["probabilities"]) <= 1 + 1e-9
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_all_stages_plans_and_samplings_share_one_batch(server: Served, session: Session, plan_folder: Path) -> None:
    """Each is told what it would be told alone, to the last bit of its confidences."""
    fast = session.load_plan(plan_folder)
    expected = [traces(session)[0], traces(session, fast)[0], traces(session, asked=OTHER)[0]]
    ways: list[dict[str, Any]] = [{}, {"model": "everyday:fast"}, {"content": OTHER}] * 3

    def ask(how: dict[str, Any]) -> Any:
        return server.ask(**how, litestage={"trace": True}).json()["litestage"]["traces"]

    with ThreadPoolExecutor(len(ways) + 1) as pool:
        pool.submit(server.post, "completions", model="everyday-base", prompt="x", max_tokens=30, n=3)
        assert list(pool.map(ask, ways)) == [[as_told(trace)] for trace in expected * 3]


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"model": "everyday:slow"}, 404, "everyday:slow"),
        ({"litestage": {"plan": "slow"}}, 404, "slow"),
        ({"model": "everyday:fast", "litestage": {"plan": "full"}}, 400, "litestage.plan"),
        ({"litestage": {"plans": "fast"}}, 422, "plans"),
        ({"litestage": {"votes": 0}}, 422, "votes"),
        ({"n": 2, "litestage": {"votes": 3}}, 400, "votes"),
        ({"litestage": {"stages": {"rcall": {}}}}, 400, "rcall"),
        ({"litestage": {"stages": {"recall": {"skip": ["99.ffn"]}}}}, 400, "99.ffn"),
        ({"litestage": {"drafts": "all"}}, 422, "drafts"),
        ({"content": "What is this?"}, 400, "choices"),
        ({"content": "What is this? (A) one"}, 400, "choices"),
        ({"content": "word " * 4000 + "(A) one (B) two"}, 400, "tokens"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(server: Served, body: dict[str, Any], status: int, named: str) -> None:
    for stream in (False, True):
        answer = server.ask(**body, stream=stream)
        assert answer.status_code == status
        assert named in answer.json()["error"]["message"]


def test_what_a_tasks_stages_say_themselves_is_ignored_and_named(server: Served) -> None:
    answer = server.ask(temperature=0.5, max_tokens=3, favourite="blue")
    assert answer.json()["choices"][0]["message"]["content"] == "(D) a lantern"
    assert set(answer.headers["x-litestage-ignored"].split(", ")) == {"temperature", "max_tokens", "favourite"}


def test_no_question_comes_to_more_than_was_held_for_it() -> None:
    """Worked examples and what stages before wrote are read again by the next."""
    taught = load(quantise="int8", shots=3)
    spine = Spine(taught.engine, taught.task, taught.full_plan())
    for trace, question in zip(
        run(taught.engine, taught.task, taught.questions("test", 4), taught.full_plan()),
        taught.questions("test", 4),
        strict=True,
    ):
        came = sum(sum(one.prompt_tokens) + sum(len(c.token_ids) for c in one.completions) for one in trace.stages)
        assert came <= most_tokens(spine, question) <= 6 * came


def test_an_answer_by_choice_is_no_draft() -> None:
    with served(drafts="none", data=DataOptions(answering="choice")) as choosing:
        assert choosing.ask().status_code == 200
        assert choosing.metric("draft_tokens_total") == 0


def test_drafts_change_no_text(server: Served, session: Session) -> None:
    """A client may ask for none, and the answer says what was used."""
    (trace,) = traces(session)
    for source in ("none", "prompt", "request"):
        found = server.ask(litestage={"drafts": source, "trace": True}).json()["litestage"]
        assert (found["drafts"], found["traces"]) == (source, [as_told(trace)])
