"""The report of a comparison: claim and frontier first, then budgets, ablations, controls, plans and examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from string import ascii_uppercase

from litestage.evaluation import FrontierPoint
from litestage.report import words
from litestage.report.chart import DASHED, DOTS, Axis, Lines, Rule, Style, keys
from litestage.report.examples import twice
from litestage.report.page import Card, Figure, Page, Panel, Section
from litestage.report.parts import facts, map_figure, plan_map
from litestage.report.plan import left_out_of
from litestage.report.table import Column, Table, Tone, each, name
from litestage.report.terminal import Part, Sentence, conditions
from litestage.results import Comparison, Duel, MethodResult, Pair

RIVALS = ("litestage_uniform_exit", "exit_only", "token_cap")
"""Methods that the first chart always draws, because LiteStage has to beat them."""
CLAIM = "The paper claims that budgets of each stage's own, with exit, beat uniform skipping at high speedup."
OUTCOMES = {"holds": "holds", "fails": "does not hold", "open": "is not settled"}
COLOURS = ("plan", "ffn", "attention", "vermilion", "purple", "sky", "brown", "full", "ink") * 2
SHAPES = (
    *("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "circle", "square"),
    *("diamond", "triangle-down", "circle", "square", "triangle-up", "cross", "diamond", "triangle-left", "cross"),
)
"""By order of the methods in a chart."""
WITH, WITHOUT = "with exit", "without exit"


def page(comparison: Comparison) -> Page:
    sections = [
        _frontier(comparison),
        *([_budgets(comparison)] if comparison.of_kind("litestage") else []),
        _ablations(comparison),
        *([_plans(comparison)] if comparison.plans else []),
        Section("systems", "Every system", tables=(systems(comparison),)),
        *([_examples(comparison)] if comparison.examples else []),
    ]
    searched = {
        "Tested on": f"{comparison.tested_on}, greedy",
        "Searched on": f"{comparison.searched_on}, {comparison.searched_by}",
    }
    first, *more = summary(comparison)
    return Page(
        title=f"{comparison.model.id} on {comparison.task}, method against method",
        headline=headline(comparison),
        summary=opening(comparison),
        more=(first, *more),
        notes=comparison.notes,
        cards=_cards(comparison),
        sections=tuple(sections),
        facts=facts(comparison.provenance, comparison.model, comparison.task, searched),
    )


def terminal(comparison: Comparison) -> list[Part]:
    """In words, the systems, the matched budgets, and the conditions."""
    claimed, *others = summary(comparison)
    return [
        Sentence(claimed),
        Sentence(" ".join(others)),
        *(Sentence(note, "yellow") for note in comparison.notes),
        systems(comparison),
        owners(comparison),
        matched(comparison),
        stage_budgets(comparison),
        against_controls(comparison),
        conditions(comparison.provenance),
    ]


# In words


def headline(comparison: Comparison) -> str:
    """What became of the paper's claim, in one line."""
    claim = comparison.claim
    if claim.plan is None:
        return "Other methods alone; LiteStage was not among them"
    at = words.times(claim.plan.speedup)
    if claim.duel is None:
        change = words.signed(claim.plan.paired.difference)
        none = f"LiteStage at {at}, {change} points: no uniform system here is as fast"
        nothing = "LiteStage finds nothing here that makes the model faster"
        return none if claim.verdict == "no rival" else nothing
    lead = f"{words.signed(claim.duel.paired.difference)} points"
    return {
        "holds": f"LiteStage beats uniform skipping at {at}, by {lead}",
        "fails": f"Uniform skipping beats LiteStage at {at}, by {lead.lstrip('+' + words.MINUS)}",
        "open": f"At {at}, LiteStage and the best uniform skipping cannot be told apart",
    }[claim.verdict]


