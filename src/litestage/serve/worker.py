"""The engine on a thread of its own: it takes jobs, steps, and tells the event loop what came of it."""

from __future__ import annotations

import asyncio
import heapq
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from math import isfinite
from queue import SimpleQueue
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from litestage.core import Completion, Event, Finished, LitestageError, NewText, NewToken
from litestage.core import Failed as Unanswered
from litestage.core.allocator import give_memory_back
from litestage.engine import TorchEngine
from litestage.engine.not_finite import not_finite
from litestage.engine.scoring import Scoring, TokenScore, score_tokens
from litestage.serve.errors import ApiError
from litestage.serve.metrics import Metrics
from litestage.serve.work import Ask, Failed, Job, LineDone, Message, Scored, StageBegun, StageDone, Written

LOG = logging.getLogger(__name__)
State = Literal["loading", "ready", "dead", "stopped"]
FAULTS = 3
"""Forwards that may fail one behind the other; more, and the engine is not to be trusted any more."""
PATIENT = 32
"""For each so many rows that decode, those that wait do so for one more forward."""
DEAD = Failed(ApiError(503, "The engine has stopped.", code="dead"))
JOBS_BETWEEN_TRIMS = 256
"""After so many jobs, memory that is free is given back when there is a moment without work."""


@dataclass(eq=False)
class _Turn:
    """A line and the stage it is at."""

    job: Job
    line: int
    asks: list[Ask] = field(default_factory=list)
    done: dict[int, Completion] = field(default_factory=dict)
    begun: float = 0.0
    first: float | None = None
    """When its first token came, where somebody listens."""
    accepted: int = 0
    """Tokens that came with another one in a step, so far in its stage."""


@dataclass(eq=False)
class _Running:
    """A generation that the engine has."""

    turn: _Turn
    branch: int
    ask: Ask
    tokens: int = 0
    text: str = ""
    """Settled since it was told last."""
    unsaid: int = 0
    """Tokens since then."""
    scores: list[TokenScore] = field(default_factory=list)
    said: int = 0
    """Scores that were told."""


@dataclass(order=True)
class _Waiting:
    """A generation that waits for a row: the least goes first."""

    rank: tuple[int, ...]
    turn: _Turn = field(compare=False)
    branch: int = field(compare=False)
    ask: Ask = field(compare=False)


