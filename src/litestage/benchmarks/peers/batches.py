"""Engines of others behind our engine's interface: they answer whole batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from litestage.core import FULL_DEPTH, Completion, Counts, Event, Finished, NewText, NewToken, OptionError, Request
from litestage.core.engine import EngineAround
from litestage.engine import TorchEngine

Steps = Callable[[int], float]
"""Seconds of a decode step, among so many that follow one another."""


class BatchEngine(EngineAround):
    """Requests at full depth, in batches of the same stop strings, sampling and limit, the shortest prompts first.

    Prompts are encoded as by ``ours``; draws are the other's own, and know no request's seed.
    """

    name = ""

    def __init__(self, ours: TorchEngine, batch_size: int) -> None:
        super().__init__(ours)
        self.ours, self.batch_size = ours, batch_size
        self._next_id = 0
        self._waiting: dict[int, tuple[Request, int, bool]] = {}
        """Requests by id, the shortest prompt first: most new tokens, and whether somebody listens."""

    @property
    def keeps_written(self) -> bool:
        return False

    def add(self, request: Request, *, stream: bool = False) -> int:
        """See `litestage.core.Engine`; tokens are told when their batch has ended."""
        self._next_id += 1
        self._waiting[self._next_id] = request, self._limit(request), stream
        return self._next_id

    def cancel(self, id: int) -> None:
        """See `litestage.core.Engine`."""
        self._waiting.pop(id, None)

    def work(self) -> list[Event]:
        """A batch: the shortest prompt that waits, and those like it that are next in length."""
        order = sorted(self._waiting, key=lambda id: len(self._waiting[id][0].prompt_ids))
        if not order:
            return []
        like = [id for id in order if self._kind(id) == self._kind(order[0])][: self.batch_size]
        asked = {id: self._waiting.pop(id) for id in like}
        events: list[Event] = []
        done = self._batch([request for request, _, _ in asked.values()], asked[like[0]][1])
        for (id, (_, _, stream)), completion in zip(asked.items(), done, strict=True):
            if stream:
                events += [NewToken(id, token) for token in completion.token_ids] + [NewText(id, completion.text)]
            events.append(Finished(id, completion))
        return events

    def _batch(self, requests: Sequence[Request], limit: int) -> list[Completion]:
        raise NotImplementedError

    def _kind(self, id: int) -> object:
        request, limit, _ = self._waiting[id]
        return request.stop, request.sampling, limit, bool(request.choices)

    def _limit(self, request: Request) -> int:
        """Most new tokens; raises `OptionError` for what the other cannot run."""
        if request.stage_plan != FULL_DEPTH:
            raise OptionError(f"{self.name} decodes at full depth and without exit alone. Leave the plan out.")
        return self.ours.check(request)

    def _completion(self, request: Request, tokens: list[int]) -> Completion:
        """Tokens end where the row did: what a batch is filled up with behind it was not written."""
        ended = next((i for i, token in enumerate(tokens) if token in self.ours.model.eos_ids), None)
        written = tokens[:ended]
        stops = self.ours.detokeniser.stops
        stopped = next((n for n in range(1, len(written) + 1) if stops(written[:n], request.stop)), None)
        if stopped is not None:
            tokens = tokens[:stopped]
        elif ended is not None:
            tokens = tokens[: ended + 1]
        return Completion(
            token_ids=tuple(tokens),
            text=self.decode(written) if stopped is None else self.ours.detokeniser.until(tokens, request.stop),
            confidences=(1.0,) * len(tokens),
            finish_reason="stop" if stopped is not None else "length" if ended is None else "eos",
            counts=Counts(prefilled=len(request.prompt_ids), decoded=len(tokens) - 1),
        )
