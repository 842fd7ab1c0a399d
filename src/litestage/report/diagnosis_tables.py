"""Table data of a diagnosis, for the page and for the terminal, and the terminal's summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType

from litestage.report import diagnosis_words, tables, words
from litestage.report.diagnosis_figures import TOGETHER, change, skipped
from litestage.report.tabular import Column, Line, Table, Tone
from litestage.results import Diagnosis, Sweep, SweepPoint

TOLD = "*"
"""Behind a number that differs from full depth's beyond chance."""
MOST_COLUMNS = 7
"""Budgets of a table that fits a terminal."""


def terminal(diagnosis: Diagnosis) -> RenderableType:
    """The whole result in words and small tables."""
    parts = [
        tables.paragraph(" ".join(diagnosis_words.summary(diagnosis))),
        *(tables.paragraph(note, style="yellow") for note in diagnosis.notes),
        tables.to_rich(accuracies(diagnosis)),
        tables.to_rich(latencies(diagnosis)),
        tables.to_rich(exits(diagnosis)),
        tables.to_rich(entropies(diagnosis)),
        tables.provenance_line(diagnosis.provenance),
    ]
    return Group(*parts)


def accuracies(diagnosis: Diagnosis) -> Table:
    """Percent right, a line a place that skips and a column a budget."""

    def cell(point: SweepPoint) -> str:
        return f"{point.accuracy:.1f}{TOLD if point.paired.can_tell else ''}"

    note = f"{TOLD} differs from full depth beyond chance, on the same {diagnosis.measured_on.used} questions."
    return _by_budget(diagnosis, "Accuracy, %, by sub-layers skipped", cell, note)


def latencies(diagnosis: Diagnosis) -> Table:
    """Seconds a question, likewise."""
    return _by_budget(
        diagnosis, "Latency by sub-layers skipped", lambda point: words.seconds(point.seconds), "Priced, a question."
    )


def _by_budget(diagnosis: Diagnosis, title: str, cell: Callable[[SweepPoint], str], note: str) -> Table:
    budgets = thinned(diagnosis.budgets, MOST_COLUMNS)
    return Table(
        title=title,
        columns=(Column("Skipping in", right=False), *(Column(str(budget)) for budget in budgets)),
        lines=tuple(
            Line((place(sweep), *(cell(sweep.point(budget)) for budget in budgets)), "strong" if first else "plain")
            for sweep, first in ((sweep, sweep.stage is None) for sweep in diagnosis.sweeps)
        ),
        note=note,
    )


def thinned(budgets: Sequence[int], most: int) -> tuple[int, ...]:
    """Every so many of the budgets, 0 among them, so that at most ``most`` are left."""
    return tuple(budgets[:: -(-len(budgets) // most)])


def place(sweep: Sweep) -> str:
    return TOGETHER if sweep.stage is None else sweep.stage


def sweeps(diagnosis: Diagnosis) -> Table:
    """Every budget with its interval: what the curves are drawn from."""
    full = diagnosis.together.points[0]
    lines = [Line(("full depth", *_cells(full, full), ""), tone="strong")]
    for sweep in diagnosis.sweeps:
        lines += [
            Line((place(sweep), *_cells(point, full), change(point.paired)), _tone(point)) for point in sweep.skipping
        ]
    return Table(
        title="Every budget",
        columns=(
            Column("Skipping in", right=False),
            *(Column(name) for name in ("Skipped", "Latency", "Speedup", "Tokens", "Accuracy", "Against full depth")),
        ),
        lines=tuple(lines),
        note="Latency: priced, a question. Differences are paired by question, with their 95 % interval; lines in grey "
        "cannot be told from full depth.",
        sortable=True,
    )


def _cells(point: SweepPoint, full: SweepPoint) -> tuple[str, ...]:
    return (
        str(point.budget),
        words.seconds(point.seconds),
        words.times(full.seconds / point.seconds),
        f"{point.performance.total.tokens:.1f}",
        words.percent(point.accuracy),
    )


def _tone(point: SweepPoint) -> Tone:
    return "plain" if point.paired.can_tell else "dim"


def exits(diagnosis: Diagnosis) -> Table:
    """All stages together, with the exit rule and without."""
    rule = diagnosis.exit_rule
    pairs = zip(diagnosis.together.points, diagnosis.with_exit, strict=True)
    return Table(
        title="The exit rule, all stages together",
        columns=(
            Column("", right=False),
            *(Column(what, under=how) for what in ("Steps", "Accuracy") for how in ("without", "with")),
            Column("Change", under="by exit"),
            Column("Texts", under="ended"),
        ),
        lines=tuple(
            Line(
                (
                    skipped(before.budget),
                    f"{before.performance.total.decode_steps:.1f}",
                    f"{after.performance.total.decode_steps:.1f}",
                    words.percent(before.accuracy),
                    words.percent(after.accuracy),
                    f"{words.signed(after.paired.difference)} ({words.interval(after.paired.low, after.paired.high)})",
                    words.share(after.performance.total.early_exit_share),
                )
            )
            for before, after in pairs
        ),
        note=f"A text ends {words.exit_rule(rule)}. Steps: decode steps of a question, summed over its "
        "stages and branches.",
    )


def entropies(diagnosis: Diagnosis) -> Table:
    """Bits by stage, and what they rest on."""
    return Table(
        title="Entropy at full depth, bits",
        columns=(
            Column("Stage", right=False),
            Column("Token ids"),
            Column("Reads low by", under="about"),
            Column("Next token", under="mean"),
            Column("Tokens"),
            Column("Distinct ids"),
        ),
        lines=tuple(
            Line(
                (
                    stage.name,
                    f"{stage.written.bits:.2f}",
                    f"{stage.written.shortfall:.2f}",
                    f"{stage.next_token:.3f}",
                    f"{stage.written.tokens:,}",
                    f"{stage.written.distinct:,}",
                )
            )
            for stage in diagnosis.entropy
        ),
        note="Token ids: of all texts of a stage together. Next token: how open the model's choice is, token by token.",
    )
