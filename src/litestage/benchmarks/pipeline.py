"""How fast whole questions are answered, and what of it the step, shared prefixes and refilled rows each gain."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from litestage.benchmarks.decode import name_of
from litestage.benchmarks.options import PipelineBenchOptions
from litestage.benchmarks.peers import APART, TRANSFORMERS, ElsewhereEngine, Process, TransformersEngine
from litestage.benchmarks.peers.elsewhere import model_folder
from litestage.core import Completion, Engine, OnEvent, OptionError, Plan, Request, Trace
from litestage.engine import TorchEngine
from litestage.engine.step_times import now, works_behind
from litestage.jobs.progress import Progress
from litestage.jobs.session import Session
from litestage.models.load import DTYPES, load_transformers
from litestage.pipeline import Votes, run
from litestage.results import PipelineBench, PipelineTime, TurnTime
from litestage.results.benchmarks import OURS
from litestage.tasks import Question


class _Unfilled(TorchEngine):
    """A batch runs until its last row has ended, and no other takes the place of one that ended before."""

    def generate(self, requests: Sequence[Request], on_event: OnEvent | None = None) -> list[Completion]:
        groups = (requests[i : i + self.batch_size] for i in range(0, len(requests), self.batch_size))
        generate = super().generate
        return [done for group in groups for done in generate(group, on_event)]


@dataclass(frozen=True)
class System:
    name: str
    engine: Engine
    plan: Plan
    batch_size: int
    questions: int
    """Of the first ones, how many it answers."""


@dataclass(frozen=True)
class Turn:
    """A group of questions that a system answered, and how long it took."""

    questions: int
    seconds: float
    traces: Sequence[Trace]

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """Of each run."""
        return [tuple(done.text for stage in trace.stages for done in stage.completions) for trace in self.traces]

    @property
    def tokens(self) -> int:
        return sum(len(done.token_ids) for trace in self.traces for stage in trace.stages for done in stage.completions)

    @property
    def token_seconds(self) -> float:
        return self.seconds / max(1, self.tokens)


def bench_pipeline(
    session: Session,
    questions: Sequence[Question],
    plan: Plan | None,
    options: PipelineBenchOptions,
) -> PipelineBench:
    """Let every system answer the same questions in turn, ``at_once`` at a time.

    transformers, and the engine without all that makes it fast, answer only the first ``peer_questions``; it decodes
    ``peer_batch_size`` rows together, by default as many as we. On a GPU all answer the first group once more, before
    any is timed.
    """
    with ExitStack() as running:
        systems = [
            *(
                system
                for system in _systems(session, plan, len(questions), options.peer_questions, options.peer_batch_size)
                if not (options.whole and isinstance(system.engine, _Unfilled))
            ),
            *_systems_apart(session, options.peers, len(questions), running),
        ]
        turns = _turns(session, systems, questions, options)
    votes, at_once = options.votes, options.at_once
    return PipelineBench(
        model=session.engine.identity.id,
        task=session.task.name,
        shots=len(session.task.shots),
        votes=votes,
        at_once=at_once,
        dtype=session.model.dtype,
        quantisation=session.model.quantise,
        conditions=session.conditions,
        systems=tuple(_record(system, turns[system.name], turns[systems[0].name]) for system in systems),
    )


def _turns(
    session: Session, systems: Sequence[System], questions: Sequence[Question], options: PipelineBenchOptions
) -> dict[str, list[Turn]]:
    """What each system answered, group after group in turn."""
    votes, at_once, progress = options.votes, options.at_once, session.progress
    groups = [questions[i : i + at_once] for i in range(0, len(questions), at_once)]
    turns: dict[str, list[Turn]] = {system.name: [] for system in systems}
    device = session.engine.model.decoder.device
    if works_behind(device):
        _warm_up(systems, session, groups[0], votes, progress)
    progress.start("answering", sum(min(system.questions, len(questions)) for system in systems))
    for number, group in enumerate(groups):
        for system in systems:
            if number * at_once >= system.questions:
                continue
            start = now(device)
            traces = run(
                system.engine, session.task, group, system.plan, Votes(votes, number), questions_at_once=len(group)
            )
            turns[system.name].append(Turn(len(group), now(device) - start, traces))
            progress.advance(len(group))
    return turns


def _systems_apart(session: Session, names: Sequence[str], questions: int, running: ExitStack) -> Iterator[System]:
    """Peers that run in environments of their own, in our precision, until ``running`` is closed."""
    ours = name_of(session.model.dtype, session.model.quantise)
    for name in names:
        peer = next((one for one in APART if one.name == name and one.batches), None)
        if peer is None or ours not in peer.precisions:
            able = "; ".join(f"{one.name} in {' or '.join(one.precisions)}" for one in APART if one.batches)
            raise OptionError(f"--peers {name} does not answer whole questions in {ours}. These do: {able}.")
        if reason := peer.why_not(session.engine.model.decoder.device.type):
            raise OptionError(f"--peers {name} cannot run: {reason}")
        session.progress.start(f"starting {name}")
        folder = model_folder(*load_transformers(session.model.name, adapter=session.model.adapter))
        context, rows = session.engine.max_context, session.decoding.batch_size
        process = Process(peer, folder, ours, rows, context, torch.get_num_threads())
        running.callback(process.close)
        engine = ElsewhereEngine(process, session.engine)
        yield System(process.title, engine, session.full_plan(), rows, questions)


def _warm_up(
    systems: Sequence[System], session: Session, group: Sequence[Question], votes: int | None, progress: Progress
) -> None:
    """A GPU's first steps are captured and compiled for. What they leave behind of the prompts is forgotten."""
    progress.start("warming up", len(systems))
    for system in systems:
        run(system.engine, session.task, group, system.plan, Votes(votes))
        if isinstance(system.engine, TorchEngine):
            system.engine.forget()
        progress.advance()


