"""Plans and results in a notebook: what the command line prints, as HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from io import StringIO
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from litestage.core import Plan, StageTrace, Trace
from litestage.report import comparison_tables, diagnosis_tables, tables
from litestage.results import Comparison, Diagnosis, Evaluation, PlanResult, PlanSearch

WIDTH = 100
PRE = '<pre style="font-family:monospace;line-height:1.25;white-space:pre;overflow-x:auto">{code}</pre>'


def _texts(stage: StageTrace) -> Iterator[Text]:
    """What a stage wrote, a branch a line."""
    yield Text(stage.name, style="bold")
    yield from (Text(f"  {done.text.strip()}") for done in stage.completions)


DRAWN: dict[type, Callable[[Any], RenderableType]] = {
    Trace: lambda trace: Group(*(line for stage in trace.stages for line in _texts(stage))),
    Plan: lambda plan: tables.plan_map(plan.stages, plan.model.num_blocks),
    PlanSearch: tables.search_profiles,
    PlanResult: tables.report,
    Comparison: comparison_tables.report,
    Diagnosis: diagnosis_tables.terminal,
    Evaluation: lambda one: tables.evaluation(one.performance, f"{one.conditions.model} on {one.conditions.task}"),
}
"""How each kind of record is drawn."""


def html(records: Sequence[object]) -> str:
    """The records below one another, in a fixed pitch and in colours that go with a light and a dark page."""
    console = Console(record=True, file=StringIO(), width=WIDTH, force_terminal=True, color_system="standard")
    console.print(Group(*(DRAWN[type(record)](record) for record in records)))
    return console.export_html(inline_styles=True, code_format=PRE)
