"""What a comparison leaves: every method on the same questions, with its answers, so that all can be paired again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from litestage.core import ModelIdentity, RankedLayer, StagePlan
from litestage.core.layers import Record
from litestage.evaluation import FrontierPoint, Paired, Speedup, as_fast, worse
from litestage.results.kept import Kept
from litestage.results.performance import Example, Performance, Provenance, Split
from litestage.results.version_1 import relations

MethodKind = Literal["full", "litestage", "rule", "ablation", "control"]
DuelKind = Literal["budget", "speed", "exit", "control", "constant"]
ClaimVerdict = Literal["no plan", "no faster plan", "no rival", "holds", "fails", "open"]
CONSTANT = "constant"
"""In a duel, in place of a method: always the same answer."""
WORTH_DRAWING = 0.5
"""Share of full depth's accuracy below which a method is not drawn, and has no place on the frontier."""
FAST = 1.02
"""Speedup below which a plan is no faster than full depth for any purpose here."""
HIGH = 1.15
"""Speedup from which one may speak of the high speedups that the paper's claim is about."""
HARDLY = 0.005
"""Share of the decode steps: where exit changes no more of them, it hardly ever fires."""


class Amount(Record):
    """What a uniform method was asked to skip in every stage."""

    number: int
    unit: Literal["block", "sub-layer"]

    def __str__(self) -> str:
        return f"{self.number} {self.unit}{'s' * (self.number > 1 or self.unit == 'sub-layer')}"


class MethodResult(Record):
    """What one method did on the questions of a comparison."""

    name: str
    method: str
    title: str
    """The method, as charts and tables call it."""
    kind: MethodKind
    requested: str
    """What was asked for, in words."""
    amount: Amount | None = None
    """The same of a uniform method, in figures; None where stages differ."""
    without_exit: str | None = None
    """Where it ends texts early: the name of what skips the same and ends none."""
    control_of: str | None = None
    """Of a control that is made for one plan: the plan's name."""
    skipped: dict[str, float]
    """Sub-layers that a decode step really skips, by stage: the mean over all steps."""
    performance: Performance
    speedup: float
    """Full depth's price over this one's, all questions; the clock's is in ``wall``."""
    priced: Speedup | None = None
    """The same with its interval, paired over questions; None in results of earlier versions."""
    priced_when_timed: float | None = None
    """The same of the questions that the clock timed, to be held against it."""
    paired: Paired
    """Against full depth."""
    wall: Speedup | None
    """None for a method so slow that it would have taken most of the time."""
    answers: tuple[int | None, ...]
    """In the order of the comparison's questions."""

    @property
    def blocks_skipped(self) -> float:
        """The paper's "# Skip": full layers (two sub-layers), the mean over stages."""
        return sum(self.skipped.values()) / 2 / len(self.skipped) if self.skipped else 0.0

    @property
    def blocks_a_step(self) -> float:
        """The mean over all decode steps: a stage of long texts counts for as much as it costs."""
        steps = {stage.name: stage.decode_steps for stage in self.performance.stages}
        whole = sum(steps.values())
        return sum(steps[name] * count for name, count in self.skipped.items()) / 2 / whole if whole else 0.0

    @property
    def accuracy(self) -> float:
        return self.performance.accuracy.percent

    def worth_drawing(self, full: MethodResult) -> bool:
        """Whether it is accurate enough to be drawn, however fast it is."""
        return self.accuracy >= full.accuracy * WORTH_DRAWING

    def worth_a_place(self, full: MethodResult, constant: float) -> bool:
        """Whether it may own a part of the frontier: ``constant`` is the percentage that needs no model."""
        return self.worth_drawing(full) and (self.accuracy >= constant or constant >= full.accuracy)


def most_common(gold: Sequence[int | None]) -> tuple[int, float]:
    """The answer that is right most often, the first of equals, and how often, in percent."""
    counts = Counter(answer for answer in gold if answer is not None)
    answer = min(counts, key=lambda some: (-counts[some], some), default=0)
    return answer, 100 * counts[answer] / len(gold)


