"""The paper's rule (section 4.4): a text ends once the model has become unsure of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from litestage.core.exits.rule import ExitRecord, Value, mean


class MeanConfidence(ExitRecord):
    """End a text when the mean confidence of its last ``window`` tokens is below ``threshold``.

    A file names no kind for this rule: it was there before the others.
    """

    kind: Literal["mean_confidence"] = Field(default="mean_confidence", exclude=True)
    threshold: float = Field(default=0.5, ge=0, le=1)

    def broken_by(self, values: Sequence[Value]) -> bool:
        """See `ExitRecord`."""
        return mean(values) < self.threshold

    @property
    def clause(self) -> str:
        """See `ExitRecord`."""
        return f"once the mean confidence of its last {self.window} tokens falls below {self.threshold:g}"

    @property
    def short(self) -> str:
        """See `ExitRecord`."""
        return f"below {self.threshold:g} ({self.window} tokens)"

    def __str__(self) -> str:
        return f"{self.window},{self.threshold:g}"
