"""What every exit rule is: a window of values, one a token, and when they end the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol, cast

from pydantic import Field

from litestage.core.layers import Record

Look = Literal["confidence", "entropy", "answer"]
"""What a rule looks at in each token: the largest probability of the raw logits; the entropy of their distribution in
bits; the answer that the text states so far, read by `ExitRecord.read`."""
Value = float | str | None
ExitReason = Literal["low_confidence", "settled"]


class ExitRecord(Record):
    """Ends a text at the first token whose last ``window`` values break the rule; that token becomes EOS.

    A token that ends the text by itself is never asked about.
    """

    looks_at: ClassVar[Look] = "confidence"
    reason: ClassVar[ExitReason] = "low_confidence"

    window: int = Field(default=5, ge=1)

    @property
    def missing(self) -> str | None:
        """What has to be found before a text can be written under the rule, as "name: how"; None when nothing is."""
        return None

    @property
    def clause(self) -> str:
        """When a text ends, as what follows "a text ends"."""
        raise NotImplementedError

    @property
    def short(self) -> str:
        """The same for a table, as what follows "exit"."""
        raise NotImplementedError

    def broken_by(self, values: Sequence[Value]) -> bool:
        """Whether the text ends, by the values of its last ``window`` tokens."""
        raise NotImplementedError

    def read(self, text: str) -> str | None:
        """The answer that a text states, for a rule that looks at answers."""
        raise NotImplementedError

    def first_exit(self, values: Sequence[Value]) -> int | None:
        """Index of the token that becomes EOS, or None: the slow, obvious statement of the rule."""
        for end in range(self.window, len(values) + 1):
            if self.broken_by(values[end - self.window : end]):
                return end - 1
        return None


class Written(Protocol):
    """What calibration reads of a completion."""

    @property
    def confidences(self) -> tuple[float, ...]: ...

    @property
    def finish_reason(self) -> str: ...


def mean(values: Sequence[Value]) -> float:
    """Of numbers, in their order."""
    return sum(cast(Sequence[float], values)) / len(values)
