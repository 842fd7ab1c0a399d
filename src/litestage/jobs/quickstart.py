"""The main job, end to end: find a plan on dev, measure it on test, say what it saved."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from litestage.core import Plan, Trace
from litestage.core.files import write_text
from litestage.evaluation import (
    Sample,
    compare,
    medians,
    price_error,
    priced_speedup,
    question_scores,
    score,
    timed_speedup,
)
from litestage.jobs.evaluate import summarise
from litestage.jobs.options import QuickstartOptions, SearchSettings
from litestage.jobs.path import FoundPath, Questions, find_path
from litestage.jobs.session import Session, provenance
from litestage.jobs.timing import TURNS, distrust, drawn, wall_clock
from litestage.results import Evaluation, Example, Performance, PlanResult, QuestionGroup, Split
from litestage.tasks import Question

EXAMPLES = 4
BASELINE = "full depth, same engine"


def quickstart(
    session: Session,
    settings: SearchSettings = SearchSettings(plans=3),
    sizes: QuickstartOptions = QuickstartOptions(),
    *,
    limit: int | None = 300,
) -> PlanResult:
    """Search on dev, compare full depth with the plan on ``limit`` test questions; plan and results in the folder."""
    durations: dict[str, float] = {}
    _, test = session.dev_and_test()
    used = test[:limit]
    questions = Questions.of(session, "dev", settings.certify).first(sizes.search_limit, sizes.certify)
    with _timed(durations, "search and certificate"):
        found = find_path(session, settings, questions)
    plans = {"full": session.full_plan(), "plan": found.plan}
    with _timed(durations, "test"):
        evaluations = {name: _evaluate(session, name, plan, used, found) for name, plan in plans.items()}
    with _timed(durations, "wall clock"):
        timed = drawn(used, sizes.wall, session.decoding.seed)
        samples = wall_clock(session, plans, timed, found.cost.threads, turns=TURNS)
    results = PlanResult(
        **_figures(session, evaluations, samples),
        model=session.engine.identity,
        task=session.task.name,
        tested_on=Split(name="test", used=len(used), available=len(test)),
        path=found.search,
        certificate=found.plan.certificate,
        stage_plans={name: found.plan.stage(name) for name in session.task.stage_names},
        groups=tuple(_groups(used, *(evaluation.questions for evaluation in evaluations.values()))),
        examples=_examples(session, used, evaluations),
        notes=tuple(distrust(found.cost)),
        provenance=provenance(session, found.cost, durations),
    )
    if session.folder.path:
        results.save(session.folder.path)
    return results


def _evaluate(session: Session, name: str, plan: Plan, questions: Sequence[Question], found: FoundPath) -> Evaluation:
    what = f"test questions, {'full depth' if name == 'full' else 'the plan'}"
    traces = session.answer(questions, plan, what)
    evaluation = summarise(traces, plan, found.cost, session.conditions)
    if session.folder.path:
        write_text(session.folder.path / f"evaluation-{name}.json", evaluation.model_dump_json() + "\n")
    return evaluation


def _figures(session: Session, evaluations: Mapping[str, Evaluation], samples: Sequence[Sample]) -> dict[str, Any]:
    """Full depth and the plan, each alone and one against the other."""
    seconds = medians(samples)
    wall = timed_speedup(samples, "full", "plan", baseline_name=BASELINE)
    full, plan = (question_scores(evaluations[name].questions) for name in ("full", "plan"))
    paired = compare(full, plan)
    return {
        "full": _system(evaluations["full"], seconds["full"]),
        "plan": _system(evaluations["plan"], seconds["plan"]),
        "speedup": wall.speedup,
        "accuracy_change_points": paired.difference,
        "wall": wall,
        "priced": priced_speedup(_priced(evaluations["full"]), _priced(evaluations["plan"]), baseline_name=BASELINE),
        "paired": paired,
    }


def _system(evaluation: Evaluation, wall: Mapping[str, float]) -> Performance:
    """One system's figures, its price held against the clock on the questions that were timed."""
    priced = _priced(evaluation)
    return Performance.of(
        evaluation.interval,
        evaluation.usage,
        evaluation.price,
        sum(wall.values()) / len(wall),
        price_error([priced[question] for question in wall], list(wall.values())),
    )


def _priced(evaluation: Evaluation) -> dict[str, float]:
    """Seconds by question."""
    ids = [trace.question_id for trace in evaluation.questions]
    return dict(zip(ids, evaluation.price.by_question, strict=True))


def _groups(questions: Sequence[Question], full: Sequence[Trace], plan: Sequence[Trace]) -> Iterator[QuestionGroup]:
    """Accuracy on pairs that training asked about, and on pairs that it did not (the embedded set says which)."""
    for name, seen in (("pairs asked about in training", True), ("pairs not asked about in training", False)):
        ids = {question.id for question in questions if question.extra.get("pair_seen") is seen}
        if ids:
            before, after = ([trace for trace in traces if trace.question_id in ids] for traces in (full, plan))
            yield QuestionGroup(name=name, full=score(before), plan=score(after))


def _examples(
    session: Session, questions: Sequence[Question], evaluations: Mapping[str, Evaluation]
) -> tuple[Example, ...]:
    """A few questions in full, those first that an exit cut or whose answer changed."""
    if not session.may_show_texts:
        return ()
    full, plan = evaluations["full"], evaluations["plan"]
    pairs = sorted(
        zip(questions, full.questions, plan.questions, strict=True),
        key=lambda row: (-_exits(row[2]) - 2 * (row[1].answer != row[2].answer), row[0].id),
    )[:EXAMPLES]
    patient = {name: stage.model_copy(update={"exit": None}) for name, stage in plan.plan.stages.items()}
    without = plan.plan.model_copy(update={"stages": patient})
    uncut = session.answer([row[0] for row in pairs], without, "examples without exit")
    return tuple(
        Example.of(question.question, question.choices, before, after, longer)
        for (question, before, after), longer in zip(pairs, uncut, strict=True)
    )


def _exits(trace: Trace) -> int:
    return any(c.exited for stage in trace.stages for c in stage.completions)


@contextmanager
def _timed(durations: dict[str, float], part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    durations[part] = round(time.perf_counter() - start, 1)
