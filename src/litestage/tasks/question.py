"""A labelled question."""

from __future__ import annotations

import string

from pydantic import Field, model_validator

from litestage.core.layers import Record

LETTERS = string.ascii_uppercase


def check_text(name: str, text: str) -> None:
    """Raise ValueError for a text that is empty or holds what no tokenizer reads: half of a character."""
    if not text.strip():
        raise ValueError(f"{name} is empty")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} has half a character at {error.start}, \\u{ord(text[error.start]):04x}") from None


class Question(Record):
    """A multiple-choice question. ``answer`` and ``targets`` are for scoring and training; prompts never see them."""

    id: str
    question: str
    choices: tuple[str, ...] = Field(min_length=2, max_length=len(LETTERS))
    answer: int | None = None
    """0-based index of the right choice; None when unknown."""
    targets: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    """What a stage should write, by stage name; one text a choice for a stage that fans out."""
    extra: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Scalar fields of the source that statistics may group by."""

    def __hash__(self) -> int:
        return hash(self.id)

    @model_validator(mode="after")
    def _answer_is_a_choice(self) -> Question:
        last = len(self.choices) - 1
        if self.answer is not None and not 0 <= self.answer <= last:
            raise ValueError(f"answer is {self.answer}, but the {last + 1} choices are numbered 0 to {last}")
        return self
