"""What clients wait for, as the engine's thread works on it: a job has lines, and a line asks for generations."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from litestage.core import Completion, Request, StagePlan, StageTrace, TokenIds, Trace
from litestage.engine.scoring import TokenScore
from litestage.pipeline import Answering

BARE = "text"
"""What stands for a stage's name where there is none."""


@dataclass(frozen=True)
class Ask:
    """A generation that a line asks for."""

    request: Request
    stage: str = BARE
    place: int = 0
    """How many stages come before it."""
    stream: bool = False
    likeliest: int | None = None
    """Of each token, so many of the likeliest with their log-probabilities; None asks for none, also not its own."""


@dataclass(frozen=True)
class StageBegun:
    """A line has begun a stage."""

    line: int
    stage: str
    branches: int
    plan: StagePlan


@dataclass(frozen=True)
class Written:
    """What a step wrote of a generation: tokens, and what they settle of the text."""

    line: int
    stage: str
    branch: int
    text: str
    tokens: int
    """Generated so far in this branch."""
    new: int
    """Of them, those that were not told before."""
    scores: tuple[TokenScore, ...] = ()
    """Of the new ones, where they were asked for."""


@dataclass(frozen=True)
class StageDone:
    """A line is through a stage."""

    line: int
    stage: StageTrace
    seconds: float
    """Since the stage began."""
    decode_seconds: float
    """Of them, those behind the first token; 0 where nobody listens."""
    accepted: int
    """Tokens that drafts had guessed; 0 where nobody listens."""


@dataclass(frozen=True)
class LineDone:
    """A line is done: a question's trace, or a text."""

    line: int
    outcome: Trace | Completion
    scores: tuple[TokenScore, ...] = ()


@dataclass(frozen=True)
class Scored:
    """A text that was there is scored, from its second token on."""

    text: int
    scores: tuple[TokenScore, ...]


@dataclass(frozen=True)
class Failed:
    """Nothing more comes of the job."""

    error: Exception


Message = StageBegun | Written | StageDone | LineDone | Scored | Failed


class Line(Protocol):
    """One text, or one vote on a question."""

    def asks(self) -> list[Ask]:
        """The generations that come next, all to be done before the ones behind them; none where nothing can run."""
        ...

    def take(self, completions: Sequence[Completion]) -> StageTrace | None:
        """Their completions, in order."""
        ...

    def outcome(self) -> Trace | Completion | None:
        """What came of it, once it is done."""
        ...


class TextLine:
    """One generation."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._completion: Completion | None = None

    def asks(self) -> list[Ask]:
        return [self._ask]

    def take(self, completions: Sequence[Completion]) -> StageTrace | None:
        (self._completion,) = completions
        return None

    def outcome(self) -> Completion | None:
        return self._completion


class VoteLine:
    """One vote on a question, stage by stage."""

    def __init__(self, answering: Answering, stream: bool) -> None:
        self._answering, self._stream = answering, stream

    def asks(self) -> list[Ask]:
        stage, place = self._answering.stage, len(self._answering.stages)
        assert stage is not None
        return [Ask(request, stage.name, place, self._stream) for request in self._answering.requests()]

    def take(self, completions: Sequence[Completion]) -> StageTrace | None:
        return self._answering.take(completions)

    def outcome(self) -> Trace | None:
        return self._answering.trace() if self._answering.stage is None else None


_numbers = count()


@dataclass(eq=False)
class Job:
    """What one client waits for."""

    lines: Sequence[Line]
    model: str
    """For the metrics."""
    tokens: int
    """That it may come to: prompts and texts together."""
    scored: Sequence[TokenIds] = ()
    """Texts whose own tokens are scored."""
    likeliest: int = 0
    tell: Callable[[Message], None] = lambda message: None
    """Called on the event loop's thread."""
    number: int = field(default_factory=lambda: next(_numbers))
    arrived: float = field(default_factory=time.perf_counter)
    cancelled: bool = False
    scores: dict[int, tuple[TokenScore, ...]] = field(default_factory=dict)
    """By line: its last generation's tokens, where it asks for them."""
