"""Charts of a diagnosis: lines by budget, by token and by block, and bars of entropy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from litestage.report.charts import AXIS_WIDTH, LABEL_ROOM, Draw, Key, Width
from litestage.report.diagnosis_figures import TOGETHER, UNSURE, WITH, WITHOUT
from litestage.report.figures import Row
from litestage.report.theme import Theme

HEIGHT = 230
SOLID: tuple[int, ...] = (1, 0)
DASHED: tuple[int, ...] = (5, 3)
NINES = [1.0, 0.5, 0.1, 0.01, 0.001, 0.0001]
"""Ticks of an axis of nines, as distances to 1."""
CLOSEST = 1e-6
"""Where such an axis ends."""


@dataclass(frozen=True)
class Style:
    """How a series looks: hue, shape and dash say the same, so that none is needed alone."""

    mark: str
    """In a legend."""
    colour: str
    """A colour of the theme, by name."""
    shape: str = "circle"
    dash: tuple[int, ...] = SOLID
    width: float = 1.8
    opacity: float = 1.0
    size: int = 52
    """Of a point."""


_TOGETHER = Style("together", "ink", "circle", DASHED)
_STAGES = (
    Style("stage-1", "plan", "circle"),
    Style("stage-2", "ffn", "square"),
    Style("stage-3", "attention", "triangle-up"),
    Style("stage-4", "full", "diamond"),
)
_DEPTHS = (
    Style("depth-1", "plan", width=1.2, opacity=0.5),
    Style("depth-2", "plan", width=1.9, opacity=0.75),
    Style("depth-3", "plan", width=2.8),
)
EXITS = {
    WITHOUT: Style("without-exit", "full", width=4, opacity=0.45, size=130),
    WITH: Style("with-exit", "plan", "square", width=1.6, size=36),
}
"""Where exit changes nothing, the one lies on the other and both are seen."""
Styles = Mapping[str, Style]


def stage_styles(stages: Sequence[str]) -> dict[str, Style]:
    """A style a stage; a task of more than four begins again."""
    return {stage: _STAGES[place % len(_STAGES)] for place, stage in enumerate(stages)}


def sweep_styles(stages: Sequence[str]) -> dict[str, Style]:
    return {TOGETHER: _TOGETHER, **stage_styles(stages)}


def curve_styles(curves: Sequence[str]) -> dict[str, Style]:
    """Full depth first, then the budgets: the more is skipped, the heavier the line."""
    full, *skipping = curves
    return {full: Style("depth-0", "full", dash=DASHED), **dict(zip(skipping, _DEPTHS, strict=False))}


def keys(styles: Styles) -> tuple[Key, ...]:
    """The legend of some series."""
    return tuple(Key(style.mark, name) for name, style in styles.items())


@dataclass(frozen=True)
class Axis:
    """A number axis: the field, what it is called, and where it ends; None leaves the ends to the data."""

    field: str
    title: str
    domain: tuple[float, float] | None = None
    factor: float = 1.0
    nines: bool = False
    """Values below 1 by their distance to 1, on a logarithmic scale: 0.9, 0.99, 0.999, ..."""

    def place(self, value: float) -> float:
        return max(1 - value, CLOSEST) if self.nines else value * self.factor


def lines(
    rows: Sequence[Row],
    series: str,
    styles: Styles,
    x: Axis,
    y: Axis,
    tooltip: Mapping[str, str],
    *,
    points: bool = True,
    rule: float | None = None,
    height: int = HEIGHT,
) -> Draw:
    """A line a series; a point is open where its row's verdict says that chance may explain it."""
    values = [{**row, "value": y.place(float(row[y.field] or 0))} for row in rows if row[y.field] is not None]

    def draw(theme: Theme, width: Width) -> Any:
        height_of = alt.Y("value:Q", title=None, scale=_scale(y), axis=_axis(y))
        base = alt.Chart(alt.Data(values=values)).encode(
            x=_x(rows, x),
            y=height_of,
            color=_by(alt.Color, series, styles, [getattr(theme, style.colour) for style in styles.values()]),
        )
        layers = [
            *([_rule(rule, height_of, theme)] if rule is not None else []),
            base.mark_line().encode(
                strokeDash=_by(alt.StrokeDash, series, styles, [list(style.dash) for style in styles.values()]),
                strokeWidth=_by(alt.StrokeWidth, series, styles, [style.width for style in styles.values()]),
                opacity=_by(alt.Opacity, series, styles, [style.opacity for style in styles.values()]),
            ),
        ]
        if points:
            layers.append(_points(base, series, styles, theme))
        layers.append(base.mark_point(size=220, opacity=0).encode(tooltip=_tooltip(tooltip)))
        return alt.layer(*layers).properties(width=width, height=height, title=y.title)

    return draw


