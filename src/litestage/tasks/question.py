"""A labelled question."""

from __future__ import annotations

import re
import string

from pydantic import Field, field_validator, model_validator

from litestage.core.layers import Record

LETTERS = string.ascii_uppercase
_LABEL = re.compile(r"\s*(?:\(([A-Za-z])\)\s*|([A-Za-z])[.):]\s+)(?=\S)")
"""A choice's letter in front of it, as many question sets have it: ``(A) ``, ``A. ``, ``A) ``, ``A: ``."""


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

    @field_validator("choices")
    @classmethod
    def _without_letters(cls, choices: tuple[str, ...]) -> tuple[str, ...]:
        """Prompts put letters in front of choices: those that all of them bring, in order, would stand there twice."""
        labels = [_LABEL.match(choice) for choice in choices]
        letters = [(label[1] or label[2]).upper() for label in labels if label]
        if letters != list(LETTERS[: len(choices)]):
            return choices
        return tuple(choice[label.end() :] for choice, label in zip(choices, labels, strict=True) if label)

    def __hash__(self) -> int:
        return hash(self.id)

    @model_validator(mode="after")
    def _answer_is_a_choice(self) -> Question:
        last = len(self.choices) - 1
        if self.answer is not None and not 0 <= self.answer <= last:
            raise ValueError(f"answer is {self.answer}, but the {last + 1} choices are numbered 0 to {last}")
        return self
