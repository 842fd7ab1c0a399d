"""What a diagnosis leaves: how each stage bears skipping, and what exit and the ranking do there."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from litestage.core import MeanConfidence, ModelIdentity, RankedLayer
from litestage.core.layers import Record
from litestage.evaluation import Paired, worse
from litestage.evaluation.entropy import Place, TokenEntropy
from litestage.results.kept import Kept
from litestage.results.performance import Example, Performance, Provenance, Split

SHARP = 10.0
"""Points: where smaller losses cannot show, up to which budget none shows is no headline."""
FEWEST = 6
"""Questions that must turn wrong, with none turned right, for McNemar's test to call it a loss at 5 %."""
EntropyVerdict = Literal["one stage", "all bear the same", "bears most", "bears least", "neither"]


class StageEntropy(Record):
    """Full depth's tokens in one stage (paper, Figure 1b)."""

    name: str
    written: TokenEntropy
    """Of the token ids over all texts of the stage."""
    next_token: float
    """Mean entropy in bits of the next-token distribution (raw logits), over the same tokens."""


class SweepPoint(Record):
    """One budget, end to end."""

    budget: int
    """Sub-layers skipped, the most redundant ones."""
    performance: Performance
    paired: Paired
    """In a sweep against full depth; with exit against the same budget without."""

    @property
    def accuracy(self) -> float:
        return self.performance.accuracy.percent

    @property
    def seconds(self) -> float:
        """Priced latency of a question."""
        return self.performance.total.seconds

    @property
    def tokens(self) -> float:
        return self.performance.total.tokens

    @property
    def steps(self) -> float:
        """Decode steps of a question."""
        return self.performance.total.decode_steps


class Sweep(Record):
    """Budgets from 0 on in one stage, the others at full depth, or in all stages at once; without exit."""

    stage: str | None
    """None for all stages."""
    points: tuple[SweepPoint, ...]

    @property
    def skipping(self) -> tuple[SweepPoint, ...]:
        """The points that skip something."""
        return self.points[1:]

    def point(self, budget: int) -> SweepPoint:
        return next(point for point in self.points if point.budget == budget)

    @property
    def borne(self) -> int:
        """The largest budget below the first one that loses accuracy beyond chance: no proof that it loses nothing."""
        kept = 0
        for point in self.skipping:
            if worse(point.paired):
                break
            kept = point.budget
        return kept

    @property
    def first_loss(self) -> int | None:
        """The smallest budget that loses accuracy beyond chance."""
        return next((point.budget for point in self.skipping if worse(point.paired)), None)

    @property
    def saved_before_loss(self) -> float:
        """Share of full depth's seconds that skipping saves at most before a loss shows."""
        return 1 - min(point.seconds for point in self.points if point.budget <= self.borne) / self.points[0].seconds


class ConfidenceCurve(Record):
    """One stage's texts at one budget, token by token (paper, Figure 4)."""

    budget: int
    steps: tuple[Place, ...]


class ExampleVersions(Record):
    """One question at full depth, skipping without exit and skipping with it (paper, Figure 7)."""

    budget: int
    """Sub-layers that every stage skips."""
    without_exit: Example
    with_exit: Example


class ExitSaving(Record):
    """What the exit rule saves at one budget of all stages together."""

    share: float
    """Of the decode steps; negative where it adds some."""
    point: SweepPoint


class Rise(Record):
    """Two neighbouring budgets of a sweep of which the larger takes longer."""

    sweep: Sweep
    before: SweepPoint
    after: SweepPoint


class Diagnosis(Kept):
    """What the paper's motivation figures show, for one model on one task."""

    KIND: ClassVar[str] = "diagnosis"
    schema_version: Literal[2] = 2
    kind: Literal["diagnosis"] = "diagnosis"
    model: ModelIdentity
    task: str
    measured_on: Split
    exit_rule: MeanConfidence
    entropy: tuple[StageEntropy, ...]
    """In task order."""
    sweeps: tuple[Sweep, ...]
    """All stages together first, then each stage in task order."""
    with_exit: tuple[SweepPoint, ...]
    """All stages together, with the exit rule."""
    looked_at: str
    """The stage whose texts ``curves`` follow."""
    curves: tuple[ConfidenceCurve, ...]
    ranking: tuple[RankedLayer, ...]
    """From the most to the least redundant."""
    examples: tuple[ExampleVersions, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences that a reader must not miss."""
    provenance: Provenance

    @classmethod
    def from_version_1(cls, content: dict[str, Any]) -> dict[str, Any]:
        """Version 1 called the sweep of all stages together ``all``."""
        if content.get("sweeps"):
            content["sweeps"][0]["stage"] = None
        return super().from_version_1(content)

    @model_validator(mode="after")
    def _same_budgets(self) -> Self:
        """Every part speaks of the same stages and of the same budgets, from full depth on."""
        if [sweep.stage for sweep in self.sweeps] != [None, *self.stages]:
            raise ValueError(f"sweeps must be of all stages together, {', '.join(self.stages)}, in this order")
        swept = (*(sweep.points for sweep in self.sweeps), self.with_exit)
        budgets = [tuple(point.budget for point in points) for points in swept]
        if len(set(budgets)) != 1 or len(budgets[0]) < 2 or budgets[0][0] != 0:
            raise ValueError("every sweep needs the same budgets, 0 first and at least one above it")
        return self

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
    def full(self) -> Performance:
        return self.together.points[0].performance

    @property
    def borne(self) -> dict[str, int]:
        """Of each stage skipping alone, the largest budget before a loss shows."""
        return {stage: sweep.borne for stage, sweep in zip(self.stages, self.alone, strict=True)}

    @property
    def smallest_loss(self) -> float:
        """Points: no smaller loss could show on so few questions."""
        return 100 * FEWEST / self.measured_on.used

    @property
    def exit_saving(self) -> ExitSaving:
        """Where the exit rule saves the largest share of decode steps."""
        pairs = zip(self.together.points, self.with_exit, strict=True)
        saved = [
            ExitSaving(share=1 - after.steps / before.steps if before.steps else 0.0, point=after)
            for before, after in pairs
        ]
        return max(saved, key=lambda saving: saving.share)

    @property
    def exits_nothing(self) -> bool:
        return not any(point.performance.total.early_exit_share for point in self.with_exit)

    @property
    def steepest_rise(self) -> Rise | None:
        """The sharpest case of more skipping that takes more time."""
        rises = [
            Rise(sweep=sweep, before=before, after=after)
            for sweep in self.sweeps
            for before, after in pairwise(sweep.points)
            if after.seconds > before.seconds
        ]
        return max(rises, key=lambda rise: rise.after.seconds / rise.before.seconds, default=None)

    @property
    def by_entropy(self) -> tuple[StageEntropy, ...]:
        """Stages by how much their tokens vary, those that vary least first."""
        return tuple(sorted(self.entropy, key=lambda stage: stage.written.bits))

    @property
    def entropy_verdict(self) -> EntropyVerdict:
        """Whether the stage whose tokens vary least is the one that bears most, as one might think."""
        least, most = self.by_entropy[0], self.by_entropy[-1]
        if least is most:
            return "one stage"
        borne = self.borne
        if min(borne.values()) == max(borne.values()):
            return "all bear the same"
        if borne[least.name] == max(borne.values()):
            return "bears most"
        return "bears least" if borne[least.name] == min(borne.values()) else "neither"
