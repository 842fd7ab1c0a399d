"""Exit rules: each a record in a file of its own, and the union of them that plans and requests hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Discriminator, Tag, ValidationError

from litestage.core.errors import OptionError
from litestage.core.exits.calibrated_confidence import CalibratedConfidence
from litestage.core.exits.mean_confidence import MeanConfidence
from litestage.core.exits.mean_entropy import MeanEntropy
from litestage.core.exits.rule import ExitReason, ExitRecord, Look, Value
from litestage.core.exits.settled_answer import SettledAnswer


def _kind(value: Any) -> str:
    """The paper's rule is written without a kind."""
    found = value.get("kind", "mean_confidence") if isinstance(value, dict) else getattr(value, "kind", None)
    return found if isinstance(found, str) else "mean_confidence"


ExitRule = Annotated[
    Annotated[MeanConfidence, Tag("mean_confidence")]
    | Annotated[CalibratedConfidence, Tag("calibrated")]
    | Annotated[MeanEntropy, Tag("entropy")]
    | Annotated[SettledAnswer, Tag("answer")],
    Discriminator(
        _kind,
        custom_error_type="unknown_kind",
        custom_error_message="should be calibrated, entropy or answer, or be left out for the paper's rule",
    ),
]
"""When a text ends early."""

EXIT_FIELDS = {
    "mean_confidence": MeanConfidence.model_fields,
    "calibrated": CalibratedConfidence.model_fields,
    "entropy": MeanEntropy.model_fields,
    "answer": SettledAnswer.model_fields,
}
"""By kind."""

_TYPED: dict[str, tuple[Callable[..., ExitRule], tuple[str, ...]]] = {
    "": (MeanConfidence, ("window", "threshold")),
    "calibrated": (CalibratedConfidence, ("window", "share")),
    "entropy": (MeanEntropy, ("window", "bits")),
    "answer": (SettledAnswer, ("window",)),
}
"""How a rule is typed: its word before a colon, and its numbers."""
EXIT_SYNTAX = "5,0.5 (window and confidence), calibrated:16,0.9, entropy:5,3 or answer:2"


def parse_exit(text: str) -> ExitRule:
    """Read a rule as it is typed: ``5,0.5``, ``calibrated:16,0.9``, ``entropy:5,3`` or ``answer:2``."""
    word, colon, numbers = text.rpartition(":")
    parts = numbers.split(",")
    try:
        rule, fields = _TYPED[word or colon]
        given = {name: (int if name == "window" else float)(part) for name, part in zip(fields, parts, strict=True)}
        return rule(**given)
    except (KeyError, ValueError, ValidationError):
        raise OptionError(
            f"{text} is no exit rule. Write {EXIT_SYNTAX}: a window in tokens (1 or more, 2 for answers), and the "
            "confidence (0 to 1), share of texts (0 to 1) or bits of entropy that end a text."
        ) from None


__all__ = [
    "EXIT_FIELDS",
    "EXIT_SYNTAX",
    "CalibratedConfidence",
    "ExitReason",
    "ExitRecord",
    "ExitRule",
    "Look",
    "MeanConfidence",
    "MeanEntropy",
    "SettledAnswer",
    "Value",
    "parse_exit",
]
