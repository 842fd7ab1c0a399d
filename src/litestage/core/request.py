"""What goes into an engine and what comes out."""

from __future__ import annotations

import datetime
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from litestage.core.choices import check_choices
from litestage.core.drafts import Drafts
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
    drafts: Drafts = Drafts()
    choices: tuple[tuple[int, ...], ...] = ()
    """The text is one of these, each with the token that ends it; any text without. What a request may say besides
    where a text ends (its limit, stop strings, an exit rule) then has no part in it."""

    @model_validator(mode="after")
    def _can_be_told_apart(self) -> Self:
        check_choices(self.choices)
        return self

    def key(self) -> str:
        """A stable hash of all that a completion depends on, for stores that outlive the process."""
        unused = {"drafts"} if self.choices else {"drafts", "choices"}  # as before there were any
        return content_hash(self.model_dump(mode="json", exclude=unused))


class Counts(Record):
    """Work of one row, in tokens: prompt tokens computed and copied from a shared prefix, and decode steps run."""

    prefilled: int = 0
    reused: int = 0
    decoded: int = 0
    joined: int = 0
    """Generated tokens that were prefilled behind the prompt, as nothing had to be decided before them."""


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
    choices: tuple[float, ...] = ()
    """Of an answer by choice: how probable each allowed text was among them, in the request's order; of those that
    parted from the text before they parted from each other, how probable their common beginning was."""
    chosen: int | None = None
    """Which of them the text is."""
    asked: tuple[int, ...] = ()
    """How many tokens came before each token of it that was decided; the others followed from those."""

    @property
    def margin(self) -> float | None:
        """How much more probable the text was than the likeliest other one; None where it was free.

        Below 0 where a draw took a less probable one.
        """
        if self.chosen is None:
            return None
        others = [p for place, p in enumerate(self.choices) if place != self.chosen]
        return self.choices[self.chosen] - max(others, default=0.0)

    @property
    def exited(self) -> bool:
        """Whether an exit rule ended it."""
        return self.finish_reason in EXITS


NO_ROOM = Completion(token_ids=(), text="", confidences=(), finish_reason="no_room")
"""What comes of a prompt that does not fit the context."""