class Worker:
    """Steps an engine while there are jobs. All methods but those of its own thread are for the event loop's."""

    def __init__(self, load: Callable[[], TorchEngine], scheduling: str, metrics: Metrics) -> None:
        """``load`` is called on the worker's thread, so that the server can say meanwhile that it is loading.

        ``scheduling``: ``stages`` gives a free row to the question that is furthest on its way, of those to the one
        that came first; ``fcfs`` to the generation that was asked for first.
        """
        self.state: State = "loading"
        self.error: BaseException | None = None
        """Why it is dead."""
        self.on_ready: Callable[[], None] = lambda: None
        """Called on the event loop when the model is there."""
        self.on_end: Callable[[], None] = lambda: None
        """Called on the event loop when it is dead."""
        self._load, self._scheduling, self._metrics = load, scheduling, metrics
        self._orders: SimpleQueue[tuple[str, Job | None]] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._numbers = count()
        self._waiting: list[_Waiting] = []
        self._running: dict[int, _Running] = {}
        self._scorings: deque[tuple[Job, int]] = deque()
        """Texts that wait to be scored; of the first, ``_scoring`` is how far it has come."""
        self._scoring: Scoring | None = None
        self._faults = 0
        self._since_fed = 0
        """Forwards since generations were given to the engine."""
        self._open: dict[int, int] = {}
        """By job number: lines and scored texts that are not done."""
        self._logits: dict[int, Float[Tensor, "1 V"]] = {}
        self._told: list[tuple[Job, Message]] = []
        self._since_trim = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread.start()

    def submit(self, job: Job) -> None:
        self._orders.put(("start", job))
        if self.state == "dead":  # nobody may look at it
            job.tell(DEAD)

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more: its rows are free at the next step."""
        job.cancelled = True
        self._orders.put(("cancel", job))

    def stop(self) -> None:
        """End the thread after the step that it is at."""
        self._orders.put(("stop", None))
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=30)

    # What follows runs on the worker's thread.

    def _run(self) -> None:
        try:
            self.engine = self._load()
            self._metrics.watch(self.engine)
            self.state = "ready"
            self._call(self.on_ready)
            while self._take_orders():
                self._feed()
                self._score()
                self._step()
                self._send()
            self.state = "stopped"
        except BaseException as error:  # the thread's end must be known, whatever it is
            self.error, self.state = error, "dead"
            if not isinstance(error, LitestageError):
                LOG.exception("the engine's thread ended")
            turns = [one.turn for one in self._running.values()] + [one.turn for one in self._waiting]
            jobs = {turn.job for turn in turns} | {job for job, _ in self._scorings}
            while not self._orders.empty():
                jobs |= {job for job in self._orders.get()[1:] if job is not None}
            self._told += [(job, DEAD) for job in jobs]
            self._send()
            self._call(self.on_end)

    def _call(self, what: Callable[[], None]) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what)

    def _send(self) -> None:
        if not self._told:
            return
        told, self._told = self._told, []

        def deliver() -> None:
            for job, message in told:
                if not job.cancelled:
                    job.tell(message)

        self._call(deliver)

    def _take_orders(self) -> bool:
        """Jobs that came or went; waits for one where there is nothing to do. False at the end."""
        while True:
            idle = not self._running and not self._waiting and not self._scorings
            if idle and self._orders.empty() and self._since_trim >= JOBS_BETWEEN_TRIMS:
                self._since_trim = 0
                give_memory_back()
            if not idle and self._orders.empty():
                self._metrics.queued(len(self._running), len(self._waiting))
                return True
            if idle:
                self._send()
                self._metrics.queued(0, 0)
            order, job = self._orders.get()
            if order == "stop":
                return False
            assert job is not None
            if order == "cancel":
                self._drop(job)
            elif not job.cancelled:
                self._begin(job)

    def _begin(self, job: Job) -> None:
        self._since_trim += 1
        if not (job.lines or job.scored):
            self._metrics.job_done(job)
            return
        self._open[job.number] = len(job.lines) + len(job.scored)
        self._scorings += [(job, number) for number in range(len(job.scored))]
        for line in range(len(job.lines)):
            if not self._go_on(_Turn(job, line)):
                break

    def _go_on(self, turn: _Turn) -> bool:
        """Have a line's next generations wait for rows; false where the job has failed."""
        job, line = turn.job, turn.job.lines[turn.line]
        if job.number not in self._open:
            return False
        try:
            while (outcome := line.outcome()) is None:
                turn.asks, turn.done, turn.begun, turn.first = line.asks(), {}, time.perf_counter(), None
                turn.accepted = 0
                if turn.asks:
                    self._wait(turn)
                    return True
                if not self._stage_done(turn, []):
                    return False
            self._metrics.line_done(job.model, outcome)
            self._close(job, LineDone(turn.line, outcome))
        except LitestageError as error:
            self._fail(job, error)
            return False
        except Exception as error:  # a fault of ours in one job must not end the others
            LOG.exception("a request failed")
            self._fail(job, error)
            return False
        return True

    def _wait(self, turn: _Turn) -> None:
        first = turn.asks[0]
        self._tell(turn.job, StageBegun(turn.line, first.stage, len(turn.asks), first.request.stage_plan))
        for branch, ask in enumerate(turn.asks):
            by_stage = (-ask.place, turn.job.number) if self._scheduling == "stages" else ()
            heapq.heappush(self._waiting, _Waiting((*by_stage, next(self._numbers)), turn, branch, ask))

    def _feed(self) -> None:
        """Give the engine as many generations as it has rows; where many decode, several at a time.

        Their prompts are read together then, which holds up the others less often.
        """
        self._since_fed += 1
        if not self._waiting or self._since_fed <= len(self._running) // PATIENT:
            return
        self._since_fed = 0
        while self._waiting and len(self._running) < self.engine.batch_size:
            one = heapq.heappop(self._waiting)
            ask = one.ask
            try:
                id = self.engine.add(ask.request, stream=ask.stream or ask.likeliest is not None)
            except LitestageError as error:
                self._fail(one.turn.job, error)
                continue
            self._running[id] = _Running(one.turn, one.branch, ask)
            if ask.likeliest is not None:
                self.engine.on_logits = self._keep_logits

    def _keep_logits(self, ids: Sequence[int], logits: Float[Tensor, "B V"]) -> None:
        for place, id in enumerate(ids):
            if (one := self._running.get(id)) is not None and one.ask.likeliest is not None:
                self._logits[id] = logits[place : place + 1]

    def _score(self) -> None:
        """A piece of the first text that waits to be scored."""
        if not self._scorings:
            return
        job, number = self._scorings[0]
        model, text = self.engine.model, job.scored[number]
        try:
            one = self._scoring = self._scoring or Scoring(model.decoder, text, job.likeliest)
            if not one.is_done:
                one.work()
        except Exception as error:  # such as one for want of memory: the others go on
            LOG.exception("a text could not be scored")
            self._fail(job, error)
            return
        if not one.is_done:
            return
        if not all(isfinite(score.logprob) for score in one.scores):
            self._fail(job, LitestageError(not_finite(model, text)))
            return
        self._scorings.popleft()
        self._scoring = None
        self._close(job, Scored(number, tuple(one.scores)))

    def _step(self) -> None:
        if not self._running:
            return
        try:
            events, self._faults = self.engine.step(), 0
        except Exception as error:  # whatever one forward's fault is, the next requests may be sound
            LOG.exception("a forward failed")
            self._faults += 1
            if self._faults == FAULTS:
                raise
            for job in {one.turn.job for one in self._running.values()}:
                self._fail(job, error)
            return
        heard: dict[int, _Running] = {}
        for event in events:
            if (one := self._running.get(event.id)) is not None:
                heard[event.id] = one
                self._hear(one, event)
        for one in heard.values():
            self._say(one)
        self._logits.clear()
        if not any(one.ask.likeliest is not None for one in self._running.values()):
            self.engine.on_logits = None

    def _hear(self, one: _Running, event: Event) -> None:
        if isinstance(event, NewText):
            one.text += event.text
        elif isinstance(event, NewToken):
            one.tokens += 1
            one.turn.first = one.turn.first or time.perf_counter()
            one.unsaid += 1
            if one.ask.likeliest is not None:
                one.scores += score_tokens(self._logits[event.id], (event.token,), one.ask.likeliest)
        elif isinstance(event, Unanswered):
            self._fail(one.turn.job, LitestageError(event.reason))
        elif isinstance(event, Finished):
            self._say(one)
            del self._running[event.id]
            self._metrics.finished(one.ask, event.completion)
            turn = one.turn
            turn.done[one.branch] = event.completion
            if len(turn.done) == len(turn.asks) and self._stage_done(turn, one.scores):
                self._go_on(turn)

    def _say(self, one: _Running) -> None:
        """What is new of a generation, to whoever listens."""
        if not one.unsaid or not one.ask.stream:
            return
        if not one.ask.request.choices and one.unsaid > 1:  # what follows from a choice was no guess
            one.turn.accepted += one.unsaid - 1
            self._metrics.accepted(one.ask.stage, one.unsaid - 1)
        scores = tuple(one.scores[one.said :])
        self._tell(
            one.turn.job, Written(one.turn.line, one.ask.stage, one.branch, one.text, one.tokens, one.unsaid, scores)
        )
        one.text, one.unsaid, one.said = "", 0, len(one.scores)

    def _stage_done(self, turn: _Turn, scores: Sequence[TokenScore]) -> bool:
        """Hand a line its completions; false where that cannot be."""
        line = turn.job.lines[turn.line]
        try:
            stage = line.take([turn.done[branch] for branch in range(len(turn.asks))])
        except LitestageError as error:
            self._fail(turn.job, error)
            return False
        if stage is not None:
            now = time.perf_counter()
            seconds = now - turn.begun
            self._metrics.stage_done(turn.job.model, stage.name, seconds)
            self._tell(turn.job, StageDone(turn.line, stage, seconds, now - (turn.first or now), turn.accepted))
        turn.job.scores[turn.line] = tuple(scores)
        return True

    def _tell(self, job: Job, message: Message) -> None:
        self._told.append((job, message))

    def _close(self, job: Job, message: Message) -> None:
        if isinstance(message, LineDone):
            message = replace(message, scores=job.scores.get(message.line, ()))
        self._tell(job, message)
        self._open[job.number] -= 1
        if not self._open[job.number]:
            del self._open[job.number]
            self._metrics.job_done(job)

    def _fail(self, job: Job, error: Exception) -> None:
        self._tell(job, Failed(error))
        self._drop(job)

    def _drop(self, job: Job) -> None:
        """Nothing more is done for it."""
        if self._open.pop(job.number, None) is None:
            return
        for id in [id for id, one in self._running.items() if one.turn.job is job]:
            self.engine.cancel(id)
            del self._running[id]
        self._waiting = [one for one in self._waiting if one.turn.job is not job]
        heapq.heapify(self._waiting)
        if self._scorings and self._scorings[0][0] is job:
            self._scoring = None
        self._scorings = deque(one for one in self._scorings if one[0] is not job)
        self._metrics.dropped(job.model)
