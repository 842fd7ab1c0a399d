"""Benchmarks of the engine: their records, tables and figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt

from litestage.core import Machine
from litestage.report import words
from litestage.report.charts import Draw, Key, Width
from litestage.report.figures import Row
from litestage.report.page import Figure, Panel, write_figure
from litestage.report.tabular import NOTHING, Column, Line, Table
from litestage.report.theme import Theme
from litestage.results import DecodeBench, MemoryBench, PipelineBench, PrecisionBench, SearchBench, StepTime

BOUND_NOTE = (
    "Share of bound: the time that reading the step's weights and cache from memory takes, at the {rate:.1f} GB/s "
    "measured here, over the step's time; what stays in the processor's cache can make it more than 100 %."
)
EFFICIENCY_NOTE = "Efficiency: time saved over the full step's, divided by the share of weight bytes left out."


def _where(machine: Machine | None) -> str:
    """A sentence on what was measured; nothing for records that do not tell."""
    return f" Measured on {machine.hardware} ({machine.device})." if machine else ""


def accuracy(bench: PrecisionBench) -> Table:
    """Tokens and answers of each form."""
    return Table(
        title=f"Forms of {bench.model} on {bench.task}: {bench.forms[0].accuracy.n} questions, {bench.shots} examples",
        columns=(
            Column("Form", right=False),
            Column("Same tokens"),
            Column("KL"),
            Column("Accuracy"),
            Column("Against fp32"),
        ),
        lines=tuple(
            Line(
                (
                    one.precision,
                    words.percent(100 * one.agreement),
                    f"{one.kl:.4f}",
                    f"{words.percent(one.accuracy.percent)} ({one.accuracy.low:.1f}–{one.accuracy.high:.1f})",
                    f"{words.signed(one.paired.difference)} ({words.interval(one.paired.low, one.paired.high)})",
                )
            )
            for one in bench.forms
        ),
        note=f"Same tokens: of {bench.forms[0].tokens} in fp32's own texts, those whose likeliest successor stays the "
        "same. KL in nats. Intervals are 95 %, those against fp32 paired by question." + _where(bench.conditions),
    )


def searching(bench: SearchBench) -> Table:
    """Seconds of a search by form, and what it chose."""
    first = bench.forms[0]
    stages = list(first.skipped)
    return Table(
        title=f"A search: {bench.model} on {bench.task}, {first.questions} questions",
        columns=(
            Column("Form", right=False),
            Column("Seconds"),
            Column("Ratio"),
            Column("Settings"),
            Column("Questions"),
            Column("Accuracy"),
            *(Column(name) for name in stages),
        ),
        lines=tuple(
            Line(
                (
                    one.precision,
                    f"{one.seconds:.1f}",
                    words.times(first.seconds / one.seconds),
                    str(one.settings),
                    str(one.answered),
                    words.percent(one.percent),
                    *(str(one.skipped[name]) for name in stages),
                )
            )
            for one in bench.forms
        ),
        note="Questions: over all settings. Accuracy and sub-layers skipped by stage: of the plan that each found.",
    )


def memory(bench: MemoryBench) -> Table:
    """Where the megabytes are."""
    rounds = bench.after_rounds_mb
    lines = [
        ("Python with torch and transformers", bench.imported_mb),
        ("Weights", bench.weights_mb),
        ("Cache and kept prefixes", bench.cache_mb),
        ("All else", bench.overhead_mb),
        ("Together, after the last round", rounds[-1]),
        ("After the first round", rounds[0]),
        ("While loading, at most", bench.loading_peak_mb),
    ]
    return Table(
        title=f"Memory: {bench.model} on {bench.task}, {bench.precision}",
        columns=(Column("", right=False), Column("MB")),
        lines=tuple(Line((name, f"{value:.0f}")) for name, value in lines),
        note=f"Resident memory of the process, after {len(rounds)} rounds of {bench.questions} questions.",
    )


def pipeline(bench: PipelineBench) -> Table:
    """Questions a second by system, each with more of the engine than the one before."""
    greedy = bench.votes is None
    how = "greedy" if greedy else f"{bench.votes} votes"
    form = bench.precision
    return Table(
        title=f"Questions a second: {bench.model} on {bench.task}, {form}, {bench.shots} examples, {how}",
        columns=(
            Column("", right=False),
            Column("Rows"),
            Column("Questions"),
            Column("Seconds each"),
            Column("Tokens each"),
            Column("Ratio"),
            Column("Same texts" if greedy else "A token"),
        ),
        lines=tuple(
            Line(
                (
                    one.system,
                    str(one.batch_size),
                    str(one.questions),
                    words.seconds(one.seconds / one.questions),
                    f"{one.tokens / one.questions:.0f}",
                    words.times(one.ratio),
                    words.percent(100 * one.same_texts) if greedy else words.times(one.token_ratio),
                )
            )
            for one in bench.systems
        ),
        note="Rows: how many decode together. Ratio: the first line's time over this one's on the same questions, the "
        "median of groups answered in turn."
        + ("" if greedy else " A token: the same of the time a token, as sampled texts differ in length.")
        + _where(bench.conditions),
    )


def full_depth(bench: DecodeBench) -> Table:
    """Engines at full depth, by rows, the fastest of each first."""
    rows = sorted({step.rows for step in bench.steps})
    return Table(
        title=f"A decode step at full depth: {bench.model}, {bench.context} tokens before it",
        columns=(
            Column("Rows"),
            Column("Engine", right=False),
            Column("Step"),
            Column("Quartiles"),
            Column("Tokens a second"),
            Column("Share of bound"),
        ),
        lines=tuple(_full_line(step) for count in rows for step in _fastest(bench, count)),
        note=BOUND_NOTE.format(rate=bench.bandwidth) + _where(bench.conditions),
        sortable=True,
    )


def _fastest(bench: DecodeBench, rows: int) -> list[StepTime]:
    here = [step for step in bench.steps if step.rows == rows and step.full_depth]
    return sorted(here, key=lambda step: step.ms_per_step)


def _full_line(step: StepTime) -> Line:
    cells = (
        str(step.rows),
        step.title,
        _ms(step.ms_per_step),
        f"{_digits(step.ms_low)}–{_digits(step.ms_high)}",
        f"{step.tokens_per_s:.0f}",
        NOTHING if step.bound_share is None else words.share(step.bound_share),
    )
    return Line(cells, tone="plain" if step.engine == "litestage" else "dim")


def _ms(value: float) -> str:
    return f"{_digits(value)} ms"


def _digits(value: float) -> str:
    """Of milliseconds: three that count below 10, since a GPU's step may be a fraction of one."""
    size = abs(value)
    return f"{value:.{3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0}f}"


