"""The driver's view of the workers: who is there, who has which shard, and what becomes of those of one that died.

Every worker has two shards at most, so that it never waits for the driver. Nothing of a shard is known until all of it
is, and the driver alone knows what is stored: a worker may die at any time, and costs its two shards.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from litestage.cluster.likeness import Likeness, differences
from litestage.cluster.worker import Place
from litestage.core import Completion, Event, Failed, Finished, LitestageError, Request
from litestage.models.decoder import CompensationWeights

IN_FLIGHT = 2
"""Shards that a worker has at a time."""
TRIES = 3
"""Workers that a request may take with it before it is given up."""
AGAIN = 0.5
"""Seconds until a worker that starts again is asked once more whether it is there."""
PATIENCE = 300.0
"""Seconds without any worker after which the job ends."""

Item = tuple[int, Request]
Stands = Mapping[str, CompensationWeights]
Say = Callable[[str], None]


@dataclass
class Shard:
    """Requests that go to one worker together, each with its id; None for one that nobody waits for any more."""

    items: list[Item | None]
    tries: int = 0
    """Workers that died over it: from the first on it is run with nothing beside it, from the second on one by one."""

    @property
    def living(self) -> list[Item]:
        return [item for item in self.items if item is not None]


@dataclass
class _Seat:
    """A worker as the driver knows it."""

    actor: Any
    ready: Any = None
    """The reference to an answer that is waited for: is it there?"""
    place: Place | None = None
    out: dict[Any, tuple[int, Shard]] = field(default_factory=dict)
    """Shards under way with their numbers, by the reference to their answer."""
    deaths: int = 0
    """While it loaded its model."""
    ask_at: float = 0.0


@dataclass(frozen=True)
class _At:
    """Where a request is."""

    seat: _Seat
    number: int
    shard: Shard
    place: int


class Workers:
    """Shards out, events in."""

    def __init__(self, actors: Sequence[Any], expected: Likeness, rows: int, say: Say) -> None:
        """``rows`` decode together in a worker; unlike machines, and what else a person should know, are said."""
        self._seats = [_Seat(actor) for actor in actors]
        self._expected, self._rows, self._say = expected, rows, say
        self._fresh: dict[int, Request] = {}
        """Not sent yet, in the order they came."""
        self._suspect: deque[Shard] = deque()
        """Those whose worker died."""
        self._sent = 0
        self._at: dict[int, _At] = {}
        """Requests under way."""
        self._references: dict[str, Any] = {}
        """What stands in for skipped sub-layers, as far as it was needed."""
        self._reason = "none was there"
        self._alive_at = time.monotonic()

    @property
    def places(self) -> list[Place]:
        """Of the workers that have loaded their model."""
        return [seat.place for seat in self._seats if seat.place is not None]

    @property
    def busy(self) -> bool:
        return bool(self._fresh or self._suspect or any(seat.out for seat in self._seats))

    def __str__(self) -> str:
        out = len(self._suspect) + sum(len(seat.out) for seat in self._seats)
        there = len(self.places)
        of = "" if there == len(self._seats) else f" of {len(self._seats)}"
        return f"{there}{of} worker{'s' * (len(self._seats) != 1)}, {out} shards out, {len(self._fresh)} requests wait"

    def ask(self, requests: Mapping[int, Request], stands: Stands) -> None:
        """Take requests in, by their ids."""
        self._fresh |= requests
        for request in requests.values():
            content = request.stage_plan.compensation.content
            if content is not None and content not in self._references:
                self._references[content] = ray.put(stands[content])

    def cancel(self, id: int) -> None:
        """Drop a request, also where it is decoded."""
        self._fresh.pop(id, None)
        for shard in self._suspect:
            shard.items = [item for item in shard.living if item[0] != id]
        if (at := self._at.pop(id, None)) is not None:
            at.shard.items[at.place] = None
            at.seat.actor.cancel.remote(at.number, [at.place])

    def hear(self, seconds: float) -> list[Event]:
        """Send what can be sent; what came back, waiting so long for it at most."""
        self._call()
        self._send()
        replies = {reference: seat for seat in self._seats for reference in (seat.ready, *seat.out) if reference}
        came: list[Any] = []
        if replies:
            waited, _ = ray.wait(list(replies), num_returns=1, timeout=seconds)
            came = ray.wait(list(replies), num_returns=len(replies), timeout=0)[0] if waited else []
        else:
            time.sleep(min(seconds, AGAIN))
        events: list[Event] = []
        for reference in came:
            seat = replies[reference]
            if seat not in self._seats:  # given up for what came with this one
                continue
            if reference == seat.ready:
                self._arrived(seat)
            else:
                events += self._answered(seat, reference)
        self._check()
        return events

    def settle(self, seconds: float) -> None:
        """Wait until no worker loads any more, but no longer than so."""
        until = time.monotonic() + seconds
        while any(seat.place is None for seat in self._seats) and time.monotonic() < until:
            self.hear(AGAIN)

    def apply(self, node: str, function: Callable[[Any], Any], threads: int | None, stands: Stands) -> Any:
        """What a function makes of the engine of a worker on a node."""
        seats = [seat for seat in self._seats if seat.place is not None and seat.place.node == node]
        if not seats:
            raise LitestageError(f"There is no worker on node {node} to take times on ({self._reason}).")
        try:
            return ray.get(seats[0].actor.apply.remote(function, threads, stands))
        except RayTaskError as error:
            raise _failure(error) from None
        except RayError as error:
            raise LitestageError(
                f"The worker on node {node} died while it took times ({self._note(error)}). Run the same command again."
            ) from None

    def close(self) -> None:
        for seat in self._seats:
            ray.kill(seat.actor)
        self._seats, self._fresh, self._suspect, self._at = [], {}, deque(), {}

    def _call(self) -> None:
        """Ask those that are not there whether they are."""
        for seat in self._seats:
            if seat.place is None and seat.ready is None and time.monotonic() >= seat.ask_at:
                seat.ready = seat.actor.ready.remote()

    def _send(self) -> None:
        """Shards to workers that have room. One whose worker died goes first, to a worker that has nothing else."""
        for round in range(IN_FLIGHT):
            for seat in self._seats:
                if seat.place is None or len(seat.out) > round or any(shard.tries for _, shard in seat.out.values()):
                    continue
                if self._suspect:
                    if not seat.out:
                        self._send_to(seat, self._suspect.popleft())
                elif self._fresh:
                    self._send_to(seat, self._cut())

    def _cut(self) -> Shard:
        """Of the requests that wait as many as decode together, or a share for every shard that could be sent.
        Neighbours, which share the beginnings of their prompts, stay together."""
        free = sum(IN_FLIGHT - len(seat.out) for seat in self._seats if seat.place is not None)
        size = min(self._rows, -(-len(self._fresh) // free))
        items = list(islice(self._fresh.items(), size))
        for id, _ in items:
            del self._fresh[id]
        return Shard([*items])

    def _send_to(self, seat: _Seat, shard: Shard) -> None:
        living = shard.living
        if not living:
            return
        self._sent += 1
        shard.items = [*living]
        self._at |= {id: _At(seat, self._sent, shard, place) for place, (id, _) in enumerate(living)}
        requests = [request for _, request in living]
        contents = {request.stage_plan.compensation.content for request in requests}
        weights = {content: [self._references[content]] for content in contents if content is not None}
        reference = seat.actor.answer.remote(self._sent, requests, weights, self._expected)
        seat.out[reference] = self._sent, shard

    def _arrived(self, seat: _Seat) -> None:
        reference, seat.ready = seat.ready, None
        try:
            came: Place | LitestageError = ray.get(reference)
        except RayTaskError as error:
            came = _failure(error)
        except RayError as error:
            reason = self._note(error)
            seat.deaths += not isinstance(error, ActorUnavailableError)
            seat.ask_at = time.monotonic() + AGAIN
            if seat.deaths < TRIES:
                return
            came = LitestageError(f"A worker died {TRIES} times before its model was loaded: {reason}.")
        if isinstance(came, LitestageError):
            self._give_up(seat, came)
        elif unlike := differences(self._expected, came.likeness):
            self._give_up(seat, _unlike(came.address, unlike))
        else:
            seat.place, seat.deaths, self._alive_at = came, 0, time.monotonic()

    def _answered(self, seat: _Seat, reference: Any) -> list[Event]:
        _, shard = seat.out.pop(reference)
        for id, _ in shard.living:
            self._at.pop(id, None)
        try:
            came: list[Completion | str | None] | LitestageError | Likeness = ray.get(reference)
        except RayTaskError as error:
            raise _failure(error) from None
        except RayError as error:
            if seat.place is not None:
                self._say(f"A worker on {seat.place.address} died; what it had goes to others.")
                seat.place, seat.ask_at = None, time.monotonic() + AGAIN
            return list(self._back(shard, self._note(error)))
        if isinstance(came, LitestageError):
            raise came
        if isinstance(came, dict):  # it died unnoticed, and started again on an unlike machine
            self._fresh = dict(shard.living) | self._fresh
            self._give_up(seat, _unlike("another machine", differences(self._expected, came)))
            return []
        self._alive_at = time.monotonic()
        both = [(item[0], one) for item, one in zip(shard.items, came, strict=True) if item is not None and one]
        return [Failed(id, one) if isinstance(one, str) else Finished(id, one) for id, one in both]

    def _back(self, shard: Shard, reason: str) -> Iterator[Event]:
        """A shard whose worker died is tried again; a request that is alone on its last try is told of as failed."""
        tries, living = shard.tries + 1, shard.living
        if tries == 1:
            self._suspect.append(Shard([*living], tries))
        elif tries < TRIES:
            self._suspect += [Shard([item], tries) for item in living]
        else:
            for id, _ in living:
                yield Failed(
                    id,
                    f"{TRIES} workers died over it, the last one alone with it ({reason}). Give the workers more "
                    "memory and run the same command again, or take the question out of the data.",
                )

    def _give_up(self, seat: _Seat, why: LitestageError) -> None:
        """Go on without a worker; raises ``why`` where it was the last one."""
        ray.kill(seat.actor)
        self._seats.remove(seat)
        for _, shard in seat.out.values():
            self._fresh = dict(shard.living) | self._fresh
        if not self._seats:
            raise why
        self._say(f"{why} The others go on without it.")

    def _check(self) -> None:
        """Raise `LitestageError` where no worker has been there for long."""
        if self.places:
            self._alive_at = time.monotonic()
        elif time.monotonic() - self._alive_at > PATIENCE:
            raise LitestageError(
                f"There has been no worker for {PATIENCE:.0f} seconds ({self._reason}). See `ray status` for what the "
                "cluster has, and run the same command again: it goes on from what was answered."
            )

    def _note(self, error: RayError) -> str:
        self._reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return self._reason


def _unlike(address: str, differences: str) -> LitestageError:
    return LitestageError(
        f"The worker on {address} is left out, because it could write other texts: {differences}. Nobody could repeat "
        "such a run on one machine. Start the command on a machine like the workers, or have the same everywhere."
    )


def _failure(error: RayTaskError) -> LitestageError:
    """What a worker raised that it should not have: a program's mistake, or what it was asked to load."""
    return LitestageError(f"A worker failed: {str(error).strip().splitlines()[-1]}")
