"""Where jobs are handed in: bounded, with a deadline, and taken back when nobody waits for them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from litestage.serve.errors import ApiError, told
from litestage.serve.metrics import Metrics
from litestage.serve.work import Failed, Job, LineDone, Message, Scored, Written
from litestage.serve.worker import Worker

RETRY_AFTER = 2
"""Seconds after which a client that was refused may come again."""


class Desk:
    """Takes jobs while there is room for them."""

    def __init__(self, worker: Worker, metrics: Metrics, most_requests: int, most_tokens: int, timeout: float) -> None:
        self.worker, self.metrics = worker, metrics
        self.most_requests, self.most_tokens, self.timeout = most_requests, most_tokens, timeout
        self.requests = self.tokens = 0

    @property
    def state(self) -> str:
        return self.worker.state

    def check_ready(self) -> None:
        """Raise `ApiError` while no request can be answered."""
        if self.state != "ready":
            what = "The model is being loaded." if self.state == "loading" else "The engine has stopped."
            raise ApiError(503, what, code=self.state, retry_after=RETRY_AFTER)

    def deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.timeout

    @contextmanager
    def room(self, tokens: int) -> Iterator[None]:
        """Hold room for a request; raises `ApiError` where there is none."""
        if tokens > self.most_tokens:
            raise ApiError(
                400,
                f"The request may come to {tokens} tokens, and this server takes {self.most_tokens} of all requests "
                "together. Ask for fewer texts, or for shorter ones.",
                code="too_many_tokens",
            )
        if self.requests >= self.most_requests or self.tokens + tokens > self.most_tokens:
            raise ApiError(
                503,
                f"{self.requests} requests of {self.tokens} tokens are at work or waiting, and this server takes "
                f"{self.most_requests} of {self.most_tokens}. Try again in a moment.",
                code="overloaded",
                retry_after=RETRY_AFTER,
            )
        self.requests, self.tokens = self.requests + 1, self.tokens + tokens
        self.metrics.reserved.set(self.tokens)
        try:
            yield
        finally:
            self.requests, self.tokens = self.requests - 1, self.tokens - tokens
            self.metrics.reserved.set(self.tokens)

    async def messages(self, job: Job, deadline: float) -> AsyncGenerator[Message, None]:
        """What comes of a job, until all of it is done; raises `ApiError` for what fails, and at the deadline.

        Closing the iterator takes the job back.
        """
        box = _Box()
        job.tell = box.put
        with self.room(job.tokens):
            self.worker.submit(job)
            left, spoken = len(job.lines) + len(job.scored), _Spoken(self.metrics, job.model)
            try:
                while left:
                    async with asyncio.timeout_at(deadline):
                        message = await box.get()
                    if isinstance(message, Failed):
                        raise told(message.error)
                    left -= isinstance(message, LineDone | Scored)
                    spoken.hear(message)
                    yield message
            except TimeoutError:
                raise ApiError(
                    408, f"The answer was not done after {self.timeout:g} s, this server's limit.", code="deadline"
                ) from None
            finally:
                if left:
                    self.worker.cancel(job)


class _Box:
    """Messages on their way to one waiter."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._there = asyncio.Event()

    def put(self, message: Message) -> None:
        self._messages.append(message)
        self._there.set()

    async def get(self) -> Message:
        while not self._messages:
            self._there.clear()
            await self._there.wait()
        return self._messages.popleft()


@dataclass
class _Spoken:
    """Times of a stream's tokens."""

    metrics: Metrics
    model: str
    begun: float = field(default_factory=time.perf_counter)
    last: dict[tuple[int, int], float] = field(default_factory=dict)

    def hear(self, message: Message) -> None:
        if not isinstance(message, Written):
            return
        now, who = time.perf_counter(), (message.line, message.branch)
        if not self.last:
            self.metrics.first_token.labels(self.model).observe(now - self.begun)
        elif who in self.last and message.tokens > message.new:
            self.metrics.between_tokens.labels(self.model, message.stage).observe((now - self.last[who]) / message.new)
        self.last[who] = now
