"""What a diagnosis leaves: how each stage bears skipping, and what exit and the ranking do there."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from litestage.core import ExitRule, ModelIdentity
from litestage.core.layers import Record
from litestage.evaluation import Paired
from litestage.evaluation.entropy import Place, TokenEntropy
from litestage.results.results import Example, Kept, Provenance, RankedLayer, Split, System

ALL = "all"
"""Name of the sweep in which every stage skips the same sub-layers."""


class StageEntropy(Record):
    """Full depth's tokens in one stage (paper, Figure 1b)."""

    name: str
    written: TokenEntropy
    """Of the token ids over all texts of the stage."""
    next_token: float
    """Mean entropy in bits of the next-token distribution (raw logits), over the same tokens."""


class Point(Record):
    """One budget, end to end."""

    budget: int
    """Sub-layers skipped, the most redundant ones."""
    system: System
    paired: Paired
    """In a sweep against full depth; with exit against the same budget without."""

    @property
    def accuracy(self) -> float:
        return self.system.accuracy.percent

    @property
    def seconds(self) -> float:
        """Priced latency of a question."""
        return self.system.total.seconds


class Sweep(Record):
    """Budgets from 0 on in one stage, the others at full depth, or in all stages at once; without exit."""

    stage: str
    """``all`` for all stages."""
    points: tuple[Point, ...]

    @property
    def skipping(self) -> tuple[Point, ...]:
        """The points that skip something."""
        return self.points[1:]

    def point(self, budget: int) -> Point:
        return next(point for point in self.points if point.budget == budget)


class Curve(Record):
    """One stage's texts at one budget, token by token (paper, Figure 4)."""

    budget: int
    steps: tuple[Place, ...]


class Versions(Record):
    """One question at full depth, skipping without exit and skipping with it (paper, Figure 7)."""

    budget: int
    """Sub-layers that every stage skips."""
    without_exit: Example
    with_exit: Example


class Diagnosis(Kept):
    """What the paper's motivation figures show, for one model on one task."""

    schema_version: Literal[1] = 1
    kind: Literal["diagnosis"] = "diagnosis"
    model: ModelIdentity
    task: str
    measured_on: Split
    exit_rule: ExitRule
    entropy: tuple[StageEntropy, ...]
    """In task order."""
    sweeps: tuple[Sweep, ...]
    """All stages together first, then each stage in task order."""
    with_exit: tuple[Point, ...]
    """All stages together, with the exit rule."""
    looked_at: str
    """The stage whose texts ``curves`` follow."""
    curves: tuple[Curve, ...]
    ranking: tuple[RankedLayer, ...]
    """From the most to the least redundant."""
    examples: tuple[Versions, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences that a reader must not miss."""
    provenance: Provenance

    @model_validator(mode="after")
    def _same_budgets(self) -> Self:
        """Every part speaks of the same stages and of the same budgets, from full depth on."""
        if [sweep.stage for sweep in self.sweeps] != [ALL, *self.stages]:
            raise ValueError(f"sweeps must be of {ALL}, {', '.join(self.stages)}, in this order")
        rows = [tuple(point.budget for point in points) for points in (*self._swept, self.with_exit)]
        if len(set(rows)) != 1 or len(rows[0]) < 2 or rows[0][0] != 0:
            raise ValueError("every sweep needs the same budgets, 0 first and at least one above it")
        return self

    @property
    def _swept(self) -> tuple[tuple[Point, ...], ...]:
        return tuple(sweep.points for sweep in self.sweeps)

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.entropy)

    @property
    def together(self) -> Sweep:
        """All stages skipping the same."""
        return self.sweeps[0]

    @property
    def alone(self) -> tuple[Sweep, ...]:
        """Each stage by itself, in task order."""
        return self.sweeps[1:]

    @property
    def budgets(self) -> tuple[int, ...]:
        """0 first."""
        return tuple(point.budget for point in self.together.points)

    @property
    def full(self) -> System:
        return self.together.points[0].system
