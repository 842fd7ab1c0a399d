"""The report of a plan: what it saved, how it was found, what it leaves out, and what it writes."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path

from litestage.report import charts, figures, tabular, words
from litestage.report.charts import Key
from litestage.report.examples import StageView, letter, stage_views
from litestage.report.page import Card, ExampleView, Figure, Page, Panel, Section, write_page
from litestage.results import Example, PlanResult, PlanSearch, Profile, Provenance


def write_report(results: PlanResult, folder: Path) -> Path:
    """Write ``report.html`` and ``figures/``; returns the page's path."""
    return write_page(plan_page(results), folder)


def plan_page(results: PlanResult) -> Page:
    sections = [
        *([_search(results.search)] if results.search else []),
        _plan(results),
        _time(results),
        *([_ranking(results)] if results.ranking else []),
        _numbers(results),
        *([_examples(results)] if results.examples else []),
    ]
    return Page(
        title=f"{results.model.id} on {results.task}",
        headline=words.headline(results),
        summary=tuple(words.summary(results)),
        notes=results.notes,
        cards=cards(results),
        sections=tuple(sections),
        facts=facts(results),
    )


def cards(results: PlanResult) -> tuple[Card, ...]:
    """The headline figures."""
    wall, paired, full, plan = results.wall, results.paired, results.full, results.plan
    most = 2 * results.model.num_blocks
    return (
        Card(
            "Speedup by the clock",
            words.times(wall.speedup),
            f"95 % interval {words.interval(wall.low, wall.high, 2)}",
        ),
        Card(
            "Latency a question",
            words.seconds(wall.seconds),
            f"{wall.n} questions, in turn",
            before=words.seconds(wall.baseline_seconds),
        ),
        Card(
            "Accuracy",
            words.percent(paired.percent),
            f"{words.signed(paired.difference)} points ({words.interval(paired.low, paired.high)})",
            before=words.percent(paired.baseline_percent),
        ),
        Card(
            "Tokens a question",
            f"{plan.total.tokens:.1f}",
            f"None rate {words.percent(full.accuracy.none_percent)} → {words.percent(plan.accuracy.none_percent)}",
            before=f"{full.total.tokens:.1f}",
        ),
        Card(
            "Sub-layers skipped",
            " / ".join(map(str, results.num_skipped.values())),
            f"of {most}, in {' / '.join(results.num_skipped)}",
        ),
    )


def _numbers(results: PlanResult) -> Section:
    figure = Figure(
        name="accuracy",
        alt="Accuracy with its 95 % interval at full depth and under the plan",
        panels=(Panel((charts.accuracy_dots(figures.accuracy_rows(results.full, results.plan, results.groups)),)),),
        legend=_SYSTEMS,
        caption="Each interval is of one system alone; whether the two differ is for the paired interval in the table, "
        "because both answered the same questions.",
    )
    return Section(
        "numbers",
        "What it saves and what it costs",
        figures=(figure,),
        tables=(tabular.overview(results), tabular.stages(results)),
    )


def _search(search: PlanSearch) -> Section:
    rows = [figures.profile_rows(profile) for profile in search.profiles]
    scale = charts.Scale.of(rows, search.target)
    figure = Figure(
        name="profiles",
        alt="Accuracy and latency of each stage by the number of sub-layers skipped",
        panels=tuple(
            Panel(
                (charts.profile_accuracy(points, search.target, scale), charts.profile_latency(points, scale)),
                heading=f"{place}. {profile.stage}",
                note=_profile_note(profile, search),
            )
            for place, (profile, points) in enumerate(zip(search.profiles, rows, strict=True), start=1)
        ),
        legend=_PROFILE,
        caption="Accuracy and latency are end to end. The fastest point that keeps the target is chosen; a budget that "
        "makes the model write more loses by itself. A point ends early once its remaining questions cannot save it, "
        "or once it is slower than the fastest that keeps the target: its mark is the most it could have reached.",
    )
    spent = search.spent
    lead = (
        f"Stages are searched slowest first: {', then '.join(search.order)}. On {search.split.used} "
        f"{search.split.name} questions full depth reaches {words.percent(search.full.accuracy)}; with "
        f"{words.drop(search.max_drop)} to lose the target is {words.percent(search.target)}. "
        f"The search measured {spent.points} settings with "
        f"{spent.questions:,} answers; ending points that could not be chosen saved {spent.questions_saved:,} more, "
        f"and {spent.points_left_out} budgets were left out."
    )
    tables = (tabular.exit_checks(search),) if search.exit_checks else ()
    return Section("search", "How the budgets were found", lead, figures=(figure,), tables=tables)


def _profile_note(profile: Profile, search: PlanSearch) -> str:
    before = search.order[: search.order.index(profile.stage)]
    return f"{words.listed(before)} at the chosen budget" if before else "the others at full depth"


