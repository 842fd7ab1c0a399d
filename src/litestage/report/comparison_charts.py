"""Charts of a comparison: accuracy against speedup, and what the exit rule cuts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from litestage.report import words
from litestage.report.charts import Draw, Width
from litestage.report.figures import Row
from litestage.report.theme import Theme
from litestage.results import Comparison, MethodResult

COLOURS = ("plan", "ffn", "attention", "vermilion", "purple", "sky", "brown", "full", "ink") * 2
SHAPES = (
    *("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "circle", "square"),
    *("diamond", "triangle-down", "circle", "square", "triangle-up", "cross", "diamond", "triangle-left", "cross"),
)
"""By order of the methods in a chart: hue and shape say the same, so that neither is needed alone."""

ON_FRONTIER = "on the frontier"


def points(systems: Sequence[MethodResult], comparison: Comparison) -> list[Row]:
    """Every system's accuracy and speedup, with what a tooltip says of it; full depth begins every line."""
    on_frontier = {point.name for point in comparison.frontier}
    return [
        {
            "method": system.title,
            "order": system.blocks_skipped,
            "speedup": system.speedup,
            "accuracy": system.accuracy,
            "low": max(0.0, system.accuracy + system.paired.low - system.paired.difference),
            "high": min(100.0, system.accuracy + system.paired.high - system.paired.difference),
            "frontier": ON_FRONTIER if system.name in on_frontier else "not on it",
            "requested": system.requested or "nothing",
            "skipped": f"{system.blocks_skipped:.1f} blocks, the mean over stages",
            "speedup_text": f"{words.times(system.speedup)} priced"
            + (f", {words.times(system.wall.speedup)} by the clock" if system.wall else ""),
            "accuracy_text": words.percent(system.accuracy),
            "change_text": f"{words.signed(system.paired.difference)} points "
            f"({words.interval(system.paired.low, system.paired.high)})",
        }
        for system in systems
    ]


def trade_off(
    rows: Sequence[Row], full: MethodResult, methods: Sequence[str], *, constant: float = 0.0, joined: bool = True
) -> Draw:
    """Accuracy (percent) against speedup: a line a method of several budgets, from full depth, where dashes cross.

    Dots lie where always giving the same answer would, if any system is no better.
    """
    sure = [row for row in rows if row["frontier"] == ON_FRONTIER]
    lowest = min((float(row["accuracy"] or 0) for row in rows), default=100.0)
    start: Row = {"speedup": 1.0, "accuracy": full.accuracy, "order": 0}

    def draw(theme: Theme, width: Width) -> Any:
        colour, shape = _by_method(methods, theme)
        several = [method for method in methods if sum(row["method"] == method for row in rows) > 1]
        lines = [row for row in rows if row["method"] in several]
        lines += [start | {"method": method} for method in several]
        style = {"color": theme.ink, "strokeDash": [4, 3], "opacity": 0.55}
        cross = alt.Chart(alt.Data(values=[start]))
        dots = alt.Chart(alt.Data(values=[{"accuracy": constant}])).mark_rule(**style | {"strokeDash": [1, 4]})
        layers = [
            *([dots.encode(y="accuracy:Q")] if lowest <= constant else []),
            cross.mark_rule(**style).encode(x="speedup:Q"),
            cross.mark_rule(**style).encode(y="accuracy:Q"),
            *([_joins(lines, colour)] if joined and lines else []),
            *([_intervals(sure, colour)] if sure else []),
            _dots(rows, colour, shape, theme),
        ]
        return alt.layer(*layers).properties(width=width, height=360 if joined else 300)

    return draw


def _by_method(methods: Sequence[str], theme: Theme) -> tuple[Any, Any]:
    """Hue and shape, with one legend for both."""
    legend = _legend(theme, "width > 560 ? 4 : 2")
    hues = [getattr(theme, name) for name in COLOURS[: len(methods)]]
    scales = (alt.Scale(domain=list(methods), range=some) for some in (hues, list(SHAPES[: len(methods)])))
    colour, shape = scales
    return (
        alt.Color("method:N", scale=colour, legend=legend, sort=list(methods)),
        alt.Shape("method:N", scale=shape, legend=legend, sort=list(methods)),
    )


def _legend(theme: Theme, columns: str) -> Any:
    """Above the chart, in as many columns as its width has room for.

    A chart keeps the height of a legend of two columns, so that one of more than two entries needs those at least.
    """
    return alt.Legend(
        orient="top",
        title=None,
        columns=alt.ExprRef(columns),
        labelFontSize=11,
        symbolSize=70,
        symbolOpacity=1,
        labelColor=theme.muted,
        labelLimit=alt.ExprRef("width > 340 ? 180 : 128"),
    )


