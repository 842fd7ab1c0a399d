"""Charts as data: marks for records along two axes, and the one place that draws them with Altair.

Hue, shape and dash say the same, so that none is needed alone. Every colour is a name of the theme.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import altair as alt

from litestage.report.theme import Theme

Width = int | Literal["container"]
Tips = Mapping[str, Callable[[Any], Any]]
"""What a tooltip says of a record, by title."""
AXIS_WIDTH = 40
"""Room for the labels of a number axis, in pixels: plots above each other line up."""
LABEL_ROOM = 1.25
"""Room on the right of the longest bar for its label."""
NINES = [1.0, 0.5, 0.1, 0.01, 0.001, 0.0001]
"""Ticks of an axis of nines, as distances to 1."""
CLOSEST = 1e-6
"""Where such an axis ends."""
SOLID: tuple[int, ...] = (1, 0)
DASHED: tuple[int, ...] = (5, 3)
RULE: tuple[int, ...] = (4, 3)
DOTS: tuple[int, ...] = (1, 4)
LETTER = 5.6
"""Width of a letter in a legend, in pixels."""


@dataclass(frozen=True)
class Style:
    """How marks look."""

    colour: str
    """A colour of the theme, by name."""
    shape: str = "circle"
    """A shape of `SHAPES`."""
    open: bool = False
    dash: tuple[int, ...] = SOLID
    width: float = 1.8
    opacity: float = 1.0
    size: int = 52
    """Of a point."""


SHAPES = {
    "circle": "M-1,0A1,1,0,1,1,1,0A1,1,0,1,1,-1,0Z",
    "square": "M-0.9,-0.9L0.9,-0.9L0.9,0.9L-0.9,0.9Z",
    "triangle-up": "M0,-1L1,0.8L-1,0.8Z",
    "triangle-down": "M0,1L1,-0.8L-1,-0.8Z",
    "triangle-left": "M-1,0L0.8,-1L0.8,1Z",
    "triangle-right": "M1,0L-0.8,-1L-0.8,1Z",
    "diamond": "M0,-1.2L1,0L0,1.2L-1,0Z",
    "cross": "M-1,-0.35L-0.35,-0.35L-0.35,-1L0.35,-1L0.35,-0.35L1,-0.35L1,0.35L0.35,0.35L0.35,1L-0.35,1L-0.35,0.35"
    "L-1,0.35Z",
    "ring": "M-0.5,0A0.5,0.5,0,1,1,0.5,0A0.5,0.5,0,1,1,-0.5,0ZM-1,0A1,1,0,1,1,1,0A1,1,0,1,1,-1,0Z",
    "line": "M-1.7,0L1.7,0",
    "dashes": "M-1.7,0L-0.4,0M0.4,0L1.7,0",
}
"""Paths from -1 to 1, for legends; in a chart, all but the last three are Vega's own."""


@dataclass(frozen=True)
class Key:
    """An entry of a figure's legend."""

    label: str
    style: Style

    @property
    def path(self) -> str:
        return SHAPES[self.style.shape]

    @property
    def hollow(self) -> bool:
        return self.style.open or self.style.shape in ("line", "dashes", "ring")


def keys(styles: Mapping[str, Style], lines: bool = False) -> tuple[Key, ...]:
    """The legend of some series; by their lines where no points are drawn."""
    if not lines:
        return tuple(Key(name, style) for name, style in styles.items())
    return tuple(
        Key(name, Style(style.colour, "dashes" if style.dash == DASHED else "line", width=style.width))
        for name, style in styles.items()
    )


@dataclass(frozen=True)
class Axis:
    """A number axis."""

    title: str = ""
    domain: tuple[float, float] | None = None
    """None leaves the ends to the data."""
    ticks: Sequence[float] | int = 5
    """Where they are, or about how many."""
    format: str = ""
    zero: bool = False
    padding: int = 8
    grid: bool | None = None
    factor: float = 1.0
    """From a record's unit to the axis's."""
    nines: bool = False
    """Values below 1 by their distance to 1, on a logarithmic scale: 0.9, 0.99, 0.999, ..."""
    room: int | None = AXIS_WIDTH
    """For labels, in pixels, of an upright axis; None is as much as they need."""

    def place(self, value: float) -> float:
        return max(1 - value, CLOSEST) if self.nines else value * self.factor

    def scale(self) -> Any:
        if self.domain is None:
            return alt.Scale(zero=self.zero, padding=self.padding)
        ends = sorted(map(self.place, self.domain))
        if self.nines:
            return alt.Scale(type="log", domain=ends, reverse=True, nice=False, padding=self.padding)
        return alt.Scale(domain=ends, nice=False, padding=self.padding)

    def axis(self, upright: bool) -> Any:
        more: dict[str, Any] = {"minExtent": self.room, "maxExtent": self.room} if upright and self.room else {}
        if self.nines:
            more |= {"values": NINES, "labelExpr": "format(1 - datum.value, '~r')"}
        elif isinstance(self.ticks, int):
            more |= {"tickCount": self.ticks} | ({"tickMinStep": 1} if self.format == "d" else {})
        else:
            more |= {"values": list(self.ticks)}
        more |= {"format": self.format} if self.format else {}
        more |= {} if self.grid is None else {"grid": self.grid}
        return alt.Axis(labelOverlap=True, **more)


