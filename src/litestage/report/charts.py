"""Charts: rows of figure data drawn with Altair, the same for the page (any width) and for a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt

from litestage.report.figures import (
    AT_MOST,
    ATTENTION,
    CHOSEN,
    DECODE,
    FEASIBLE,
    FFN,
    FULL,
    INFEASIBLE,
    KEPT,
    PLAN,
    PREFILL,
    SLOWER,
    Row,
)
from litestage.report.theme import Theme

Width = int | Literal["container"]
Draw = Callable[[Theme, Width], Any]
"""Draws one chart in a theme at a width."""

AXIS_WIDTH = 40
"""Room for the labels of a number axis, in pixels: plots above each other line up."""
LEGEND_SYMBOL, LEGEND_LETTER = 14, 5.6
"""Widths in a legend, in pixels."""
LABEL_ROOM = 1.25
"""Room on the right of the longest bar for its label."""


@dataclass(frozen=True)
class Scale:
    """What the charts of one figure share, so that they can be compared by eye."""

    budgets: tuple[float, float]
    accuracy: tuple[float, float]
    seconds: tuple[float, float]

    @classmethod
    def of(cls, profiles: Sequence[Sequence[Row]], target: float) -> Scale:
        rows = [row for profile in profiles for row in profile]
        return cls(
            budgets=_padded([0.0, 2.0, *_numbers(rows, "budget")], air=0.05),
            accuracy=_padded([target, *_numbers(rows, "accuracy")]),
            seconds=_padded(_numbers(rows, "seconds")),
        )


@dataclass(frozen=True)
class Key:
    """An entry of a figure's legend: a mark, which the page's style sheet knows as well, and what it means."""

    mark: str
    label: str


_SYMBOLS = {
    "feasible": ("circle", "plan", "plan"),
    "chosen": ("M-.5,0A.5,.5,0,1,1,.5,0A.5,.5,0,1,1,-.5,0ZM-1,0A1,1,0,1,1,1,0A1,1,0,1,1,-1,0Z", "plan", "surface"),
    "infeasible": ("circle", "full", "surface"),
    "at-most": ("triangle-down", "full", "full"),
    "slower": ("triangle-down", "muted", "muted"),
    "target": ("M-1.5,0L-.5,0M.5,0L1.5,0", "ink", "ink"),
    "full-bar": ("square", "full", "full"),
    "plan-bar": ("square", "plan", "plan"),
    "pale": ("square", "kept", "kept"),
    "deep": ("square", "ink", "ink"),
    "attention-cell": ("square", "attention", "attention"),
    "ffn-cell": ("square", "ffn", "ffn"),
    "kept-cell": ("square", "kept", "kept"),
    "attention-dot": ("circle", "attention", "attention"),
    "ffn-dot": ("square", "ffn", "ffn"),
    "open-dot": ("circle", "muted", "surface"),
    "together": ("circle", "ink", "ink"),
    "stage-1": ("circle", "plan", "plan"),
    "stage-2": ("square", "ffn", "ffn"),
    "stage-3": ("triangle-up", "attention", "attention"),
    "stage-4": ("diamond", "full", "full"),
    "without-exit": ("circle", "full", "full"),
    "with-exit": ("square", "plan", "plan"),
    "depth-0": ("M-1.5,0L-.5,0M.5,0L1.5,0", "full", "full"),
    "depth-1": ("M-1.5,0L1.5,0", "plan", "plan"),
    "depth-2": ("M-1.5,-.08H1.5V.08H-1.5Z", "plan", "plan"),
    "depth-3": ("M-1.5,-.24H1.5V.24H-1.5Z", "plan", "plan"),
}
"""Shape, stroke and fill of each mark of a legend."""


def legend(keys: Sequence[Key], theme: Theme) -> Any:
    """A row of marks and labels, for figures in files; the page sets its own."""
    rows: list[Row] = []
    x = LEGEND_SYMBOL / 2
    for key in keys:
        shape, stroke, fill = _SYMBOLS[key.mark]
        rows.append(
            {"x": x, "label": key.label, "shape": shape, "stroke": getattr(theme, stroke), "fill": getattr(theme, fill)}
        )
        x += LEGEND_SYMBOL + LEGEND_LETTER * len(key.label) + 18
    base = alt.Chart(_values(rows)).encode(x=alt.X("x:Q", scale=None, axis=None), y=alt.value(8))
    marks = base.mark_point(size=60, strokeWidth=1.5, opacity=1).encode(
        shape=alt.Shape("shape:N", scale=None),
        stroke=alt.Stroke("stroke:N", scale=None),
        fill=alt.Fill("fill:N", scale=None),
    )
    labels = base.mark_text(align="left", dx=LEGEND_SYMBOL / 2 + 2, color=theme.muted, fontSize=11).encode(
        text="label:N"
    )
    return alt.layer(marks, labels).properties(width=x, height=16)


def profile_accuracy(rows: Sequence[Row], target: float, scale: Scale) -> Draw:
    """Accuracy against budget, with the target as a line; what ended early is a bound, so no line joins it."""

    def draw(theme: Theme, width: Width) -> Any:
        y = alt.Y("accuracy:Q", title=None, scale=alt.Scale(domain=scale.accuracy, nice=False), axis=_number_axis())
        line = alt.Chart(_values([{"accuracy": target}])).mark_rule(color=theme.ink, strokeDash=[4, 3]).encode(y=y)
        return _profile(rows, y, line, scale, theme, "Accuracy, %", width)

    return draw


def profile_latency(rows: Sequence[Row], scale: Scale) -> Draw:
    """Latency against budget; what ended early was not timed."""
    unit, factor = _unit(scale.seconds[1])

    def draw(theme: Theme, width: Width) -> Any:
        domain = tuple(end * factor for end in scale.seconds)
        y = alt.Y("value:Q", title=None, scale=alt.Scale(domain=domain, nice=False), axis=_number_axis())
        timed = _scaled(rows, "seconds", factor)
        return _profile(timed, y, None, scale, theme, f"Latency, {unit} a question", width)

    return draw


def _profile(rows: Sequence[Row], y: Any, rule: Any, scale: Scale, theme: Theme, title: str, width: Width) -> Any:
    axis = alt.Axis(values=_ticks(scale.budgets[1]), format="d", labelOverlap=True)
    x = alt.X("budget:Q", title="sub-layers skipped", scale=alt.Scale(domain=scale.budgets, nice=False), axis=axis)
    base = alt.Chart(_values(rows)).encode(x=x)
    chosen = base.transform_filter(alt.datum.state == CHOSEN)
    layers = [
        chosen.mark_rule(color=theme.plan, opacity=0.14, strokeWidth=14),
        *([rule] if rule else []),
        base.transform_filter((alt.datum.state != AT_MOST) & (alt.datum.state != SLOWER))
        .mark_line(color=theme.full, strokeWidth=1.5)
        .encode(y=y),
        chosen.mark_point(size=170, color=theme.plan, strokeWidth=2, fill="none").encode(y=y),
        base.mark_point(size=50, strokeWidth=1.5, opacity=1).encode(
            y=y,
            color=_by_state(alt.Color, theme.plan, theme.plan, theme.full, theme.full, theme.muted),
            fill=_by_state(alt.Fill, theme.plan, theme.plan, theme.surface, theme.full, theme.muted),
            shape=_by_state(alt.Shape, "circle", "circle", "circle", "triangle-down", "triangle-down"),
        ),
        base.mark_rule(opacity=0, strokeWidth=16).encode(tooltip=_profile_tooltip()),
    ]
    return alt.layer(*layers).properties(width=width, height=150, title=title)


def _by_state(channel: Any, chosen: str, feasible: str, infeasible: str, at_most: str, slower: str) -> Any:
    domain = [CHOSEN, FEASIBLE, INFEASIBLE, AT_MOST, SLOWER]
    scale = alt.Scale(domain=domain, range=[chosen, feasible, infeasible, at_most, slower])
    return channel("state:N", legend=None, scale=scale)


def _profile_tooltip() -> list[Any]:
    return _tooltip(
        budget="sub-layers skipped", accuracy_text="accuracy", seconds_text="latency", state="verdict",
        questions_text="questions measured",
    )  # fmt: skip


def plan_map(rows: Sequence[Row], stages: Sequence[str]) -> Draw:
    """Blocks by stages: attention above FFN, filled where the plan skips."""

    def draw(theme: Theme, width: Width) -> Any:
        states = [f"{ATTENTION} skipped", f"{FFN} skipped", KEPT]
        chart = alt.Chart(_values(rows)).mark_rect(cornerRadius=2, strokeWidth=1.5, stroke=theme.surface)
        encoded = chart.encode(
            x=alt.X("block:O", title="block", axis=alt.Axis(labelAngle=0, labelOverlap=True), scale=_tight()),
            y=alt.Y("stage:N", title=None, sort=list(stages), scale=alt.Scale(paddingInner=0.22, paddingOuter=0.05)),
            yOffset=alt.YOffset("kind:N", sort=[ATTENTION, FFN]),
            color=alt.Color(
                "state:N",
                legend=None,
                scale=alt.Scale(domain=states, range=[theme.attention, theme.ffn, theme.kept]),
            ),
            tooltip=_tooltip(
                stage="stage", block="block", kind="sub-layer", when="plan", place="redundancy",
            ),
        )  # fmt: skip
        return encoded.properties(width=width, height=56 * len(stages))

    return draw


def time_bars(rows: Sequence[Row], stages: Sequence[str]) -> Draw:
    """Seconds a question: a bar a stage and system, prefill pale and decode full."""
    longest = max(_numbers(rows, "total"))
    unit, factor = _unit(longest)

    def draw(theme: Theme, width: Width) -> Any:
        base = alt.Chart(_values(_scaled(rows, "seconds", factor, total=factor))).encode(
            y=alt.Y("stage:N", title=None, sort=list(stages), scale=alt.Scale(paddingInner=0.35, paddingOuter=0.1)),
            yOffset=alt.YOffset("system:N", sort=[FULL, PLAN], scale=alt.Scale(paddingInner=0.15)),
        )
        axis = alt.Axis(tickCount=6)
        x_scale = alt.Scale(domain=[0, LABEL_ROOM * longest * factor], nice=False)
        bars = base.mark_bar().encode(
            x=alt.X("value:Q", title=f"{unit} a question", scale=x_scale, axis=axis, stack="zero"),
            color=_systems(theme, legend=None),
            opacity=alt.Opacity("phase:O", scale=alt.Scale(domain=[PREFILL, DECODE], range=[0.4, 1]), legend=None),
            order=alt.Order("phase:N", sort="descending"),
            tooltip=_tooltip(
                stage="stage", system="system", phase="phase", seconds_text="time", share_text="of its question's time",
                tokens_text="tokens generated",
            ),
        )  # fmt: skip
        labels = base.transform_filter(alt.datum.phase == DECODE).mark_text(
            align="left", dx=6, fontSize=11, color=theme.muted
        )
        labels = labels.encode(x=alt.X("total:Q", scale=x_scale), text="total_text:N")
        return alt.layer(bars, labels).properties(width=width, height=58 * len(stages))

    return draw


def ranking_points(rows: Sequence[Row]) -> Draw:
    """Redundancy by block: a line a kind, a dot filled where the plan skips the sub-layer in some stage."""

    def draw(theme: Theme, width: Width) -> Any:
        kinds = alt.Scale(domain=[ATTENTION, FFN], range=[theme.attention, theme.ffn])
        shapes = alt.Scale(domain=[ATTENTION, FFN], range=["circle", "square"])
        base = alt.Chart(_values(rows)).encode(
            x=alt.X("block:Q", title="block", axis=alt.Axis(tickMinStep=1, format="d"), scale=alt.Scale(nice=False)),
            y=alt.Y("redundancy:Q", title=None, scale=alt.Scale(zero=False), axis=_number_axis()),
            color=alt.Color("kind:N", scale=kinds, legend=None),
        )
        points = base.mark_point(size=64, opacity=1, strokeWidth=1.5).encode(
            fill=alt.condition(
                alt.datum.skipped == KEPT,
                alt.value(theme.surface),
                alt.Fill("kind:N", scale=kinds, legend=None),
            ),
            shape=alt.Shape("kind:N", scale=shapes, legend=None),
            tooltip=_tooltip(
                block="block", kind="sub-layer", redundancy="redundancy", place="place", skipped_in="skipped in",
            ),
        )  # fmt: skip
        chart = alt.layer(base.mark_line(strokeWidth=1.5), points)
        return chart.properties(width=width, height=220, title="Redundancy: cosine of what enters and what leaves")

    return draw


def accuracy_dots(rows: Sequence[Row]) -> Draw:
    """Accuracy with its 95 % interval, full depth above the plan."""
    groups = list(dict.fromkeys(str(row["group"]) for row in rows))
    domain = _padded([*_numbers(rows, "low"), *_numbers(rows, "high")])

    def draw(theme: Theme, width: Width) -> Any:
        base = alt.Chart(_values(rows)).encode(
            y=alt.Y("group:N", title=None, sort=groups, axis=alt.Axis(labelLimit=220)),
            yOffset=alt.YOffset("system:N", sort=[FULL, PLAN], scale=alt.Scale(paddingOuter=0.6)),
            color=_systems(theme, legend=None),
            tooltip=_tooltip(
                group="questions", system="system", percent_text="accuracy", interval_text="95 % interval"
            ),
        )
        x_scale = alt.Scale(domain=domain, nice=False)
        ends = base.mark_rule(strokeWidth=2.5, strokeCap="round").encode(
            x=alt.X("low:Q", title="accuracy, %", scale=x_scale, axis=alt.Axis(grid=True, tickCount=6)), x2="high:Q"
        )
        dots = base.mark_point(filled=True, size=80, opacity=1).encode(x=alt.X("percent:Q", scale=x_scale))
        return alt.layer(ends, dots).properties(width=width, height=46 * len(groups))

    return draw


def _systems(theme: Theme, **more: Any) -> Any:
    return alt.Color("system:N", scale=alt.Scale(domain=[FULL, PLAN], range=[theme.full, theme.plan]), **more)


def _tooltip(**titles: str) -> list[Any]:
    """Fields and what a tooltip calls them."""
    numbers = {"redundancy": ("Q", ".4f"), "budget": ("Q", "d"), "block": ("Q", "d"), "place": ("N", "")}
    return [
        alt.Tooltip(f"{field}:{numbers.get(field, ('N', ''))[0]}", title=title, format=numbers.get(field, ("", ""))[1])
        for field, title in titles.items()
    ]


def _number_axis() -> Any:
    return alt.Axis(tickCount=4, minExtent=AXIS_WIDTH, maxExtent=AXIS_WIDTH)


def _tight() -> Any:
    return alt.Scale(paddingInner=0.0, paddingOuter=0.0)


def _values(rows: Sequence[Row]) -> Any:
    return alt.Data(values=[dict(row) for row in rows])


def _numbers(rows: Sequence[Row], field: str) -> list[float]:
    return [float(value) for row in rows if (value := row[field]) is not None]


def _scaled(rows: Sequence[Row], field: str, factor: float, **others: float) -> list[Row]:
    """Rows with ``field`` in another unit as ``value``, where there is one; ``others`` are scaled in place."""
    return [
        {**row, **{name: float(row[name] or 0) * by for name, by in others.items()}, "value": float(value) * factor}
        for row in rows
        if (value := row[field]) is not None
    ]


def _unit(largest: float) -> tuple[str, float]:
    return ("s", 1.0) if largest >= 1 else ("ms", 1000.0)


def _ticks(most: float) -> list[int]:
    """Even budgets, few enough to read."""
    return list(range(0, int(most) + 1, 2 if most < 12 else 4 if most < 40 else 8))


def _padded(values: Sequence[float], air: float = 0.08) -> tuple[float, float]:
    """The range of the values with a share of it as air; around a single value as well."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    room = air * (high - low) or 0.02 * abs(high) or 1.0
    return low - room, high + room
