"""What a search and its test leave: a plan against full depth, and how it was found."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from litestage.core import Certificate, ModelIdentity, RankedLayer, StagePlan
from litestage.core.layers import Record
from litestage.evaluation import Accuracy, Paired, Speedup
from litestage.results.kept import Kept
from litestage.results.path import PathSearch
from litestage.results.performance import AccuracyVerdict, Example, Performance, Provenance, Split, verdict_on
from litestage.search import SearchOutcome

SpeedVerdict = Literal["nothing left out", "open", "slower", "faster"]


class QuestionGroup(Record):
    """Accuracy on some of the test questions, such as those on pairs that training held out."""

    name: str
    full: Accuracy
    plan: Accuracy


class PlanSearch(SearchOutcome):
    """How the plan was found, and on which questions."""

    max_drop: float
    """Points of accuracy that the plan might lose."""
    split: Split
    latency: Literal["priced", "wall"] = "priced"

    @classmethod
    def of(cls, found: SearchOutcome, split: Split, max_drop: float, latency: str = "priced") -> Self:
        """From the search's own record."""
        known = {name: getattr(found, name) for name in SearchOutcome.model_fields}
        return cls.model_validate({**known, "split": split, "max_drop": max_drop, "latency": latency})


class PlanResult(Kept):
    """A plan against full depth on the test questions, how it was found, and under which conditions."""

    KIND: ClassVar[str] = "plan"
    schema_version: Literal[2] = 2
    kind: Literal["plan"] = "plan"
    full: Performance
    plan: Performance
    speedup: float
    """By the wall clock: full depth's seconds over the plan's; ``wall`` has its interval."""
    accuracy_change_points: float
    """Plan minus full depth; ``paired`` has its interval and test."""
    wall: Speedup
    priced: Speedup | None = None
    """The price's, over all questions, paired; None in results of earlier versions."""
    paired: Paired
    model: ModelIdentity
    task: str
    tested_on: Split
    search: PlanSearch | None = None
    """How the paper's search found the plan; None when it was not searched so."""
    path: PathSearch | None = None
    """How the path that the plan is on was found."""
    certificate: Certificate | None = None
    """What is promised of the plan."""
    ranking: tuple[RankedLayer, ...] = ()
    """From the most to the least redundant."""
    stage_plans: dict[str, StagePlan]
    """What the plan skips, in task order."""
    groups: tuple[QuestionGroup, ...] = ()
    examples: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences that a reader must not miss."""
    provenance: Provenance

    @model_validator(mode="after")
    def _one_story(self) -> Self:
        """The figures at the top are those of their evidence, and every part speaks of the same stages."""
        if (self.speedup, self.accuracy_change_points) != (self.wall.speedup, self.paired.difference):
            raise ValueError("speedup and accuracy_change_points must be those of wall and paired")
        stages = tuple(self.stage_plans)
        if not stages == self.full.stage_names == self.plan.stage_names:
            raise ValueError(f"stage_plans, full and plan must have the same stages in the same order, not {stages}")
        return self

    @property
    def num_skipped(self) -> dict[str, int]:
        """Sub-layers that each stage skips."""
        return {name: stage.schedule.num_skipped for name, stage in self.stage_plans.items()}

    @property
    def exits(self) -> tuple[str, ...]:
        """Stages that may exit early."""
        return tuple(name for name, stage in self.stage_plans.items() if stage.exit)

    @property
    def exits_that_fire(self) -> tuple[str, ...]:
        """Those of them in which some text was ended."""
        share = {stage.name: stage.early_exit_share for stage in self.plan.stages}
        return tuple(name for name in self.exits if share[name])

    @property
    def is_full_depth(self) -> bool:
        """Whether the plan changes nothing."""
        return all(stage.is_full_depth for stage in self.stage_plans.values())

    @property
    def speed_verdict(self) -> SpeedVerdict:
        """What the clock says of the plan's speed."""
        if self.is_full_depth:
            return "nothing left out"
        if not self.wall.can_tell:
            return "open"
        return "slower" if self.wall.speedup < 1 else "faster"

    @property
    def accuracy_verdict(self) -> AccuracyVerdict:
        return verdict_on(self.paired)

    @property
    def loses_more_than_allowed(self) -> bool:
        """Whether it loses more, on questions that the search had not seen, than the search allowed."""
        return self.search is not None and self.paired.difference < -self.search.max_drop
