"""Questions at their own pace say what `run` says, and what cannot be answered is named when all else is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from tiny import engine

from litestage.core import Event, Failed, Finished, LitestageError, Plan, Request, Trace
from litestage.core.engine import EngineAround
from litestage.engine import CachedEngine
from litestage.pipeline import Flow, Listener, Spine, Votes, flow, run
from litestage.tasks import Question, Task, load_task

QUESTIONS = [
    Question(id=f"q{number}", question=text, choices=("a cork", "a stone", "a key"), answer=0)
    for number, text in enumerate(("Which floats?", "Which is heavy?", "Which opens a door?", "Which is a rock?"))
]


class Refusing(EngineAround):
    """Cannot answer prompts that begin with certain tokens."""

    def __init__(self, lost: Callable[[Request], bool]) -> None:
        super().__init__(engine())
        self.lost, self.told, self.count = lost, list[Event](), 0
        self.ids: dict[int, int] = {}

    def add(self, request: Request, *, stream: bool = False) -> int:
        self.count += 1
        if self.lost(request):
            self.told.append(Failed(self.count, "no worker lives through it"))
        else:
            self.ids[self.engine.add(request, stream=stream)] = self.count
        return self.count

    def cancel(self, id: int) -> None:
        for inner in [inner for inner, outer in self.ids.items() if outer == id]:
            self.engine.cancel(inner)

    def work(self) -> list[Event]:
        told, self.told = self.told, []
        done = [event for event in self.engine.step() if isinstance(event, Finished)]
        return told + [Finished(self.ids[event.id], event.completion) for event in done]


@pytest.fixture(scope="module")
def task() -> Task:
    made = load_task("three_stage")
    return made.model_copy(
        update={"stages": tuple(stage.model_copy(update={"max_new_tokens": 6}) for stage in made.stages)}
    )


@pytest.fixture(scope="module")
def plan(task: Task) -> Plan:
    return Plan.full_depth(engine().identity, task.name, task.fingerprint)


def texts(traces: list[Trace]) -> list[tuple[str, int, list[str]]]:
    return [(trace.question_id, trace.vote, [stage.text for stage in trace.stages]) for trace in traces]


@pytest.mark.parametrize("at_once", [1, 3, 9])
@pytest.mark.parametrize("count", [None, 2])
def test_a_flow_s_traces_are_those_of_run(task: Task, plan: Plan, at_once: int, count: int | None) -> None:
    heard: list[Trace] = []
    votes = Votes(count, seed=3)
    got = flow(engine(), task, QUESTIONS, plan, votes, at_once=at_once, tell=Listener(on_traces=heard.extend))
    assert texts(got) == texts(run(engine(), task, QUESTIONS, plan, votes))
    assert sorted(texts(heard)) == sorted(texts(got))


def test_a_cancelled_question_is_dropped_and_the_others_go_on(task: Task, plan: Plan) -> None:
    going = Flow(engine())
    spine = Spine(engine(), task, plan)
    starts = [spine.start(question) for question in QUESTIONS]
    for one in starts:
        going.start(one)
    going.cancel(starts[1])
    done = []
    while going.under_way:
        done += going.step()
    assert {one.question.id for one in done} == {"q0", "q2", "q3"}


@pytest.mark.parametrize("answer", [run, partial(flow, at_once=4)], ids=["run", "flow"])
def test_what_cannot_be_answered_is_named_and_the_rest_is_kept(
    task: Task, plan: Plan, answer: Callable[..., list[Trace]]
) -> None:
    marked = engine().encode(QUESTIONS[2].question)[1:-1]

    def lost(request: Request) -> bool:
        ids = request.prompt_ids
        return any(ids[start : start + len(marked)] == marked for start in range(len(ids)))

    stored = CachedEngine(Refusing(lost))
    with pytest.raises(LitestageError, match=r"Question q2 could not .*stage \w+: no worker lives"):
        answer(stored, task, QUESTIONS, plan)
    if answer is not run:
        others, decoded = [question for question in QUESTIONS if question.id != "q2"], stored.decoded
        assert texts(flow(stored, task, others, plan, at_once=4)) == texts(run(engine(), task, others, plan))
        assert stored.decoded == decoded
