"""A model copy in a process of its own, on some machine of the cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from psutil import cpu_count

from litestage.cluster.likeness import Likeness, likeness
from litestage.core import Completion, Failed, Finished, LitestageError, Request
from litestage.engine import TorchEngine
from litestage.engine.processes import torch_threads
from litestage.models.decoder import CompensationWeights

Load = Callable[[], TorchEngine]


@dataclass(frozen=True)
class Place:
    """Where a worker is, and what it computes with."""

    node: str
    """Ray's id of the machine."""
    address: str
    pid: int
    likeness: Likeness


class Worker:
    """The methods are a Ray actor's; requests that come while others are decoded join them."""

    def __init__(self, load: Load, threads: int) -> None:
        self._load, self._threads = load, threads
        self._made: tuple[TorchEngine, Likeness] | None = None
        self._done: dict[int, Completion | str] = {}
        """Completions that their shards have not taken yet, or why there is none, by the engine's ids."""
        self._shards: dict[int, dict[int, int]] = {}
        """Of each shard under way: the engine's id of what stands at each place."""

    async def ready(self) -> Place | LitestageError:
        """Load the model; where it is done, or why it cannot be."""
        import ray

        try:
            _, mine = self._loaded()
        except LitestageError as error:
            return error
        context = ray.get_runtime_context()
        return Place(context.get_node_id(), ray.util.get_node_ip_address(), os.getpid(), mine)

    async def answer(
        self, shard: int, requests: Sequence[Request], weights: Mapping[str, Sequence[Any]], expected: Likeness
    ) -> list[Completion | str | None] | LitestageError | Likeness:
        """Completions in the order of the requests, or why there is none; None for those cancelled. Its own likeness
        where it is another than ``expected``: an actor that died starts again wherever there is room.

        ``weights`` are references to what stands in for skipped sub-layers, each in a sequence of its own, so that only
        a worker that does not know it fetches it.
        """
        engine, mine = self._loaded()
        if mine != expected:
            return mine
        for content, (reference,) in weights.items():
            if content not in engine.stands:
                stand: CompensationWeights = await reference
                engine.stands[content] = stand
        ids: dict[int, int] = {}
        self._shards[shard] = ids
        try:
            for place, request in enumerate(requests):
                ids[place] = engine.add(request)
            while not self._done.keys() >= set(ids.values()):
                for event in engine.step():
                    if isinstance(event, Finished):
                        self._done[event.id] = event.completion
                    elif isinstance(event, Failed):
                        self._done[event.id] = event.reason
                await asyncio.sleep(0)  # others' shards, and what is cancelled
            return [self._done.pop(ids[place]) if place in ids else None for place in range(len(requests))]
        except BaseException as error:
            for id in ids.values():
                engine.cancel(id)
                self._done.pop(id, None)
            if isinstance(error, LitestageError):
                return error
            raise
        finally:
            del self._shards[shard]

    async def cancel(self, shard: int, places: Sequence[int]) -> None:
        """Drop some of a shard's requests, if it is still at work."""
        engine, _ = self._loaded()
        ids = self._shards.get(shard, {})
        for place in places:
            if (id := ids.pop(place, None)) is not None:
                engine.cancel(id)
                self._done.pop(id, None)

    async def apply(
        self, function: Callable[[TorchEngine], Any], threads: int | None, stands: Mapping[str, CompensationWeights]
    ) -> Any:
        """What a function makes of this worker's engine, with so many threads, or one a core of this machine."""
        engine, _ = self._loaded()
        engine.stands.update(stands)
        with torch_threads(threads or cpu_count(logical=False) or 1):
            return function(engine)

    def _loaded(self) -> tuple[TorchEngine, Likeness]:
        if self._made is None:
            torch.set_num_threads(self._threads)
            engine = self._load()
            self._made = engine, likeness(engine)
        return self._made
