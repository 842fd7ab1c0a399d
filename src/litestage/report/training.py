"""How a training went: loss and generated accuracy by step (the paper's Figure 9)."""

from __future__ import annotations

from collections.abc import Sequence

from litestage.report.chart import Axis, Lines, Style
from litestage.report.page import Figure, Panel

Measured = Sequence[tuple[int, float]]
"""Steps, and what was measured there."""


def figure(losses: Measured, accuracies: Measured) -> Figure:
    """Losses in nats a target token, accuracies in percent."""
    last = losses[-1][0]
    panels = [_curve(losses, "Loss, nats a target token", last)]
    if accuracies:
        panels.append(_curve(accuracies, "Generated dev accuracy, %", last, points=True))
    return Figure("training", "Loss and generated accuracy by step of training.", tuple(panels))


def _curve(measured: Measured, title: str, last: int, points: bool = False) -> Panel:
    chart = Lines(
        records=measured,
        x=lambda entry: entry[0],
        y=lambda entry: entry[1],
        series=lambda entry: "",
        styles={"": Style("plan")},
        across=Axis("step", (0, last), 6, format="d", padding=6),
        up=Axis(zero=not points),
        title=title,
        height=200,
        points=points,
    )
    return Panel((chart,))
