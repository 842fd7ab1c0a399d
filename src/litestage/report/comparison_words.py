"""A comparison in words: who owns the frontier, whether the paper's claim holds here, and what the data cannot tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from string import ascii_uppercase
from typing import Literal

from litestage.evaluation import FrontierPoint, as_fast
from litestage.report import words
from litestage.results import Comparison, Duel, MethodResult

FAST = 1.02
"""Speedup below which a plan is no faster than full depth for any purpose here."""
HIGH = 1.15
"""Speedup from which one may speak of the high speedups that the paper's claim is about."""
CLAIM = "The paper claims that budgets of each stage's own, with exit, beat uniform skipping at high speedup."


def headline(comparison: Comparison) -> str:
    """What became of the paper's claim, in one line."""
    if (plan := _fastest(comparison)) is None:
        return "Other methods alone; LiteStage was not among them"
    if plan.speedup < FAST:
        return "LiteStage finds nothing here that makes the model faster"
    at = words.times(plan.speedup)
    duel = _at_its_speed(comparison, plan)
    if duel is None:
        return f"LiteStage at {at}, {words.signed(plan.paired.difference)} points: no uniform system here is as fast"
    lead = f"{words.signed(duel.paired.difference)} points"
    outcome = {
        "holds": f"LiteStage beats uniform skipping at {at}, by {lead}",
        "fails": f"Uniform skipping beats LiteStage at {at}, by {lead.lstrip('+' + words.MINUS)}",
        "open": f"At {at}, LiteStage and the best uniform skipping cannot be told apart",
    }
    return outcome[_outcome(duel)]


def summary(comparison: Comparison) -> list[str]:
    return [
        claim(comparison),
        frontier(comparison),
        *_constant(comparison),
        *controls(comparison),
        *exits(comparison),
        *_asked(comparison),
    ]


def _fastest(comparison: Comparison) -> MethodResult | None:
    return max(comparison.of_kind("litestage"), key=lambda system: system.speedup, default=None)


def _at_its_speed(comparison: Comparison, plan: MethodResult) -> Duel | None:
    return next((duel for duel in comparison.duels if duel.plan == plan.name and duel.by == "speed"), None)


def frontier(comparison: Comparison) -> str:
    """Which method is best at which speed: the frontier, what no other system beats in speed and accuracy both."""
    speeds: dict[str, list[str]] = {}
    for point in comparison.frontier:
        speeds.setdefault(_system(comparison, point).title, []).append(words.times(point.speedup))
    parts = "; ".join(f"{name} at {words.listed(some)}" for name, some in speeds.items())
    tested = comparison.tested_on
    asked = f"{tested.used} {tested.name} questions"
    sentence = f"On {asked}, no system is both faster and more accurate than the frontier: {parts}."
    unsettled = [point for point in comparison.frontier if rivals(comparison, point)]
    if not unsettled:
        return sentence
    return (
        f"{sentence} At {len(unsettled)} of these {len(comparison.frontier)} points the questions cannot tell the "
        "owner from others that are as fast; the table names them."
    )


def rivals(comparison: Comparison, point: FrontierPoint) -> list[str]:
    """Other owners that the questions cannot rank below the point's, though they are as fast."""
    own = _system(comparison, point).title
    others = (comparison.method(rival).title for rival in point.rivals)
    return [name for name in dict.fromkeys(others) if name != own]


def _asked(comparison: Comparison) -> list[str]:
    """How much of what could be compared was."""
    amounts = _amounts(list(dict.fromkeys(system.requested for system in comparison.of_kind("rule"))))
    tested = comparison.tested_on
    if not amounts:
        return []
    return [
        f"Every other method was asked for {amounts}, on {tested}. All "
        "questions, and every budget up to half the blocks: --full."
    ]


def _amounts(requested: list[str]) -> str:
    """Numbers of one unit together: 1 block, 2 blocks becomes 1 and 2 blocks."""
    by_unit: dict[str, list[str]] = {}
    for amount in requested:
        number, _, unit = amount.partition(" ")
        by_unit.setdefault(unit.removesuffix("s"), []).append(number)
    plural = {unit: unit if numbers == ["1"] else f"{unit}s" for unit, numbers in by_unit.items()}
    return " or ".join(f"{words.listed(numbers)} {plural[unit]}" for unit, numbers in by_unit.items())


def not_drawn(comparison: Comparison, systems: Sequence[MethodResult]) -> str:
    """Which systems have no mark in a chart of these, and why; nothing if all have."""
    lost = Counter(system.title for system in systems if not comparison.worth_drawing(system))
    if not lost:
        return ""
    names = words.listed([f"{title} ({count})" for title, count in lost.items()])
    return (
        f"Not drawn, because they answer less than half of what full depth does: {names}; the table of every system "
        "has them."
    )


def always(comparison: Comparison) -> str:
    """What answers without a model."""
    return f"always {ascii_uppercase[comparison.constant[0]]}"


