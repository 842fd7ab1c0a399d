"""Tables of a comparison, for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from rich.console import Group, RenderableType

from litestage.report import comparison_words, tables, words
from litestage.report.tabular import NOTHING, Column, Line, Table
from litestage.results import Comparison, Duel, MethodResult, Pair


def report(comparison: Comparison) -> RenderableType:
    """The whole comparison in the terminal: in words, the systems, the matched budgets, and the conditions."""
    claim, *others = comparison_words.summary(comparison)
    return Group(
        tables.paragraph(claim),
        tables.paragraph(" ".join(others)),
        *(tables.paragraph(note, style="yellow") for note in comparison.notes),
        tables.to_rich(systems_short(comparison)),
        tables.to_rich(owners(comparison)),
        tables.to_rich(narrow(matched(comparison), drop=("a step", "Clock", "McNemar"))),
        tables.to_rich(stage_budgets(comparison)),
        tables.to_rich(narrow(against_controls(comparison), drop=("McNemar",))),
        tables.provenance_line(comparison.provenance),
    )


def narrow(table: Table, drop: Collection[str]) -> Table:
    """The table without some columns, for 80 characters."""
    kept = [index for index, column in enumerate(table.columns) if column.title not in drop]
    return replace(
        table,
        columns=tuple(replace(table.columns[index], under="") for index in kept),
        lines=tuple(replace(line, cells=tuple(line.cells[index] for index in kept)) for line in table.lines),
    )


def systems(comparison: Comparison) -> Table:
    """Every system, in full."""
    return Table(
        title="All systems",
        columns=(
            Column("Method", right=False),
            Column("Asked for", right=False),
            Column("Blocks", under="stages, steps"),
            Column("Accuracy"),
            Column("Change", under="points, 95 % interval"),
            Column("McNemar"),
            Column("None", under="rate"),
            Column("Steps", under="a question"),
            Column("Speedup", under="priced"),
            Column("Speedup", under="clock, 95 % interval"),
            Column("Price", under="error"),
        ),
        lines=tuple(_system_line(system, comparison) for system in comparison.results),
        note="Blocks are those that decode steps really skip, two sub-layers a block: the mean over stages, as the "
        "paper counts, and over all decode steps. Change and McNemar's test are against full depth on the same "
        f"questions (n = {comparison.tested_on.used}). {_clock_note(comparison)} Bold: on the frontier. Pale: a loss "
        f"beyond chance; of {len(comparison.results) - 1} tests at 5 %, {(len(comparison.results) - 1) / 20:.0f} would "
        "find a change by chance alone.",
        sortable=True,
    )


def _clock_note(comparison: Comparison) -> str:
    timed = comparison.full.wall
    if timed is None:
        return ""
    slow = " Those at less than half of full depth's speed were not timed." if _untimed(comparison) else ""
    return (
        f"The clock timed {timed.n} of them, systems in turn, and the price error is how far those questions' price "
        f"lies from it.{slow}"
    )


def _untimed(comparison: Comparison) -> bool:
    return any(system.wall is None for system in comparison.results)


def _system_line(system: MethodResult, comparison: Comparison) -> Line:
    change, wall, error = system.paired, system.wall, system.performance.price_error
    full = system.kind == "full"
    cells = (
        system.title,
        system.requested,
        f"{system.blocks_skipped:.1f}, {system.blocks_a_step:.1f}",
        words.percent(system.accuracy),
        "" if full else f"{words.signed(change.difference)} ({words.interval(change.low, change.high)})",
        "" if full else words.p_value(change.p_value),
        words.percent(system.performance.accuracy.none_percent),
        f"{system.performance.total.decode_steps:.1f}",
        words.times(system.speedup),
        f"{words.times(wall.speedup)} ({wall.low:.2f}–{wall.high:.2f})" if wall else NOTHING,
        f"{words.signed(100 * error.total, 0)} %" if error else NOTHING,
    )
    if any(point.name == system.name for point in comparison.frontier):
        return Line(cells, "strong")
    return Line(cells, "dim" if change.can_tell and change.difference < 0 else "plain")


def systems_short(comparison: Comparison) -> Table:
    """Every system in 80 columns."""
    return Table(
        title=f"{comparison.model.id} on {comparison.tested_on.used} {comparison.tested_on.name} questions",
        columns=(
            Column("Method", right=False),
            Column("Asked for", right=False),
            Column("Blocks"),
            Column("Accuracy"),
            Column("Change"),
            Column("Speedup"),
            Column("Clock"),
        ),
        lines=tuple(
            Line(
                (
                    system.title,
                    system.requested,
                    f"{system.blocks_skipped:.1f}",
                    words.percent(system.accuracy),
                    "" if system.kind == "full" else words.signed(system.paired.difference),
                    words.times(system.speedup),
                    _clock(system),
                ),
                _system_line(system, comparison).tone,
            )
            for system in comparison.results
        ),
        note="Bold: on the frontier. Pale: a loss beyond chance. results.json has the intervals.",
    )


def _clock(system: MethodResult) -> str:
    return words.times(system.wall.speedup) if system.wall else NOTHING


def owners(comparison: Comparison) -> Table:
    """The frontier, and who else might own it."""
    return Table(
        title="The frontier, and where the data cannot tell",
        columns=(
            Column("Speedup"),
            Column("Accuracy"),
            Column("Owner", right=False),
            Column("Others as fast, and not worse beyond chance", right=False),
        ),
        lines=tuple(
            Line(
                (
                    words.times(point.speedup),
                    words.percent(point.accuracy),
                    _name(comparison.method(point.name)),
                    "; ".join(comparison_words.rivals(comparison, point)) or "none",
                )
            )
            for point in comparison.frontier
        ),
        note="From full depth on; as fast: within 5 %, which is what prices tell. Systems that answer less than half "
        f"of what full depth does, or less than {comparison_words.always(comparison)} would, have no place on it.",
    )


def _name(system: MethodResult) -> str:
    return f"{system.title} ({system.requested})" if system.requested else system.title


def matched(comparison: Comparison) -> Table:
    """The paper's Table 1: each plan beside every method at the nearest budget."""
    lines: list[Line] = []
    for plan in comparison.of_kind("litestage"):
        lines.append(_matched_line(plan, None, "strong"))
        for duel in comparison.duels:
            if duel.plan == plan.name and duel.by == "budget":
                lines.append(_matched_line(comparison.method(duel.other), duel, "plain"))
    return Table(
        title="At matched budgets",
        columns=(
            Column("Method", right=False),
            Column("# Skip", under="blocks"),
            Column("a step"),
            Column("Right"),
            Column("Speed", under="priced"),
            Column("Clock"),
            Column("LiteStage's lead", under="points, 95 % interval"),
            Column("McNemar"),
        ),
        lines=tuple(lines),
        note="The paper's Table 1: a plan of LiteStage, and every uniform method at its budget nearest to the plan's "
        "mean over the stages. A step: blocks skipped, the mean over all decode steps.",
    )