class Duel(Record):
    """A plan of LiteStage against another method, on the same questions."""

    by: DuelKind
    """The nearest budget of a uniform method; the best uniform method that is as fast; the same plan without exit; a
    control; always the same answer."""
    plan: str
    other: str
    paired: Paired
    """The plan minus the other."""
    among: int = 1
    """Methods that the other was chosen from, for its accuracy on these same questions."""


class Pair(Record):
    """Two methods at the budgets nearest to the fastest plan's."""

    one: str
    other: str
    paired: Paired
    """The one minus the other."""
    adjusted: float
    """McNemar's p, adjusted by Holm for all pairs."""


class Claim(Record):
    """What became of the paper's claim: that budgets of each stage's own, with exit, beat uniform skipping."""

    verdict: ClaimVerdict
    plan: MethodResult | None = None
    """LiteStage's fastest, which it is judged by."""
    duel: Duel | None = None
    """Against the best uniform method that is about as fast."""

    @property
    def high(self) -> bool:
        """Whether the plan reaches the high speedups that the claim is about."""
        return self.plan is not None and self.plan.speedup >= HIGH


class ExitEffect(Record):
    """What the exit rule does to a plan."""

    plan: MethodResult
    without: MethodResult
    paired: Paired
    """With exit minus without."""

    @property
    def steps(self) -> tuple[float, float]:
        """Decode steps a question, without and with it."""
        return self.without.performance.total.decode_steps, self.plan.performance.total.decode_steps

    @property
    def hardly_fires(self) -> bool:
        before, after = self.steps
        return abs(after - before) <= HARDLY * before


