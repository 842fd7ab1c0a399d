"""Several processes that answer questions into one cache: a small model's decode step cannot use two cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch

from litestage.core import LitestageError, Plan
from litestage.runner import CachedEngine, run
from litestage.skipping import load_stands
from litestage.tasks import Question, Task
from litestage.workflows.progress import SILENT, Progress
from litestage.workflows.workbench import Options, Workbench


@dataclass(frozen=True)
class Job:
    """A plan to run over the questions, and the form of the task that it runs."""

    plan: Plan
    task: Task


@dataclass
class _Worker:
    bench: Workbench
    engine: CachedEngine
    questions: Sequence[Question]
    folder: Path


_worker: list[_Worker] = []
"""The one of this process."""


def answer_ahead(
    bench: Workbench,
    questions: Sequence[Question],
    out: Path,
    jobs: Sequence[Job],
    *,
    workers: int,
    what: str,
    progress: Progress = SILENT,
) -> None:
    """Have the completions of all jobs in ``out``'s cache; whoever runs the jobs afterwards decodes nothing.

    Compensations must lie in ``out``. With one worker, few jobs, or a device that is no CPU, nothing is done ahead.
    """
    if workers < 2 or bench.engine.model.decoder.device.type != "cpu" or len(jobs) <= 2 * workers:
        return
    progress.start(what, len(jobs))
    threads = max(1, (os.cpu_count() or 1) // workers)
    start = bench.options, list(questions), out, threads
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(min(workers, len(jobs)), spawn, _begin, start) as pool:
            _follow([pool.submit(_do, job) for job in jobs], progress)
    except BrokenProcessPool:
        raise LitestageError(
            "A process that answered questions died; each holds a model of its own, so memory may have run out. Run "
            "the command again with --workers 1: it goes on from what was answered."
        ) from None


def _follow(jobs: Sequence[Future[None]], progress: Progress) -> None:
    """Wait for all; whoever interrupts does not wait for those that are under way."""
    try:
        for done in as_completed(jobs):
            done.result()
            progress.advance()
    except KeyboardInterrupt:
        for child in multiprocessing.active_children():
            child.terminate()
        raise


def _begin(options: Options, questions: Sequence[Question], out: Path, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    bench = Workbench(options)
    _worker[:] = [_Worker(bench, bench.cached(out), questions, out)]


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers, and they would answer on for minutes."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _do(job: Job) -> None:
    (worker,) = _worker
    load_stands(worker.folder, [stage.compensation for stage in job.plan.stages.values()], worker.bench.engine)
    size = worker.bench.options.batch_size
    run(worker.engine, job.task, worker.questions, job.plan, questions_at_once=size)
