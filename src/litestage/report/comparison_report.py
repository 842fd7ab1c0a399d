"""The report of a comparison: the frontier first, then budgets, ablations, controls, plans, examples and provenance."""

from __future__ import annotations

from pathlib import Path

from litestage.report import charts, comparison_charts, comparison_tables, comparison_words, figures, plan_report, words
from litestage.report.charts import Key
from litestage.report.page import Card, Figure, Page, Panel, Section, write_page
from litestage.results import Comparison, MethodResult

RIVALS = ("litestage_uniform_exit", "exit_only", "token_cap")
"""Methods that the first chart always draws, because LiteStage has to beat them."""


def write_report(comparison: Comparison, folder: Path) -> Path:
    """Write ``report.html`` and ``figures/``; returns the page's path."""
    return write_page(comparison_page(comparison), folder)


def comparison_page(comparison: Comparison) -> Page:
    sections = [
        _frontier(comparison),
        *([_budgets(comparison)] if comparison.of_kind("litestage") else []),
        _ablations(comparison),
        *([_plans(comparison)] if comparison.plans else []),
        _all(comparison),
        *([_examples(comparison)] if comparison.examples else []),
    ]
    return Page(
        title=f"{comparison.model.id} on {comparison.task}, method against method",
        headline=comparison_words.headline(comparison),
        summary=tuple(comparison_words.summary(comparison)),
        notes=comparison.notes,
        cards=_cards(comparison),
        sections=tuple(sections),
        facts=_facts(comparison),
    )


def _cards(comparison: Comparison) -> tuple[Card, ...]:
    full = comparison.full.performance
    cards = [
        Card(
            "Full depth",
            words.percent(full.accuracy.percent),
            f"95 % interval {words.interval(full.accuracy.low, full.accuracy.high)}; "
            f"{words.seconds(full.total.seconds)} a question",
        )
    ]
    for plan in comparison.of_kind("litestage"):
        cards.append(
            Card(
                f"LiteStage, {plan.requested} points",
                words.times(plan.speedup),
                f"{words.percent(plan.accuracy)}, {words.signed(plan.paired.difference)} points "
                f"({words.interval(plan.paired.low, plan.paired.high)})",
            )
        )
    return tuple(cards[:5])


def _frontier(comparison: Comparison) -> Section:
    on = {point.name for point in comparison.frontier}
    others = comparison.of_kind("ablation", "control")
    shown = comparison.of_kind("litestage", "rule") + tuple(s for s in others if s.name in on or s.method in RIVALS)
    figure = Figure(
        name="frontier",
        alt="Accuracy against speedup, a line a method of several budgets",
        panels=(Panel((_trade_off(shown, comparison),)),),
        caption="A filled mark is on the frontier, and its bar the 95 % interval of its change from full depth. The "
        "dashed lines are full depth, a dotted one is where always giving the same answer would lie, if any is below. "
        "Of the methods, LiteStage alone ends texts early; its uniform budgets with exit, and exit and a token cap at "
        "full depth, are there to tell that part from the skipping. Speedups are priced from exact counts over all "
        "questions; the tables have the clock's. "
        f"{comparison_words.not_drawn(comparison, shown)}",
    )
    return Section(
        "frontier",
        "Accuracy against speedup",
        figures=(figure,),
        tables=(comparison_tables.owners(comparison),),
    )


def _trade_off(systems: tuple[MethodResult, ...], comparison: Comparison, joined: bool = True) -> charts.Draw:
    drawn = comparison.worth_drawing(*systems)
    methods = list(dict.fromkeys(system.title for system in drawn))
    rows = comparison_charts.points(drawn, comparison)
    return comparison_charts.trade_off(rows, comparison.full, methods, constant=comparison.constant[1], joined=joined)


def _budgets(comparison: Comparison) -> Section:
    return Section(
        "budgets",
        "The same budget, spent differently",
        "Every uniform method gives each stage the same; LiteStage gives each stage its own.",
        tables=(
            comparison_tables.matched(comparison),
            comparison_tables.stage_budgets(comparison),
            *([comparison_tables.pairs(comparison)] if comparison.pairs else []),
        ),
    )


