"""A text ends once the answer that it states no longer changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import regex
from pydantic import Field, field_validator

from litestage.core.errors import OptionError
from litestage.core.exits.rule import ExitReason, ExitRecord, Look, Value

SECONDS = 1.0
"""Longest that a pattern may search one text: some take longer than a life."""


class SettledAnswer(ExitRecord):
    """End a text when the answer read from it has been the same for ``window`` tokens: for stages that state one.

    Whoever reads the cut text by the same pattern finds the same answer: of the window's texts, only the last is cut.
    """

    looks_at: ClassVar[Look] = "answer"
    reason: ClassVar[ExitReason] = "settled"

    kind: Literal["answer"] = "answer"
    window: int = Field(default=2, ge=2)
    pattern: str | None = None
    """A regular expression whose one group is the answer, as a task has it; None before the task is known."""

    @field_validator("pattern")
    @classmethod
    def _one_group(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        try:
            groups = regex.compile(pattern).groups
        except regex.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        if groups != 1:
            raise ValueError(f"{pattern!r} must have one group, around the answer, but has {groups}")
        return pattern

    @property
    def missing(self) -> str | None:
        """See `ExitRecord`."""
        return "a pattern, which the task's last stage has" if self.pattern is None else None

    def read(self, text: str) -> str | None:
        """What the pattern's group is in its first match; raises `OptionError` for a pattern that never ends."""
        assert self.pattern is not None
        try:
            match = regex.search(self.pattern, text, timeout=SECONDS)
        except TimeoutError:
            raise OptionError(
                f"The exit rule's pattern {self.pattern!r} was still searching a text of {len(text)} characters after "
                f"{SECONDS:g} s, so nobody knows whether its answer is settled. Make the pattern simpler."
            ) from None
        return match[1] if match else None

    def broken_by(self, values: Sequence[Value]) -> bool:
        """See `ExitRecord`."""
        return values[0] is not None and all(value == values[0] for value in values)

    @property
    def clause(self) -> str:
        """See `ExitRecord`."""
        return f"once the answer that it states has been the same for {self.window} tokens"

    @property
    def short(self) -> str:
        """See `ExitRecord`."""
        return f"at an answer that lasts {self.window} tokens"

    def __str__(self) -> str:
        return f"answer:{self.window}"