def _points(base: Any, series: str, styles: Styles, theme: Theme) -> Any:
    colours = _by(alt.Fill, series, styles, [getattr(theme, style.colour) for style in styles.values()])
    return base.mark_point(strokeWidth=1.6, opacity=1).encode(
        shape=_by(alt.Shape, series, styles, [style.shape for style in styles.values()]),
        size=_by(alt.Size, series, styles, [style.size for style in styles.values()]),
        fill=alt.condition(alt.datum.verdict == UNSURE, alt.value(theme.surface), colours),
    )


def bars(rows: Sequence[Row], field: str, title: str, styles: Styles, tooltip: Mapping[str, str]) -> Draw:
    """A bar a stage with its number behind it."""
    longest = max(float(row[field] or 0) for row in rows)
    stages = [str(row["stage"]) for row in rows]

    def draw(theme: Theme, width: Width) -> Any:
        scale = alt.Scale(domain=[0, LABEL_ROOM * longest or 1], nice=False)
        base = alt.Chart(alt.Data(values=[dict(row) for row in rows])).encode(
            y=alt.Y("stage:N", title=None, sort=stages, scale=alt.Scale(paddingInner=0.45, paddingOuter=0.2)),
            x=alt.X(f"{field}:Q", title="bits", scale=scale, axis=alt.Axis(tickCount=5, grid=True)),
        )
        colours = [getattr(theme, style.colour) for style in styles.values()]
        drawn = base.mark_bar().encode(color=_by(alt.Color, "stage", styles, colours), tooltip=_tooltip(tooltip))
        labels = base.mark_text(align="left", dx=6, fontSize=11, color=theme.muted).encode(text=f"{field}_text:N")
        return alt.layer(drawn, labels).properties(width=width, height=44 * len(rows), title=title)

    return draw


def _x(rows: Sequence[Row], axis: Axis) -> Any:
    """Whole numbers: all of them ticks where they are few."""
    places = sorted({int(row[axis.field] or 0) for row in rows})
    ticks = {"values": places} if len(places) <= 8 else {"tickCount": 8, "tickMinStep": 1}
    return alt.X(
        f"{axis.field}:Q",
        title=axis.title,
        scale=alt.Scale(domain=[places[0], places[-1]], nice=False, padding=10),
        axis=alt.Axis(format="d", labelOverlap=True, **ticks),
    )


def _scale(axis: Axis) -> Any:
    if axis.domain is None:
        return alt.Scale(zero=False, padding=8)
    ends = sorted(map(axis.place, axis.domain))
    if axis.nines:
        return alt.Scale(type="log", domain=ends, reverse=True, nice=False, padding=8)
    return alt.Scale(domain=ends, nice=False)


def _rule(value: float, height_of: Any, theme: Theme) -> Any:
    base = alt.Chart(alt.Data(values=[{"value": value}]))
    return base.mark_rule(color=theme.ink, strokeDash=[4, 3], opacity=0.7).encode(y=height_of)


def _by(channel: Any, field: str, styles: Styles, values: Sequence[Any]) -> Any:
    """A channel of fixed values, one a series, without a legend of its own: the figure has one."""
    scale = alt.Scale(type="ordinal", domain=list(styles), range=list(values))
    kind = "O" if channel in (alt.Opacity, alt.Size, alt.StrokeWidth) else "N"
    return channel(f"{field}:{kind}", legend=None, scale=scale, sort=list(styles))


def _axis(axis: Axis) -> Any:
    more = {"values": NINES, "labelExpr": "format(1 - datum.value, '~r')"} if axis.nines else {"tickCount": 5}
    return alt.Axis(minExtent=AXIS_WIDTH, maxExtent=AXIS_WIDTH, **more)


def _tooltip(titles: Mapping[str, str]) -> list[Any]:
    numbers = {"redundancy": ".4f"}
    return [
        alt.Tooltip(f"{field}:{'Q' if field in numbers else 'N'}", title=title, format=numbers.get(field, ""))
        for field, title in titles.items()
    ]
