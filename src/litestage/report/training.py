"""How a training went: loss and generated accuracy by step (the paper's Figure 9)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import altair as alt

from litestage.report.charts import AXIS_WIDTH, Draw, Width
from litestage.report.figures import Row
from litestage.report.page import Figure, Panel, write_figure
from litestage.report.theme import Theme


def write_training_figure(
    steps: Sequence[int], losses: Sequence[float], accuracies: Sequence[float | None], folder: Path
) -> None:
    """Draw ``training.svg`` and ``training.png``; losses in nats a target token, accuracies in percent."""
    losses_by_step: list[Row] = [{"step": step, "value": loss} for step, loss in zip(steps, losses, strict=True)]
    measured: list[Row] = [
        {"step": step, "value": accuracy}
        for step, accuracy in zip(steps, accuracies, strict=True)
        if accuracy is not None
    ]
    panels = [Panel((_curve(losses_by_step, "Loss, nats a target token", last=steps[-1]),))]
    if measured:
        panels.append(Panel((_curve(measured, "Generated dev accuracy, %", last=steps[-1], points=True),)))
    write_figure(Figure("training", "Loss and generated accuracy by step of training.", tuple(panels)), folder)


def _curve(rows: Sequence[Row], title: str, last: int, points: bool = False) -> Draw:
    def draw(theme: Theme, width: Width) -> alt.Chart:
        return (
            alt.Chart(alt.Data(values=list(rows)))
            .mark_line(color=theme.plan, strokeWidth=1.8, point={"color": theme.plan, "size": 50} if points else False)
            .encode(
                x=alt.X(
                    "step:Q",
                    title="step",
                    scale=alt.Scale(domain=[0, last], nice=False, padding=6),
                    axis=alt.Axis(format="d", tickCount=6, tickMinStep=1),
                ),
                y=alt.Y(
                    "value:Q",
                    title=None,
                    scale=alt.Scale(zero=not points, padding=8),
                    axis=alt.Axis(minExtent=AXIS_WIDTH, maxExtent=AXIS_WIDTH, tickCount=5),
                ),
            )
            .properties(width=width, height=200, title=title)
        )

    return draw