def whole(title: str, values: Sequence[float]) -> Axis:
    """An axis of whole numbers: all of them ticks where they are few."""
    places = sorted(set(values))
    few = places if len(places) <= 8 else 8
    return Axis(title, (places[0], places[-1]), few, format="d", padding=10)


def in_unit(title: str, most: float) -> Axis:
    """An upright axis of seconds, in the unit that suits."""
    unit, factor = ("s", 1.0) if most >= 1 else ("ms", 1000.0)
    return Axis(title.format(unit=unit), factor=factor)


def padded(values: Sequence[float], air: float = 0.08) -> tuple[float, float]:
    """The range of the values with a share of it as air; around a single value as well."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    room = air * (high - low) or 0.02 * abs(high) or 1.0
    return low - room, high + room


@dataclass(frozen=True)
class Rule:
    """A line across the whole chart."""

    at: float
    upright: bool = False
    dash: tuple[int, ...] = RULE
    opacity: float = 0.7


@dataclass(frozen=True)
class Lines:
    """A line a series, with points; records in the order in which the line meets them."""

    records: Sequence[Any]
    x: Callable[[Any], float]
    y: Callable[[Any], float | None]
    """None where nothing is drawn."""
    series: Callable[[Any], str]
    styles: Mapping[str, Style]
    across: Axis
    up: Axis
    tips: Tips = field(default_factory=dict)
    title: str = ""
    height: int = 230
    points: bool = True
    mark: Callable[[Any], Style] | None = None
    """A record's point, where it is not its series' own."""
    joined: Callable[[Any], bool] = lambda record: True
    """Whether the line passes the record."""
    chosen: Callable[[Any], bool] = lambda record: False
    """Whether the record stands out."""
    interval: Callable[[Any], tuple[float, float] | None] = lambda record: None
    rules: Sequence[Rule] = ()
    start: tuple[float, float] | None = None
    """Where every line of several points begins."""

    def draw(self, theme: Theme, width: Width) -> Any:
        across = alt.X("x:Q", title=self.across.title or None, scale=self.across.scale(), axis=self.across.axis(False))
        up = alt.Y("y:Q", title=None, scale=self.up.scale(), axis=self.up.axis(True))
        rows = [self._row(record, theme) for record in self.records if self.y(record) is not None]
        chosen = [row for row in rows if row["chosen"]]
        layers = [
            *self._band(chosen, across, theme),
            *(self._rule(rule, across, up, theme) for rule in self.rules),
            *self._joins(rows, across, up, theme),
            *self._intervals(rows, across, theme),
        ]
        if self.points:
            ring = _chart(chosen).mark_point(size=170, color=theme.plan, strokeWidth=2, fill="none")
            layers += [ring.encode(x=across, y=up)] * bool(chosen)
            layers.append(_points(rows, across, up))
        hover = _chart(rows).mark_point(size=220, opacity=0)
        layers.append(hover.encode(x=across, y=up, tooltip=_tooltip(self.tips)))
        shown = {"title": self.title} if self.title else {}
        return alt.layer(*layers).properties(width=width, height=self.height, **shown)

    def _rule(self, rule: Rule, across: Any, up: Any, theme: Theme) -> Any:
        axis = self.across if rule.upright else self.up
        place = axis.place(rule.at)
        line = _chart([{"x": place, "y": place}])
        line = line.mark_rule(color=theme.ink, strokeDash=list(rule.dash), opacity=rule.opacity)
        return line.encode(x=across) if rule.upright else line.encode(y=up)

    def _row(self, record: Any, theme: Theme) -> dict[str, Any]:
        style = self.mark(record) if self.mark else self.styles[self.series(record)]
        y = self.y(record)
        return {
            "x": self.across.place(self.x(record)),
            "y": None if y is None else self.up.place(y),
            "series": self.series(record),
            "joined": self.joined(record),
            "chosen": self.chosen(record),
            "interval": self.interval(record),
            **_look(style, theme),
            **_tips(self.tips, record),
        }

    @staticmethod
    def _band(chosen: Sequence[dict[str, Any]], across: Any, theme: Theme) -> list[Any]:
        band = _chart(chosen).mark_rule(color=theme.plan, opacity=0.14, strokeWidth=14)
        return [band.encode(x=across)] if chosen else []

    def _joins(self, rows: Sequence[dict[str, Any]], across: Any, up: Any, theme: Theme) -> list[Any]:
        drawn = []
        for name, style in self.styles.items():
            met = [{"x": row["x"], "y": row["y"]} for row in rows if row["series"] == name and row["joined"]]
            if len(met) < 2:
                continue
            if self.start:
                met.insert(0, {"x": self.across.place(self.start[0]), "y": self.up.place(self.start[1])})
            line = _chart([{**row, "order": place} for place, row in enumerate(met)]).mark_line(
                color=getattr(theme, style.colour),
                strokeDash=list(style.dash),
                strokeWidth=style.width,
                opacity=style.opacity,
            )
            drawn.append(line.encode(x=across, y=up, order="order:Q"))
        return drawn

    def _intervals(self, rows: Sequence[dict[str, Any]], across: Any, theme: Theme) -> list[Any]:
        ends = [(row, row["interval"]) for row in rows if row["interval"]]
        bars = [{"x": row["x"], "low": low, "high": high, "stroke": row["stroke"]} for row, (low, high) in ends]
        if not bars:
            return []
        encoded = _chart(bars).mark_rule(opacity=0.5).encode(x=across, y="low:Q", y2="high:Q", stroke=_as_is("stroke"))
        return [encoded]


@dataclass(frozen=True)
class Ranges:
    """A bar a record, or with ``dot`` a point in its interval; lines by label, side by side by ``beside``."""

    records: Sequence[Any]
    label: Callable[[Any], str]
    low: Callable[[Any], float]
    high: Callable[[Any], float]
    style: Callable[[Any], Style]
    across: Axis
    dot: Callable[[Any], float] | None = None
    beside: Callable[[Any], str] | None = None
    text: Callable[[Any], str] = lambda record: ""
    """What stands behind the bar."""
    tips: Tips = field(default_factory=dict)
    title: str = ""
    step: int = 46
    """Height of a line in pixels."""
    bar: int | None = None
    """Thickness of a bar; None fills the line but for some air."""
    label_room: int = 220

    def draw(self, theme: Theme, width: Width) -> Any:
        rows = [self._row(record, theme) for record in self.records]
        labels = list(dict.fromkeys(row["label"] for row in rows))
        air = {} if self.bar else {"scale": alt.Scale(paddingInner=0.4, paddingOuter=0.15)}
        encoding = {
            "y": alt.Y("label:N", title=None, sort=labels, axis=alt.Axis(labelLimit=self.label_room), **air),
            "x": alt.X("low:Q", title=self.across.title, scale=self.across.scale(), axis=self.across.axis(False)),
        }
        if self.beside:
            order = list(dict.fromkeys(row["beside"] for row in rows))
            inner = alt.Scale(paddingOuter=0.6) if self.dot else alt.Scale(paddingInner=0.15)
            encoding["yOffset"] = alt.YOffset("beside:N", sort=order, scale=inner)
        base = _chart(rows).encode(tooltip=_tooltip(self.tips), **encoding)
        if self.dot:
            line = base.mark_rule(strokeWidth=2.5, strokeCap="round").encode(x2="high:Q", stroke=_as_is("stroke"))
            dots = base.mark_point(filled=True, size=80, opacity=1).encode(x="dot:Q", fill=_as_is("fill"))
            layers = [line, dots]
        else:
            bars = base.mark_bar(**({"height": self.bar} if self.bar else {}))
            layers = [bars.encode(x2="high:Q", fill=_as_is("fill"), opacity=_as_is("opacity", "Q"))]
            written = base.mark_text(align="left", dx=6, fontSize=11, color=theme.muted)
            layers.append(written.encode(x="high:Q", text="text:N"))
        shown = {"title": self.title} if self.title else {}
        return alt.layer(*layers).properties(width=width, height=self.step * len(labels), **shown)

    def _row(self, record: Any, theme: Theme) -> dict[str, Any]:
        return {
            "label": self.label(record),
            "low": self.across.place(self.low(record)),
            "high": self.across.place(self.high(record)),
            "dot": self.across.place(self.dot(record)) if self.dot else None,
            "beside": self.beside(record) if self.beside else None,
            "text": self.text(record),
            **_look(self.style(record), theme),
            **_tips(self.tips, record),
        }


@dataclass(frozen=True)
class Cells:
    """A grid: columns along ``x``, lines by label, in each a half by ``beside``."""

    records: Sequence[Any]
    x: Callable[[Any], int]
    label: Callable[[Any], str]
    beside: Callable[[Any], str]
    style: Callable[[Any], Style]
    title: str
    """Of the columns."""
    tips: Tips = field(default_factory=dict)
    step: int = 56

    def draw(self, theme: Theme, width: Width) -> Any:
        rows = [
            {
                "x": self.x(record),
                "label": self.label(record),
                "beside": self.beside(record),
                **_look(self.style(record), theme),
                **_tips(self.tips, record),
            }
            for record in self.records
        ]
        labels, halves = (list(dict.fromkeys(row[part] for row in rows)) for part in ("label", "beside"))
        tight, lines = alt.Scale(paddingInner=0.0, paddingOuter=0.0), alt.Scale(paddingInner=0.22, paddingOuter=0.05)
        cells = _chart(rows).mark_rect(cornerRadius=2, strokeWidth=1.5, stroke=theme.surface)
        encoded = cells.encode(
            x=alt.X("x:O", title=self.title, axis=alt.Axis(labelAngle=0, labelOverlap=True), scale=tight),
            y=alt.Y("label:N", title=None, sort=labels, scale=lines),
            yOffset=alt.YOffset("beside:N", sort=halves),
            fill=_as_is("fill"),
            tooltip=_tooltip(self.tips),
        )
        return encoded.properties(width=width, height=self.step * len(labels))


Chart = Lines | Ranges | Cells


def legend(entries: Sequence[Key], theme: Theme, width: int) -> Any:
    """Marks and labels in as many rows as the width needs, for figures in files; the page sets its own."""
    places, x, y = [], 7.0, 8.0
    for key in entries:
        long = 34 + LETTER * len(key.label)
        if x > 7 and x + long > width:
            x, y = 7.0, y + 18
        places.append({**_look(key.style, theme), "x": x, "y": y, "label": key.label, "shape": key.path})
        places[-1] |= {"fill": "none"} if key.hollow else {}
        x += long
    base = _chart(places).encode(x=alt.X("x:Q", scale=None, axis=None), y=alt.Y("y:Q", scale=None, axis=None))
    marks = base.mark_point(size=60, strokeWidth=1.5).encode(
        shape=_as_is("shape"), stroke=_as_is("stroke"), fill=_as_is("fill"), opacity=_as_is("opacity", "Q")
    )
    labels = base.mark_text(align="left", dx=10, color=theme.muted, fontSize=11).encode(text="label:N")
    return alt.layer(marks, labels).properties(width=width, height=y + 8)


def _points(rows: Sequence[dict[str, Any]], across: Any, up: Any) -> Any:
    return (
        _chart(rows)
        .mark_point(strokeWidth=1.6, opacity=1)
        .encode(
            x=across,
            y=up,
            shape=_as_is("shape"),
            size=_as_is("size", "Q"),
            stroke=_as_is("stroke"),
            fill=_as_is("fill"),
        )
    )


def _look(style: Style, theme: Theme) -> dict[str, Any]:
    colour = getattr(theme, style.colour)
    fill = theme.surface if style.open else colour
    return {"stroke": colour, "fill": fill, "shape": style.shape, "size": style.size, "opacity": style.opacity}


def _as_is(name: str, kind: str = "N") -> Any:
    """A channel whose values are colours, shapes or sizes already."""
    channels = {"stroke": alt.Stroke, "fill": alt.Fill, "shape": alt.Shape, "size": alt.Size, "opacity": alt.Opacity}
    return channels[name](f"{name}:{kind}", scale=None, legend=None)


def _tips(tips: Tips, record: Any) -> dict[str, Any]:
    return {f"tip{place}": str(said(record)) for place, said in enumerate(tips.values())}


def _tooltip(tips: Tips) -> list[Any]:
    return [alt.Tooltip(f"tip{place}:N", title=title) for place, title in enumerate(tips)]


def _chart(rows: Sequence[Mapping[str, Any]]) -> Any:
    return alt.Chart(alt.Data(values=list(rows)))