def _systems(
    session: Session, plan: Plan | None, questions: int, peer_questions: int, peer_batch_size: int | None = None
) -> Iterator[System]:
    """The peer first, then what each part of the engine adds to the one before."""
    model, size, full = session.engine.model, session.decoding.batch_size, session.full_plan()
    if peer_questions:
        source, _ = load_transformers(session.model.name, adapter=session.model.adapter)
        source = source.to(model.decoder.device, DTYPES[session.model.dtype])
        rows = peer_batch_size or size
        yield System(
            f"{TRANSFORMERS} generate", TransformersEngine(source, session.engine, rows), full, rows, peer_questions
        )
    few = peer_questions or questions
    for name, share in (("the step alone", False), ("and shared prefixes", True)):
        yield System(f"{OURS}: {name}", _Unfilled(model, batch_size=size, share=share), full, size, few)
    yield System(f"{OURS}: and refilled rows", TorchEngine(model, batch_size=size), full, size, questions)
    if plan is not None:
        planned = TorchEngine(model, batch_size=size, stands=session.engine.stands)
        yield System(f"{OURS}: and the plan", planned, plan, size, questions)


def _record(system: System, own: Sequence[Turn], first: Sequence[Turn]) -> PipelineTime:
    """Ratios are those of turns that the first system had too, each against its own."""
    questions, seconds = sum(turn.questions for turn in own), sum(turn.seconds for turn in own)
    both = list(zip(first, own, strict=False))
    return PipelineTime(
        system=system.name,
        batch_size=system.batch_size,
        questions=questions,
        seconds=seconds,
        questions_per_s=questions / seconds,
        ratio=statistics.median(theirs.seconds / mine.seconds for theirs, mine in both),
        token_ratio=statistics.median(theirs.token_seconds / mine.token_seconds for theirs, mine in both),
        same_texts=statistics.mean(
            a == b for theirs, mine in both for a, b in zip(theirs.texts, mine.texts, strict=True)
        ),
        tokens=sum(turn.tokens for turn in own),
        turns=tuple(TurnTime(questions=one.questions, seconds=one.seconds, tokens=one.tokens) for one in own),
    )
