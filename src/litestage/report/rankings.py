"""Rankings side by side: the order that each gives, and the tokens and answers that its skip sets keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import altair as alt

from litestage.evaluation import Accuracy, Paired
from litestage.report import words
from litestage.report.charts import AXIS_WIDTH, Draw, Width
from litestage.report.figures import Row
from litestage.report.page import Figure, Panel, write_figure
from litestage.report.tabular import NOTHING, Column, Line, Table
from litestage.report.theme import Theme

T = TypeVar("T")

SHOWN = 16
"""Places of a ranking that a table shows."""
BESIDE = 3
"""Rankings, or ways, beside each other: as many as a terminal of 80 columns has room for."""
Points = Sequence[tuple[int, float]]
"""Budgets and the share of tokens, 0 to 1, that stay the same."""
AnsweredBudgets = Sequence[tuple[int, Accuracy, Paired]]
"""Budgets, the accuracy with them left out of every stage, and how it stands against full depth."""


def places(stage: str, orders: Mapping[str, Sequence[tuple[str, float | None]]]) -> list[Table]:
    """The first places of each ranking: sub-layers, and where they were probed the tokens that stay the same."""
    return [_places(stage, some) for some in _parts(orders)]


def _places(stage: str, orders: Mapping[str, Sequence[tuple[str, float | None]]]) -> Table:
    columns: list[Column] = [Column("Place")]
    cells: list[list[str]] = []
    for name, scores in orders.items():
        probed = any(same is not None for _, same in scores)
        columns += [Column(name, right=False), *([Column("Same tokens")] if probed else [])]
        cells.append([layer for layer, _ in scores[:SHOWN]])
        if probed:
            cells.append([NOTHING if same is None else f"{100 * same:.0f} %" for _, same in scores[:SHOWN]])
    return Table(
        title=f"Rankings for {stage}",
        columns=tuple(columns),
        lines=tuple(Line((str(place), *row)) for place, row in enumerate(zip(*cells, strict=True), start=1)),
        note="The first goes first. A probe leaves out one sub-layer; greedy removal all that stand before it as well.",
    )


def effects(stage: str, curves: Mapping[str, Points]) -> list[Table]:
    """Share of tokens that stay the same, by budget and way."""
    return [_effects(stage, some) for some in _parts(curves)]


def _effects(stage: str, curves: Mapping[str, Points]) -> Table:
    budgets = sorted({budget for points in curves.values() for budget, _ in points})
    known = {way: dict(points) for way, points in curves.items()}
    return Table(
        title=f"Same tokens, {stage}",
        columns=(Column("Skipped"), *(Column(way) for way in curves)),
        lines=tuple(Line((str(budget), *(_share(known[way].get(budget)) for way in curves))) for budget in budgets),
        note="Of the full model's own text, on questions that nothing was fitted on.",
    )


def _parts(by_name: Mapping[str, T]) -> list[dict[str, T]]:
    names = list(by_name)
    return [{name: by_name[name] for name in names[at : at + BESIDE]} for at in range(0, len(names), BESIDE)]


def _share(agreement: float | None) -> str:
    return NOTHING if agreement is None else f"{100 * agreement:.1f} %"


def right_answers(answers: Mapping[str, AnsweredBudgets]) -> Table:
    """Right answers by way and budget, each with its difference to full depth."""
    n = max((accuracy.n for points in answers.values() for _, accuracy, _ in points), default=0)
    return Table(
        title="Right answers, left out of every stage",
        columns=(Column("Way", right=False), Column("Skipped"), Column("Right"), Column("Against full depth")),
        lines=tuple(
            Line(
                (
                    way,
                    str(budget),
                    f"{accuracy.percent:.1f} %",
                    f"{words.signed(paired.difference)} ({words.interval(paired.low, paired.high)})",
                )
            )
            for way, points in answers.items()
            for budget, accuracy, paired in points
        ),
        note=f"Points, paired, with 95 % intervals, on {n} questions that nothing was fitted on. A way ends where it "
        "surely loses.",
    )


def write_rankings_figure(
    curves: Mapping[str, Mapping[str, Points]], folder: Path, answers: Mapping[str, AnsweredBudgets] | None = None
) -> None:
    """Draw ``rankings.svg`` and ``rankings.png``: a panel a stage and one for the answers, a line a way."""
    panels = [Panel((_same_tokens(stage, some),)) for stage, some in curves.items()]
    if answers:
        panels.append(Panel((_answers(answers),)))
    write_figure(Figure("rankings", "What stays the same, by sub-layers left out.", tuple(panels)), folder)


def _same_tokens(stage: str, curves: Mapping[str, Points]) -> Draw:
    shares = {way: [(0, 100.0), *((budget, 100 * same) for budget, same in some)] for way, some in curves.items()}
    return _lines(f"{stage}: tokens that stay the same, %", shares)


def _answers(answers: Mapping[str, AnsweredBudgets]) -> Draw:
    shares = {
        way: [
            *((0, paired.baseline_percent) for _, _, paired in points[:1]),
            *((budget, accuracy.percent) for budget, accuracy, _ in points),
        ]
        for way, points in answers.items()
    }
    return _lines("left out of every stage: right answers, %", shares)


def _lines(title: str, curves: Mapping[str, Points]) -> Draw:
    rows: list[Row] = [
        {"way": way, "budget": budget, "same": same} for way, points in curves.items() for budget, same in points
    ]

    def draw(theme: Theme, width: Width) -> alt.Chart:
        return (
            alt.Chart(alt.Data(values=rows))
            .mark_line(point=True, strokeWidth=1.8)
            .encode(
                x=alt.X("budget:Q", title="sub-layers left out"),
                y=alt.Y(
                    "same:Q",
                    title=None,
                    scale=alt.Scale(zero=True),
                    axis=alt.Axis(minExtent=AXIS_WIDTH, maxExtent=AXIS_WIDTH),
                ),
                color=alt.Color("way:N", title=None, scale=alt.Scale(domain=list(curves))),
                strokeDash=alt.StrokeDash("way:N", title=None, scale=alt.Scale(domain=list(curves))),
                shape=alt.Shape("way:N", title=None, scale=alt.Scale(domain=list(curves))),
            )
            .properties(width=width, height=220, title=title)
        )

    return draw
