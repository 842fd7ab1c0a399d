"""The page: complete, self-contained, and safe whatever text the results hold."""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from litestage.report import draw, plan
from litestage.report.page import chart_id, tie, to_html
from litestage.results import Example, PlanResult

FIGURES = {"profiles", "plan", "time", "redundancy", "accuracy"}


class Elements(HTMLParser):
    """Tags with their attributes, and the text of each script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += data

    @property
    def ids(self) -> set[str]:
        return {str(attributes["id"]) for _, attributes in self.tags if "id" in attributes}


@pytest.fixture(scope="module")
def html(results: PlanResult) -> str:
    return to_html(plan.page(results))


def specs_of(html: str) -> dict[str, Any]:
    return dict(json.loads(Elements(html).scripts[0]))


def test_every_chart_has_its_place_and_its_specification(results: PlanResult, html: str) -> None:
    page = plan.page(results)
    assert {figure.name for figure in page.figures} == FIGURES
    wanted = {
        chart_id(figure, (column, row))
        for figure in page.figures
        for column, panel in enumerate(figure.panels)
        for row in range(len(panel.charts))
    }
    assert len(wanted) == 3 * 2 + 4
    assert specs_of(html).keys() == wanted
    assert wanted <= Elements(html).ids
    assert all(spec["width"] == "container" for spec in specs_of(html).values())


def test_the_page_loads_nothing(html: str) -> None:
    elements = Elements(html)
    loading = {"src", "srcset", "href", "action", "data", "poster", "background"}
    assert not [(tag, attributes) for tag, attributes in elements.tags if loading & attributes.keys()]
    assert not {"link", "iframe", "object", "embed", "img"} & {tag for tag, _ in elements.tags}
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html


def test_charts_take_their_colours_from_the_page(html: str) -> None:
    assert not re.findall(r"#[0-9a-f]{6}", Elements(html).scripts[0])
    style = html[html.index("<style>") : html.index("</style>")]
    for name in set(re.findall(r"var\(--([a-z]+)\)", Elements(html).scripts[0])):
        assert style.count(f"--{name}:") == 2, f"{name} must be set for light and for dark"


def test_what_the_results_say_is_on_the_page(results: PlanResult, html: str) -> None:
    text = unescape(html).replace("\N{NO-BREAK SPACE}", " ")
    for said in (
        "1.34× faster, −0.7 points of accuracy",
        *results.notes,
        "Maya's soup is too hot to drink",
        results.provenance.command,
        "150 of 400 dev questions, priced",
    ):
        assert said in text


def test_text_from_a_model_cannot_become_code(results: PlanResult) -> None:
    nasty = "</script><script>alert(1)</script><b>"
    stages = tuple(
        stage.model_copy(update={"plan": tuple(g.model_copy(update={"text": nasty, "cut": nasty}) for g in stage.plan)})
        for stage in results.examples[0].stages
    )
    example = Example.model_validate(results.examples[0].model_copy(update={"stages": stages, "question": nasty}))
    groups = tuple(group.model_copy(update={"name": nasty}) for group in results.groups)
    changed = results.model_copy(update={"examples": (example,), "groups": groups, "notes": (nasty,)})
    elements = Elements(to_html(plan.page(changed)))
    assert len(elements.scripts) == 3
    assert nasty in str(json.loads(elements.scripts[0]))


def test_results_without_a_search_have_a_page(results: PlanResult) -> None:
    bare = results.model_copy(update={"search": None, "ranking": (), "examples": (), "groups": (), "notes": ()})
    page = plan.page(bare)
    assert [section.name for section in page.sections] == ["plan", "time", "numbers"]
    assert "How the budgets were found" not in to_html(page)


def test_a_report_leaves_the_page_and_each_figure_as_svg_and_png(results: PlanResult, tmp_path: Path) -> None:
    assert draw(results, tmp_path) == tmp_path / "report.html"
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        f"{name}.{kind}" for name in FIGURES for kind in ("svg", "png")
    }
    for name in FIGURES:
        svg = (tmp_path / "figures" / f"{name}.svg").read_text()
        assert svg.startswith("<svg")
        assert "var(" not in svg
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    profiles = (tmp_path / "figures" / "profiles.svg").read_text()
    assert all(
        said in profiles for said in ("1. analysis", "keeps the target", "Accuracy, %", "Latency, ms a question")
    )


def test_numbers_stay_with_their_units() -> None:
    assert tie("91.2 % of 3 answers, n = 600; 12 ms") == "91.2\xa0% of 3 answers, n\xa0=\xa0600; 12\xa0ms"