def skipping(bench: DecodeBench) -> Table:
    """What leaving out half of the sub-layers saves, by form and rows."""
    kinds = [kind for kind in _kinds(bench) if kind[1] == "none"]
    return _saved(bench, kinds, "What skipping saves: a step, and its skip efficiency")


def compensated(bench: DecodeBench) -> Table | None:
    """What a step pays for stand-ins; None where none were timed."""
    kinds = [kind for kind in _kinds(bench) if kind[1] != "none"]
    plain = [(kinds[0][0], "none")] if kinds else []
    return _saved(bench, plain + kinds, "What stand-ins cost: a step, and its skip efficiency") if kinds else None


def _kinds(bench: DecodeBench) -> list[tuple[str, str]]:
    """What our steps leave out and what stands in for it, in the order of timing."""
    return list(dict.fromkeys((step.skipped, step.compensation) for step in _ours(bench) if not step.full_depth))


def _ours(bench: DecodeBench) -> list[StepTime]:
    return [step for step in bench.steps if step.engine == "litestage"]


def _saved(bench: DecodeBench, kinds: Sequence[tuple[str, str]], title: str) -> Table:
    ours = _ours(bench)
    known = {(step.precision, step.rows, step.skipped, step.compensation): step for step in ours}
    lines = []
    for full in (step for step in ours if step.full_depth):
        steps = [known[full.precision, full.rows, *kind] for kind in kinds]
        cells = [f"{_ms(step.ms_per_step)}, {step.efficiency or 0:.2f}" for step in steps]
        lines.append(Line((full.precision, str(full.rows), _ms(full.ms_per_step), *cells)))
    headings = [what if kind == "none" else kind for what, kind in kinds]
    return Table(
        title=title,
        columns=(Column("Form", right=False), Column("Rows"), Column("Full depth"), *map(Column, headings)),
        lines=tuple(lines),
        note=EFFICIENCY_NOTE + _where(bench.conditions),
    )


def write_decode_figure(bench: DecodeBench, folder: Path) -> None:
    """Draw ``decode.svg`` and ``decode.png``: tokens a second of each engine, a panel for each number of rows."""
    counts = sorted({step.rows for step in bench.steps})
    device = bench.conditions.device if bench.conditions else ""
    panels = tuple(Panel((_bars(_fastest(bench, rows), rows, device),)) for rows in counts)
    keys = (Key("plan-bar", "litestage"), Key("full-bar", "others"))
    described = f"Tokens a second at full depth, by engine and rows.{_where(bench.conditions)}"
    write_figure(Figure("decode", described, panels, keys), folder)


def _bars(steps: Sequence[StepTime], rows: int, device: str) -> Draw:
    data: list[Row] = [
        {
            "engine": step.title,
            "tokens": step.tokens_per_s,
            "whose": "litestage" if step.engine == "litestage" else "others",
            "label": f"{step.tokens_per_s:.0f}",
        }
        for step in steps
    ]

    def draw(theme: Theme, width: Width) -> Any:
        base = alt.Chart(alt.Data(values=data)).encode(
            y=alt.Y("engine:N", title=None, sort=None, axis=alt.Axis(labelLimit=190)),
            x=alt.X("tokens:Q", title="tokens a second", axis=alt.Axis(tickCount=4), scale=alt.Scale(nice=False)),
        )
        colour = alt.Color(
            "whose:N", legend=None, scale=alt.Scale(domain=["litestage", "others"], range=[theme.plan, theme.full])
        )
        labels = base.mark_text(align="left", dx=3, color=theme.ink, fontSize=10).encode(text="label:N")
        title = f"{rows} row{'s' * (rows > 1)}" + (f" on {device}" if device else "")
        bars = base.mark_bar(height=11).encode(color=colour)
        return alt.layer(bars, labels).properties(width=width, height=20 * len(data), title=title)

    return draw
