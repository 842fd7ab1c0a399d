"""A page: headings, figures and tables, drawn into one self-contained HTML file and into figure files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import vl_convert

from litestage.core.files import write_bytes, write_text
from litestage.report.chart import Chart, Key, Width, legend
from litestage.report.examples import ExampleView
from litestage.report.table import Table
from litestage.report.theme import PAGE, PAPER, Theme

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
PAPER_WIDTH = 680
"""Of a figure file, in pixels: its panels share it."""
PANEL_GAP = 24
PNG_SCALE = 3


@dataclass(frozen=True)
class Panel:
    """Charts above each other, under a heading."""

    charts: tuple[Chart, ...]
    heading: str = ""
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """Panels side by side; ``name`` is that of its files."""

    name: str
    alt: str
    panels: tuple[Panel, ...]
    legend: tuple[Key, ...] = ()
    caption: str = ""


@dataclass(frozen=True)
class Card:
    """A headline figure."""

    label: str
    value: str
    detail: str
    before: str = ""


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    lead: str = ""
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    examples: tuple[ExampleView, ...] = ()


@dataclass(frozen=True)
class Page:
    title: str
    headline: str
    summary: tuple[str, ...]
    """What stands above everything."""
    notes: tuple[str, ...]
    """Sentences that a reader must not miss."""
    cards: tuple[Card, ...]
    sections: tuple[Section, ...]
    facts: tuple[tuple[str, str], ...]
    """Provenance: names and values."""
    more: tuple[str, ...] = ()
    """What else there is to say, below the first section."""

    @property
    def figures(self) -> list[Figure]:
        return [figure for section in self.sections for figure in section.figures]


def write_page(page: Page, folder: Path) -> Path:
    """Write ``report.html`` and each figure as SVG and PNG into ``figures/``; returns the page's path.

    Figures of an earlier page are removed.
    """
    figures = folder / "figures"
    for figure in page.figures:
        write_figure(figure, figures)
    _remove_others(figures, {figure.name for figure in page.figures})
    path = folder / "report.html"
    write_text(path, to_html(page))
    return path


def _remove_others(folder: Path, names: set[str]) -> None:
    """Figures of an earlier page: those that are there both ways, as ours are."""
    for vector in folder.glob("*.svg"):
        drawn = vector.with_suffix(".png")
        if vector.stem not in names and drawn.is_file():
            vector.unlink()
            drawn.unlink()


def write_figure(figure: Figure, folder: Path) -> None:
    """Write a figure as SVG and PNG."""
    svg = to_svg(figure)
    write_text(folder / f"{figure.name}.svg", svg)
    write_bytes(folder / f"{figure.name}.png", vl_convert.svg_to_png(svg, scale=PNG_SCALE))


def to_html(page: Page) -> str:
    """The page with its style, its charts and the library that draws them: it loads nothing."""
    specs = {chart_id(figure, at): spec for figure in page.figures for at, spec in _page_specs(figure).items()}
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            page=page, specs=_script_json(specs), library=_library(), style=_part("page.css"), code=_part("page.js")
        )
    )


def to_svg(figure: Figure) -> str:
    return str(vl_convert.vegalite_to_svg(on_paper(figure), vl_version=VEGA_LITE))


def on_paper(figure: Figure) -> dict[str, Any]:
    """A figure as one Vega-Lite specification in fixed colours and size."""
    count = len(figure.panels)
    width = (PAPER_WIDTH - PANEL_GAP * (count - 1)) // count
    panels = [
        alt.vconcat(*(chart.draw(PAPER, width) for chart in panel.charts)).properties(title=_heading(panel))
        for panel in figure.panels
    ]
    drawing = alt.hconcat(*panels, spacing=PANEL_GAP)
    return _spec(alt.vconcat(legend(figure.legend, PAPER, PAPER_WIDTH), drawing) if figure.legend else drawing, PAPER)


def chart_id(figure: Figure, at: tuple[int, int]) -> str:
    """Of the chart at (panel, row) on the page."""
    return f"chart-{figure.name}-{at[0]}-{at[1]}"


def _page_specs(figure: Figure) -> dict[tuple[int, int], dict[str, Any]]:
    return {
        (column, row): _spec(_fitted(chart, PAGE, "container"), PAGE)
        for column, panel in enumerate(figure.panels)
        for row, chart in enumerate(panel.charts)
    }


def _fitted(chart: Chart, theme: Theme, width: Width) -> Any:
    return chart.draw(theme, width).properties(autosize=alt.AutoSizeParams(type="fit-x", contains="padding"))


def _heading(panel: Panel) -> Any:
    subtitle = [panel.note] if panel.note else []
    return alt.Title(panel.heading, subtitle=subtitle, fontSize=13, fontWeight=600, color=PAPER.ink)


def _spec(chart: Any, theme: Theme) -> dict[str, Any]:
    return dict(chart.configure(**theme.config()).to_dict())


def _script_json(value: Any) -> str:
    """JSON that may stand inside a script element whatever text it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)).replace(
        "</script", "<\\/script"
    )


def _part(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text("utf-8")


def tie(text: str) -> str:
    """No line break between a number and its unit, nor around an equals sign."""
    return re.sub(r"(?<=\d) (?=%|m?s\b|points?\b)| (?==)|(?<==) ", "\N{NO-BREAK SPACE}", text)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_part),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals.update(chart_id=chart_id)
    environment.filters.update(tie=tie)
    return environment
