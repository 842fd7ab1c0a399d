"""One question on its way through the stages: it says which requests it wants next, and is told their completions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

from litestage.core import (
    GREEDY,
    NO_ROOM,
    Completion,
    Engine,
    Plan,
    Request,
    StagePlan,
    StageTrace,
    TokenIds,
    Trace,
)
from litestage.core.drafts import Drafts
from litestage.evaluation.votes import VoteStop
from litestage.pipeline.prompts import Prompts, Written, encode_prompts, header_of
from litestage.tasks.question import Question
from litestage.tasks.task import Stage, Task


@dataclass(frozen=True)
class Votes:
    """How often each question is answered. Without a ``count`` once, greedily."""

    count: int | None = None
    """So many times, with the stages' own sampling."""
    seed: int = 0
    stop: VoteStop | None = None
    """Ends a question's votes early, and brings a number of its own."""

    @property
    def most(self) -> int | None:
        """How many there are at most; None where texts are greedy."""
        return self.stop.votes if self.stop else self.count


ONCE = Votes()


class Spine:
    """A task as a plan runs it on an engine; `start` sets a question on its way. Whoever steps the engine drives it."""

    def __init__(self, engine: Engine, task: Task, plan: Plan, votes: Votes = ONCE, drafts: Drafts = Drafts()) -> None:
        """``drafts`` says from what is drafted, at most, and a name for whoever asks: no other's texts are siblings."""
        self.engine, self.plan, self.votes, self.drafts = engine, plan, votes, drafts
        self.names = task.stage_names
        """All stages, those that the plan leaves out among them; ``task`` has those that run."""
        left_out = [name for name in self.names if plan.stage(name).left_out]
        self.task = reduce(Task.without, left_out, task)
        self._headers: dict[str, TokenIds] = {}

    def start(self, question: Question, vote: int = 0) -> Answering:
        """One vote on a question, before its first stage."""
        return Answering(self, question, vote)

    def header(self, stage: Stage) -> TokenIds:
        """What every question's prompt of the stage starts with."""
        if stage.name not in self._headers:
            self._headers[stage.name] = header_of(self.engine, self.task, stage)
        return self._headers[stage.name]


class Answering:
    """One vote on its way: `requests` of a stage, their completions to `take`, and so on until it is done."""

    def __init__(self, spine: Spine, question: Question, vote: int) -> None:
        self.question, self.vote = question, vote
        self.stages: list[StageTrace] = []
        """Those that are done."""
        self._spine, self._written = spine, Written()
        self._prompts: Prompts | None = None

    @property
    def stage(self) -> Stage | None:
        """The stage that comes next, or is under way; None when all are done."""
        stages = self._spine.task.stages
        return stages[len(self.stages)] if len(self.stages) < len(stages) else None

    def requests(self) -> list[Request]:
        """What the stage asks of the engine, a request a branch; nothing where earlier stages left no room.

        Raises `DataError` for a question that is too long by itself.
        """
        stage, spine = self._under_way(), self._spine
        self._prompts = encode_prompts(
            spine.engine,
            spine.task,
            stage,
            spine.header(stage),
            self.question,
            self._written,
            spine.votes.most or 1,
        )
        sampling = GREEDY if spine.votes.most is None else stage.sampling
        return [
            Request(
                prompt_ids=ids,
                stage_plan=spine.plan.stage(stage.name),
                max_new_tokens=stage.max_new_tokens,
                stop=stage.stop,
                sampling=sampling,
                seed=0
                if sampling.is_greedy
                else _seed(spine.votes.seed, self.question.id, self.vote, stage.name, branch),
                choices=choices,
                drafts=Drafts(
                    source=spine.drafts.source,
                    family=f"{spine.drafts.family} {self.question.id}",
                    stage=f"{spine.task.name}/{stage.name}",
                ),
            )
            for branch, (ids, choices) in enumerate(zip(self._prompts.ids, self._prompts.choices, strict=False))
            if ids
        ]

    def take(self, completions: Sequence[Completion]) -> StageTrace:
        """A stage is done: its record, and its text for later ones. ``completions`` stand as its requests do."""
        stage, prompts = self._under_way(), self._prompts
        assert prompts is not None, "its requests come first"
        done = list(completions) or [NO_ROOM] * len(prompts.ids)
        text = stage.join_texts([completion.text for completion in done], self.question)
        first_vote = not self.vote or bool(self.stages)
        self.stages.append(
            StageTrace(
                name=stage.name,
                prompts=prompts.texts,
                prompt_tokens=tuple(map(len, prompts.ids)),
                shared_tokens=len(prompts.shared),
                header_tokens=len(prompts.header),
                reused_tokens=prompts.reused,
                text=text,
                completions=tuple(_counted(prompts, done, first_vote)),
            )
        )
        self._written.texts[stage.name] = text
        self._written.asked += _held(self._spine.engine, self._spine.plan.stage(stage.name), prompts.ids, done)
        self._written.room = not self.stages[-1].no_room
        return self.stages[-1]

    def trace(self) -> Trace:
        """The record of all stages, and the answer that came of them."""
        assert self.stage is None, "not all stages are done"
        final = self.stages[-1].completions[-1].text
        done = {stage.name: stage for stage in self.stages}
        return Trace(
            question_id=self.question.id,
            vote=self.vote,
            stages=tuple(done.get(name) or StageTrace.left_out(name) for name in self._spine.names),
            answer=self._spine.task.parse(final, self.question) if self._written.room else None,
            gold=self.question.answer,
        )

    def _under_way(self) -> Stage:
        assert self.stage is not None, "all stages are done"
        return self.stage


def _seed(*parts: object) -> int:
    """A seed for one generation: the same whatever else runs beside it."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


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