def _matched_line(system: MethodResult, duel: Duel | None, tone: str) -> Line:
    lead = (
        f"{words.signed(duel.paired.difference)} ({words.interval(duel.paired.low, duel.paired.high)})" if duel else ""
    )
    return Line(
        (
            system.title if duel else f"{system.title}, {system.requested}",
            f"{system.blocks_skipped:.1f}",
            f"{system.blocks_a_step:.1f}",
            words.percent(system.accuracy),
            words.times(system.speedup),
            _clock(system),
            lead,
            words.p_value(duel.paired.p_value) if duel else "",
        ),
        "strong" if tone == "strong" else "plain",
    )


def stage_budgets(comparison: Comparison) -> Table:
    """The paper's Table 2: blocks skipped, stage by stage."""
    stages = list(comparison.full.skipped)
    return Table(
        title="Budgets by stage",
        columns=(Column("Plan", right=False), Column("# Skip"), *(Column(name) for name in stages), Column("a step")),
        lines=tuple(
            Line(
                (
                    f"LiteStage, {plan.requested}",
                    f"{plan.blocks_skipped:.1f}",
                    *(f"{plan.skipped[name] / 2:g}" for name in stages),
                    f"{plan.blocks_a_step:.1f}",
                )
            )
            for plan in comparison.of_kind("litestage")
        ),
        note="The paper's Table 2: blocks (two sub-layers each) that every stage skips, and what they come to at a "
        "mean decode step. A uniform method of the same # Skip takes that many from every step.",
    )


def pairs(comparison: Comparison) -> Table:
    """Every method against every other, at the budgets nearest to the fastest plan's."""
    names = list(dict.fromkeys(name for pair in comparison.pairs for name in (pair.one, pair.other)))
    found = {(pair.one, pair.other): pair for pair in comparison.pairs}
    return Table(
        title="Each method against each other",
        columns=(Column("Method", right=False), *(Column(str(number + 1)) for number in range(len(names)))),
        lines=tuple(
            Line((f"{number + 1}  {_name(comparison.method(one))}", *(_cell(found, one, other) for other in names)))
            for number, one in enumerate(names)
        ),
        note="The fastest plan, and the methods at the budgets nearest to it. Right of the diagonal: points by which "
        "the method of the line is more accurate than the one of the column. Left of it: McNemar's p of the same pair, "
        "adjusted by Holm for all of them.",
    )


def _cell(found: Mapping[tuple[str, str], Pair], one: str, other: str) -> str:
    if pair := found.get((one, other)):
        return words.signed(pair.paired.difference)
    if pair := found.get((other, one)):
        return words.p_value(pair.adjusted)
    return NOTHING


def against_controls(comparison: Comparison) -> Table:
    """Each plan against the controls and against itself without exit."""
    lines = [
        Line(
            (
                comparison.method(duel.plan).requested,
                _name(comparison.method(duel.other)) if duel.by == "speed" else comparison.method(duel.other).title,
                words.times(comparison.method(duel.plan).speedup),
                words.times(comparison.method(duel.other).speedup),
                f"{words.signed(duel.paired.difference)} ({words.interval(duel.paired.low, duel.paired.high)})",
                words.p_value(duel.paired.p_value),
            )
        )
        for duel in comparison.duels
        if duel.by in ("control", "exit", "speed")
    ]
    return Table(
        title="Plans against controls, and against the best uniform system as fast",
        columns=(
            Column("Plan", right=False),
            Column("Against", right=False),
            Column("Its speedup"),
            Column("Other's"),
            Column("Its lead", under="points, 95 % interval"),
            Column("McNemar"),
        ),
        lines=tuple(lines),
        note="A plan that a control equals in both has not earned its layers.",
    )
