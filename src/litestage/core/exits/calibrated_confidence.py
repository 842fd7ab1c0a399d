"""A threshold from texts that the model wrote at full depth, as DeepConf finds its own (arXiv 2508.15260, 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Literal, Self

from pydantic import Field

from litestage.core.exits.rule import ExitRecord, Value, Written, mean


class CalibratedConfidence(ExitRecord):
    """End a text when it is less sure than ``share`` of the full-depth texts ever were.

    A text's lowest window is what is compared; ``threshold`` is the one that this share of the texts never fall below.
    DeepConf takes the mean log probability of the likeliest tokens for a confidence; here it is the paper's.
    """

    kind: Literal["calibrated"] = "calibrated"
    window: int = Field(default=16, ge=1)
    share: float = Field(default=0.9, gt=0, lt=1)
    threshold: float | None = Field(default=None, ge=0, le=1)
    """Found by `calibrated`; None before."""

    @property
    def missing(self) -> str | None:
        """See `ExitRecord`."""
        return "a threshold, which full-depth texts calibrate" if self.threshold is None else None

    def broken_by(self, values: Sequence[Value]) -> bool:
        """See `ExitRecord`."""
        return self.threshold is not None and mean(values) < self.threshold

    def calibrated(self, texts: Sequence[Written]) -> Self:
        """The rule with the threshold that at most 1 - ``share`` of these texts would be ended by.

        Texts shorter than the window are never ended; where all are, nothing is.
        """
        found = sorted(low for text in texts if (low := self._lowest(text)) is not None)
        allowed = floor((1 - self.share) * len(texts) + 1e-9)
        threshold = found[min(allowed, len(found) - 1)] if found else 0.0
        return self.model_copy(update={"threshold": min(1.0, threshold)})

    def _lowest(self, text: Written) -> float | None:
        """The lowest mean of a window; a token that ends the text by itself is in none."""
        sure = text.confidences[: -1 if text.finish_reason == "eos" else None]
        ends = range(self.window, len(sure) + 1)
        return min((mean(sure[end - self.window : end]) for end in ends), default=None)

    @property
    def clause(self) -> str:
        """See `ExitRecord`."""
        known = "" if self.threshold is None else f" ({self.threshold:.3g})"
        return (
            f"once the mean confidence of its last {self.window} tokens falls below the level{known} that "
            f"{self.share:.0%} of the full-depth texts keep"
        )

    @property
    def short(self) -> str:
        """See `ExitRecord`."""
        return f"below {self.threshold or 0:.2g} ({self.window} tokens)"

    def __str__(self) -> str:
        return f"calibrated:{self.window},{self.share:g}"
