"""What each part is worth: one question at a time, from transformers up, a rung more of litestage each time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from litestage.benchmarks.options import LadderOptions
from litestage.benchmarks.peers import TRANSFORMERS, TransformersEngine
from litestage.core import Engine, Plan, Trace
from litestage.core.drafts import Drafter
from litestage.engine import TorchEngine
from litestage.engine.draft_prices import time_forwards
from litestage.engine.step_times import now
from litestage.evaluation import score
from litestage.evaluation.accuracy import question_scores
from litestage.evaluation.paired import compare
from litestage.evaluation.speedup import Sample, medians, speedup
from litestage.jobs.options import SearchSettings
from litestage.jobs.search import search_greedily
from litestage.jobs.session import Session
from litestage.models.load import DTYPES, load_transformers
from litestage.pipeline import run
from litestage.results import LadderBench, Rung
from litestage.tasks import Question, Task

SEARCH = SearchSettings(preset="paper", max_drop=1, step=4)
"""For the plan of a model that brings none."""


@dataclass(frozen=True)
class Climber:
    """A rung as it runs: all of litestage that the rungs below have, and something more."""

    name: str
    adds: str
    engine: Engine
    task: Task
    plan: Plan


def bench_ladder(session: Session, questions: Sequence[Question], options: LadderOptions) -> LadderBench:
    """Let every rung answer each question in turn, ``repeats`` times over, after ``warm`` other questions."""
    plan, origin = _plan(session, options)
    climbers = list(_climbers(session, plan))
    device, progress = session.engine.model.decoder.device, session.progress
    before = session.questions(options.warm_split, options.warm) if options.warm else []
    progress.start("warming up", len(climbers))
    for climber in climbers:
        run(climber.engine, climber.task, before if climber.name != TRANSFORMERS else before[:1], climber.plan)
        progress.advance()
    samples: list[Sample] = []
    traces: dict[str, list[Trace]] = {climber.name: [] for climber in climbers}
    progress.start("answering", options.repeats * len(questions) * len(climbers))
    for repeat in range(options.repeats):
        for question in questions:
            for climber in climbers:
                _forget(climber.engine)
                start = now(device)
                (trace,) = run(climber.engine, climber.task, [question], climber.plan)
                seconds = now(device) - start
                samples.append(Sample(system=climber.name, question_id=question.id, seconds=seconds))
                traces[climber.name] += [] if repeat else [trace]
                progress.advance()
    return LadderBench(
        model=session.engine.identity.id,
        task=session.task.name,
        shots=len(session.task.shots),
        dtype=session.model.dtype,
        quantisation=session.model.quantise,
        questions=len(questions),
        warm=len(before),
        repeats=options.repeats,
        plan=origin,
        rungs=tuple(_rungs(climbers, samples, traces)),
        conditions=session.conditions,
    )


def _forget(engine: Engine) -> None:
    """What a question left of its prompts: a repeat would find it."""
    if isinstance(engine, TorchEngine):
        engine.forget()


def _plan(session: Session, options: LadderOptions) -> tuple[Plan, str]:
    """The plan of the last rung, and where it comes from."""
    if options.plan is not None:
        return session.load_plan(options.plan), options.plan
    questions = session.questions("dev", options.search_limit)
    found = search_greedily(session.at(None), SEARCH, questions, split="dev")
    return found.plan, f"found on {len(questions)} dev questions, which may lose {SEARCH.max_drop:g} point"


def _climbers(session: Session, plan: Plan) -> Iterator[Climber]:
    """The peer first, then what each part adds to those before."""
    model, full, rows = session.engine.model, session.full_plan(), session.decoding.batch_size
    free, chosen = session.task.answering("free"), session.task.answering("choice")
    source, _ = load_transformers(session.model.name, adapter=session.model.adapter)
    source = source.to(model.decoder.device, DTYPES[session.model.dtype])
    theirs = TransformersEngine(source, session.engine, rows)
    yield Climber(TRANSFORMERS, "its own generate, branches side by side", theirs, free, full)
    alone = TorchEngine(model, batch_size=rows, share=False)
    yield Climber("step", "our step", alone, free, full)
    shared = TorchEngine(model, batch_size=rows)
    yield Climber("shared prompts", "shared prompts", shared, free, full)
    drafted, chose, planned = (TorchEngine(model, batch_size=rows, stands=session.engine.stands) for _ in range(3))
    for engine in (drafted, chose, planned):
        engine.drafter = Drafter("stage", partial(time_forwards, engine), model.eos_ids)
    yield Climber("drafts", "drafts", drafted, free, full)
    yield Climber("choices", "answers by choice", chose, chosen, full)
    yield Climber("plan", "a skip plan", planned, chosen, plan)


def _rungs(climbers: Sequence[Climber], samples: Sequence[Sample], traces: dict[str, list[Trace]]) -> Iterator[Rung]:
    times, first = medians(samples), climbers[0].name
    baseline = question_scores(traces[first])
    for climber in climbers:
        faster = speedup(times[first], times[climber.name], baseline_name=first)
        own, theirs = traces[climber.name], traces[first]
        yield Rung(
            name=climber.name,
            adds=climber.adds,
            seconds=faster.seconds,
            ratio=faster.speedup,
            low=faster.low,
            high=faster.high,
            change_points=(paired := compare(baseline, question_scores(own))).difference,
            paired=paired,
            accuracy=score(own),
            same_texts=sum(_texts(a) == _texts(b) for a, b in zip(own, theirs, strict=True)) / len(own),
        )


def _texts(trace: Trace) -> list[str]:
    return [done.text for stage in trace.stages for done in stage.completions]
