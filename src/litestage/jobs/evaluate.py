"""Accuracy, tokens and latency of one plan on one split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from litestage.core import Conditions, OptionError, Plan, Trace
from litestage.engine import CachedEngine
from litestage.evaluation import (
    LatencyModel,
    StoppedVotes,
    VoteAccuracy,
    VoteStop,
    price,
    score,
    stopped_accuracy,
    usage_of,
    vote_accuracy,
)
from litestage.jobs.claim import refuse_other_jobs
from litestage.jobs.latency import (
    LATENCY_FILE,
    best_threads,
    check_latency,
    decode_sizes,
    latency_model,
    wall_clock,
)
from litestage.jobs.progress import SILENT, Progress
from litestage.jobs.session import Session
from litestage.pipeline import run
from litestage.results import Evaluation
from litestage.tasks import Question, Task

MAJORITIES = (1, 5, 10)
"""Votes of the majorities that are reported, where so many are drawn; the majority of all of them always is."""

NO_ROOM_NOTE = (
    "some texts grew so long that a later prompt did not fit the context. Such a question counts as wrong, and its "
    "later stages cost no time: latencies there look better than they are."
)


def evaluate(
    session: Session,
    questions: Sequence[Question],
    plan: Plan,
    out: Path,
    *,
    votes: int | None = None,
    stop: VoteStop | None = None,
    latency: str = "priced",
    progress: Progress = SILENT,
) -> Evaluation:
    """Answer the questions under ``plan`` and measure; a killed evaluation goes on from ``out``."""
    votes = stop.votes if stop else votes
    if votes is not None:
        _check_votes(session.task, votes)
    check_latency(latency)
    refuse_other_jobs(out, "evaluation")
    engine = session.cached(out)
    traces = answer(session, questions, plan, engine, votes=votes, stop=stop, what="answering", progress=progress)
    model = latency_model(session, traces, out / LATENCY_FILE, progress)
    wall = _wall(session, questions, plan, traces, model, votes, stop, progress) if latency == "wall" else None
    return summarise(traces, plan, model, session.conditions, votes, wall, stop)


def _check_votes(task: Task, votes: int) -> None:
    if votes < 1:
        raise OptionError(f"--votes {votes}: a question needs at least one vote.")
    if votes > 1 and all(stage.sampling.is_greedy for stage in task.stages):
        raise OptionError(
            f"--votes {votes}: no stage of task {task.name} samples, so all votes would be the same. Give a stage "
            "sampling = { temperature = 0.7 } in the task file, or leave --votes out."
        )


def answer(
    session: Session,
    questions: Sequence[Question],
    plan: Plan,
    engine: CachedEngine,
    *,
    task: Task | None = None,
    votes: int | None = None,
    stop: VoteStop | None = None,
    what: str,
    progress: Progress = SILENT,
) -> list[Trace]:
    """Traces of all questions, decoding only what the cache does not hold; ``task`` is another form of the task."""
    progress.start(what, len(questions))
    right = seen = 0

    def told(traces: Sequence[Trace]) -> None:
        nonlocal right, seen
        right, seen = right + sum(trace.correct for trace in traces), seen + len(traces)
        progress.advance(len({trace.question_id for trace in traces}), f"{right / seen:.1%} right")

    return run(
        engine,
        task or session.task,
        questions,
        plan,
        votes=votes,
        stop=stop,
        seed=session.options.seed,
        questions_at_once=max(1, session.rows // (votes or 1)),
        on_traces=told,
    )


def summarise(
    traces: Sequence[Trace],
    plan: Plan,
    model: LatencyModel,
    conditions: Conditions,
    votes: int | None = None,
    wall_seconds: float | None = None,
    stop: VoteStop | None = None,
) -> Evaluation:
    """All figures of one system, from its traces."""
    voted: VoteAccuracy | StoppedVotes | None = None
    if stop is not None:
        voted = stopped_accuracy(traces, stop.votes)
    elif votes and votes > 1:
        voted = vote_accuracy(traces, sorted({k for k in MAJORITIES if k < votes} | {votes}))
    interval = voted.of_runs if voted else score(traces)
    return Evaluation(
        accuracy=interval.percent,
        interval=interval,
        votes=voted,
        none_rate=sum(trace.answer is None for trace in traces) / len(traces),
        usage=usage_of(traces),
        price=price(model, traces, plan),
        wall_seconds=wall_seconds,
        plan=plan,
        conditions=conditions,
        questions=tuple(traces),
    )


def _wall(
    session: Session,
    questions: Sequence[Question],
    plan: Plan,
    traces: Sequence[Trace],
    model: LatencyModel,
    votes: int | None,
    stop: VoteStop | None,
    progress: Progress,
) -> float:
    """Mean seconds a question by the clock, its votes side by side."""
    threads = model.threads
    if votes and votes > 1:  # so many rows may be worth more threads than those of one run are
        rows, contexts = decode_sizes(traces)
        threads = best_threads(session, min(votes * rows[-1], session.options.batch_size), contexts[-1])
    samples = wall_clock(session, {"plan": plan}, questions, threads=threads, votes=votes, stop=stop, progress=progress)
    return fmean(sample.seconds for sample in samples)


def none_right(full: Sequence[Trace]) -> Iterator[str]:
    """A warning where full depth answers nothing."""
    if not any(trace.correct for trace in full):
        yield (
            "The full model answers none of these questions, so nothing here says what skipping costs. Check the task, "
            "the model and --shots."
        )
