"""Several processes that answer as one engine: a small model's decode step cannot use two cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import torch

from litestage.core import Completion, Event, Failed, Finished, LitestageError, Request, UnansweredError
from litestage.engine import TorchEngine
from litestage.engine.sharing import SharingEngine
from litestage.models.decoder import CompensationWeights

Load = Callable[[], TorchEngine]
READY = "ready"


class ParallelEngine(SharingEngine):
    """This process's engine and those of ``others`` more processes: each takes a share of every call's requests.

    A request's completion does not depend on what is decoded beside it, but for the last bits of confidences in fp32,
    so neither on who decodes it. The others start with the first call that has work for all, and take part once they
    have loaded the model.
    """

    def __init__(self, engine: TorchEngine, load: Load, others: int) -> None:
        """``load`` makes the same engine in another process; it must be picklable."""
        super().__init__(engine)
        self._load = load
        self._others = others
        self._threads = max(1, torch.get_num_threads() // (others + 1))
        self._started: list[Other] = []
        self._shared = False
        """Whether this process has a share of work, beside others that have theirs or have done it."""

    def cancel(self, id: int) -> None:
        """See `litestage.core.Engine`; what another process has begun it ends, and nobody hears of it."""
        super().cancel(id)
        for other in self._started:
            other.ids = [None if known == id else known for known in other.ids]

    def work(self) -> list[Event]:
        """Share out what has arrived; then a step of this process, and what the others are done with."""
        try:
            if self._arrived:
                self._share_out()
            busy = [other for other in self._started if other.ids]
            self._shared = bool(busy) or (self._shared and bool(self._mine))
            with torch_threads(self._threads if self._shared else torch.get_num_threads()):
                events = self._own_step()
            idle = not self._mine
            return events + [event for other in busy if idle or other.is_done() for event in other.told()]
        except BaseException:  # who is still at work would answer the next call with this one's completions
            self.close()
            raise

    def _share_out(self) -> None:
        """A share of what has arrived for each process that has nothing to do; all for this one where it is little."""
        arrived, self._arrived = list(self._arrived.items()), {}
        others: list[Other] = []
        if len(arrived) > self._others:
            others = [other for other in self.others() if other.is_ready() and not other.ids]
        mine, *theirs = _shares(arrived, 1 + len(others))
        for other, share in zip(others, theirs, strict=True):
            other.ask(share, self.own.stands)
        for id, request in mine:
            self._mine[self.own.add(request)] = id

    def settle(self) -> None:
        """Leave none that is still loading: it would disturb whoever takes times next."""
        if not all(other.is_ready() for other in self._started):
            self.close()

    def close(self) -> None:
        """End the other processes; a later call starts them anew."""
        for other in self._started:
            other.end()
        self._started = []
        super().close()

    def others(self) -> Sequence[Other]:
        """The other processes, started if they are not."""
        if not self._started:
            self._started = [Other(self._load, self._threads) for _ in range(self._others)]
        return self._started


class Other:
    """One more process, as its parent sees it."""

    def __init__(self, load: Load, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, load, threads), daemon=True)
        with _deaf_to_ctrl_c():
            self._process.start()
        theirs.close()
        self._ready = False
        self.ids: list[int | None] = []
        """Of what it was asked for last; None where nobody waits for it any more."""
        self._stands: set[str] = set()
        """What stands in for skipped sub-layers, as far as the process knows it."""

    def is_ready(self) -> bool:
        if not self._ready and self._connection.poll():
            self._ready = self._hear() == READY
        return self._ready

    def ask(self, share: Sequence[tuple[int, Request]], stands: dict[str, CompensationWeights]) -> None:
        requests = [request for _, request in share]
        needed = {request.stage_plan.compensation.content for request in requests} - self._stands
        fresh = {content: stands[content] for content in needed if content is not None}
        self._stands |= fresh.keys()
        try:
            self._connection.send((requests, fresh))
        except OSError:
            raise _died() from None
        self.ids = [id for id, _ in share]

    def is_done(self) -> bool:
        """Whether it has an answer, or will have none any more."""
        return self._connection.poll()

    def told(self) -> list[Event]:
        """What it was asked for, once it is done."""
        ids, self.ids = self.ids, []
        return [
            Failed(id, done) if isinstance(done, str) else Finished(id, done)
            for id, done in zip(ids, self._hear(), strict=True)
            if id is not None
        ]

    def end(self) -> None:
        self._process.terminate()
        self._process.join()
        self._connection.close()

    def _hear(self) -> Any:
        try:
            heard = self._connection.recv()
        except (EOFError, OSError):
            raise _died() from None
        if isinstance(heard, Exception):
            raise heard
        return heard


def _shares(requests: Sequence[tuple[int, Request]], count: int) -> list[Sequence[tuple[int, Request]]]:
    """As many requests for each; neighbours, which share the beginnings of their prompts, stay together."""
    ends = [round(len(requests) * i / count) for i in range(count + 1)]
    return [requests[start:end] for start, end in pairwise(ends)]


def _died() -> LitestageError:
    return LitestageError(
        "A process that answered questions died; each holds a model of its own, so memory may have run out. Run "
        "the command again with --workers 1: it goes on from what was answered."
    )


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute with ``count`` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """A process started inside the block never hears it: the parent ends its workers. This one hears it afterwards."""
    resource_tracker.ensure_running()  # which makes its starter hear again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, load: Load, threads: int) -> None:
    """Answer what the parent asks until it ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    engine = load()
    with suppress(EOFError, ConnectionError):  # the parent needs no more answers, or needed none
        connection.send(READY)
        while True:
            connection.send(_answer(engine, *connection.recv()))


def _answer(
    engine: TorchEngine, requests: Sequence[Request], stands: dict[str, CompensationWeights]
) -> list[Completion | str] | LitestageError:
    """Completions, or why there is none."""
    engine.stands.update(stands)
    try:
        return [*engine.generate(requests)]
    except UnansweredError as error:
        return [error.done.get(place) or error.reasons[place] for place in range(len(requests))]
    except LitestageError as error:
        return error


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers, and they would answer on for minutes."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
