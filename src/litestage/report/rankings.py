"""Rankings side by side: the order that each gives, and the tokens and answers that its skip sets keep."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeVar

from litestage.core import Ranking
from litestage.report import words
from litestage.report.chart import Axis, Lines, Style, keys
from litestage.report.page import Figure, Panel
from litestage.report.table import Column, Table, each, name
from litestage.report.terminal import Part, Sentence
from litestage.results import BudgetAnswers, PolicyAnswers, PolicyEffects, Rankings, StageRankings

T = TypeVar("T")

SHOWN = 16
"""Places of a ranking that a table shows."""
BESIDE = 3
"""Rankings, or policies, beside each other: as many as a terminal of 80 columns has room for."""
COLOURS = ("plan", "ffn", "attention", "vermilion", "purple", "sky", "brown", "full", "ink")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
Point = tuple[str, int, float]
"""A policy, a budget and a percentage."""


def terminal(found: Rankings) -> list[Part]:
    """Of each stage the orders, what they keep, and what must never go; then the answers."""
    shown: list[Part] = []
    for stage in found.stages:
        shown += [_places(stage.stage, some) for some in _beside(list(stage.rankings.items()))]
        shown += [_effects(found, stage.stage, some) for some in _beside(stage.curves)]
        if stage.indispensable:
            layers = ", ".join(map(str, stage.indispensable))
            shown.append(Sentence(f"Must stay: {layers}. Without one of them every second token changes."))
    return [*shown, *([_right_answers(found)] if found.answers else [])]


def figure(found: Rankings) -> Figure:
    """A panel a stage and one for the answers, a line a policy."""
    titles = list(dict.fromkeys(_title(found, policy) for stage in found.stages for policy in stage.curves))
    styles = {
        title: Style(COLOURS[place % len(COLOURS)], SHAPES[place % len(SHAPES)]) for place, title in enumerate(titles)
    }
    panels = [
        _panel(_kept(found, stage), styles, f"{stage.stage}: tokens that stay the same, %") for stage in found.stages
    ]
    if found.answers:
        panels.append(_panel(_right(found), styles, "left out of every stage: right answers, %"))
    return Figure("rankings", "What stays the same, by sub-layers left out.", tuple(panels), keys(styles))


def _kept(found: Rankings, stage: StageRankings) -> list[Point]:
    return [
        (_title(found, policy), budget, 100 * share)
        for policy in stage.curves
        for budget, share in [(0, 1.0), *((point.budget, point.agreement) for point in policy.points)]
    ]


def _right(found: Rankings) -> list[Point]:
    return [
        (_title(found, policy), budget, percent)
        for policy in found.answers
        for budget, percent in [
            *((0, point.against_full.baseline_percent) for point in policy.points[:1]),
            *((point.budget, point.accuracy.percent) for point in policy.points),
        ]
    ]


def _panel(points: Sequence[Point], styles: dict[str, Style], title: str) -> Panel:
    chart = Lines(
        records=points,
        x=lambda point: point[1],
        y=lambda point: point[2],
        series=lambda point: point[0],
        styles=styles,
        across=Axis("sub-layers left out", zero=True, ticks=8, format="d"),
        up=Axis(zero=True),
        title=title,
        height=220,
    )
    return Panel((chart,))


def _title(found: Rankings, policy: PolicyEffects | PolicyAnswers) -> str:
    """Short where all policies share a compensation."""
    return policy.ranking if found.one_compensation else str(policy)


def _beside(some: Sequence[T]) -> list[Sequence[T]]:
    return [some[at : at + BESIDE] for at in range(0, len(some), BESIDE)]


def _places(stage: str, orders: Sequence[tuple[str, Ranking]]) -> Table:
    """The first places of each ranking: sub-layers, and where they were probed the tokens that stay the same."""
    columns = [Column("Place", lambda place: str(place + 1))]
    for title, ranking in orders:
        columns.append(name(title, partial(_layer, ranking)))
        if any(score.agreement is not None for score in ranking.scores):
            columns.append(Column("Same tokens", partial(_same_tokens, ranking)))
    return Table(
        title=f"Rankings for {stage}",
        records=range(min(SHOWN, *(len(ranking.scores) for _, ranking in orders))),
        columns=columns,
        note="The first goes first. A probe leaves out one sub-layer; greedy removal all that stand before it as well.",
    )


def _layer(ranking: Ranking, place: int) -> str:
    return str(ranking.scores[place].layer)


def _same_tokens(ranking: Ranking, place: int) -> str:
    return _share(ranking.scores[place].agreement, 0)


def _effects(found: Rankings, stage: str, curves: Sequence[PolicyEffects]) -> Table:
    """Share of tokens that stay the same, by budget and policy."""
    return Table(
        title=f"Same tokens, {stage}",
        records=sorted({point.budget for policy in curves for point in policy.points}),
        columns=(
            Column("Skipped", str),
            *each(curves, lambda policy, budget: _share(policy.agreement(budget), 1), partial(_title, found)),
        ),
        note="Of the full model's own text, on questions that nothing was fitted on.",
    )


def _share(agreement: float | None, digits: int) -> str:
    return words.NOTHING if agreement is None else f"{100 * agreement:.{digits}f} %"


def _right_answers(found: Rankings) -> Table:
    """Right answers by policy and budget, each with its difference to full depth."""
    records: list[tuple[str, BudgetAnswers]]
    records = [(_title(found, policy), point) for policy in found.answers for point in policy.points]
    n = max((point.accuracy.n for _, point in records), default=0)
    return Table(
        title="Right answers, left out of every stage",
        records=records,
        columns=(
            name("Policy", lambda entry: entry[0]),
            Column("Skipped", lambda entry: str(entry[1].budget)),
            Column("Right", lambda entry: words.percent(entry[1].accuracy.percent)),
            Column("Against full depth", lambda entry: words.difference(entry[1].against_full)),
        ),
        note=f"Points, paired, with 95 % intervals, on {n} questions that nothing was fitted on. A policy ends where "
        "it surely loses.",
    )
