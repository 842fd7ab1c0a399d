"""The one loop over stages: groups of questions go through them together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from litestage.core import Engine, LitestageError, OnEvent, Plan, StageTrace, Trace, UnansweredError
from litestage.core.allocator import give_memory_back
from litestage.evaluation.votes import VoteStop
from litestage.pipeline.spine import ONCE, Answering, Spine, Votes
from litestage.tasks.question import Question
from litestage.tasks.task import Stage, Task

OnStage = Callable[[Stage, Sequence[StageTrace]], None]
OnTraces = Callable[[Sequence[Trace]], None]


@dataclass(frozen=True)
class Listener:
    """Who hears of a run while it goes on."""

    on_event: OnEvent | None = None
    """Every token and piece of text; an id is the place among the stage's requests."""
    on_stage: OnStage | None = None
    """Every stage of a group when it is done."""
    on_traces: OnTraces | None = None
    """Every group when it is done."""


NOBODY = Listener()


def run(
    engine: Engine,
    task: Task,
    questions: Sequence[Question],
    plan: Plan,
    votes: Votes = ONCE,
    *,
    questions_at_once: int = 16,
    tell: Listener = NOBODY,
) -> list[Trace]:
    """Answer questions stage by stage; traces in the order of the questions, a question's votes together.

    ``questions_at_once`` go through a stage together.
    """
    traces: list[Trace] = []
    spine, stop = Spine(engine, task, plan, votes), votes.stop
    for group in _groups(questions, questions_at_once):
        if stop is None:
            done = _answered(spine, _starts(spine, group, range(votes.count or 1)), tell)
        else:
            done = _until_settled(spine, group, stop, tell)
        traces += done
        if len(done) > 1:  # who has one question waits for it
            give_memory_back()
        if tell.on_traces is not None:
            tell.on_traces(done)
    return traces


def _groups(questions: Sequence[Question], size: int) -> Iterator[Sequence[Question]]:
    return (questions[i : i + size] for i in range(0, len(questions), size))


def _starts(spine: Spine, questions: Sequence[Question], votes: Sequence[int]) -> list[Answering]:
    return [spine.start(question, vote) for question in questions for vote in votes]


def _until_settled(spine: Spine, questions: Sequence[Question], stop: VoteStop, tell: Listener) -> list[Trace]:
    """Draw of every open question the fewest votes that could settle it, together, until none is open."""
    drawn: dict[str, list[Trace]] = {question.id: [] for question in questions}
    while open_ := [one for q in questions for one in _starts(spine, [q], _next_votes(stop, drawn[q.id]))]:
        for trace in _answered(spine, open_, tell):
            drawn[trace.question_id].append(trace)
    return [trace for traces in drawn.values() for trace in traces]


def _next_votes(stop: VoteStop, drawn: Sequence[Trace]) -> range:
    return range(len(drawn), len(drawn) + stop.fewest([trace.answer for trace in drawn]))


def _answered(spine: Spine, under_way: list[Answering], tell: Listener) -> list[Trace]:
    """All of them through one stage after the other."""
    for stage in spine.task.stages:
        requests = [one.requests() for one in under_way]
        try:
            completions = iter(spine.engine.generate([request for some in requests for request in some], tell.on_event))
        except UnansweredError as error:
            asked = [one.question.id for one, some in zip(under_way, requests, strict=True) for _ in some]
            reasons = {asked[place]: f"In stage {stage.name}: {reason}" for place, reason in error.reasons.items()}
            raise unanswered(reasons) from None
        done = [one.take([next(completions) for _ in some]) for one, some in zip(under_way, requests, strict=True)]
        if tell.on_stage is not None:
            tell.on_stage(stage, done)
    return [one.trace() for one in under_way]


def unanswered(reasons: Mapping[str, str]) -> LitestageError:
    """Names the questions that could not be answered, once all others were."""
    (first, why), others = next(iter(reasons.items())), list(reasons)[1:]
    also = f" So it is with {', '.join(others)}." if others else ""
    return LitestageError(f"Question {first} could not be answered.{also} What could be answered is kept. {why}")