class Comparison(Kept):
    """All methods on one split; ``results`` begins with full depth."""

    KIND: ClassVar[str] = "comparison"
    schema_version: Literal[2] = 2
    kind: Literal["comparison"] = "comparison"
    model: ModelIdentity
    task: str
    tested_on: Split
    searched_on: Split
    searched_by: str = "priced"
    """Latency, priced or by the wall clock."""
    question_ids: tuple[str, ...]
    gold: tuple[int | None, ...]
    results: tuple[MethodResult, ...]
    frontier: tuple[FrontierPoint, ...]
    """By price, from the slowest to the fastest."""
    duels: tuple[Duel, ...]
    pairs: tuple[Pair, ...] = ()
    plans: dict[str, dict[str, StagePlan]]
    """LiteStage's plans by name and stage."""
    ranking: tuple[RankedLayer, ...] = ()
    examples: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: Provenance

    @classmethod
    def from_version_1(cls, content: dict[str, Any]) -> dict[str, Any]:
        """Version 1 told by their names alone which methods belong together."""
        methods = content.pop("systems", ())
        content["results"] = [method | relations(method, methods) for method in methods]
        return super().from_version_1(content)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.results or self.results[0].kind != "full":
            raise ValueError("results must begin with full depth")
        if any(len(method.answers) != len(self.question_ids) for method in self.results):
            raise ValueError("every method needs an answer, or none that parsed, for every question")
        names = [method.name for method in self.results]
        if len(set(names)) < len(names):
            raise ValueError("two methods have the same name")
        named = {*self.plans, *(p.name for p in self.frontier), *(r for p in self.frontier for r in p.rivals)}
        named |= {name for duel in self.duels for name in (duel.plan, duel.other) if name != CONSTANT}
        named |= {name for pair in self.pairs for name in (pair.one, pair.other)}
        named |= {name for method in self.results for name in (method.without_exit, method.control_of) if name}
        if unknown := sorted(named - set(names)):
            raise ValueError(f"{unknown[0]!r} is none of the methods")
        return self

    @property
    def full(self) -> MethodResult:
        return self.results[0]

    def method(self, name: str) -> MethodResult:
        return next(method for method in self.results if method.name == name)

    def of_kind(self, *kinds: MethodKind) -> tuple[MethodResult, ...]:
        return tuple(method for method in self.results if method.kind in kinds)

    def worth_drawing(self, *methods: MethodResult) -> tuple[MethodResult, ...]:
        return tuple(method for method in methods if method.worth_drawing(self.full))

    def worth_a_place(self, *methods: MethodResult) -> tuple[MethodResult, ...]:
        return tuple(method for method in methods if method.worth_a_place(self.full, self.constant[1]))

    def on_frontier(self, method: MethodResult) -> bool:
        return any(point.name == method.name for point in self.frontier)

    @property
    def constant(self) -> tuple[int, float]:
        """The answer most common among these questions, and the percentage that it alone would be right in."""
        return most_common(self.gold)

    @property
    def fastest_plan(self) -> MethodResult | None:
        return max(self.of_kind("litestage"), key=lambda method: method.speedup, default=None)

    @property
    def untimed(self) -> bool:
        """Whether some methods were too slow to be timed by the clock."""
        return any(method.wall is None for method in self.results)

    @property
    def claim(self) -> Claim:
        """The paper's claim at LiteStage's fastest plan.

        The rival had the luck of the best of several, so that a loss against it must stand that as well.
        """
        plan = self.fastest_plan
        if plan is None:
            return Claim(verdict="no plan")
        if plan.speedup < FAST:
            return Claim(verdict="no faster plan", plan=plan)
        duel = next((duel for duel in self.duels if duel.plan == plan.name and duel.by == "speed"), None)
        if duel is None:
            return Claim(verdict="no rival", plan=plan)
        if not duel.paired.can_tell:
            return Claim(verdict="open", plan=plan, duel=duel)
        if duel.paired.difference > 0:
            return Claim(verdict="holds", plan=plan, duel=duel)
        lost = duel.paired.p_value * duel.among < 0.05
        return Claim(verdict="fails" if lost else "open", plan=plan, duel=duel)

    def contenders(self, point: FrontierPoint) -> tuple[str, ...]:
        """Titles of other methods that the questions cannot rank below the point's owner, though they are as fast."""
        own = self.method(point.name).title
        titles = dict.fromkeys(self.method(rival).title for rival in point.rivals)
        return tuple(title for title in titles if title != own)

    @property
    def contested(self) -> tuple[FrontierPoint, ...]:
        """Points of the frontier whose owner the questions cannot tell from others."""
        return tuple(point for point in self.frontier if self.contenders(point))

    @property
    def equalled(self) -> tuple[tuple[MethodResult, MethodResult], ...]:
        """Plans and the controls that equal them: as fast, and not less accurate beyond chance."""
        held = [(self.method(duel.plan), self.method(duel.other), duel) for duel in self.duels if duel.by == "control"]
        return tuple(
            (plan, control)
            for plan, control, duel in held
            if as_fast(control.speedup, plan.speedup)
            and self.worth_a_place(control)
            and not (duel.paired.can_tell and duel.paired.difference > 0)
        )

    @property
    def against_constant(self) -> tuple[tuple[MethodResult, Duel], ...]:
        """Full depth and the fastest plan, against always giving the same answer."""
        names = [method.name for method in (self.full, self.fastest_plan) if method]
        duels = [duel for duel in self.duels if duel.by == "constant" and duel.plan in names]
        return tuple((self.method(duel.plan), duel) for duel in duels)

    @property
    def exit_effect(self) -> ExitEffect | None:
        """Of the fastest plan that has the exit rule."""
        effects = [
            ExitEffect(plan=self.method(duel.plan), without=self.method(duel.other), paired=duel.paired)
            for duel in self.duels
            if duel.by == "exit"
        ]
        return max(effects, key=lambda effect: effect.plan.speedup, default=None)

    @property
    def exit_pairs(self) -> tuple[tuple[MethodResult, MethodResult], ...]:
        """Methods that end texts early, each behind what skips the same and ends none."""
        return tuple((self.method(m.without_exit), m) for m in self.results if m.without_exit)

    def lost_beyond_chance(self, method: MethodResult) -> bool:
        """Whether it is less accurate than full depth beyond chance."""
        return worse(method.paired)
