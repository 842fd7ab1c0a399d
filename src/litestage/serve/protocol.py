"""What clients send: OpenAI's bodies, and ours for decisions. Fields that nobody knows are named, not refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from litestage.core import ExitRule, SkipSchedule
from litestage.core.drafts import DraftSource
from litestage.core.layers import Record, SkipSetField

MOST_CHOICES = 128
MOST_LIKELIEST = 20
TokenList = Annotated[list[int], Field(min_length=1)]


class ByHand(Record):
    """What one stage leaves out, where a client says it."""

    skip: SkipSetField = frozenset()
    """Sub-layers: ``["7.attention", "9.ffn"]``."""
    exit: ExitRule | None = None

    @property
    def schedule(self) -> SkipSchedule:
        return SkipSchedule.fixed(self.skip)


class TextSettings(ByHand):
    """``litestage`` in a request for a bare text: how it is decoded. Full depth without."""


class StagedSettings(Record):
    """``litestage`` in a request for a staged answer."""

    plan: str | None = None
    """By its name at the server; the model's name may say it too."""
    stages: dict[str, ByHand] = Field(default_factory=dict)
    """Put over the plan, where the server allows it."""
    votes: int | None = Field(default=None, ge=1, le=MOST_CHOICES)
    drafts: DraftSource | None = None
    """Where drafts may come from; at most what the server allows."""
    trace: bool = False
    """Tell every stage's prompts, texts and counts, in a stream also every piece with its branch."""


class Body(BaseModel):
    """What all requests have."""

    model_config = ConfigDict(extra="allow")
    no_ops: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Fields that we do not have, with the values that ask for nothing; any other would change the text."""

    model: str

    @model_validator(mode="before")
    @classmethod
    def _whole_characters(cls, data: Any) -> Any:
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"a text has half a character, \\u{ord(error.object[error.start]):04x}") from None
        return data

    @model_validator(mode="after")
    def _asks_for_what_there_is(self) -> Body:
        for name, value in (self.model_extra or {}).items():
            if name in self.no_ops and value is not None and value not in self.no_ops[name]:
                raise ValueError(f"{name} is not supported here, and leaving it out would change the text")
        return self

    def ignored(self) -> Iterator[str]:
        """Fields that came and change nothing."""
        return (
            name
            for name, value in (self.model_extra or {}).items()
            if value is not None and value not in self.no_ops.get(name, ())
        )


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="allow")

    include_usage: bool = False
    continuous_usage_stats: bool = False


NEVER: tuple[Any, ...] = (0, 0.0, False, [], {}, "", None)


class TextBody(Body):
    """What bare texts are asked for by, in both of OpenAI's ways."""

    no_ops: ClassVar = {
        "presence_penalty": NEVER,
        "frequency_penalty": NEVER,
        "repetition_penalty": (1, 1.0, None),
        "logit_bias": NEVER,
        "suffix": NEVER,
        "best_of": (1, None),
        "min_tokens": NEVER,
        "ignore_eos": NEVER,
        "tools": NEVER,
        "functions": NEVER,
        "response_format": ({"type": "text"}, None),
        "guided_json": NEVER,
        "structured_outputs": NEVER,
    }

    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    """0 and -1 are off."""
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    n: int | None = Field(default=None, ge=1, le=MOST_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None

    @model_validator(mode="after")
    def _no_empty_stop(self) -> TextBody:
        if "" in self.stops:
            raise ValueError("stop has an empty text, at which every text would end")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class CompletionBody(TextBody):
    """``/v1/completions``."""

    prompt: str | TokenList | list[str] | list[TokenList]
    max_tokens: int | None = Field(default=16, ge=0, le=1 << 20)
    echo: bool | None = None
    logprobs: int | None = Field(default=None, ge=0, le=MOST_LIKELIEST)
    litestage: TextSettings = TextSettings()


class TextPart(BaseModel):
    type: Literal["text", "input_text"]
    text: str


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or ())


class ChatBody(TextBody):
    """``/v1/chat/completions``: a bare chat where ``model`` is a model, a staged answer where it is a task."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1, le=1 << 20)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1 << 20)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_LIKELIEST)
    litestage: dict[str, Any] | None = Field(
        default=None,
        description="Staged answers take plan, stages, votes, drafts and trace; bare texts take skip and exit.",
    )


class DecisionMessage(ChatMessage):
    role: Literal["user"]


class DecisionOption(BaseModel):
    value: str | bool
    description: str = ""

    @property
    def words(self) -> str:
        """What the question says of it."""
        return self.description or (str(self.value).lower() if isinstance(self.value, bool) else self.value)


class DecisionQuestion(BaseModel):
    """One of several choices; vLLM's other types are not what a staged task answers."""

    type: Literal["choice"]
    instructions: str
    name: str | None = None
    choices: list[DecisionOption] = Field(min_length=2, max_length=26)


class DecisionBody(Body):
    """``/v1/decisions``."""

    input: str | list[DecisionMessage] = ""
    questions: list[DecisionQuestion] = Field(min_length=1, max_length=200)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    litestage: StagedSettings = StagedSettings()
    safety_identifier: str | None = None

    @property
    def context(self) -> str:
        """The text that all questions are about."""
        return self.input if isinstance(self.input, str) else "\n".join(one.text for one in self.input)