def _ablations(comparison: Comparison) -> Section:
    shown, controls = comparison.of_kind("litestage", "ablation"), comparison.of_kind("litestage", "control")
    parts = Figure(
        name="ablations",
        alt="Accuracy against speedup of LiteStage and of what is left when a part of it is taken away",
        panels=(Panel((_trade_off(shown, comparison),)),) if shown else (),
        caption=comparison_words.not_drawn(comparison, shown),
    )
    figures_ = [
        *([parts] if shown else []),
        Figure(
            name="controls",
            alt="Accuracy against speedup of LiteStage and of the controls",
            panels=(Panel((_trade_off(controls, comparison, joined=False),)),),
            caption=comparison_words.not_drawn(comparison, controls),
        ),
    ]
    if pairs := exit_pairs(comparison):
        figures_.append(
            Figure(
                name="exit",
                alt="Decode steps and accuracy with and without the exit rule, by blocks skipped",
                panels=(
                    Panel((comparison_charts.exit_effect(pairs, "steps", "Decode steps a question"),)),
                    Panel((comparison_charts.exit_effect(pairs, "accuracy", "Accuracy, %"),)),
                ),
                caption="The paper's Figure 6: what the exit rule takes off the texts, and what that costs. Filled "
                "circles have it, open squares do not.",
            )
        )
    return Section(
        "ablations",
        "What each part is worth",
        "Uniform budgets on LiteStage's ranking, its plans without exit and with AdaSkip's norm ratios, and controls "
        "that skip nothing: exit or a token cap at full depth, and a stage left out.",
        figures=tuple(figures_),
        tables=(comparison_tables.against_controls(comparison),),
    )


def exit_pairs(comparison: Comparison) -> list[tuple[str, MethodResult, MethodResult]]:
    """Systems without and with exit, by how they spend their budget."""
    kinds = (
        ("stage-wise budgets", "litestage_no_exit-", "litestage-"),
        ("uniform budgets", "litestage_uniform-", "litestage_uniform_exit-"),
    )
    names = {system.name: system for system in comparison.results}
    return [
        (family, system, names[other])
        for family, without, with_exit in kinds
        for name, system in names.items()
        if name.startswith(without) and (other := name.replace(without, with_exit)) in names
    ]


def _plans(comparison: Comparison) -> Section:
    return Section(
        "plans",
        "What LiteStage leaves out where",
        figures=tuple(
            Figure(
                name=f"plan-{index + 1}",
                alt=f"Blocks by stages: what the plan of {comparison.method(name).requested} skips",
                panels=(
                    Panel(
                        (
                            charts.plan_map(
                                figures.map_rows(stages, comparison.model.num_blocks, comparison.ranking), list(stages)
                            ),
                        ),
                        heading=comparison.method(name).requested,
                        note=f"{words.times(comparison.method(name).speedup)}, "
                        f"{words.percent(comparison.method(name).accuracy)}",
                    ),
                ),
                legend=_MAP if not index else (),
            )
            for index, (name, stages) in enumerate(comparison.plans.items())
        ),
    )


def _all(comparison: Comparison) -> Section:
    return Section("systems", "Every system", tables=(comparison_tables.systems(comparison),))


def _examples(comparison: Comparison) -> Section:
    plan = max(comparison.of_kind("litestage"), key=lambda system: system.speedup)
    skipped = {name: round(count) for name, count in plan.skipped.items()}
    return Section(
        "examples",
        "The same questions, answered twice",
        f"Full depth, and LiteStage's fastest plan ({plan.requested}). Its words are marked where they differ; a mark "
        "shows where the exit rule ended a generation, and what it cut.",
        examples=tuple(plan_report.example_view(example, skipped) for example in comparison.examples),
    )


def _facts(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    came, tested, searched = comparison.provenance, comparison.tested_on, comparison.searched_on
    blocks = comparison.model.num_blocks
    return (
        ("Command", came.command),
        ("Model", f"{comparison.model.id}, {blocks} blocks, weights {comparison.model.fingerprint[:12]}"),
        ("Task", f"{comparison.task}, {came.shots} worked examples in the prompt"),
        ("Tested on", f"{tested}, greedy"),
        ("Searched on", f"{searched}, {comparison.searched_by}"),
        *plan_report.machine_facts(came),
    )


_MAP = (
    Key("attention-cell", "attention skipped (upper row of a stage)"),
    Key("ffn-cell", "FFN skipped (lower row)"),
    Key("kept-cell", "kept"),
)
