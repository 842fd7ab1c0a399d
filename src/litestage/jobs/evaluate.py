"""Accuracy, tokens and latency of one plan on one split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from litestage.core import Conditions, OptionError, Plan, Trace
from litestage.evaluation import (
    CostModel,
    StoppedVotes,
    VoteAccuracy,
    price,
    score,
    stopped_accuracy,
    usage_of,
    vote_accuracy,
)
from litestage.jobs.options import EvaluateOptions
from litestage.jobs.session import Session
from litestage.jobs.timing import best_threads, cost_model, decode_sizes, wall_clock
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
    plan: Plan | None = None,
    questions: Sequence[Question] | None = None,
    options: EvaluateOptions = EvaluateOptions(),
) -> Evaluation:
    """Answer questions under a plan, or at full depth, and measure; a killed evaluation goes on from the folder.

    Without ``questions`` it takes those of the test split, as many as the session was asked for.
    """
    plan = session.full_plan() if plan is None else plan
    questions = session.questions("test", session.data.limit) if questions is None else questions
    if options.votes is not None:
        _check_votes(session.task, options.votes)
    session.folder.reserve("evaluation")
    traces = session.answer(questions, plan, "answering", votes=options.votes, stop=options.stop)
    cost = cost_model(session, traces)
    wall = _wall(session, questions, plan, traces, cost, options) if options.latency == "wall" else None
    return summarise(traces, plan, cost, session.conditions, options, wall)


def _check_votes(task: Task, votes: int) -> None:
    if votes > 1 and all(stage.sampling.is_greedy for stage in task.stages):
        raise OptionError(
            f"--votes {votes}: no stage of task {task.name} samples, so all votes would be the same. Give a stage "
            "sampling = { temperature = 0.7 } in the task file, or leave --votes out."
        )


def summarise(
    traces: Sequence[Trace],
    plan: Plan,
    cost: CostModel,
    conditions: Conditions,
    options: EvaluateOptions = EvaluateOptions(),
    wall_seconds: float | None = None,
) -> Evaluation:
    """All figures of one plan, from its traces."""
    voted: VoteAccuracy | StoppedVotes | None = None
    if options.stop is not None:
        voted = stopped_accuracy(traces, options.stop.votes)
    elif options.votes and options.votes > 1:
        voted = vote_accuracy(traces, sorted({k for k in MAJORITIES if k < options.votes} | {options.votes}))
    interval = voted.of_runs if voted else score(traces)
    return Evaluation(
        accuracy=interval.percent,
        interval=interval,
        votes=voted,
        none_rate=sum(trace.answer is None for trace in traces) / len(traces),
        usage=usage_of(traces),
        price=price(cost, traces, plan),
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
    cost: CostModel,
    options: EvaluateOptions,
) -> float:
    """Mean seconds a question by the clock, its votes side by side."""
    threads = cost.threads
    if options.votes and options.votes > 1:  # so many rows may be worth more threads than those of one run are
        rows, contexts = decode_sizes(traces)
        threads = best_threads(session, min(options.votes * rows[-1], session.decoding.batch_size), contexts[-1])
    samples = wall_clock(session.at(None), {"plan": plan}, questions, threads, voting=options)
    return fmean(sample.seconds for sample in samples)


def none_right(full: Sequence[Trace]) -> Iterator[str]:
    """A warning where full depth answers nothing."""
    if not any(trace.correct for trace in full):
        yield (
            "The full model answers none of these questions, so nothing here says what skipping costs. Check the task, "
            "the model and --shots."
        )
