"""What engines have in common that share their requests out to other processes."""

from __future__ import annotations

from dataclasses import replace

from litestage.core import Event, Finished, Request
from litestage.core.engine import EngineAround
from litestage.engine.engine import TorchEngine


class SharingEngine(EngineAround):
    """An engine of this process, ``own``, beside others elsewhere.

    What has arrived waits to be shared out; whoever listens to tokens, or to the forwards themselves, is answered here.
    """

    def __init__(self, engine: TorchEngine) -> None:
        super().__init__(engine)
        self.own = engine
        self._next_id = 0
        self._arrived: dict[int, Request] = {}
        self._mine: dict[int, int] = {}
        """This process's requests: its engine's id, and the one that is known outside."""

    def add(self, request: Request, *, stream: bool = False) -> int:
        """See `litestage.core.Engine`."""
        self.own.check(request)
        self._next_id += 1
        if stream or self.own.on_logits or self.own.on_pass:
            self._mine[self.own.add(request, stream=stream)] = self._next_id
        else:
            self._arrived[self._next_id] = request
        return self._next_id

    def cancel(self, id: int) -> None:
        """See `litestage.core.Engine`."""
        self._arrived.pop(id, None)
        for mine in [mine for mine, known in self._mine.items() if known == id]:
            self.own.cancel(mine)
            del self._mine[mine]

    def close(self) -> None:
        """Drop every request."""
        for mine in self._mine:
            self.own.cancel(mine)
        self._mine, self._arrived = {}, {}

    def _own_step(self) -> list[Event]:
        events = []
        for event in self.own.step() if self._mine else ():
            if (id := self._mine.get(event.id)) is not None:
                events.append(replace(event, id=id))
                if isinstance(event, Finished):
                    del self._mine[event.id]
        return events
