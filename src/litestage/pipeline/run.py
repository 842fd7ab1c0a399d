"""The one loop over stages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from litestage.core import (
    GREEDY,
    NO_ROOM,
    Completion,
    Engine,
    OnEvent,
    Plan,
    Request,
    StagePlan,
    StageTrace,
    TokenIds,
    Trace,
)
from litestage.core.memory import give_memory_back
from litestage.evaluation.votes import VoteStop
from litestage.pipeline.prompts import Prompts, encode_prompts, header_of
from litestage.tasks.question import Question
from litestage.tasks.task import Stage, Task

OnTraces = Callable[[Sequence[Trace]], None]


@dataclass
class _Path:
    """One vote on its way through the stages."""

    question: Question
    vote: int
    texts: dict[str, str] = field(default_factory=dict)
    asked: list[TokenIds] = field(default_factory=list)
    """The prompts of its earlier stages, and what was written behind them where that is not prefilled again."""
    stages: list[StageTrace] = field(default_factory=list)

    @property
    def no_room(self) -> bool:
        return any(stage.no_room for stage in self.stages)


def run(
    engine: Engine,
    task: Task,
    questions: Sequence[Question],
    plan: Plan,
    *,
    votes: int | None = None,
    stop: VoteStop | None = None,
    seed: int = 0,
    questions_at_once: int = 16,
    on_event: OnEvent | None = None,
    on_stage: Callable[[Stage, Sequence[StageTrace]], None] | None = None,
    on_traces: OnTraces | None = None,
) -> list[Trace]:
    """Answer questions stage by stage; traces in the order of the questions, a question's votes together.

    Without ``votes`` every stage is greedy; with k votes each question runs k times with its stages' sampling, or, with
    ``stop``, which brings a number of its own, until that rule has seen enough.
    ``questions_at_once`` go through a stage together, and ``on_traces`` gets each such group when it is done.
    """
    traces: list[Trace] = []
    votes = stop.votes if stop else votes
    for group in _groups(questions, questions_at_once):

        def draw(paths: list[_Path]) -> list[Trace]:
            return _run_paths(engine, task, paths, plan, votes, seed, on_event, on_stage)

        done = _until_settled(group, stop, draw) if stop else draw(_paths(group, range(votes or 1)))
        traces += done
        if len(done) > 1:  # who has one question waits for it
            give_memory_back()
        if on_traces is not None:
            on_traces(done)
    return traces


def _groups(questions: Sequence[Question], size: int) -> Iterator[Sequence[Question]]:
    return (questions[i : i + size] for i in range(0, len(questions), size))


def _paths(questions: Sequence[Question], votes: Sequence[int]) -> list[_Path]:
    return [_Path(question, vote) for question in questions for vote in votes]


def _until_settled(
    questions: Sequence[Question], stop: VoteStop, draw: Callable[[list[_Path]], list[Trace]]
) -> list[Trace]:
    """Draw of every open question the fewest votes that could settle it, together, until none is open."""
    drawn: dict[str, list[Trace]] = {question.id: [] for question in questions}
    while paths := [path for q in questions for path in _paths([q], _next_votes(stop, drawn[q.id]))]:
        for trace in draw(paths):
            drawn[trace.question_id].append(trace)
    return [trace for traces in drawn.values() for trace in traces]


def _next_votes(stop: VoteStop, drawn: Sequence[Trace]) -> range:
    return range(len(drawn), len(drawn) + stop.fewest([trace.answer for trace in drawn]))


def _run_paths(
    engine: Engine,
    task: Task,
    paths: list[_Path],
    plan: Plan,
    votes: int | None,
    seed: int,
    on_event: OnEvent | None,
    on_stage: Callable[[Stage, Sequence[StageTrace]], None] | None,
) -> list[Trace]:
    for stage in task.stages:
        header = header_of(engine, task, stage)
        prompts = [
            encode_prompts(
                engine, task, stage, path.question, path.texts, header, path.asked, votes or 1, room=not path.no_room
            )
            for path in paths
        ]
        requests = [_requests(stage, plan, path, one, votes, seed) for path, one in zip(paths, prompts, strict=True)]
        completions = iter(engine.generate([request for some in requests for request in some], on_event))
        for path, one, some in zip(paths, prompts, requests, strict=True):
            done = [next(completions) for _ in some] or [NO_ROOM] * len(one.ids)
            _take(stage, path, one, done)
            path.asked += _held(engine, plan.stage(stage.name), one.ids, done)
        if on_stage is not None:
            on_stage(stage, [path.stages[-1] for path in paths])
    return [_trace(task, path) for path in paths]


def _requests(stage: Stage, plan: Plan, path: _Path, prompts: Prompts, votes: int | None, seed: int) -> list[Request]:
    sampling = GREEDY if votes is None else stage.sampling
    return [
        Request(
            prompt_ids=ids,
            stage_plan=plan.stage(stage.name),
            max_new_tokens=stage.max_new_tokens,
            stop=stage.stop,
            sampling=sampling,
            seed=0 if sampling.is_greedy else _seed(seed, path.question.id, path.vote, stage.name, branch),
            choices=choices,
        )
        for branch, (ids, choices) in enumerate(zip(prompts.ids, prompts.choices, strict=False))
        if ids
    ]


def _seed(*parts: object) -> int:
    """A seed for one generation: the same whatever else runs beside it."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


def _take(stage: Stage, path: _Path, prompts: Prompts, completions: list[Completion]) -> None:
    """Record a stage and hand its text to the next ones."""
    text = stage.join_texts([completion.text for completion in completions], path.question)
    path.texts[stage.name] = text
    first_vote = not path.vote or bool(path.stages)
    path.stages.append(
        StageTrace(
            name=stage.name,
            prompts=prompts.texts,
            prompt_tokens=tuple(map(len, prompts.ids)),
            shared_tokens=len(prompts.shared),
            header_tokens=len(prompts.header),
            reused_tokens=prompts.reused,
            text=text,
            completions=tuple(_counted(prompts, completions, first_vote)),
        )
    )


def _held(
    engine: Engine, stage_plan: StagePlan, prompts: Sequence[TokenIds], completions: Sequence[Completion]
) -> Iterator[TokenIds]:
    """What later stages may begin with: a stage's prompts, and what was written behind them at full depth."""
    for ids, completion in zip(prompts, completions, strict=True):
        steps = completion.counts.joined + completion.counts.decoded if engine.keeps_written else 0
        yield ids + completion.token_ids[: stage_plan.schedule.leading_full_depth(steps)]


def _counted(prompts: Prompts, completions: Sequence[Completion], first_vote: bool) -> Iterator[Completion]:
    """Count prompt tokens as this question needs them, so that a trace does not depend on what ran before it.

    The engine's own counts tell what it found in its store, and a resumed run finds other things there.
    """
    already = max(len(prompts.header), prompts.reused)
    for branch, (ids, completion) in enumerate(zip(prompts.ids, completions, strict=True)):
        reused = already if first_vote and not branch else max(already, len(prompts.shared))
        counts = completion.counts.model_copy(update={"prefilled": len(ids) - reused, "reused": reused})
        yield completion.model_copy(update={"counts": counts})


def _trace(task: Task, path: _Path) -> Trace:
    final = path.stages[-1].completions[-1].text
    return Trace(
        question_id=path.question.id,
        vote=path.vote,
        stages=tuple(path.stages),
        answer=None if path.no_room else task.parse(final, path.question),
        gold=path.question.answer,
    )
