"""What goes into an engine and what comes out."""

from __future__ import annotations

import datetime
from typing import Literal, get_args

from pydantic import Field

from litestage.core.exits import ExitReason
from litestage.core.layers import Record
from litestage.core.plan import FULL_DEPTH, StagePlan, content_hash

FinishReason = Literal["eos", "stop", "length", "low_confidence", "settled", "no_room"]
"""``low_confidence`` and ``settled``: an exit rule ended it.

``no_room``: earlier stages wrote so much that the prompt left no room in the context; nothing was run."""

EXITS = get_args(ExitReason)


class Sampling(Record):
    """How the next token is drawn. Temperature 0 is greedy; ``top_k`` 0 and ``top_p`` 1 are off."""

    temperature: float = Field(default=0.0, ge=0)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    @property
    def keeps_all(self) -> bool:
        """Whether every token may be drawn."""
        return not self.top_k and self.top_p == 1


GREEDY = Sampling()


class Chat(Record):
    """How a prompt becomes a turn of the user in the model's own chat template."""

    template: str | None = None
    """Which of several templates; None takes the default one."""
    system: str = ""
    """What the system's turn in front says; there is none without."""
    arguments: tuple[tuple[str, str | int | float | bool], ...] = ()
    """What the template is given besides, such as ``enable_thinking``."""
    date: datetime.date | None = None
    """The day it is, for templates that ask."""


class Request(Record):
    """One generation, completely described: equal requests have equal completions."""

    prompt_ids: tuple[int, ...]
    stage_plan: StagePlan = FULL_DEPTH
    max_new_tokens: int = Field(default=200, ge=1)
    stop: tuple[str, ...] = ()
    sampling: Sampling = GREEDY
    seed: int = 0
    """Only matters when sampling; leave it 0 for greedy requests so that equal work has equal keys."""

    def key(self) -> str:
        """A stable hash, for stores that outlive the process."""
        return content_hash(self.model_dump(mode="json"))


class Counts(Record):
    """Work of one row, in tokens: prompt tokens computed and copied from a shared prefix, and decode steps run."""

    prefilled: int = 0
    reused: int = 0
    decoded: int = 0


class Completion(Record):
    """A finished generation.

    ``token_ids`` ends with the EOS token when the reason is ``eos``, or an exit rule (where EOS replaced the token that
    broke it). ``confidences`` has one entry a token: the largest next-token probability of the raw
    logits. ``text`` has no special tokens and ends before a stop string.
    """

    token_ids: tuple[int, ...]
    text: str
    confidences: tuple[float, ...]
    finish_reason: FinishReason
    counts: Counts = Counts()

    @property
    def exited(self) -> bool:
        """Whether an exit rule ended it."""
        return self.finish_reason in EXITS


NO_ROOM = Completion(token_ids=(), text="", confidences=(), finish_reason="no_room")
"""What comes of a prompt that does not fit the context."""
