"""Seconds: a cost model fitted to this machine, and the wall clock."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch

from litestage.core import Decode, Plan, Prefill, StageTrace, Trace, passes
from litestage.engine import TorchEngine, time_passes
from litestage.engine.processes import torch_threads
from litestage.engine.step_times import now
from litestage.engine.timing import OnProgress, PassTime
from litestage.evaluation import CostModel, Sample, fit
from litestage.evaluation.pricing import work_of
from litestage.jobs.options import EvaluateOptions
from litestage.jobs.session import Session
from litestage.pipeline import Listener, Votes, header_of, run
from litestage.tasks import Question, Stage, Task

LATENCY_FILE = "latency.json"
TURNS = 2
"""How often each question is timed where systems are compared."""
TRUSTED = 0.05
"""Median error of a fit, as a share, above which this machine is timed again."""
FITS = 2
"""Fits at most."""
GREEDY = EvaluateOptions()
REPEATS = 7
"""Times that each forward is timed, after one that warms up."""


def cost_model(session: Session, traces: Sequence[Trace], questions_at_once: int = 1) -> CostModel:
    """Prices fitted to this machine at the sizes that the traces have; remembered: a resumed job prices alike."""
    rows, contexts = decode_sizes(traces)
    if questions_at_once > 1:
        rows = sorted({*rows, questions_at_once, questions_at_once * rows[-1]})
    prefills = prefill_sizes(traces, contexts[-1])

    def fitted() -> CostModel:
        session.settle()
        session.progress.start(f"timing {session.cluster.price_on or 'this machine'}", REPEATS + 1)
        on_progress = None if session.cluster.price_on else lambda done, of: session.progress.advance()
        threads, times = session.timed(partial(time_forwards, rows, contexts, prefills, on_progress))
        return fit(times, session.conditions_at(threads))

    def trusted() -> CostModel:
        """Other work on the machine bends a fit: the best of several, until one is good."""
        best = fitted()
        for _ in range(FITS - 1):
            if best.decode_error.median <= TRUSTED:
                break
            best = min(best, fitted(), key=lambda model: model.decode_error.median)
        return best

    inputs = [rows, contexts, [str(work) for work in prefills]]
    model = session.folder.remember(LATENCY_FILE, inputs, CostModel, trusted)
    for sentence in distrust(model):
        session.progress.say(sentence)
    return model


def distrust(model: CostModel) -> list[str]:
    """What a reader of prices has to know, where the fit is worse than `TRUSTED`."""
    if model.decode_error.median <= TRUSTED:
        return []
    return [
        f"Prices of decode steps miss the times they were fitted to by {model.decode_error.median:.0%} in the median: "
        "other work kept this machine busy. Smaller differences in price mean nothing. Run again when it is quiet."
    ]


def drawn(questions: Sequence[Question], count: int, seed: int) -> list[Question]:
    """So many of the questions, drawn by the seed, in their order: the first ones may be easy or long."""
    chosen = set(random.Random(seed).sample(range(len(questions)), min(count, len(questions))))
    return [question for place, question in enumerate(questions) if place in chosen]


def time_forwards(
    rows: Sequence[int],
    contexts: Sequence[int],
    prefills: Sequence[Prefill],
    on_progress: OnProgress | None,
    engine: TorchEngine,
) -> tuple[int, list[PassTime]]:
    """Forwards of these sizes timed where the engine is, and with how many threads: the best for decoding."""
    threads = fewest_threads(rows[-1], contexts[-1], engine)
    with torch_threads(threads):
        return threads, time_passes(engine, rows, contexts, prefills, REPEATS, on_progress=on_progress)


def best_threads(session: Session, rows: int, context: int) -> int:
    """The thread count at which so many rows decode faster, where times are taken."""
    session.settle()
    return session.timed(partial(fewest_threads, rows, context))


def fewest_threads(rows: int, context: int, engine: TorchEngine) -> int:
    """One thread or all that torch uses, whichever decodes faster.

    A small model's decode step is over before a second thread has woken up.
    """
    everything = torch.get_num_threads()
    if everything == 1 or engine.model.decoder.device.type != "cpu":
        return everything
    seconds: dict[int, list[float]] = {1: [], everything: []}
    for _ in range(5):
        for count, times in seconds.items():
            with torch_threads(count):
                done = time_passes(engine, [rows], [context], (), repeats=1)
            times += [one.seconds for one in done if isinstance(one.work, Decode)]
    return min(seconds, key=lambda count: median(seconds[count]))


def decode_sizes(traces: Sequence[Trace]) -> tuple[list[int], list[int]]:
    """Row counts and contexts of decode steps worth timing: what one question at a time needs, and both its ends."""
    stages = [stage for trace in traces for stage in trace.stages if stage.completions]
    branches = max(len(stage.completions) for stage in stages)
    rows = sorted({1, 2, *([3] if branches > 3 else []), branches})
    lengths = [length for stage in stages for length in stage.prompt_tokens]
    longest = max(
        length + len(c.token_ids) for s in stages for length, c in zip(s.prompt_tokens, s.completions, strict=True)
    )
    return rows, sorted({max(2, min(lengths)), (min(lengths) + longest) // 2 + 1, longest + 1})


def prefill_sizes(traces: Sequence[Trace], longest: int) -> list[Prefill]:
    """Prefills worth timing: some of those that one question at a time needs, and what tells a price's parts apart."""
    parts = [part for trace in traces for stage in trace.stages for part in work_of(stage) if part]
    needed = sorted(
        {
            Prefill(work.rows, work.tokens // work.rows * work.rows, work.context)
            for part in parts
            for work in passes(part, len(part))
            if isinstance(work, Prefill) and work.tokens >= work.rows
        },
        key=lambda work: (work.tokens, work.context),
    )
    alike = [[work for work in needed if work.rows == rows] for rows in sorted({work.rows for work in needed})]
    spread = [some[round(share * (len(some) - 1))] for some in alike for share in (0, 0.25, 0.5, 0.75, 1)]
    few = min((work.tokens // work.rows for work in needed), default=1)
    far = max(longest, 2 * few + 1)
    corners = [Prefill(1, few, few), Prefill(1, few, far), Prefill(1, 2 * few, far), Prefill(2, 2 * few, few)]
    return list(dict.fromkeys([*spread, *corners]))


def wall_clock(
    session: Session,
    plans: Mapping[str, Plan],
    questions: Sequence[Question],
    threads: int,
    *,
    voting: EvaluateOptions = GREEDY,
    tasks: Mapping[str, Task] | None = None,
    turns: int = 1,
) -> list[Sample]:
    """Time fresh runs, one question at a time, the plans in turn on each question, all of it ``turns`` times.

    A question runs greedily, or with the votes that ``voting`` asks for side by side. Which plan goes first alternates.
    A question's own prompts are never warm; what every question shares is. ``tasks`` are other forms of the task that
    some plans run, by the plan's name. Every turn is kept in the session's folder, so that a killed timing goes on, and
    one that ended tells the same times again.
    """
    forms = {name: (tasks or {}).get(name, session.task) for name in plans}
    inputs = _inputs(plans, forms, questions, threads, voting)
    name = f"wall-{session.folder.stamp(inputs)[:16]}.json"
    samples = session.folder.recall(name, inputs, list[Sample]) or []
    done = len(samples) // len(plans)
    if done >= turns * len(questions):
        return samples[: turns * len(questions) * len(plans)]

    def timed(name: str, question: Question, turn: int = 0) -> Sample:
        plan, votes = plans[name], Votes(voting.votes, session.decoding.seed, voting.stop)
        sample = session.timed(partial(time_question, name, plan, forms[name], question, votes), threads, plan)
        return sample.model_copy(update={"turn": turn})

    session.settle()
    steps_are_captured = session.engine.model.decoder.device.type == "cuda"
    for question in questions if steps_are_captured else questions[:1]:  # a new shape is captured, once, in seconds
        for plan in plans:
            timed(plan, question)
    session.progress.start("timing by the wall clock", turns * len(questions) - done)
    for at in range(done, turns * len(questions)):
        turn, place = divmod(at, len(questions))
        names = list(plans) if (turn + place) % 2 == 0 else list(plans)[::-1]
        samples += [timed(plan, questions[place], turn) for plan in names]
        session.folder.keep(name, inputs, list[Sample], samples)
        session.progress.advance()
    return samples


def _inputs(
    plans: Mapping[str, Plan],
    forms: Mapping[str, Task],
    questions: Sequence[Question],
    threads: int,
    voting: EvaluateOptions,
) -> list[Any]:
    """All that the times depend on."""
    stages = {name: plan.model_dump(mode="json", include={"stages"}) for name, plan in plans.items()}
    tasks = {name: task.fingerprint for name, task in forms.items()}
    asked = [question.model_dump(mode="json") for question in questions]
    drawn = [voting.votes, voting.stop.model_dump() if voting.stop else None]
    return [stages, tasks, asked, threads, drawn]


def time_question(name: str, plan: Plan, task: Task, question: Question, votes: Votes, engine: TorchEngine) -> Sample:
    """One fresh run by the clock, in all and by stage."""
    device = engine.model.decoder.device
    stages = dict.fromkeys(task.stage_names, 0.0)
    engine.forget([header_of(engine, task, stage) for stage in task.stages])  # what every question shares stays
    begun = last = now(device)

    def on_stage(stage: Stage, traces: Sequence[StageTrace]) -> None:
        nonlocal last
        before, last = last, now(device)
        stages[stage.name] += last - before

    run(engine, task, [question], plan, votes, tell=Listener(on_stage=on_stage))
    return Sample(system=name, question_id=question.id, seconds=now(device) - begun, stage_seconds=stages)