def opening(comparison: Comparison) -> tuple[str, ...]:
    """Three sentences that stand above the first chart: what is claimed, what came out, and what it rests on."""
    claim, asked = comparison.claim, f"{comparison.tested_on.used} {comparison.tested_on.name} questions"
    if claim.plan is None:
        return ("LiteStage was not among the methods.", f"All of them answered the same {asked}.")
    plan = (
        f"LiteStage's fastest plan answers {words.percent(claim.plan.accuracy)} of {asked} rightly at "
        f"{words.times(claim.plan.speedup)} full depth's speed."
    )
    if claim.verdict == "no faster plan":
        return (CLAIM, plan, "That is no faster than full depth, so the claim was not tested.")
    if claim.duel is None:
        return (CLAIM, plan, "No uniform system here is as fast.")
    rival = comparison.method(claim.duel.other)
    outcome = (
        f"The claim {OUTCOMES[claim.verdict]} here: the best uniform system about as fast, {rival.title}, has "
        f"{words.percent(rival.accuracy)}."
    )
    return (CLAIM, plan, outcome)


def summary(comparison: Comparison) -> list[str]:
    return [
        claim(comparison),
        frontier(comparison),
        *_constant(comparison),
        *controls(comparison),
        *exits(comparison),
        *_asked(comparison),
    ]


def claim(comparison: Comparison) -> str:
    """The paper's claim, at LiteStage's fastest plan: stage-wise budgets and exit beat uniform skipping."""
    claim = comparison.claim
    if claim.plan is None:
        return "LiteStage was not among the methods."
    plan = claim.plan
    if claim.verdict == "no faster plan":
        return (
            f"{CLAIM} No plan of LiteStage's here is faster than full depth (at most {words.times(plan.speedup)}), so "
            "that was not tested."
        )
    high = "" if claim.high else "None is reached here, so the claim is tested at a low one alone. "
    opening = (
        f"{CLAIM} {high}LiteStage's fastest plan runs at {words.times(plan.speedup)} with "
        f"{words.percent(plan.accuracy)} right, full depth with {words.percent(comparison.full.accuracy)}"
    )
    if claim.duel is None:
        return f"{opening}; no uniform system here is as fast."
    other, duel = comparison.method(claim.duel.other), claim.duel
    rival = f"the best uniform system about as fast, {other.title} ({other.requested}, {words.times(other.speedup)})"
    change = f"{words.signed(duel.paired.difference)} points, 95 % interval {words.ends(duel.paired)}"
    best_of = f", against the best of {duel.among} on these very questions" if duel.among > 1 else ""
    verdict = f"So the claim {OUTCOMES[claim.verdict]} here: {change}{best_of}."
    return f"{opening}; {rival} has {words.percent(other.accuracy)}. {verdict}"


def frontier(comparison: Comparison) -> str:
    """Which method is best at which speed: the frontier, what no other system beats in speed and accuracy both."""
    speeds: dict[str, list[str]] = {}
    for point in comparison.frontier:
        speeds.setdefault(comparison.method(point.name).title, []).append(words.times(point.speedup))
    owned = "; ".join(f"{title} at {words.listed(some)}" for title, some in speeds.items())
    tested = comparison.tested_on
    sentence = (
        f"On {tested.used} {tested.name} questions, no system is both faster and more accurate than the frontier: "
        f"{owned}."
    )
    if not comparison.contested:
        return sentence
    return (
        f"{sentence} At {len(comparison.contested)} of these {len(comparison.frontier)} points the questions cannot "
        "tell the owner from others that are as fast; the table names them."
    )


def always(comparison: Comparison) -> str:
    """What answers without a model."""
    return f"always {ascii_uppercase[comparison.constant[0]]}"


def _constant(comparison: Comparison) -> list[str]:
    """Who is better than always giving the same answer, beyond chance."""
    if not comparison.against_constant:
        return []
    leads = []
    for method, duel in comparison.against_constant:
        ends = words.ends(duel.paired) + ("" if duel.paired.can_tell else ": not beyond chance")
        who = "full depth" if method.kind == "full" else _plan(method)
        leads.append(f"{who} is {words.signed(duel.paired.difference)} points from that ({ends})")
    answer = always(comparison)
    return [
        f"{answer[0].upper()}{answer[1:]}, the answer most common among them, would be right in "
        f"{words.percent(comparison.constant[1])}: {words.listed(leads)}."
    ]


