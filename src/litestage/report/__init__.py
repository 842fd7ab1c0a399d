"""Results for people: one description a job, drawn on a page and in the terminal. It computes nothing new."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from litestage.core import DataError
from litestage.results import RESULTS_FILE, Comparison, Diagnosis, PlanResult, kind_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from litestage.report.page import Page

Result = PlanResult | Comparison | Diagnosis
KINDS: dict[str, type[Result]] = {kind.KIND: kind for kind in (PlanResult, Comparison, Diagnosis)}
"""What has a page, by what its file calls it."""


def draw(result: Result, folder: Path) -> Path:
    """Write ``report.html`` and each figure as SVG and PNG into ``figures/``; returns the page's path."""
    from litestage.report.page import write_page

    return write_page(page_of(result), folder)


def redraw(folder: Path) -> Path:
    """The same from a folder's ``results.json``, whatever job it is of."""
    kind = kind_of(folder / RESULTS_FILE)
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(
            f"{folder / RESULTS_FILE} has results of kind {kind!r}; reports are drawn of {', '.join(KINDS)}. "
            "Give the folder that quickstart, compare or diagnose wrote."
        )
    return draw(KINDS[kind].load(folder), folder)


def page_of(result: Result) -> Page:
    """What is drawn, as data."""
    from litestage.report import comparison, diagnosis, plan

    pages: dict[type, Any] = {PlanResult: plan.page, Comparison: comparison.page, Diagnosis: diagnosis.page}
    page: Page = pages[type(result)](result)
    return page


def shown(record: Any) -> RenderableType:
    """A plan, a trace, or what any job leaves, in the terminal."""
    from litestage.report.screens import SCREENS
    from litestage.report.terminal import shown as drawn

    return drawn(SCREENS[type(record)](record))


__all__ = ["draw", "page_of", "redraw", "shown"]
