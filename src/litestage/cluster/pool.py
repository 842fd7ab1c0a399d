"""A Ray pool as an engine: requests go to workers, each of which has loaded the model once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import ray
from psutil import cpu_count
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from litestage.cluster.connect import Share, connect, cpus_of_a_node, environment, find_node, room
from litestage.cluster.likeness import likeness
from litestage.cluster.worker import Load, Worker
from litestage.cluster.workers import IN_FLIGHT, Say, Workers
from litestage.core import Event
from litestage.engine import TorchEngine
from litestage.engine.sharing import SharingEngine
from litestage.jobs.options import ClusterOptions
from litestage.jobs.progress import Progress
from litestage.jobs.session import hardware
from litestage.models.decoder import CompensationWeights

T = TypeVar("T")
Tell = Callable[[], None]
WAIT = 1.0
"""Seconds that a step waits for workers at most."""
LOADING = 120.0
"""Seconds that whoever takes times waits for workers that load their model."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, and what it computes with."""

    id: str
    name: str
    hardware: str

    def __str__(self) -> str:
        return f"{self.hardware} (node {self.name})"


def open_pool(where: ClusterOptions, engine: TorchEngine, load: Load, narrow: bool, listener: Progress) -> RayPool:
    """Join or start the cluster and have so many workers load the model, or as many as there is room for.

    A narrow model's worker takes one core of a processor, a wider one's all of a machine; on GPUs each has its own.
    """
    assert where.cluster is not None
    cores = cpu_count(logical=False) or 1
    gpus = engine.model.decoder.device.type == "cuda"
    connect(where.cluster, where.workers or cores)
    share = Share(1, 1) if gpus else Share(1 if narrow else cpus_of_a_node())
    first_on = None if where.price_on is None else find_node(where.price_on)["NodeID"]
    count = where.workers or room(share)
    pool = RayPool(
        *(engine, load, count, share),
        first_on=first_on,
        say=listener.say,
        tell=lambda: listener.advance(0, str(pool)),
    )
    pool.start()
    return pool


def _hardware(engine: TorchEngine) -> str:
    return hardware(engine.model.decoder.device)


class RayPool(SharingEngine):
    """The engine of this process, which asks, and those of ``count`` workers, which answer.

    A request's completion does not depend on who decodes it, but for the last bits of confidences in fp32: workers
    that could write other texts are left out. What a worker that died had goes to others. Of a process's pools one has
    workers at a time: another one's, if it is asked, end.
    """

    _at_work: ClassVar[RayPool | None] = None

    def __init__(
        self,
        engine: TorchEngine,
        load: Load,
        count: int,
        share: Share = Share(),
        *,
        first_on: str | None = None,
        say: Say = lambda sentence: None,
        tell: Tell = lambda: None,
    ) -> None:
        """``load`` makes the same engine on another machine; ``first_on`` is the id of a node that has a worker.
        ``say`` hears of workers that died or were left out, ``tell`` that a shard came back."""
        super().__init__(engine)
        self.count = count
        self._load, self._share, self._first_on, self._say, self._tell = load, share, first_on, say, tell
        self._workers: Workers | None = None

    @property
    def capacity(self) -> int:
        """Requests that the workers have at a time."""
        return IN_FLIGHT * self.own.batch_size * self.count

    def __str__(self) -> str:
        return str(self._workers or f"{self.count} workers")

    def cancel(self, id: int) -> None:
        """See `litestage.core.Engine`; workers stop decoding it."""
        super().cancel(id)
        if self._workers is not None:
            self._workers.cancel(id)

    def work(self) -> list[Event]:
        """Share out what has arrived; then a step of this process, or what the next worker is done with."""
        if self._arrived:
            self.start().ask(self._arrived, self.own.stands)
            self._arrived = {}
        events = self._own_step()
        if self._workers is not None and self._workers.busy:
            if came := self._workers.hear(0.0 if events or self._mine else WAIT):
                self._tell()
            events += came
        return events

    def start(self) -> Workers:
        """The workers, started if they are not."""
        if self._workers is None:
            if RayPool._at_work is not None:
                RayPool._at_work.close()
            RayPool._at_work = self
            self._workers = Workers(self._actors(), likeness(self.own), self.own.batch_size, self._say)
        return self._workers

    def settle(self) -> None:
        """Leave none that is still loading: it would disturb whoever takes times next."""
        if self._workers is not None:
            self._workers.settle(LOADING)

    def node(self, wanted: str) -> Node:
        """A machine by its name, address or the beginning of its id."""
        found = find_node(wanted)
        on = self.on(found["NodeID"], _hardware, None, {})
        return Node(found["NodeID"], found["NodeName"], on)

    def on(
        self,
        node: str,
        function: Callable[[TorchEngine], T],
        threads: int | None,
        stands: Mapping[str, CompensationWeights],
    ) -> T:
        """What a function makes of the engine of a worker on a node, with so many threads, or as many as that machine
        has cores; ``stands`` are what its plans need in place of skipped sub-layers."""
        self.settle()
        made: T = self.start().apply(node, function, threads, stands)
        return made

    def close(self) -> None:
        """End the workers; a later call starts them anew."""
        if self._workers is not None:
            self._workers.close()
        self._workers = None
        if RayPool._at_work is self:
            RayPool._at_work = None
        super().close()

    def _actors(self) -> list[Any]:
        options = {
            "num_cpus": self._share.cpus,
            "num_gpus": self._share.gpus,
            "max_restarts": -1,
            "max_task_retries": 0,
            "runtime_env": {"env_vars": environment()},
        }
        actor = ray.remote(Worker)
        strategies: list[Any] = ["SPREAD"] * self.count
        if self._first_on is not None:
            strategies[0] = NodeAffinitySchedulingStrategy(self._first_on, soft=False)
        return [
            actor.options(**options, scheduling_strategy=strategy).remote(self._load, self._share.cpus)
            for strategy in strategies
        ]