def controls(comparison: Comparison) -> list[str]:
    """Plans that a control equals: as fast, and not less accurate beyond chance."""
    if not comparison.of_kind("litestage"):
        return []
    pairs = sorted({(_plan(plan), _with_figures(control)) for plan, control in comparison.equalled})
    if not pairs:
        return [
            "No control (exit or a token cap at full depth, a stage left out) is about as fast and as accurate as any "
            "of its plans."
        ]
    return [
        f"About as fast as {plan} or faster, and not less accurate beyond chance: "
        f"{words.listed([control for _, control in some])}."
        for plan, some in groupby(pairs, key=lambda pair: pair[0])
    ]


def exits(comparison: Comparison) -> list[str]:
    """What the exit rule did to the fastest plan that has one."""
    effect = comparison.exit_effect
    if effect is None:
        return []
    before, after = effect.steps
    if effect.hardly_fires:
        return [
            f"Exit hardly ever fires in {_plan(effect.plan)}: {before:.1f} decode steps a question without "
            f"it, {after:.1f} with it."
        ]
    return [
        f"In {_plan(effect.plan)} exit takes {before:.1f} decode steps a question to {after:.1f}; accuracy "
        f"changes by {words.signed(effect.paired.difference)} points, 95 % interval {words.ends(effect.paired)}."
    ]


def _asked(comparison: Comparison) -> list[str]:
    """How much of what could be compared was."""
    by_unit: dict[str, list[int]] = {}
    for amount in dict.fromkeys(method.amount for method in comparison.of_kind("rule") if method.amount):
        by_unit.setdefault(amount.unit, []).append(amount.number)
    amounts = " or ".join(
        f"{words.listed(list(map(str, numbers)))} {unit}{'' if numbers == [1] else 's'}"
        for unit, numbers in by_unit.items()
    )
    if not amounts:
        return []
    return [
        f"Every other method was asked for {amounts}, on {comparison.tested_on}. All "
        "questions, and every budget up to half the blocks: --full."
    ]


def not_drawn(comparison: Comparison, methods: Sequence[MethodResult]) -> str:
    """Which systems have no mark in a chart of these, and why; nothing if all have."""
    lost = Counter(method.title for method in methods if not comparison.worth_drawing(method))
    if not lost:
        return ""
    titles = words.listed([f"{title} ({count})" for title, count in lost.items()])
    return (
        f"Not drawn, because they answer less than half of what full depth does: {titles}; the table of every system "
        "has them."
    )


def _plan(method: MethodResult) -> str:
    return f"the plan {method.requested}"


def _with_figures(method: MethodResult) -> str:
    return f"{method.title} ({words.times(method.speedup)}, {words.percent(method.accuracy)})"


def _named(method: MethodResult) -> str:
    return f"{method.title} ({method.requested})" if method.requested else method.title


# On the page


def _cards(comparison: Comparison) -> tuple[Card, ...]:
    full = comparison.full.performance
    ends = words.interval(full.accuracy.low, full.accuracy.high)
    first = Card(
        "Full depth",
        words.percent(full.accuracy.percent),
        f"95 % interval {ends}; {words.seconds(full.total.seconds)} a question",
    )
    plans = [
        Card(
            f"LiteStage, {plan.requested} points",
            words.times(plan.speedup),
            f"{words.percent(plan.accuracy)}, {words.change(plan.paired)}",
        )
        for plan in comparison.of_kind("litestage")
    ]
    return (first, *plans)[:5]


def _frontier(comparison: Comparison) -> Section:
    others = [m for m in comparison.of_kind("ablation", "control") if comparison.on_frontier(m) or m.method in RIVALS]
    drawn = (*comparison.of_kind("litestage", "rule"), *others)
    figure = _trade_off(
        comparison,
        drawn,
        "frontier",
        "Accuracy against speedup, a line a method of several budgets",
        "A filled mark is on the frontier, and its bar the 95 % interval of its change from full depth. The "
        "dashed lines are full depth, a dotted one is where always giving the same answer would lie, if any is below. "
        "Of the methods, LiteStage alone ends texts early; its uniform budgets with exit, and exit and a token cap at "
        "full depth, are there to tell that part from the skipping. Speedups are priced from exact counts over all "
        "questions; the tables have the clock's. ",
    )
    return Section("frontier", "Accuracy against speedup", figures=(figure,), tables=(owners(comparison),))


