"""A comparison in words: who owns the frontier, whether the paper's claim holds here, and what the data cannot tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from litestage.evaluation import FrontierPoint
from litestage.report import words
from litestage.report.comparison import Compared, Comparison, Duel

OURS = "LiteStage"
FAST = 1.02
"""Speedup below which a plan is no faster than full depth for any purpose here."""


def headline(comparison: Comparison) -> str:
    """The frontier's fast end, in one line."""
    if not comparison.of_kind("litestage"):
        return f"{len(comparison.of_kind('rule'))} settings of other methods; LiteStage was not among them"
    ours = [point for point in comparison.frontier if owner(_system(comparison, point)) == OURS]
    if not ours:
        return "LiteStage is nowhere on the frontier here"
    open_ones = sum(bool(rivals(comparison, point)) for point in ours)
    share = f"{len(ours)} of {len(comparison.frontier)} points of the frontier"
    settled = {0: "", len(ours): ", none of them settled"}.get(open_ones, f", {open_ones} of them unsettled")
    return f"LiteStage holds {share}{settled}, up to {words.times(max(point.speedup for point in ours))}"


def summary(comparison: Comparison) -> list[str]:
    return [
        frontier(comparison),
        *_asked(comparison),
        claim(comparison),
        *controls(comparison),
        *exits(comparison),
    ]


def frontier(comparison: Comparison) -> str:
    """Which method owns the frontier where."""
    runs = [
        (name, list(points))
        for name, points in groupby(comparison.frontier, key=lambda point: owner(_system(comparison, point)))
    ]
    parts = [f"{name} at {_range(points)}" for name, points in runs]
    tested = comparison.tested_on
    asked = f"{tested.used} {tested.name} questions"
    sentence = f"On {asked} no system is both faster and more accurate than {words.listed(parts)}."
    unsettled = [point for point in comparison.frontier if rivals(comparison, point)]
    if not unsettled:
        return sentence
    return (
        f"{sentence} At {len(unsettled)} of these {len(comparison.frontier)} points the questions cannot tell the "
        "owner from others that are as fast; the table names them."
    )


def rivals(comparison: Comparison, point: FrontierPoint) -> list[str]:
    """Other owners that the questions cannot rank below the point's, though they are as fast."""
    own = owner(_system(comparison, point))
    others = (owner(comparison.system(rival)) for rival in point.rivals)
    return [name for name in dict.fromkeys(others) if name != own]


def _asked(comparison: Comparison) -> list[str]:
    """How much of what could be compared was."""
    amounts = _amounts(list(dict.fromkeys(system.requested for system in comparison.of_kind("rule"))))
    tested = comparison.tested_on
    part = f" of {tested.available}" if tested.used < tested.available else ""
    if not amounts:
        return []
    return [
        f"Every other method was asked for {amounts}, on {tested.used}{part} {tested.name} questions; "
        "--full takes all of both."
    ]


def _amounts(requested: list[str]) -> str:
    """Numbers of one unit together: 1 block, 2 blocks becomes 1 and 2 blocks."""
    by_unit: dict[str, list[str]] = {}
    for amount in requested:
        number, _, unit = amount.partition(" ")
        by_unit.setdefault(unit.removesuffix("s"), []).append(number)
    plural = {unit: unit if numbers == ["1"] else f"{unit}s" for unit, numbers in by_unit.items()}
    return " or ".join(f"{words.listed(numbers)} {plural[unit]}" for unit, numbers in by_unit.items())


def not_drawn(comparison: Comparison, systems: Sequence[Compared]) -> str:
    """Which systems have no mark in a chart of these, and why; nothing if all have."""
    lost = Counter(system.title for system in systems if not comparison.worth_a_place(system))
    if not lost:
        return ""
    names = words.listed([f"{title} ({count})" for title, count in lost.items()])
    return f"Not drawn, for less than half of full depth's accuracy: {names}; the table of every system has them."


def owner(system: Compared) -> str:
    """The method; plans without exit or with norm ratios are LiteStage's, and those of uniform budgets are not."""
    if system.method.startswith("litestage_uniform"):
        return "LiteStage's ranking with uniform budgets"
    return OURS if system.method.startswith("litestage") else system.title


