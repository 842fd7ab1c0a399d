"""What a comparison leaves: every system on the same questions, with its outcomes, so that all can be paired again."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from litestage.core import ModelIdentity, StagePlan
from litestage.core.layers import Record
from litestage.evaluation import FrontierPoint, Paired, Speedup
from litestage.report.results import Example, Kept, Provenance, RankedLayer, Split, System

SystemKind = Literal["full", "litestage", "rule", "ablation", "control"]


class Compared(Record):
    """One system of a comparison."""

    name: str
    method: str
    title: str
    """The method, as charts and tables call it."""
    kind: SystemKind
    requested: str
    """What was asked for, in words."""
    skipped: dict[str, float]
    """Sub-layers that a decode step really skips, by stage: the mean over all steps."""
    system: System
    speedup: float
    """Full depth's price over this one's, all questions; the clock's is in ``wall``."""
    paired: Paired
    """Against full depth."""
    wall: Speedup
    answers: tuple[int | None, ...]
    """In the order of the comparison's questions."""

    @property
    def blocks_skipped(self) -> float:
        """The paper's "# Skip": full layers (two sub-layers), the mean over stages."""
        return sum(self.skipped.values()) / 2 / len(self.skipped) if self.skipped else 0.0

    @property
    def accuracy(self) -> float:
        return self.system.accuracy.percent


WORTH_A_PLACE = 0.5
"""Share of full depth's accuracy below which a system has no place on the frontier, however fast."""


class Duel(Record):
    """A plan of LiteStage against another system, on the same questions."""

    by: Literal["budget", "speed", "exit", "control"]
    """The nearest budget of a uniform method; the best uniform system that is as fast; the same plan without exit; a
    control."""
    plan: str
    other: str
    paired: Paired
    """The plan minus the other."""
    among: int = 1
    """Systems that the other was chosen from, for its accuracy on these same questions."""


class Comparison(Kept):
    """All systems on one split; ``systems`` begins with full depth."""

    schema_version: Literal[1] = 1
    kind: Literal["comparison"] = "comparison"
    model: ModelIdentity
    task: str
    tested_on: Split
    searched_on: Split
    question_ids: tuple[str, ...]
    gold: tuple[int | None, ...]
    systems: tuple[Compared, ...]
    frontier: tuple[FrontierPoint, ...]
    """By price, from the slowest to the fastest."""
    duels: tuple[Duel, ...]
    plans: dict[str, dict[str, StagePlan]]
    """LiteStage's plans by system and stage."""
    ranking: tuple[RankedLayer, ...] = ()
    examples: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: Provenance

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.systems or self.systems[0].kind != "full":
            raise ValueError("systems must begin with full depth")
        if any(len(system.answers) != len(self.question_ids) for system in self.systems):
            raise ValueError("every system needs an answer, or none that parsed, for every question")
        return self

    @property
    def full(self) -> Compared:
        return self.systems[0]

    def of_kind(self, *kinds: SystemKind) -> tuple[Compared, ...]:
        return tuple(system for system in self.systems if system.kind in kinds)

    def worth_a_place(self, *systems: Compared) -> tuple[Compared, ...]:
        """Those that keep enough of full depth's accuracy to be drawn and ranked."""
        return tuple(system for system in systems if system.accuracy >= self.full.accuracy * WORTH_A_PLACE)

    def system(self, name: str) -> Compared:
        return next(system for system in self.systems if system.name == name)