def _trade_off(
    comparison: Comparison,
    methods: Sequence[MethodResult],
    figure: str,
    described: str,
    caption: str = "",
    joined: bool = True,
) -> Figure:
    """Accuracy (percent) against speedup: a line a method of several budgets, from full depth, where dashes cross.

    Dots lie where always giving the same answer would, if any system is no better.
    """
    drawn = comparison.worth_drawing(*methods)
    titles = list(dict.fromkeys(method.title for method in drawn))
    styles = {title: Style(COLOURS[i], SHAPES[i], size=80, opacity=0.85) for i, title in enumerate(titles)}
    constant = comparison.constant[1]
    below = min((method.accuracy for method in drawn), default=100.0) <= constant
    chart = Lines(
        records=sorted(drawn, key=lambda method: method.blocks_skipped),
        x=lambda method: method.speedup,
        y=lambda method: method.accuracy,
        series=lambda method: method.title,
        styles=styles,
        across=Axis("speedup over full depth (priced)", ticks=8, format=".2f", padding=14),
        up=Axis(ticks=6, padding=10),
        tips={
            "method": lambda method: method.title,
            "asked for": lambda method: method.requested or "nothing",
            "skips": lambda method: f"{method.blocks_skipped:.1f} blocks, the mean over stages",
            "accuracy": lambda method: words.percent(method.accuracy),
            "against full depth": lambda method: words.change(method.paired),
            "speedup": _speedups,
            "frontier": lambda method: "on the frontier" if comparison.on_frontier(method) else "not on it",
        },
        title="Accuracy, %",
        height=360 if joined else 300,
        mark=lambda method: _mark(styles[method.title], comparison.on_frontier(method)),
        joined=lambda method: joined,
        interval=lambda method: _ends(method) if comparison.on_frontier(method) else None,
        rules=(
            *([Rule(constant, dash=DOTS, opacity=0.55)] if below else []),
            Rule(1.0, upright=True, opacity=0.55),
            Rule(comparison.full.accuracy, opacity=0.55),
        ),
        start=(1.0, comparison.full.accuracy),
    )
    said = f"{caption}{not_drawn(comparison, methods)}"
    return Figure(figure, described, (Panel((chart,)),), keys(styles), said)


def _mark(style: Style, filled: bool) -> Style:
    return Style(style.colour, style.shape, open=not filled, size=95 if filled else 75)


def _ends(method: MethodResult) -> tuple[float, float]:
    """Of the interval of its change from full depth, around its accuracy."""
    middle = method.accuracy - method.paired.difference
    return max(0.0, middle + method.paired.low), min(100.0, middle + method.paired.high)


def _speedups(method: MethodResult) -> str:
    timed = f", {words.times(method.wall.speedup)} by the clock" if method.wall else ""
    return f"{words.times(method.speedup)} priced{timed}"


def _budgets(comparison: Comparison) -> Section:
    tables = [matched(comparison), stage_budgets(comparison)]
    return Section(
        "budgets",
        "The same budget, spent differently",
        "Every uniform method gives each stage the same; LiteStage gives each stage its own.",
        tables=(*tables, *([pairs(comparison)] if comparison.pairs else [])),
    )


def _ablations(comparison: Comparison) -> Section:
    ablated, controlled = comparison.of_kind("litestage", "ablation"), comparison.of_kind("litestage", "control")
    parts = "Accuracy against speedup of LiteStage and of what is left when a part of it is taken away"
    against = "Accuracy against speedup of LiteStage and of the controls"
    figures = [
        *([_trade_off(comparison, ablated, "ablations", parts)] if ablated else []),
        _trade_off(comparison, controlled, "controls", against, joined=False),
        *([_exit(comparison)] if comparison.exit_pairs else []),
    ]
    return Section(
        "ablations",
        "What each part is worth",
        "Uniform budgets on LiteStage's ranking, its plans without exit and with AdaSkip's norm ratios, and controls "
        "that skip nothing: exit or a token cap at full depth, and a stage left out.",
        figures=tuple(figures),
        tables=(against_controls(comparison),),
    )