def _range(points: list[FrontierPoint]) -> str:
    ends = [words.times(points[0].speedup), words.times(points[-1].speedup)]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def claim(comparison: Comparison) -> str:
    """The paper's claim, at LiteStage's fastest plan: stage-wise budgets and exit beat uniform skipping."""
    plans = comparison.of_kind("litestage")
    if not plans:
        return "LiteStage was not among the methods."
    plan = max(plans, key=lambda system: system.speedup)
    if plan.speedup < FAST:
        return (
            "The paper claims that stage-wise budgets with exit beat uniform skipping at high speedup. No plan of "
            f"LiteStage's here is faster than full depth (at most {words.times(plan.speedup)}), so that was not tested."
        )
    opening = (
        "The paper claims that stage-wise budgets with exit beat uniform skipping at high speedup. "
        f"LiteStage's fastest plan runs at {words.times(plan.speedup)} with {words.percent(plan.accuracy)}"
    )
    duel = next((duel for duel in comparison.duels if duel.plan == plan.name and duel.by == "speed"), None)
    if duel is None:
        return f"{opening}; no uniform system here is as fast."
    other = comparison.system(duel.other)
    rival = f"the best uniform system as fast, {other.title} ({other.requested}, {words.times(other.speedup)})"
    return f"{opening}; {rival} has {words.percent(other.accuracy)}. {verdict(duel)}"


def verdict(duel: Duel) -> str:
    """Whether the claim holds, as far as the questions tell: the rival had the luck of the best of several."""
    paired = duel.paired
    change = f"{words.signed(paired.difference)} points, 95 % interval {words.interval(paired.low, paired.high)}"
    best_of = f", against the best of {duel.among} on these very questions" if duel.among > 1 else ""
    lost = paired.difference < 0 and paired.p_value * duel.among < 0.05
    if not paired.can_tell or (paired.difference < 0 and not lost):
        return f"So the claim is not settled here: {change}{best_of}."
    return f"So the claim {'holds' if paired.difference > 0 else 'does not hold'} here: {change}{best_of}."


def controls(comparison: Comparison) -> list[str]:
    """Plans that a control equals: as fast, and not less accurate beyond chance."""
    beaten = [duel for duel in comparison.duels if duel.by == "control" and _control_wins(comparison, duel)]
    if not comparison.of_kind("litestage"):
        return []
    if not beaten:
        return [
            "No control (exit or a token cap at full depth, a stage left out) is as fast and as accurate as any of its "
            "plans."
        ]
    pairs = sorted({(_plan(comparison, duel.plan), _with_figures(comparison, duel.other)) for duel in beaten})
    return [
        f"At least as fast as {plan}, and not less accurate beyond chance: {words.listed([name for _, name in some])}."
        for plan, some in groupby(pairs, key=lambda pair: pair[0])
    ]


def _control_wins(comparison: Comparison, duel: Duel) -> bool:
    plan, control = comparison.system(duel.plan), comparison.system(duel.other)
    worse = duel.paired.can_tell and duel.paired.difference > 0
    return control.speedup >= plan.speedup and not worse


def exits(comparison: Comparison) -> list[str]:
    """What the exit rule did to the fastest plan that has one."""
    pairs = [duel for duel in comparison.duels if duel.by == "exit"]
    if not pairs:
        return []
    duel = max(pairs, key=lambda duel: comparison.system(duel.plan).speedup)
    with_exit, without = comparison.system(duel.plan), comparison.system(duel.other)
    before, after = without.system.total.decode_steps, with_exit.system.total.decode_steps
    if abs(after / before - 1) < 0.005:
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
    return f"the plan of {comparison.system(name).requested}"


def _with_figures(comparison: Comparison, name: str) -> str:
    system = comparison.system(name)
    return f"{system.title} ({words.times(system.speedup)}, {words.percent(system.accuracy)})"


def _system(comparison: Comparison, point: FrontierPoint) -> Compared:
    return comparison.system(point.name)
