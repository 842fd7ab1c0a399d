"""Prices of a finished search, as a table."""

from __future__ import annotations

from litestage.report import words
from litestage.report.table import Column, Table, name
from litestage.results import PlanPrice, Prices


def table(prices: Prices) -> Table:
    many = f", {prices.questions_at_once} going through each stage together" * (prices.questions_at_once > 1)
    fit = words.percent(100 * prices.decode_fit.median)
    return Table(
        title="Priced for this machine",
        records=prices.plans,
        columns=(
            name("Plan", lambda plan: plan.name),
            name("Left out", what),
            Column("Latency", lambda plan: words.seconds(plan.seconds)),
            Column("Faster", lambda plan: words.times(plan.speedup)),
        ),
        note=f"A question, mean of {prices.questions}{many}. Decode steps are priced to {fit} in the median. "
        "Nothing was decoded.",
        tone=lambda plan: "strong" if plan.chosen else "plain",
    )


def what(plan: PlanPrice) -> str:
    """What a plan does, stage by stage."""
    parts = [f"{stage} {words.MINUS}{count}" for stage, count in plan.skipped.items() if count]
    parts += [f"{stage} exit" for stage in plan.exits] + [f"no {stage}" for stage in plan.left_out]
    return ", ".join(parts) or "nothing"