@dataclass(frozen=True)
class Ending:
    """A method with exit or without, in a family of budgets."""

    method: MethodResult
    exit: str

    @property
    def budgets(self) -> str:
        return "uniform budgets" if self.method.amount else "stage-wise budgets"

    @property
    def series(self) -> str:
        return f"{self.budgets}, {self.exit}"


def _exit(comparison: Comparison) -> Figure:
    """Measures of systems with and without exit, by blocks skipped (the paper's Figure 6)."""
    ending = [
        Ending(one, exit) for pair in comparison.exit_pairs for one, exit in zip(pair, (WITHOUT, WITH), strict=True)
    ]
    styles = {
        f"{budgets}, {exit}": Style(colour, shape, exit == WITHOUT, dash=dash, size=60)
        for budgets, colour in (("stage-wise budgets", "plan"), ("uniform budgets", "ffn"))
        for exit, shape, dash in ((WITH, "circle", (1, 0)), (WITHOUT, "square", DASHED))
    }
    styles = {series: style for series, style in styles.items() if any(one.series == series for one in ending)}
    measures: dict[str, Callable[[Ending], float]] = {
        "Decode steps a question": lambda one: one.method.performance.total.decode_steps,
        "Accuracy, %": lambda one: one.method.accuracy,
    }
    charts = [
        Lines(
            records=sorted(ending, key=lambda one: one.method.blocks_skipped),
            x=lambda one: one.method.blocks_skipped,
            y=measure,
            series=lambda one: one.series,
            styles=styles,
            across=Axis("blocks skipped, the mean over stages", ticks=8, format="d", padding=10, zero=True),
            up=Axis(padding=10),
            tips={
                "budgets": lambda one: one.budgets,
                "exit": lambda one: one.exit,
                "asked for": lambda one: one.method.requested,
                title: partial(_measured, measure),
            },
            title=title,
            height=220,
        )
        for title, measure in measures.items()
    ]
    return Figure(
        name="exit",
        alt="Decode steps and accuracy with and without the exit rule, by blocks skipped",
        panels=tuple(Panel((chart,)) for chart in charts),
        legend=keys(styles),
        caption="The paper's Figure 6: what the exit rule takes off the texts, and what that costs. Filled "
        "circles have it, open squares do not.",
    )


def _measured(measure: Callable[[Ending], float], one: Ending) -> str:
    return f"{measure(one):.1f}"


def _plans(comparison: Comparison) -> Section:
    figures = []
    for place, (planned, stages) in enumerate(comparison.plans.items(), start=1):
        method = comparison.method(planned)
        figures.append(
            map_figure(
                f"plan-{place}",
                f"Blocks by stages: what the plan of {method.requested} skips",
                plan_map(stages, comparison.model.num_blocks, comparison.ranking),
                method.requested,
                f"{words.times(method.speedup)}, {words.percent(method.accuracy)}",
                explained=place == 1,
            )
        )
    return Section("plans", "What LiteStage leaves out where", figures=tuple(figures))


def _examples(comparison: Comparison) -> Section:
    plan = comparison.fastest_plan
    assert plan is not None, "examples are of a plan"
    return Section(
        "examples",
        "The same questions, answered twice",
        f"Full depth, and LiteStage's fastest plan ({plan.requested}). Its words are marked where they differ; a mark "
        "shows where the exit rule ended a generation, and what it cut.",
        examples=tuple(
            twice(example, lambda stage: left_out_of(round(plan.skipped[stage]))) for example in comparison.examples
        ),
    )


# Tables


