"""What a comparison leaves: every system on the same questions, with its outcomes, so that all can be paired again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import model_validator

from litestage.core import ModelIdentity, StagePlan
from litestage.core.layers import Record
from litestage.evaluation import FrontierPoint, Paired, Speedup
from litestage.results.results import Example, Kept, Provenance, RankedLayer, Split, System

SystemKind = Literal["full", "litestage", "rule", "ablation", "control"]
DuelKind = Literal["budget", "speed", "exit", "control", "constant"]
CONSTANT = "constant"
"""In a duel, in place of a system: always the same answer."""
WORTH_DRAWING = 0.5
"""Share of full depth's accuracy below which a system is not drawn, and has no place on the frontier."""


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
    wall: Speedup | None
    """None for a system so slow that it would have taken most of the time."""
    answers: tuple[int | None, ...]
    """In the order of the comparison's questions."""

    @property
    def blocks_skipped(self) -> float:
        """The paper's "# Skip": full layers (two sub-layers), the mean over stages."""
        return sum(self.skipped.values()) / 2 / len(self.skipped) if self.skipped else 0.0

    @property
    def blocks_a_step(self) -> float:
        """The mean over all decode steps: a stage of long texts counts for as much as it costs."""
        steps = {stage.name: stage.decode_steps for stage in self.system.stages}
        whole = sum(steps.values())
        return sum(steps[name] * count for name, count in self.skipped.items()) / 2 / whole if whole else 0.0

    @property
    def accuracy(self) -> float:
        return self.system.accuracy.percent

    def worth_drawing(self, full: Compared) -> bool:
        """Whether it is accurate enough to be drawn, however fast it is."""
        return self.accuracy >= full.accuracy * WORTH_DRAWING

    def worth_a_place(self, full: Compared, constant: float) -> bool:
        """Whether it may own a part of the frontier: ``constant`` is the percentage that needs no model."""
        return self.worth_drawing(full) and (self.accuracy >= constant or constant >= full.accuracy)


def most_common(gold: Sequence[int | None]) -> tuple[int, float]:
    """The answer that is right most often, the first of equals, and how often, in percent."""
    counts = Counter(answer for answer in gold if answer is not None)
    answer = min(counts, key=lambda some: (-counts[some], some), default=0)
    return answer, 100 * counts[answer] / len(gold)


class Duel(Record):
    """A plan of LiteStage against another system, on the same questions."""

    by: DuelKind
    """The nearest budget of a uniform method; the best uniform system that is as fast; the same plan without exit; a
    control; always the same answer."""
    plan: str
    other: str
    paired: Paired
    """The plan minus the other."""
    among: int = 1
    """Systems that the other was chosen from, for its accuracy on these same questions."""


class Pair(Record):
    """Two methods at the budgets nearest to the fastest plan's."""

    one: str
    other: str
    paired: Paired
    """The one minus the other."""
    adjusted: float
    """McNemar's p, adjusted by Holm for all pairs."""


class Comparison(Kept):
    """All systems on one split; ``systems`` begins with full depth."""

    schema_version: Literal[1] = 1
    kind: Literal["comparison"] = "comparison"
    model: ModelIdentity
    task: str
    tested_on: Split
    searched_on: Split
    searched_by: str = "priced"
    """Latency, priced or by the wall clock."""
    question_ids: tuple[str, ...]
    gold: tuple[int | None, ...]
    systems: tuple[Compared, ...]
    frontier: tuple[FrontierPoint, ...]
    """By price, from the slowest to the fastest."""
    duels: tuple[Duel, ...]
    pairs: tuple[Pair, ...] = ()
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
        names = [system.name for system in self.systems]
        if len(set(names)) < len(names):
            raise ValueError("two systems have the same name")
        named = {*self.plans, *(p.name for p in self.frontier), *(r for p in self.frontier for r in p.rivals)}
        named |= {name for duel in self.duels for name in (duel.plan, duel.other) if name != CONSTANT}
        named |= {name for pair in self.pairs for name in (pair.one, pair.other)}
        if unknown := sorted(named - set(names)):
            raise ValueError(f"{unknown[0]!r} is none of the systems")
        return self

    @property
    def full(self) -> Compared:
        return self.systems[0]

    def of_kind(self, *kinds: SystemKind) -> tuple[Compared, ...]:
        return tuple(system for system in self.systems if system.kind in kinds)

    def worth_drawing(self, *systems: Compared) -> tuple[Compared, ...]:
        return tuple(system for system in systems if system.worth_drawing(self.full))

    def worth_a_place(self, *systems: Compared) -> tuple[Compared, ...]:
        return tuple(system for system in systems if system.worth_a_place(self.full, self.constant[1]))

    @property
    def constant(self) -> tuple[int, float]:
        """The answer most common among these questions, and the percentage that it alone would be right in."""
        return most_common(self.gold)

    def system(self, name: str) -> Compared:
        return next(system for system in self.systems if system.name == name)
