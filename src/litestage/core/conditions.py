"""Under which conditions a number holds."""

from __future__ import annotations

from typing import Any, Literal

from litestage.core.layers import Record


class Machine(Record):
    """What ran, and with what."""

    hardware: str
    """The processor, in words."""
    device: str
    threads: int
    kernels: str = "torch"
    """Whose kernels ran the weights: torch or litestage."""
    versions: dict[str, str]


class RunConditions(Machine):
    """A machine, and how a job ran the model there."""

    dtype: str
    quantise: str = "none"
    batch_size: int
    seed: int
    shots: int
    """Worked examples in every prompt."""
    answers: Literal["free", "choice"] = "free"
    """Whether the model writes its answer as it likes, or picks one of the texts that stand for the choices."""

    @property
    def stamped(self) -> dict[str, Any]:
        """What folders are hashed by. Answers written freely go unsaid, as before there was a choice."""
        return self.model_dump(exclude={"answers"} if self.answers == "free" else None)

    @property
    def how_asked(self) -> str:
        """What of the task shapes its figures, in words."""
        return f"{self.shots} worked examples in the prompt" + (", answers by choice" * (self.answers == "choice"))

    @property
    def precision(self) -> str:
        """How weights and cache are kept, and whose kernels run them where that is a choice."""
        weights = "" if self.quantise == "none" else f"{self.quantise} weights, "
        return f"{weights}{self.dtype}" + (", own kernels" if self.kernels == "litestage" else "")


class Conditions(RunConditions):
    """The same, with the model and the task."""

    model: str
    fingerprint: str
    """Of the model's weights."""
    tokenizer: str
    """A fingerprint as well."""
    task: str
