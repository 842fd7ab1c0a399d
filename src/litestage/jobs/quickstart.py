"""The main job, end to end: find a plan on dev, measure it on test, say what it saved."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from litestage.core import ExitRule, OptionError, Plan, Trace
from litestage.core.files import write_text
from litestage.evaluation import Sample, compare, medians, price_error, question_scores, score, speedup
from litestage.jobs.claim import refuse_other_results
from litestage.jobs.evaluate import answer, summarise
from litestage.jobs.latency import wall_clock
from litestage.jobs.progress import SILENT, Progress
from litestage.jobs.search import Found, search
from litestage.jobs.session import Session, command_line
from litestage.report import write_report
from litestage.results import (
    Evaluation,
    Example,
    Performance,
    PlanResult,
    PlanSearch,
    Provenance,
    QuestionGroup,
    Split,
)
from litestage.search import SearchOptions
from litestage.tasks import Question

EXAMPLES = 4


@dataclass(frozen=True)
class Sizes:
    """How many questions each part uses; None is all."""

    search: int | None = 200
    test: int | None = 300
    wall: int = 30
    """Test questions timed by the wall clock, full depth and plan in turn."""

    def check(self) -> None:
        """Raise `OptionError` for a part that would use no question."""
        for option, count in (("--search-limit", self.search), ("--limit", self.test), ("--wall", self.wall)):
            if count is not None and count < 1:
                raise OptionError(f"{option} {count} would leave no question. Choose 1 or more.")


def quickstart(
    session: Session,
    out: Path,
    options: SearchOptions,
    sizes: Sizes = Sizes(),
    *,
    exit_rule: ExitRule | None = None,
    progress: Progress = SILENT,
) -> PlanResult:
    """Search on dev, compare full depth with the plan on test, leave plan, results and report in ``out``."""
    sizes.check()
    refuse_other_results(out, "plan")
    durations: dict[str, float] = {}
    dev, test = session.dev_and_test()
    used = (dev[: sizes.search], test[: sizes.test])
    with _timed(durations, "search"):
        found = search(session, used[0], out, options, exit_rule=exit_rule, progress=progress)
    plans = {"full": session.full_plan(), "plan": found.plan}
    with _timed(durations, "test"):
        systems = {name: _evaluate(session, plan, used[1], out, found, name, progress) for name, plan in plans.items()}
    with _timed(durations, "wall clock"):
        threads, timed = found.latency.threads, used[1][: sizes.wall]
        samples = wall_clock(session, plans, timed, threads=threads, out=out, progress=progress)
    results = _results(session, out, found, systems, samples, (dev, test), used, durations)
    results.save(out)
    write_report(results, out)
    return results


def _evaluate(
    session: Session, plan: Plan, questions: Sequence[Question], out: Path, found: Found, name: str, progress: Progress
) -> Evaluation:
    what = f"test questions, {'full depth' if name == 'full' else 'the plan'}"
    traces = answer(session, questions, plan, session.cached(out), what=what, progress=progress)
    evaluation = summarise(traces, plan, found.latency, session.conditions)
    write_text(out / f"evaluation-{name}.json", evaluation.model_dump_json() + "\n")
    return evaluation


def _results(
    session: Session,
    out: Path,
    found: Found,
    systems: Mapping[str, Evaluation],
    samples: Sequence[Sample],
    splits: tuple[Sequence[Question], Sequence[Question]],
    used: tuple[Sequence[Question], Sequence[Question]],
    durations: dict[str, float],
) -> PlanResult:
    seconds = medians(samples)
    wall = speedup(seconds["full"], seconds["plan"], baseline_name="full depth, same engine")
    full, plan = systems["full"].questions, systems["plan"].questions
    paired = compare(question_scores(full), question_scores(plan), seed=session.options.seed)
    names = session.task.stage_names
    return PlanResult(
        full=_system(systems["full"], seconds["full"]),
        plan=_system(systems["plan"], seconds["plan"]),
        speedup=wall.speedup,
        accuracy_change_points=paired.difference,
        wall=wall,
        paired=paired,
        model=session.engine.identity,
        task=session.task.name,
        tested_on=Split(name="test", used=len(used[1]), available=len(splits[1])),
        search=PlanSearch.of(
            found.record,
            Split(name="dev", used=len(used[0]), available=len(splits[0])),
            found.record.options.max_drop,
        ),
        ranking=found.ranking.scores,
        stage_plans={name: found.plan.stage(name) for name in names},
        groups=tuple(_groups(used[1], full, plan)),
        examples=_examples(session, out, used[1], full, plan, found.plan),
        notes=tuple(note for note in (found.record.exit_note,) if note),
        provenance=Provenance.of(
            session.conditions_at(found.latency.threads),
            command=command_line(),
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
            durations=durations,
            fits=(found.latency.decode_error, found.latency.prefill_error),
        ),
    )


def _system(evaluation: Evaluation, wall: Mapping[str, float]) -> Performance:
    """One system's figures, its price held against the clock on the questions that were timed."""
    ids = [trace.question_id for trace in evaluation.questions]
    priced = dict(zip(ids, evaluation.price.by_question, strict=True))
    return Performance.of(
        evaluation.interval,
        evaluation.usage,
        evaluation.price,
        sum(wall.values()) / len(wall),
        price_error([priced[question] for question in wall], list(wall.values())),
    )


def _groups(questions: Sequence[Question], full: Sequence[Trace], plan: Sequence[Trace]) -> Iterator[QuestionGroup]:
    """Accuracy on pairs that training asked about, and on pairs that it did not (the embedded set says which)."""
    for name, seen in (("pairs asked about in training", True), ("pairs not asked about in training", False)):
        ids = {question.id for question in questions if question.extra.get("pair_seen") is seen}
        if ids:
            before, after = ([trace for trace in traces if trace.question_id in ids] for traces in (full, plan))
            yield QuestionGroup(name=name, full=score(before), plan=score(after))


def _examples(
    session: Session, out: Path, questions: Sequence[Question], full: Sequence[Trace], plan: Sequence[Trace], used: Plan
) -> tuple[Example, ...]:
    """A few questions in full, those first that an exit cut or whose answer changed."""
    if not session.may_show_texts:
        return ()
    pairs = sorted(
        zip(questions, full, plan, strict=True),
        key=lambda row: (-_exits(row[2]) - 2 * (row[1].answer != row[2].answer), row[0].id),
    )[:EXAMPLES]
    without = used.model_copy(
        update={"stages": {name: stage.model_copy(update={"exit": None}) for name, stage in used.stages.items()}}
    )
    uncut = answer(session, [row[0] for row in pairs], without, session.cached(out), what="examples without exit")
    return tuple(
        Example.of(question.question, question.choices, before, after, longer)
        for (question, before, after), longer in zip(pairs, uncut, strict=True)
    )


def _exits(trace: Trace) -> int:
    return any(c.finish_reason == "low_confidence" for stage in trace.stages for c in stage.completions)


@contextmanager
def _timed(durations: dict[str, float], part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    durations[part] = round(time.perf_counter() - start, 1)
