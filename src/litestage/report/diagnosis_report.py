"""The report of a diagnosis: where skipping hurts and pays, what exit ends, and what stands behind it."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

from litestage.report import diagnosis_charts, diagnosis_figures, diagnosis_tables, diagnosis_words, tabular, words
from litestage.report.charts import Key
from litestage.report.diagnosis_charts import EXITS, Axis, Styles, keys, lines
from litestage.report.diagnosis_figures import FEW_ROWS
from litestage.report.examples import StageView, letter, stage_views
from litestage.report.figures import ATTENTION, FFN
from litestage.report.page import Card, ExampleView, Figure, Page, Panel, Section, write_page
from litestage.report.plan_report import machine_facts
from litestage.results import Diagnosis, ExampleVersions

BUDGET = Axis("budget", "sub-layers skipped")
RANKED = 12
"""Lines of the ranking's table."""


def write_report(diagnosis: Diagnosis, folder: Path) -> Path:
    """Write ``report.html`` and ``figures/``; returns the page's path."""
    return write_page(diagnosis_page(diagnosis), folder)


def diagnosis_page(diagnosis: Diagnosis) -> Page:
    return Page(
        title=f"diagnosis of {diagnosis.model.id} on {diagnosis.task}",
        headline=diagnosis_words.headline(diagnosis),
        summary=tuple(diagnosis_words.summary(diagnosis)),
        notes=(sampled(diagnosis), *diagnosis.notes),
        cards=_cards(diagnosis),
        sections=(
            _sweeps(diagnosis),
            _exit(diagnosis),
            _confidence(diagnosis),
            _entropy(diagnosis),
            _redundancy(diagnosis),
            *([_examples(diagnosis)] if diagnosis.examples else []),
        ),
        facts=_facts(diagnosis),
    )


def sampled(diagnosis: Diagnosis) -> str:
    """How much of what there is was looked at."""
    split, budgets = diagnosis.measured_on, diagnosis.budgets
    return (
        f"A sample: {split}, and budgets of "
        f"{words.listed([str(budget) for budget in budgets])} of {2 * diagnosis.model.num_blocks} sub-layers. What "
        "moves less than the intervals in the tables needs more questions to be seen, and what lies between two "
        "budgets a smaller step."
    )


def _cards(diagnosis: Diagnosis) -> tuple[Card, ...]:
    full = diagnosis.full
    slowest = max(full.stages, key=lambda stage: stage.seconds)
    by_bits = sorted(diagnosis.entropy, key=lambda stage: stage.written.bits)
    saved, point = diagnosis_words.best_exit(diagnosis)
    return (
        Card(
            "Accuracy at full depth",
            words.percent(full.accuracy.percent),
            f"95 % interval {words.interval(full.accuracy.low, full.accuracy.high)}",
        ),
        Card(
            "Latency a question",
            words.seconds(full.total.seconds),
            f"{words.share(slowest.seconds / full.total.seconds)} of it in {slowest.name}",
        ),
        Card(
            "No loss shows up to",
            _joined([diagnosis_words.borne(sweep) for sweep in diagnosis.alone]),
            f"of {2 * diagnosis.model.num_blocks}, in {' / '.join(diagnosis.stages)}",
        ),
        Card(
            "Token entropy, bits",
            f"{by_bits[0].written.bits:.1f}–{by_bits[-1].written.bits:.1f}",
            f"from {by_bits[0].name} to {by_bits[-1].name}",
        ),
        Card(
            "Steps that exit saves",
            words.percent(100 * max(0.0, saved)),
            f"at {words.sub_layers(point.budget)} skipped",
        ),
    )


def _joined(counts: Sequence[int]) -> str:
    """A number a stage, or their range where that would be long."""
    return " / ".join(map(str, counts)) if len(counts) <= 3 else f"{min(counts)}–{max(counts)}"