def _constant(comparison: Comparison) -> list[str]:
    """Who is better than always giving the same answer, beyond chance."""
    duels = [duel for duel in comparison.duels if duel.by == "constant"]
    if not duels:
        return []
    leads = [
        f"{'full depth' if duel.plan == comparison.full.name else _plan(comparison, duel.plan)} is "
        f"{words.signed(duel.paired.difference)} points from that ({_judged(duel)})"
        for duel in duels
        if duel.plan in (comparison.full.name, getattr(_fastest(comparison), "name", None))
    ]
    answer = always(comparison)
    return [
        f"{answer[0].upper()}{answer[1:]}, the answer most common among them, would be right in "
        f"{words.percent(comparison.constant[1])}: {words.listed(leads)}."
    ]


def _judged(duel: Duel) -> str:
    ends = words.interval(duel.paired.low, duel.paired.high)
    return ends if duel.paired.can_tell else f"{ends}: not beyond chance"


def claim(comparison: Comparison) -> str:
    """The paper's claim, at LiteStage's fastest plan: stage-wise budgets and exit beat uniform skipping."""
    if (plan := _fastest(comparison)) is None:
        return "LiteStage was not among the methods."
    if plan.speedup < FAST:
        return (
            f"{CLAIM} No plan of LiteStage's here is faster than full depth (at most {words.times(plan.speedup)}), so "
            "that was not tested."
        )
    high = "" if plan.speedup >= HIGH else "None is reached here, so the claim is tested at a low one alone. "
    opening = (
        f"{CLAIM} {high}LiteStage's fastest plan runs at {words.times(plan.speedup)} with "
        f"{words.percent(plan.accuracy)} right, full depth with {words.percent(comparison.full.accuracy)}"
    )
    if (duel := _at_its_speed(comparison, plan)) is None:
        return f"{opening}; no uniform system here is as fast."
    other = comparison.method(duel.other)
    rival = f"the best uniform system about as fast, {other.title} ({other.requested}, {words.times(other.speedup)})"
    return f"{opening}; {rival} has {words.percent(other.accuracy)}. {verdict(duel)}"


def verdict(duel: Duel) -> str:
    """Whether the claim holds, as far as the questions tell."""
    paired = duel.paired
    change = f"{words.signed(paired.difference)} points, 95 % interval {words.interval(paired.low, paired.high)}"
    best_of = f", against the best of {duel.among} on these very questions" if duel.among > 1 else ""
    outcome = {"holds": "holds", "fails": "does not hold", "open": "is not settled"}[_outcome(duel)]
    return f"So the claim {outcome} here: {change}{best_of}."


def _outcome(duel: Duel) -> Literal["holds", "fails", "open"]:
    """The rival had the luck of the best of several, so that a loss against it must stand that as well."""
    if not duel.paired.can_tell:
        return "open"
    if duel.paired.difference > 0:
        return "holds"
    return "fails" if duel.paired.p_value * duel.among < 0.05 else "open"


def controls(comparison: Comparison) -> list[str]:
    """Plans that a control equals: as fast, and not less accurate beyond chance."""
    beaten = [duel for duel in comparison.duels if duel.by == "control" and _control_wins(comparison, duel)]
    if not comparison.of_kind("litestage"):
        return []
    if not beaten:
        return [
            "No control (exit or a token cap at full depth, a stage left out) is about as fast and as accurate as any "
            "of its plans."
        ]
    pairs = sorted({(_plan(comparison, duel.plan), _with_figures(comparison, duel.other)) for duel in beaten})
    return [
        f"About as fast as {plan} or faster, and not less accurate beyond chance: "
        f"{words.listed([name for _, name in some])}."
        for plan, some in groupby(pairs, key=lambda pair: pair[0])
    ]


def _control_wins(comparison: Comparison, duel: Duel) -> bool:
    plan, control = comparison.method(duel.plan), comparison.method(duel.other)
    behind = duel.paired.can_tell and duel.paired.difference > 0
    return as_fast(control.speedup, plan.speedup) and bool(comparison.worth_a_place(control)) and not behind


def exits(comparison: Comparison) -> list[str]:
    """What the exit rule did to the fastest plan that has one."""
    pairs = [duel for duel in comparison.duels if duel.by == "exit"]
    if not pairs:
        return []
    duel = max(pairs, key=lambda duel: comparison.method(duel.plan).speedup)
    with_exit, without = comparison.method(duel.plan), comparison.method(duel.other)
    before, after = without.performance.total.decode_steps, with_exit.performance.total.decode_steps
    if abs(after - before) <= 0.005 * before:
        return [
            f"Exit hardly ever fires in {_plan(comparison, duel.plan)}: {before:.1f} decode steps a question without "
            f"it, {after:.1f} with it."
        ]
    return [
        f"In {_plan(comparison, duel.plan)} exit takes {before:.1f} decode steps a question to {after:.1f}; accuracy "
        f"changes by {words.signed(duel.paired.difference)} points, 95 % interval "
        f"{words.interval(duel.paired.low, duel.paired.high)}."
    ]


def _plan(comparison: Comparison, name: str) -> str:
    return f"the plan {comparison.method(name).requested}"


def _with_figures(comparison: Comparison, name: str) -> str:
    system = comparison.method(name)
    return f"{system.title} ({words.times(system.speedup)}, {words.percent(system.accuracy)})"


def _system(comparison: Comparison, point: FrontierPoint) -> MethodResult:
    return comparison.method(point.name)
