"""A plan inside transformers' `generate`, beside plain `generate` and our engine: time of a step, and memory.

Each precision of each has a process of its own, so that its memory is its own; they are timed in turn.
"""

from __future__ import annotations

import signal
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from transformers import PreTrainedModel

from litestage.benchmarks.decode import STEPS, endless, our_steps, prompts_of, skip_sets
from litestage.benchmarks.memory import resident
from litestage.benchmarks.options import DropInBenchOptions
from litestage.benchmarks.peers import transformers_steps
from litestage.core import Machine, ModelIdentity, Plan, SkipSchedule, SkipSet, StagePlan
from litestage.hf import PlanFolder, apply_plan
from litestage.jobs.progress import Progress
from litestage.jobs.session import hardware, versions
from litestage.models.load import load_model, load_transformers
from litestage.results.benchmarks import NOTHING_SKIPPED, OURS, DropInBench, DropInMemory, StepTime

GENERATE, DROP_IN = "generate", "apply_plan"
STAGE = "stage"
HALF = "half of the blocks"


@dataclass(frozen=True)
class Subject:
    """One model in one process."""

    engine: str
    """`GENERATE`, which is timed with and without a plan, or `OURS`."""
    dtype: str
    quantisation: str


SUBJECTS = (
    Subject(GENERATE, "fp32", "none"),
    Subject(GENERATE, "bf16", "none"),
    Subject(OURS, "fp32", "none"),
    Subject(OURS, "bf16", "none"),
    Subject(OURS, "bf16", "int8"),
)


def half_of(num_blocks: int) -> SkipSet:
    """Every second block."""
    return next(skipped for name, skipped in skip_sets(num_blocks).items() if name.endswith(" blocks"))


def bench_drop_in(model: str, options: DropInBenchOptions, progress: Progress) -> DropInBench:
    """Time steps on the CPU, ``repeats`` samples of each setting in turn, and read each process' memory behind them."""
    rows, context = options.rows, options.context
    progress.start("loading", len(SUBJECTS))
    processes = []
    try:
        for subject in SUBJECTS:
            made_of = (model, subject, max(rows), context, torch.get_num_threads())
            processes.append(ProcessPoolExecutor(1, get_context("spawn"), initializer=_load, initargs=made_of))
            processes[-1].submit(_memory).result()
            progress.advance()
        settings = [(one, count, plan) for one in range(len(SUBJECTS)) for count in rows for plan in (False, True)]
        times: dict[tuple[int, int, bool], list[float]] = {setting: [] for setting in settings}
        progress.start("decoding", options.repeats * len(settings))
        for _ in range(options.repeats):
            for one, count, plan in settings:
                times[one, count, plan].append(processes[one].submit(_step, count, plan).result())
                progress.advance()
        memory = [process.submit(_memory).result() for process in processes]
    finally:
        for process in processes:
            process.shutdown()
    return DropInBench(
        model=model,
        context=context,
        repeats=options.repeats,
        steps=tuple(_time(SUBJECTS[one], count, plan, taken) for (one, count, plan), taken in times.items()),
        memory=tuple(
            DropInMemory(engine=s.engine, dtype=s.dtype, quantisation=s.quantisation, loaded_mb=loaded, peak_mb=peak)
            for s, (loaded, peak) in zip(SUBJECTS, memory, strict=True)
        ),
        conditions=Machine(
            hardware=hardware(torch.device("cpu")),
            device="cpu",
            threads=torch.get_num_threads(),
            versions=versions(torch.device("cpu")),
            kernels="litestage",
        ),
    )


def _time(subject: Subject, rows: int, plan: bool, seconds: Sequence[float]) -> StepTime:
    median = statistics.median(seconds)
    low, high = (median, median) if len(seconds) < 2 else statistics.quantiles(seconds, n=4)[::2]
    return StepTime(
        engine=DROP_IN if plan and subject.engine == GENERATE else subject.engine,
        rows=rows,
        dtype=subject.dtype,
        quantisation=subject.quantisation,
        skipped=HALF if plan else NOTHING_SKIPPED,
        ms_per_step=1e3 * median,
        ms_low=1e3 * low,
        ms_high=1e3 * high,
        tokens_per_s=rows / median,
        samples=len(seconds),
    )


_timed: Callable[[int, bool], Callable[[int], float]] | None = None
"""What its process times: steps of so many rows, under the plan or at full depth."""


def _load(model: str, subject: Subject, rows: int, context: int, threads: int) -> None:
    global _timed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits for this one
    torch.set_num_threads(threads)
    _timed = (
        _generate(model, subject, rows, context) if subject.engine == GENERATE else _ours(model, subject, rows, context)
    )


def _ours(model: str, subject: Subject, rows: int, context: int) -> Callable[[int, bool], Callable[[int], float]]:
    loaded = load_model(model, dtype=subject.dtype, quantise=subject.quantisation, device="cpu")
    engine = endless(loaded, rows, context + STEPS)
    prompts = prompts_of(rows, context, loaded.decoder.head.shape[0])
    half = half_of(loaded.identity.num_blocks)
    return lambda count, plan: our_steps(engine, prompts[:count], half if plan else frozenset())


def _generate(model: str, subject: Subject, rows: int, context: int) -> Callable[[int, bool], Callable[[int], float]]:
    source, _ = load_transformers(model, dtype=subject.dtype)
    blocks = source.config.num_hidden_layers
    prompts = prompts_of(rows, context, source.config.vocab_size)
    stage = StagePlan(schedule=SkipSchedule.fixed(half_of(blocks)))
    of = ModelIdentity(id=model, fingerprint="", num_blocks=blocks)
    folder = PlanFolder(Plan(model=of, task=STAGE, task_fingerprint="", stages={STAGE: stage}), Path())

    def steps(count: int, plan: bool) -> Callable[[int], float]:
        plain = transformers_steps(source, "dynamic", prompts[:count])
        return partial(_under, source, folder, plain) if plan else plain

    return steps


def _under(source: PreTrainedModel, folder: PlanFolder, steps: Callable[[int], float], count: int) -> float:
    with apply_plan(source, folder, STAGE, check=False):  # the plan is made for this model, and for nothing else
        return steps(count)


def _step(rows: int, plan: bool) -> float:
    assert _timed is not None
    return _timed(rows, plan)(STEPS)


def _memory() -> tuple[float, float]:
    """Resident megabytes, and the most there ever were."""
    return resident(), resident("VmHWM")