def systems(comparison: Comparison) -> Table:
    """Every system."""
    tests = len(comparison.results) - 1

    def tone(method: MethodResult) -> Tone:
        if comparison.on_frontier(method):
            return "strong"
        return "dim" if comparison.lost_beyond_chance(method) else "plain"

    def unless_full(method: MethodResult, said: str) -> str:
        return "" if method.kind == "full" else said

    split = f"{comparison.tested_on.used} {comparison.tested_on.name} questions"
    return Table(
        title=f"{comparison.model.id} on {split}",
        records=comparison.results,
        columns=(
            name("Method", lambda m: m.title),
            name("Asked for", lambda m: m.requested),
            Column(
                "Blocks",
                lambda m: f"{m.blocks_skipped:.1f}, {m.blocks_a_step:.1f}",
                under="stages, steps",
                short=lambda m: f"{m.blocks_skipped:.1f}",
            ),
            Column("Accuracy", lambda m: words.percent(m.accuracy)),
            Column(
                "Change",
                lambda m: unless_full(m, words.difference(m.paired)),
                under="points, 95 % interval",
                short=lambda m: unless_full(m, words.signed(m.paired.difference)),
            ),
            Column("McNemar", lambda m: unless_full(m, words.p_value(m.paired.p_value)), page_only=True),
            Column("None", lambda m: words.percent(m.performance.accuracy.none_percent), under="rate", page_only=True),
            Column("Steps", lambda m: f"{m.performance.total.decode_steps:.1f}", under="a question", page_only=True),
            Column(
                "Speedup",
                lambda m: words.clock(m.priced) if m.priced else words.times(m.speedup),
                under="priced, 95 % interval",
                short=lambda m: words.times(m.speedup),
            ),
            Column(
                "Clock",
                lambda m: words.clock(m.wall) if m.wall else words.NOTHING,
                under="speedup, 95 % interval",
                short=_clock,
            ),
            Column("Turns", _turns, under="each by itself", page_only=True),
            Column("Price", _price_error, under="on the timed, error", page_only=True),
        ),
        note="Blocks are those that decode steps really skip, two sub-layers a block: the mean over stages, as the "
        "paper counts, and over all decode steps. Change and McNemar's test are against full depth on the same "
        f"questions (n = {comparison.tested_on.used}). {_clock_note(comparison)} Bold: on the frontier. Pale: a loss "
        f"beyond chance; of {tests} tests at 5 %, {tests / 20:.0f} would find a change by chance alone.",
        tone=tone,
        sortable=True,
        narrow=True,
        short_note="Bold: on the frontier. Pale: a loss beyond chance. results.json has the intervals.",
    )


def _price_error(method: MethodResult) -> str:
    """The price on the questions that were timed, and how far it lies from the clock."""
    error, alike = method.performance.price_error, method.priced_when_timed
    there = f"{words.times(alike)}, " if alike else ""
    return f"{there}{words.signed(100 * error.total, 0)} %" if error else words.NOTHING


def _turns(method: MethodResult) -> str:
    seen = method.wall.turns if method.wall and method.kind != "full" else ()
    return ", ".join(map(words.times, seen)) or words.NOTHING


def _clock_note(comparison: Comparison) -> str:
    timed = comparison.full.wall
    if timed is None:
        return ""
    slow = " Those at less than half of full depth's speed were not timed." if comparison.untimed else ""
    return (
        f"The clock timed {timed.n} of them, drawn by the seed, systems in turn. Price and clock are held against each "
        f"other on those questions: the speedup that their prices say, and by how much prices miss their seconds.{slow}"
    )


def _clock(method: MethodResult) -> str:
    return words.times(method.wall.speedup) if method.wall else words.NOTHING


def owners(comparison: Comparison) -> Table:
    """The frontier, and who else might own it."""

    def owner(point: FrontierPoint) -> str:
        return _named(comparison.method(point.name))

    return Table(
        title="The frontier, and where the data cannot tell",
        records=comparison.frontier,
        columns=(
            Column("Speedup", lambda point: words.times(point.speedup)),
            Column("Accuracy", lambda point: words.percent(point.accuracy)),
            name("Owner", owner),
            name(
                "Others as fast, and not worse beyond chance",
                lambda point: "; ".join(comparison.contenders(point)) or "none",
            ),
        ),
        note="From full depth on; as fast: within 5 %, which is what prices tell. Systems that answer less than half "
        f"of what full depth does, or less than {always(comparison)} would, have no place on it.",
    )


Matched = tuple[MethodResult, Duel | None]
"""A plan, or a method that a duel holds against it."""


