"""What a cluster's driver, store and network carry: rates of this machine, for the arithmetic in docs/cluster.md.

The workers answer at once, from what was decoded before, so that nothing but the way there and back takes time.
"""

from __future__ import annotations

import pickle
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ray

from litestage.cluster.connect import connect
from litestage.cluster.pool import RayPool
from litestage.core import Completion, Engine, Event, Finished, Request
from litestage.engine import CachedEngine, TorchEngine
from litestage.jobs.options import ModelOptions
from litestage.jobs.session import Session, load, load_engine
from litestage.pipeline import flow, run

QUESTIONS, COPIES = 40, 8
Known = dict[str, Completion]


class Instant(TorchEngine):
    """Knows its answers."""

    def __init__(self, options: ModelOptions, known: Known) -> None:
        super().__init__(load_engine(options, 32).model, batch_size=32)
        self.known = known
        self.done: list[Finished] = []
        self.count = 0

    def add(self, request: Request, *, stream: bool = False) -> int:
        self.count += 1
        plain = request.model_copy(update={"seed": 0})
        self.done.append(Finished(self.count, self.known[plain.key()]))
        return self.count

    def work(self) -> list[Event]:
        events, self.done = list[Event](self.done), []
        return events


class Recording(CachedEngine):
    """Keeps what it was asked beside what came."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.asked: list[Request] = []

    def add(self, request: Request, *, stream: bool = False) -> int:
        self.asked.append(request)
        return super().add(request, stream=stream)


def seconds(act: Callable[[], object]) -> float:
    """Of this process's own processor time: it does not depend on who else is at work, and a driver has no more than
    one second of it a second."""
    begun = time.process_time()
    act()
    return time.process_time() - begun


def main() -> None:
    session = load()
    questions, plan = session.questions("dev", QUESTIONS), session.full_plan()
    recording = Recording(session.engine)
    run(recording, session.task, questions, plan, questions_at_once=QUESTIONS)
    requests = list(dict.fromkeys(recording.asked))
    completions = recording.generate(requests)
    known = {one.key(): done for one, done in zip(requests, completions, strict=True)}
    print(f"{len(requests)} requests of {QUESTIONS} questions")
    sent, came = len(pickle.dumps(requests)), len(pickle.dumps(completions))
    print(f"bytes a request: {sent / len(requests):.0f} there, {came / len(requests):.0f} back")
    _store(session, requests, completions, known)
    connect("local", 2)
    many = [one.model_copy(update={"seed": copy}) for copy in range(COPIES) for one in requests]
    for workers in (1, 2):
        pool = RayPool(session.engine, partial(Instant, session.model, known), workers)
        pool.generate(many)
        took = seconds(partial(pool.generate, many))
        print(f"{workers} instant workers: the driver spends {1e3 * took / len(many):.2f} ms a request")
        if workers == 2:
            _questions(session, pool)
        pool.close()
    _wait()


def _store(session: Session, requests: list[Request], completions: list[Completion], known: Known) -> None:
    """Completions written, by what it takes longer to answer from memory with a store than without."""
    size = sum(len(done.model_dump_json()) for done in completions) / len(completions)
    instant = Instant(session.model, known)
    with tempfile.TemporaryDirectory() as folder:
        stored = CachedEngine(instant, Path(folder) / "completions.sqlite")
        spent = seconds(lambda: stored.generate(requests)) - seconds(lambda: instant.generate(requests))
        stored.close()
    print(f"the store: {size:.0f} bytes a completion, {1e3 * spent / len(requests):.2f} ms to write one")


def _questions(session: Session, pool: RayPool) -> None:
    """The whole of the driver's work: prompts, store, traces."""
    questions, plan = session.questions("dev", QUESTIONS), session.full_plan()
    with tempfile.TemporaryDirectory() as folder:
        stored = CachedEngine(pool, Path(folder) / "completions.sqlite")
        whole = seconds(lambda: flow(stored, session.task, questions, plan, at_once=pool.capacity))
        again = seconds(lambda: flow(stored, session.task, questions, plan, at_once=pool.capacity))
        stored.close()
    print(f"whole driver: {1e3 * whole / QUESTIONS:.2f} ms a question; from the store {1e3 * again / QUESTIONS:.2f} ms")


def _wait() -> None:
    """How long the driver needs to see which of many shards came back."""

    @ray.remote(num_cpus=0)
    class Slow:
        def sleep(self, seconds: float) -> None:
            time.sleep(seconds)

    slow = Slow.remote()
    references = [slow.sleep.remote(0.5) for _ in range(2000)]
    ready = ray.put(1)
    took = min(seconds(lambda: ray.wait([ready, *references], num_returns=2001, timeout=0)) for _ in range(20))
    print(f"a look at 2,000 shards under way: {1e3 * took:.1f} ms")
    ray.kill(slow)


if __name__ == "__main__":
    main()