def _sweeps(diagnosis: Diagnosis) -> Section:
    rows = diagnosis_figures.sweep_rows(diagnosis)
    styles = diagnosis_charts.sweep_styles(diagnosis.stages)
    tooltip = {
        "where": "skipping in", "budget": "sub-layers skipped", "accuracy_text": "accuracy",
        "change_text": "against full depth", "verdict": "verdict", "seconds_text": "latency",
        "tokens_text": "tokens a question",
    }  # fmt: skip
    unit, factor = ("s", 1.0) if max(float(row["seconds"] or 0) for row in rows) >= 1 else ("ms", 1000.0)
    charts = (
        Axis("accuracy", "Accuracy, %"),
        Axis("seconds", f"Latency, {unit} a question", factor=factor),
    )
    figure = Figure(
        name="skipping",
        alt="Accuracy and latency by sub-layers skipped, in one stage alone and in all together",
        panels=tuple(Panel((lines(rows, "where", styles, BUDGET, axis, tooltip, height=300),)) for axis in charts),
        legend=(*keys(styles), Key("open-dot", "open: chance may explain it")),
        caption="One stage skips its most redundant sub-layers while the others run at full depth, or all skip the "
        "same; no text is ended early. Latency is priced from exact counts.",
    )
    return Section(
        "skipping",
        "Where skipping hurts, and where it pays",
        "A stage that bears skipping is not always one where skipping pays: what it saves depends on how much of the "
        "time is spent there, and on whether the model then writes more.",
        figures=(figure,),
        tables=(diagnosis_tables.sweeps(diagnosis),),
    )


def _exit(diagnosis: Diagnosis) -> Section:
    rows = diagnosis_figures.exit_rows(diagnosis)
    tooltip = {
        "rule": "exit rule", "budget": "sub-layers skipped", "steps_text": "decode steps", "accuracy_text": "accuracy",
        "change_text": "change", "exits_text": "texts ended",
    }  # fmt: skip
    charts = (Axis("steps", "Decode steps a question"), Axis("accuracy", "Accuracy, %"))
    figure = Figure(
        name="exit",
        alt="Decode steps and accuracy by sub-layers skipped, with the exit rule and without",
        panels=tuple(Panel((lines(rows, "rule", EXITS, BUDGET, axis, tooltip),)) for axis in charts),
        legend=keys(EXITS),
        caption="All stages skip the same. Decode steps are summed over a question's stages and branches.",
    )
    return Section(
        "exit",
        "What ending unsure texts saves",
        diagnosis_words.exit_effect(diagnosis),
        figures=(figure,),
        tables=(diagnosis_tables.exits(diagnosis),),
    )


def _confidence(diagnosis: Diagnosis) -> Section:
    rows = diagnosis_figures.curve_rows(diagnosis.curves)
    styles = diagnosis_charts.curve_styles([diagnosis_figures.skipped(curve.budget) for curve in diagnosis.curves])
    tooltip = {
        "curve": "depth", "token": "token", "confidence_text": "mean confidence", "rows_text": "texts still running",
    }  # fmt: skip
    threshold, place = diagnosis.exit_rule.threshold, Axis("token", "token of the text")
    lowest = min([threshold, *(float(row["confidence"]) for row in rows if row["confidence"] is not None)])
    most = max([1.0, *(float(row["rows"] or 0) for row in rows)])
    sure = Axis("confidence", "Mean confidence", (max(0.0, lowest - 0.05), 1.005))
    running = Axis("rows", "Texts still running", (0.0, 1.05 * most))
    figure = Figure(
        name="confidence",
        alt=f"Confidence and rows still running by token, in {diagnosis.looked_at}",
        panels=(
            Panel((lines(rows, "curve", styles, place, sure, tooltip, points=False, rule=threshold),)),
            Panel((lines(rows, "curve", styles, place, running, tooltip, points=False),)),
        ),
        legend=(*keys(styles), Key("target", "the exit rule's threshold")),
        caption="Confidence is the largest next-token probability, the mean over the texts that reach a token; it is "
        f"not drawn where fewer than {FEW_ROWS} do. Token 1 comes from prefill, so decode step t decides token t + 2.",
    )
    return Section(
        "confidence",
        f"How sure the model stays in {diagnosis.looked_at}",
        f"Only {diagnosis.looked_at} skips here, so that every budget starts from the same prompts; no text is ended "
        "early. Texts that never end stay in the curves to the token limit.",
        figures=(figure,),
    )


def _entropy(diagnosis: Diagnosis) -> Section:
    rows, styles = diagnosis_figures.entropy_rows(diagnosis.entropy), _stage_styles(diagnosis)
    tooltip = {
        "stage": "stage", "written_text": "of token ids, bits", "next_token_text": "of the next token, bits",
        "tokens_text": "tokens", "distinct_text": "distinct ids",
    }  # fmt: skip
    figure = Figure(
        name="entropy",
        alt="Entropy of the generated token ids and of the next-token distribution, by stage",
        panels=(
            Panel((diagnosis_charts.bars(rows, "written", "Token ids over all texts", styles, tooltip),)),
            Panel((diagnosis_charts.bars(rows, "next_token", "Next token, mean", styles, tooltip),)),
        ),
        caption="Left: how varied what a stage writes is. Right: how open its choice of each token is, from the raw "
        "logits. The first can be high where the second is low: a sure model on varied questions.",
    )
    return Section(
        "entropy",
        "How varied each stage's tokens are",
        "Entropy is often taken for how much computation a stage needs; the curves above say how much it really bears.",
        figures=(figure,),
        tables=(diagnosis_tables.entropies(diagnosis),),
    )