def _time(results: PlanResult) -> Section:
    rows = figures.time_rows(results.full, results.plan)
    figure = Figure(
        name="time",
        alt="Seconds a question by stage and phase, full depth against the plan",
        panels=(Panel((charts.time_bars(rows, list(results.stage_plans)),)),),
        legend=(*_SYSTEMS, Key("pale", "prefill (always full depth)"), Key("deep", "decode")),
        caption="Priced by a latency model fitted to this machine; the table shows how far prices lie from the clock.",
    )
    return Section("time", "Where the time goes", words.prefill(results), (figure,), (tabular.prices(results),))


def _plan(results: PlanResult) -> Section:
    stages = list(results.stage_plans)
    rows = figures.map_rows(results.stage_plans, results.model.num_blocks, results.ranking)
    figure = Figure(
        name="plan",
        alt="Blocks by stages: which attention and which FFN each stage skips",
        panels=(Panel((charts.plan_map(rows, stages),)),),
        legend=(
            Key("attention-cell", "attention skipped (upper row of a stage)"),
            Key("ffn-cell", "FFN skipped (lower row)"),
            Key("kept-cell", "kept"),
        ),
    )
    return Section(
        "plan",
        "What is left out where",
        words.what_is_left_out(results),
        (figure,),
        (tabular.skipped(results.stage_plans),),
    )


def _ranking(results: PlanResult) -> Section:
    rows = figures.ranking_rows(results.ranking, results.stage_plans)
    figure = Figure(
        name="redundancy",
        alt="Redundancy of every attention and FFN by block",
        panels=(Panel((charts.ranking_points(rows),)),),
        legend=(
            Key("attention-dot", "attention"),
            Key("ffn-dot", "FFN"),
            Key("open-dot", "open: no stage skips it"),
        ),
        caption="The mean over tokens, questions and stages of the cosine between a sub-layer's input and its output. "
        "High means that it changes little and is skipped first.",
    )
    return Section("redundancy", "How redundant each sub-layer is", figures=(figure,))


def _examples(results: PlanResult) -> Section:
    return Section(
        "examples",
        "The same questions, answered twice",
        "The plan's words are marked where they differ from full depth's; a mark shows where the exit rule ended a "
        "generation, and what it cut where that is known.",
        examples=tuple(example_view(example, results.num_skipped) for example in results.examples),
    )


def example_view(example: Example, num_skipped: Mapping[str, int]) -> ExampleView:
    """A question answered twice, with what each stage leaves out."""
    return ExampleView(
        question=example.question,
        choices=tuple(
            (string.ascii_uppercase[index], choice, index == example.gold)
            for index, choice in enumerate(example.choices)
        ),
        full_answer=_answer(example.full_answer, example.gold),
        plan_answer=_answer(example.plan_answer, example.gold),
        same=example.full_answer == example.plan_answer,
        stages=tuple((view, _remark(view, num_skipped)) for view in stage_views(example)),
    )


def _answer(answer: int | None, gold: int | None) -> str:
    verdict = "" if gold is None else ", right" if answer == gold else ", wrong"
    return f"{letter(answer)}{verdict}"


def _remark(view: StageView, num_skipped: Mapping[str, int]) -> str:
    tokens = [sum(branch.tokens for branch in side) for side in (view.full, view.plan)]
    skipped = num_skipped[view.name]
    what = f"{words.sub_layers(skipped)} skipped" if skipped else "full depth"
    return f"{what}, {tokens[0]} → {tokens[1]} tokens"


def facts(results: PlanResult) -> tuple[tuple[str, str], ...]:
    """Everything that a reader needs to do it again."""
    came, tested = results.provenance, results.tested_on
    listed = [
        ("Command", came.command),
        ("Model", f"{results.model.id}, {results.model.num_blocks} blocks, weights {results.model.fingerprint[:12]}"),
        ("Task", f"{results.task}, {came.shots} worked examples in the prompt"),
        ("Tested on", str(tested)),
    ]
    if results.search:
        split = results.search.split
        listed.append(("Searched on", f"{split}, {results.search.latency}"))
    return (*listed, *machine_facts(came))


def machine_facts(came: Provenance) -> list[tuple[str, str]]:
    """On what and with what the figures were made."""
    fits = [
        f"{name} {words.percent(100 * fit.median)} in the median, {words.percent(100 * fit.max)} at most"
        for name, fit in (("prefill", came.prefill_fit), ("decode", came.decode_fit))
        if fit
    ]
    return [
        ("Hardware", f"{came.hardware} ({came.device}, {came.threads} threads)"),
        ("Engine", f"{came.precision}, batch {came.batch_size}, seed {came.seed}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in came.versions.items())),
        *([("Latency model's fit", "; ".join(fits))] if fits else []),
        *(
            [("Durations", ", ".join(f"{name} {words.seconds(value)}" for name, value in came.durations.items()))]
            if came.durations
            else []
        ),
        ("Date", came.date),
    ]


_SYSTEMS = (Key("full-bar", "full depth"), Key("plan-bar", "plan"))
_PROFILE = (
    Key("feasible", "keeps the target"),
    Key("chosen", "chosen"),
    Key("infeasible", "misses the target"),
    Key("at-most", "misses it for certain: at most this"),
    Key("slower", "slower than the best: at most this"),
    Key("target", "target accuracy"),
)
