"""A text ends once the model sees too many ways to go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from litestage.core.exits.rule import ExitRecord, Look, Value, mean


class MeanEntropy(ExitRecord):
    """End a text when the mean entropy of its last ``window`` tokens' distributions is above ``bits``."""

    looks_at: ClassVar[Look] = "entropy"

    kind: Literal["entropy"] = "entropy"
    bits: float = Field(default=3.0, ge=0, le=64)

    def broken_by(self, values: Sequence[Value]) -> bool:
        """See `ExitRecord`."""
        return mean(values) > self.bits

    @property
    def clause(self) -> str:
        """See `ExitRecord`."""
        return f"once the mean entropy of its last {self.window} tokens rises above {self.bits:g} bits"

    @property
    def short(self) -> str:
        """See `ExitRecord`."""
        return f"above {self.bits:g} bits ({self.window} tokens)"

    def __str__(self) -> str:
        return f"entropy:{self.window},{self.bits:g}"