def _joins(rows: Sequence[Row], colour: Any) -> Any:
    """A method's systems in the order of their budgets."""
    lines = alt.Chart(alt.Data(values=list(rows))).mark_line(strokeWidth=1.8, opacity=0.85)
    return lines.encode(x="speedup:Q", y="accuracy:Q", order="order:Q", color=colour)


def _intervals(rows: Sequence[Row], colour: Any) -> Any:
    """A bar for each system."""
    bars = alt.Chart(alt.Data(values=list(rows))).mark_rule(opacity=0.5)
    return bars.encode(x="speedup:Q", y="low:Q", y2="high:Q", color=colour)


def _dots(rows: Sequence[Row], colour: Any, shape: Any, theme: Theme) -> Any:
    """A mark a system, filled on the frontier."""
    titles = {
        "method": "method",
        "requested": "asked for",
        "skipped": "skips",
        "accuracy_text": "accuracy",
        "change_text": "against full depth",
        "speedup_text": "speedup",
        "frontier": "frontier",
    }
    axis = alt.Axis(tickCount=8, format=".2f", labelOverlap=True)
    across = alt.Scale(zero=False, padding=14)
    encoding = {
        "x": alt.X("speedup:Q", title="speedup over full depth (priced)", scale=across, axis=axis),
        "y": alt.Y(
            "accuracy:Q", title="accuracy, %", scale=alt.Scale(zero=False, padding=10), axis=alt.Axis(tickCount=6)
        ),
        "color": colour,
        "shape": shape,
        "tooltip": [alt.Tooltip(f"{field}:N", title=title) for field, title in titles.items()],
    }
    groups = (
        (False, {"size": 75, "strokeWidth": 2, "opacity": 1, "fill": theme.surface}),
        (True, {"size": 95, "filled": True, "opacity": 1}),
    )
    return alt.layer(
        *(
            alt.Chart(alt.Data(values=some)).mark_point(**style).encode(**encoding)
            for on, style in groups
            if (some := [row for row in rows if (row["frontier"] == ON_FRONTIER) == on])
        )
    )


def exit_effect(pairs: Sequence[tuple[str, MethodResult, MethodResult]], field: str, title: str) -> Draw:
    """A measure of systems with and without exit, by blocks skipped (the paper's Figure 6)."""
    rows = [
        {
            "family": family,
            "exit": state,
            "blocks": round(system.blocks_skipped, 2),
            "value": system.performance.total.decode_steps if field == "steps" else system.accuracy,
            "requested": system.requested,
        }
        for family, without, with_exit in pairs
        for state, system in (("without exit", without), ("with exit", with_exit))
    ]
    families = list(dict.fromkeys(family for family, _, _ in pairs))

    def draw(theme: Theme, width: Width) -> Any:
        legend = _legend(theme, "width > 340 ? 2 : 1")
        states = ["with exit", "without exit"]
        axis = alt.Axis(tickMinStep=1, format="d")
        base = alt.Chart(alt.Data(values=rows)).encode(
            x=alt.X("blocks:Q", title="blocks skipped, the mean over stages", axis=axis),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False, padding=10)),
            color=alt.Color(
                "family:N",
                legend=legend,
                scale=alt.Scale(domain=families, range=[theme.plan, theme.ffn][: len(families)]),
            ),
            tooltip=[
                alt.Tooltip("family:N", title="budgets"),
                alt.Tooltip("exit:N", title="exit"),
                alt.Tooltip("requested:N", title="asked for"),
                alt.Tooltip("value:Q", title=title, format=".1f"),
            ],
        )
        shape = alt.Shape("exit:N", legend=None, scale=alt.Scale(domain=states, range=["circle", "square"]))
        solid, dashed = (base.transform_filter(alt.datum.exit == state) for state in states)
        layers = [
            solid.mark_line(strokeWidth=1.8),
            dashed.mark_line(strokeWidth=1.8, strokeDash=[4, 3]),
            solid.mark_point(size=60, filled=True, opacity=1).encode(shape=shape),
            dashed.mark_point(size=60, strokeWidth=1.8, fill=theme.surface, opacity=1).encode(shape=shape),
        ]
        return alt.layer(*layers).properties(width=width, height=220, title=title)

    return draw