def _redundancy(diagnosis: Diagnosis) -> Section:
    rows, styles = diagnosis_figures.redundancy_rows(diagnosis.ranking, diagnosis.stages), _stage_styles(diagnosis)
    values = [float(row["redundancy"] or 0) for row in rows]
    axis = Axis("redundancy", "Redundancy, by its distance to 1", (min(values), max(values)), nines=True)
    tooltip = {"stage": "stage", "kind": "sub-layer", "block": "block", "redundancy": "redundancy", "place": "place"}
    figure = Figure(
        name="redundancy",
        alt="Redundancy of every attention and FFN by block, a line a stage",
        panels=tuple(
            Panel(
                (
                    lines(
                        [row for row in rows if row["kind"] == kind],
                        "stage",
                        styles,
                        Axis("block", "block"),
                        axis,
                        tooltip,
                    ),
                ),
                heading=heading,
            )
            for kind, heading in ((ATTENTION, "Attention"), (FFN, "FFN"))
        ),
        legend=keys(styles),
        caption="The cosine between what enters a sub-layer and what leaves it, the mean over a stage's prompts at "
        "full depth. High means that it changes little. A tooltip's place is in the ranking over all stages, which "
        "decides what every budget skips.",
    )
    return Section(
        "redundancy",
        "How redundant each sub-layer is, stage by stage",
        figures=(figure,),
        tables=(tabular.ranking(diagnosis.ranking, RANKED),),
    )


def _stage_styles(diagnosis: Diagnosis) -> Styles:
    return diagnosis_charts.stage_styles(diagnosis.stages)


def _examples(diagnosis: Diagnosis) -> Section:
    budget = diagnosis.examples[0].budget
    return Section(
        "examples",
        "The same questions in three versions",
        f"Full depth, every stage with {words.sub_layers(budget)} skipped, and the same with the exit rule. Words are "
        "marked where they differ from full depth's; a mark shows where exit ended a text, and what it cut is struck "
        "out.",
        examples=tuple(_example(versions) for versions in diagnosis.examples),
    )


def _example(versions: ExampleVersions) -> ExampleView:
    without, ended = versions.without_exit, versions.with_exit
    answers = (without.full_answer, without.plan_answer, ended.plan_answer)
    told = [f"{letter(answer)}{'' if without.gold is None else _verdict(answer, without.gold)}" for answer in answers]
    return ExampleView(
        question=without.question,
        choices=tuple(
            (string.ascii_uppercase[index], choice, index == without.gold)
            for index, choice in enumerate(without.choices)
        ),
        full_answer=told[0],
        plan_answer=told[2],
        same=len(set(answers)) == 1,
        stages=tuple(
            (StageView(one.name, full=one.full, middle=one.plan, plan=two.plan), _remark(one, two))
            for one, two in zip(stage_views(without), stage_views(ended), strict=True)
        ),
        sides=("Full depth", "Skipping", "Skipping, with exit"),
        answers=f"All answer {told[0]}"
        if len(set(answers)) == 1
        else f"Full depth answers {told[0]}; skipping {told[1]}; with exit {told[2]}",
    )


def _verdict(answer: int | None, gold: int) -> str:
    return " (right)" if answer == gold else " (wrong)"


def _remark(without: StageView, ended: StageView) -> str:
    counts = [sum(branch.tokens for branch in side) for side in (without.full, without.plan, ended.plan)]
    return f"{counts[0]} → {counts[1]} → {counts[2]} tokens"


def _facts(diagnosis: Diagnosis) -> tuple[tuple[str, str], ...]:
    came, split, model = diagnosis.provenance, diagnosis.measured_on, diagnosis.model
    return (
        ("Command", came.command),
        ("Model", f"{model.id}, {model.num_blocks} blocks, weights {model.fingerprint[:12]}"),
        ("Task", f"{diagnosis.task}, {came.shots} worked examples in the prompt"),
        ("Measured on", f"{split}, greedy"),
        ("Exit rule", f"a text ends {words.exit_rule(diagnosis.exit_rule)}"),
        *machine_facts(came),
    )
