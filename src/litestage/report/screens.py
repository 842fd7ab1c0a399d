"""What the terminal shows of each kind of record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from litestage.core import Plan, Trace
from litestage.report import comparison, diagnosis, evaluation, plan, prices, rankings
from litestage.report.terminal import Part, PlanStrips, Sentence
from litestage.results import Comparison, Diagnosis, Evaluation, PathSearch, PlanResult, PlanSearch, Prices, Rankings


def _texts(trace: Trace) -> Iterator[Part]:
    """What every stage wrote, a branch a line."""
    for stage in trace.stages:
        yield Sentence("\n".join([stage.name, *(f"  {done.text.strip()}" for done in stage.completions)]))


SCREENS: dict[type, Callable[[Any], Iterable[Part]]] = {
    Trace: _texts,
    Plan: lambda one: [PlanStrips(one.stages, one.model.num_blocks)],
    PlanSearch: plan.search_parts,
    PathSearch: plan.path_parts,
    PlanResult: plan.terminal,
    Comparison: comparison.terminal,
    Diagnosis: diagnosis.terminal,
    Prices: lambda one: [prices.table(one)],
    Evaluation: lambda one: [
        evaluation.performance(one.performance, f"{one.conditions.model} on {one.conditions.task}")
    ],
    Rankings: rankings.terminal,
}
