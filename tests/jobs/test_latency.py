"""Which forwards are timed, for traces of any shape: always enough to fit a cost model, never many.

And by the wall clock: what is timed, and that no time is taken for that of other work.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litestage.core import Decode, Prefill, StageTrace, Trace
from litestage.evaluation import FitError, fit
from litestage.jobs.options import EvaluateOptions
from litestage.jobs.session import Session
from litestage.jobs.timing import cost_model, decode_sizes, distrust, drawn, prefill_sizes, wall_clock
from litestage.tasks import Question, Task

MakeStage = Callable[..., StageTrace]


@dataclass(frozen=True)
class Timed:
    work: Prefill | Decode
    seconds: float
    attentions: int = 0
    ffns: int = 0
    compensated: int = 0


def prefill_seconds(work: Prefill) -> float:
    return 3 + 0.5 * work.tokens + 0.25 * work.rows + 0.125 * work.tokens * work.context


DECODES = [
    Timed(Decode(rows, context, 0), 1 + a + 0.5 * f + 0.01 * a * context, a, f)
    for rows in (1, 2)
    for context in (8, 80)
    for a, f in [(4, 4), (2, 2), (1, 4), (4, 1)]
]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_prefills_to_time_settle_every_part_of_a_price(make_stage: MakeStage, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 400), min_size=1, max_size=12))
    branches = data.draw(st.integers(1, 5))
    shared = data.draw(st.integers(0, min(lengths)))
    traces = [
        Trace(
            question_id=str(i),
            stages=(
                make_stage("think", [length] * branches, [3] * branches, shared=shared),
                make_stage("say", [length + 2], [1], reused=shared),
            ),
            answer=0,
            gold=0,
        )
        for i, length in enumerate(lengths)
    ]
    _, contexts = decode_sizes(traces)
    prefills = prefill_sizes(traces, contexts[-1])
    assert len(prefills) <= 14
    assert all(work.tokens >= work.rows and work.context >= work.tokens // work.rows for work in prefills)
    model = fit([*DECODES, *(Timed(work, prefill_seconds(work)) for work in prefills)])
    for work in prefills:
        assert model.prefill_seconds(work) == pytest.approx(prefill_seconds(work), rel=1e-3)


def with_task(session: Session, task: Task) -> Session:
    """The same model on another form of the task."""
    other = copy(session)
    other.task = task
    return other


def test_a_time_is_taken_up_for_the_same_work_alone(session: Session, tmp_path: Path) -> None:
    """Same ids and plans, but other threads, limits, prompts, wording or votes: timed anew, and kept beside."""
    session = session.at(tmp_path)
    short = session.task.with_limits(dict.fromkeys(session.task.stage_names, 2))
    (question,) = session.questions("dev", 1)
    same: dict[str, Any] = {
        "session": with_task(session, short),
        "plans": {"full": session.full_plan()},
        "questions": [question],
        "threads": 1,
    }
    reworded = short.stages[0].model_copy(update={"prompt": short.stages[0].prompt + " "})
    others: list[dict[str, Any]] = [
        {"threads": 2},
        {"session": with_task(session, short.with_limits({"recall": 3}))},
        {"session": with_task(session, short.model_copy(update={"stages": (reworded, *short.stages[1:])}))},
        {"tasks": {"full": short.without("analysis")}},
        {"questions": [question.model_copy(update={"question": question.question + "?"})]},
        {"voting": EvaluateOptions(votes=2)},
        {"voting": EvaluateOptions(votes=2, votes_stop="decided")},
        {"voting": EvaluateOptions(votes=2, votes_stop="likely")},
    ]
    first = wall_clock(**same)
    assert wall_clock(**same) == first
    for number, other in enumerate(others, start=2):
        wall_clock(**same | other)
        assert len(list(tmp_path.glob("wall-*.json"))) == number, other


def test_turns_change_who_goes_first_and_a_killed_timing_goes_on(session: Session, tmp_path: Path) -> None:
    session = session.at(tmp_path)
    short = with_task(session, session.task.with_limits(dict.fromkeys(session.task.stage_names, 2)))
    plans = {"full": short.full_plan(), "other": short.full_plan()}
    questions = short.questions("dev", 2)
    first = wall_clock(short, plans, questions, threads=1)
    both = wall_clock(short, plans, questions, threads=1, turns=2)
    assert both[:4] == first, "what was timed before is not timed again"
    assert [sample.turn for sample in both] == [0, 0, 0, 0, 1, 1, 1, 1]
    order = [(sample.question_id, sample.system) for sample in both]
    assert order[4:] == [*order[1::-1], *order[3:1:-1]]
    assert wall_clock(short, plans, questions, threads=1, turns=2) == both


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 9))
def test_questions_to_time_are_drawn_by_the_seed(available: int, count: int, seed: int) -> None:
    questions = [Question(id=str(i), question="?", choices=("a", "b"), answer=0) for i in range(available)]
    some = drawn(questions, count, seed)
    assert some == drawn(questions, count, seed)
    assert len(some) == min(available, count)
    assert [question.id for question in some] == sorted({question.id for question in some}, key=int)


def test_a_draw_is_not_the_first_ones() -> None:
    questions = [Question(id=str(i), question="?", choices=("a", "b"), answer=0) for i in range(1000)]
    assert len({tuple(question.id for question in drawn(questions, 5, seed)) for seed in range(5)}) == 5


def test_a_poor_fit_is_told(session: Session, tmp_path: Path) -> None:
    good = cost_model(session.at(tmp_path), session.answer(session.questions("dev", 1), session.full_plan(), "one"))
    poor = good.model_copy(update={"decode_error": FitError(timings=9, median=0.2, max=0.4)})
    assert not distrust(good.model_copy(update={"decode_error": FitError(timings=9, median=0.05, max=0.9)}))
    (told,) = distrust(poor)
    assert "20%" in told


def test_a_question_is_timed_stage_by_stage(session: Session) -> None:
    plans = {"full": session.full_plan(), "short": session.full_plan()}
    form = session.task.without("analysis")
    samples = wall_clock(session, plans, session.questions("dev", 2), threads=1, tasks={"short": form})
    assert [sample.system for sample in samples] == ["full", "short", "short", "full"]
    for sample in samples:
        assert tuple(sample.stage_seconds) == (session.task if sample.system == "full" else form).stage_names
        assert min(sample.stage_seconds.values()) > 0
        assert 0.5 * sample.seconds < sum(sample.stage_seconds.values()) <= sample.seconds