def matched(comparison: Comparison) -> Table:
    """The paper's Table 1: each plan beside every method at the nearest budget."""
    lines: list[Matched] = []
    for plan in comparison.of_kind("litestage"):
        lines.append((plan, None))
        duels = [duel for duel in comparison.duels if duel.plan == plan.name and duel.by == "budget"]
        lines += [(comparison.method(duel.other), duel) for duel in duels]

    def title(line: Matched) -> str:
        return line[0].title if line[1] else f"{line[0].title}, {line[0].requested}"

    return Table(
        title="At matched budgets",
        records=lines,
        columns=(
            name("Method", title),
            Column("# Skip", lambda line: f"{line[0].blocks_skipped:.1f}", under="blocks"),
            Column("a step", lambda line: f"{line[0].blocks_a_step:.1f}", page_only=True),
            Column("Right", lambda line: words.percent(line[0].accuracy)),
            Column("Speed", lambda line: words.times(line[0].speedup), under="priced"),
            Column("Clock", lambda line: _clock(line[0]), page_only=True),
            Column("LiteStage's lead", lambda line: words.difference(line[1].paired) if line[1] else "", under=LEAD),
            Column("McNemar", lambda line: words.p_value(line[1].paired.p_value) if line[1] else "", page_only=True),
        ),
        note="The paper's Table 1: a plan of LiteStage, and every uniform method at its budget nearest to the plan's "
        "mean over the stages. A step: blocks skipped, the mean over all decode steps.",
        tone=lambda line: "plain" if line[1] else "strong",
        narrow=True,
    )


LEAD = "points, 95 % interval"


def stage_budgets(comparison: Comparison) -> Table:
    """The paper's Table 2: blocks skipped, stage by stage."""
    stages = list(comparison.full.skipped)
    return Table(
        title="Budgets by stage",
        records=comparison.of_kind("litestage"),
        columns=(
            name("Plan", lambda plan: f"LiteStage, {plan.requested}"),
            Column("# Skip", lambda plan: f"{plan.blocks_skipped:.1f}"),
            *each(stages, lambda stage, plan: f"{plan.skipped[stage] / 2:g}"),
            Column("a step", lambda plan: f"{plan.blocks_a_step:.1f}"),
        ),
        note="The paper's Table 2: blocks (two sub-layers each) that every stage skips, and what they come to at a "
        "mean decode step. A uniform method of the same # Skip takes that many from every step.",
    )


def pairs(comparison: Comparison) -> Table:
    """Every method against every other, at the budgets nearest to the fastest plan's."""
    names = list(dict.fromkeys(end for pair in comparison.pairs for end in (pair.one, pair.other)))
    found: dict[tuple[str, str], Pair] = {(pair.one, pair.other): pair for pair in comparison.pairs}

    def cell(one: str, other: str) -> str:
        if pair := found.get((one, other)):
            return words.signed(pair.paired.difference)
        if pair := found.get((other, one)):
            return words.p_value(pair.adjusted)
        return words.NOTHING

    return Table(
        title="Each method against each other",
        records=names,
        columns=(
            name("Method", lambda one: f"{names.index(one) + 1}  {_named(comparison.method(one))}"),
            *each(names, lambda other, one: cell(one, other), lambda other: str(names.index(other) + 1)),
        ),
        note="The fastest plan, and the methods at the budgets nearest to it. Right of the diagonal: points by which "
        "the method of the line is more accurate than the one of the column. Left of it: McNemar's p of the same pair, "
        "adjusted by Holm for all of them.",
    )


def against_controls(comparison: Comparison) -> Table:
    """Each plan against the controls and against itself without exit."""

    def other(duel: Duel) -> str:
        method = comparison.method(duel.other)
        return _named(method) if duel.by == "speed" else method.title

    return Table(
        title="Plans against controls, and against the best uniform system as fast",
        records=[duel for duel in comparison.duels if duel.by in ("control", "exit", "speed")],
        columns=(
            name("Plan", lambda duel: comparison.method(duel.plan).requested),
            name("Against", other),
            Column("Its speedup", lambda duel: words.times(comparison.method(duel.plan).speedup)),
            Column("Other's", lambda duel: words.times(comparison.method(duel.other).speedup)),
            Column("Its lead", lambda duel: words.difference(duel.paired), under=LEAD),
            Column("McNemar", lambda duel: words.p_value(duel.paired.p_value), page_only=True),
        ),
        note="A plan that a control equals in both has not earned its layers.",
        narrow=True,
    )
