"""What is promised of a change: a bound on the loss of accuracy, from questions that chose nothing."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from litestage.core.layers import Record

DELTA = 0.05
"""The chance, at most, that a granted bound is broken."""


class Certificate(Record):
    """An exact paired test of a change against its baseline, on questions that neither was chosen by."""

    epsilon: float = Field(gt=0, le=100)
    """Points of accuracy that the change may lose: the loss asked for."""
    delta: float = Field(default=DELTA, gt=0, lt=1)
    """The chance, at most, that a change which loses more is granted."""
    spent: float = Field(default=DELTA, gt=0, lt=1)
    """The part of ``delta`` that the bound is worked out with: less than all of it where the test looks early."""
    lost: int = Field(ge=0)
    """Questions right before and wrong with the change."""
    gained: int = Field(ge=0)
    n: int = Field(ge=1)
    """Questions answered both ways."""
    bound: float = Field(ge=0, le=100)
    """Points: with confidence 1 - ``delta`` the change loses less than this."""
    questions: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """SHA-256 of the questions' ids; None where only counts are known."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.lost + self.gained > self.n:
            raise ValueError(f"{self.lost} lost and {self.gained} gained are more than {self.n} questions")
        if self.spent > self.delta:
            raise ValueError(f"spent is {self.spent}, more than delta, {self.delta}")
        return self

    @property
    def granted(self) -> bool:
        """Whether the change is shown to lose less than was asked for."""
        return self.bound <= self.epsilon

    @property
    def change(self) -> float:
        """The change of accuracy seen, in points."""
        return 100 * (self.gained - self.lost) / self.n
