"""The report of a diagnosis: where skipping hurts and pays, what exit ends, and what stands behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from litestage.evaluation.entropy import Place
from litestage.report import words
from litestage.report.chart import DASHED, LABEL_ROOM, Axis, Key, Lines, Ranges, Rule, Style, in_unit, keys, whole
from litestage.report.examples import thrice
from litestage.report.page import Card, Figure, Page, Panel, Section
from litestage.report.parts import KINDS, OPEN, facts, ranking_table
from litestage.report.table import Column, Table, beside, each, name
from litestage.report.terminal import Part, Sentence, conditions
from litestage.results import ConfidenceCurve, Diagnosis, RankedLayer, StageEntropy, Sweep, SweepPoint
from litestage.results.diagnosis import SHARP

TOGETHER = "all stages together"
WITHOUT, WITH = "without exit", "with exit"
FEW_ROWS = 5
"""Fewest texts whose mean confidence is drawn."""
TOLD = "*"
"""Behind a number that differs from full depth's beyond chance."""
MOST_COLUMNS = 7
"""Budgets of a table that fits a terminal."""
RANKED = 12
"""Lines of the ranking's table."""
STAGES = (Style("plan"), Style("ffn", "square"), Style("attention", "triangle-up"), Style("full", "diamond"))
"""A task of more than four begins again."""
DEPTHS = (
    Style("plan", width=1.2, opacity=0.5),
    Style("plan", width=1.9, opacity=0.75),
    Style("plan", width=2.8),
)
"""The more is skipped, the heavier the line."""
EXITS = {
    WITHOUT: Style("full", width=4, opacity=0.45, size=130),
    WITH: Style("plan", "square", width=1.6, size=36),
}
"""Where exit changes nothing, the one lies on the other and both are seen."""


def page(diagnosis: Diagnosis) -> Page:
    split, rule = diagnosis.measured_on, diagnosis.exit_rule
    measured = {"Measured on": f"{split}, greedy", "Exit rule": f"a text ends {words.exit_rule(rule)}"}
    return Page(
        title=f"diagnosis of {diagnosis.model.id} on {diagnosis.task}",
        headline=headline(diagnosis),
        summary=tuple(summary(diagnosis)),
        notes=(_sampled(diagnosis), *diagnosis.notes),
        cards=_cards(diagnosis),
        sections=(
            _sweeps(diagnosis),
            _exit(diagnosis),
            _confidence(diagnosis),
            _entropy(diagnosis),
            _redundancy(diagnosis),
            *([_examples(diagnosis)] if diagnosis.examples else []),
        ),
        facts=facts(diagnosis.provenance, diagnosis.model, diagnosis.task, measured),
    )


def terminal(diagnosis: Diagnosis) -> list[Part]:
    """In words and small tables."""
    return [
        Sentence(" ".join(summary(diagnosis))),
        *(Sentence(note, "yellow") for note in diagnosis.notes),
        accuracies(diagnosis),
        latencies(diagnosis),
        exits(diagnosis),
        entropies(diagnosis),
        conditions(diagnosis.provenance),
    ]


# In words


def headline(diagnosis: Diagnosis) -> str:
    """Up to where no loss shows, in one line."""
    of, bears = 2 * diagnosis.model.num_blocks, diagnosis.borne
    if diagnosis.smallest_loss > SHARP:
        return f"{diagnosis.measured_on.used} questions: too few to say how much a stage bears"
    most, least = max(bears.values()), min(bears.values())
    if most == least == 0:
        return f"Every stage loses accuracy at {diagnosis.budgets[1]} of {of} sub-layers skipped"
    if most == least:
        return f"No loss beyond chance shows up to {most} of {of} sub-layers skipped, in any stage"
    strong, weak = ([stage for stage, count in bears.items() if count == end] for end in (most, least))
    up_to = f"up to {least}" if least else f"not even to {diagnosis.budgets[1]}"
    return (
        f"No loss beyond chance shows up to {most} of {of} sub-layers skipped in {words.listed(strong)}, "
        f"{up_to} in {words.listed(weak)}"
    )


def summary(diagnosis: Diagnosis) -> list[str]:
    """What a reader should take away, from the plainest to the finest."""
    return [
        f"{_losses(diagnosis)} {_resolution(diagnosis)}",
        *_gains(diagnosis),
        *_slower(diagnosis),
        _entropies_told(diagnosis),
        exit_effect(diagnosis),
    ]


def _losses(diagnosis: Diagnosis) -> str:
    """Where accuracy first falls beyond chance."""
    full, split = diagnosis.full, diagnosis.measured_on
    start = (
        f"On {split.used} {split.name} questions full depth is right on {words.percent(full.accuracy.percent)}, in "
        f"{words.seconds(full.total.seconds)} each"
    )
    first: dict[int, list[str]] = {}
    for stage, sweep in zip(diagnosis.stages, diagnosis.alone, strict=True):
        if sweep.first_loss is not None:
            first.setdefault(sweep.first_loss, []).append(stage)
    if not first:
        return f"{start}. No stage alone loses accuracy that so many questions could tell from chance."
    (budget, stages), *later = sorted(first.items())
    told = [f"{words.sub_layers(budget)} in {words.listed(stages)}"]
    told += [f"{budget} in {words.listed(stages)}" for budget, stages in later]
    shown = f"{start}. Where a stage skips alone, a loss beyond chance first shows at {', at '.join(told)}"
    together = diagnosis.together.first_loss
    return f"{shown}." if together is None else f"{shown}; where all skip together, at {together}."


def _resolution(diagnosis: Diagnosis) -> str:
    """The smallest loss that so many questions can show."""
    if diagnosis.smallest_loss > 100:
        return "So few questions cannot show any loss at all: what follows says nothing of accuracy."
    return (
        "A loss counts where McNemar's test and the interval agree; "
        f"below {diagnosis.smallest_loss:.1f} points none can show on so few."
    )


def _gains(diagnosis: Diagnosis) -> Iterator[str]:
    """What each stage's skipping buys where it costs no accuracy that can be told."""
    gains = {stage: sweep.saved_before_loss for stage, sweep in zip(diagnosis.stages, diagnosis.alone, strict=True)}
    if any(gain > 0 for gain in gains.values()):
        told = [f"{words.share(gain)} in {stage}" for stage, gain in sorted(gains.items(), key=lambda pair: -pair[1])]
        yield f"Before a loss shows, skipping saves at most this share of a question's time: {words.listed(told)}."


def _slower(diagnosis: Diagnosis) -> Iterator[str]:
    """The sharpest case of more skipping that takes more time."""
    if rise := diagnosis.steepest_rise:
        before, after = rise.before, rise.after
        because = f", as the model writes {after.tokens:.0f} tokens instead of {before.tokens:.0f}"
        yield (
            f"Skipping more is not always faster: from {before.budget} to {words.sub_layers(after.budget)} in "
            f"{rise.sweep.stage or 'all stages'} a question goes from {words.seconds(before.seconds)} to "
            f"{words.seconds(after.seconds)}{because if after.tokens > before.tokens else ''}."
        )


def _entropies_told(diagnosis: Diagnosis) -> str:
    """Whether the stage whose tokens vary least is the one that bears most, as one might think."""
    least, most = diagnosis.by_entropy[0], diagnosis.by_entropy[-1]
    told = (
        f"The tokens of {least.name} vary least ({least.written.bits:.2f} bits; {most.written.bits:.2f} in {most.name})"
    )
    return {
        "one stage": f"Its tokens have an entropy of {least.written.bits:.2f} bits.",
        "all bear the same": f"{told}, but losses show at the same budget in all stages.",
        "bears most": f"{told}, and in no stage does a loss show later.",
        "bears least": f"{told}, and yet in no stage does a loss show earlier: entropy alone would mislead.",
        "neither": f"{told}; a loss shows there neither first nor last.",
    }[diagnosis.entropy_verdict]


def exit_effect(diagnosis: Diagnosis) -> str:
    """What the rule saves where it saves most, all stages together."""
    saving, paired = diagnosis.exit_saving, diagnosis.exit_saving.point.paired
    if diagnosis.exits_nothing:
        return "The exit rule ends no text at any budget: the model stays sure of what it writes."
    verb = "saves" if saving.share >= 0 else "adds"
    if not paired.percent and not paired.baseline_percent:
        effect = "nothing is right with it or without it"
    elif paired.gained + paired.lost:
        effect = f"accuracy changes by {words.change(paired)}"
    else:
        effect = "no answer turns from right to wrong or back"
    return (
        f"The exit rule {verb} at most {words.percent(100 * abs(saving.share))} of the decode steps "
        f"(at {words.sub_layers(saving.point.budget)} in all stages); {effect} there."
    )


def _sampled(diagnosis: Diagnosis) -> str:
    """How much of what there is was looked at."""
    return (
        f"A sample: {diagnosis.measured_on}, and budgets of "
        f"{words.listed(list(map(str, diagnosis.budgets)))} of {2 * diagnosis.model.num_blocks} sub-layers. What "
        "moves less than the intervals in the tables needs more questions to be seen, and what lies between two "
        "budgets a smaller step."
    )


# On the page


def _cards(diagnosis: Diagnosis) -> tuple[Card, ...]:
    full, saving = diagnosis.full, diagnosis.exit_saving
    slowest = max(full.stages, key=lambda stage: stage.seconds)
    least, most = diagnosis.by_entropy[0], diagnosis.by_entropy[-1]
    borne = list(diagnosis.borne.values())
    counts = " / ".join(map(str, borne)) if len(borne) <= 3 else f"{min(borne)}–{max(borne)}"
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
        Card("No loss shows up to", counts, f"of {2 * diagnosis.model.num_blocks}, in {' / '.join(diagnosis.stages)}"),
        Card(
            "Token entropy, bits",
            f"{least.written.bits:.1f}–{most.written.bits:.1f}",
            f"from {least.name} to {most.name}",
        ),
        Card(
            "Steps that exit saves",
            words.percent(100 * max(0.0, saving.share)),
            f"at {words.sub_layers(saving.point.budget)} skipped",
        ),
    )


@dataclass(frozen=True)
class Tried:
    """A point of a curve, and which curve."""

    curve: str
    point: SweepPoint


def tried(diagnosis: Diagnosis) -> list[Tried]:
    """Every budget where one stage skips and where all do."""
    return [Tried(sweep.stage or TOGETHER, point) for sweep in diagnosis.sweeps for point in sweep.points]


def verdict(point: SweepPoint) -> str:
    if not point.budget:
        return "full depth itself"
    return "differs from full depth" if point.paired.can_tell else "cannot be told from full depth"


def stage_styles(diagnosis: Diagnosis) -> dict[str, Style]:
    return {stage: STAGES[place % len(STAGES)] for place, stage in enumerate(diagnosis.stages)}


def _by_budget(
    points: Sequence[Tried],
    styles: Mapping[str, Style],
    measure: Callable[[SweepPoint], float],
    up: Axis,
    tips: Mapping[str, Callable[[Tried], Any]],
    height: int = 230,
) -> Panel:
    """A line a curve; a point is open where chance may explain it."""

    def mark(one: Tried) -> Style:
        style = styles[one.curve]
        unsure = bool(one.point.budget) and not one.point.paired.can_tell and "verdict" in tips
        return Style(style.colour, style.shape, open=unsure, size=style.size)

    chart = Lines(
        records=points,
        x=lambda one: one.point.budget,
        y=lambda one: measure(one.point),
        series=lambda one: one.curve,
        styles=styles,
        across=whole("sub-layers skipped", [one.point.budget for one in points]),
        up=up,
        tips=tips,
        title=up.title,
        height=height,
        mark=mark,
    )
    return Panel((chart,))


def _sweeps(diagnosis: Diagnosis) -> Section:
    points = tried(diagnosis)
    styles = {TOGETHER: Style("ink", dash=DASHED), **stage_styles(diagnosis)}
    tips = {
        "skipping in": lambda one: one.curve,
        "sub-layers skipped": lambda one: one.point.budget,
        "accuracy": lambda one: words.percent(one.point.accuracy),
        "against full depth": lambda one: words.change(one.point.paired) if one.point.budget else "",
        "verdict": lambda one: verdict(one.point),
        "latency": lambda one: words.seconds(one.point.seconds),
        "tokens a question": lambda one: f"{one.point.tokens:.1f}",
    }
    slowest = max(one.point.seconds for one in points)
    measures = (
        (lambda point: point.accuracy, Axis("Accuracy, %")),
        (lambda point: point.seconds, in_unit("Latency, {unit} a question", slowest)),
    )
    figure = Figure(
        name="skipping",
        alt="Accuracy and latency by sub-layers skipped, in one stage alone and in all together",
        panels=tuple(_by_budget(points, styles, measure, axis, tips, height=300) for measure, axis in measures),
        legend=(*keys(styles), Key("open: chance may explain it", OPEN)),
        caption="One stage skips its most redundant sub-layers while the others run at full depth, or all skip the "
        "same; no text is ended early. Latency is priced from exact counts.",
    )
    return Section(
        "skipping",
        "Where skipping hurts, and where it pays",
        "A stage that bears skipping is not always one where skipping pays: what it saves depends on how much of the "
        "time is spent there, and on whether the model then writes more.",
        figures=(figure,),
        tables=(sweeps(diagnosis),),
    )


def _exit(diagnosis: Diagnosis) -> Section:
    points = [Tried(WITHOUT, point) for point in diagnosis.together.points]
    points += [Tried(WITH, point) for point in diagnosis.with_exit]
    tips = {
        "exit rule": lambda one: one.curve,
        "sub-layers skipped": lambda one: one.point.budget,
        "decode steps": lambda one: f"{one.point.steps:.1f}",
        "accuracy": lambda one: words.percent(one.point.accuracy),
        "change": lambda one: f"{words.change(one.point.paired)} from exit" if one.curve == WITH else "",
        "texts ended": lambda one: (
            words.share(one.point.performance.total.early_exit_share) if one.curve == WITH else ""
        ),
    }
    measures = (
        (lambda point: point.steps, Axis("Decode steps a question")),
        (lambda point: point.accuracy, Axis("Accuracy, %")),
    )
    figure = Figure(
        name="exit",
        alt="Decode steps and accuracy by sub-layers skipped, with the exit rule and without",
        panels=tuple(_by_budget(points, EXITS, measure, axis, tips) for measure, axis in measures),
        legend=keys(EXITS),
        caption="All stages skip the same. Decode steps are summed over a question's stages and branches.",
    )
    return Section(
        "exit", "What ending unsure texts saves", exit_effect(diagnosis), figures=(figure,), tables=(exits(diagnosis),)
    )


@dataclass(frozen=True)
class Reached:
    """The texts of a curve that have a token at one place."""

    curve: ConfidenceCurve
    place: Place

    @property
    def depth(self) -> str:
        return skipped(self.curve.budget)

    @property
    def confidence(self) -> float | None:
        """None where too few texts are left to draw their mean."""
        return self.place.confidence if self.place.rows >= FEW_ROWS else None


def skipped(budget: int) -> str:
    return f"{budget} skipped" if budget else "full depth"


def _confidence(diagnosis: Diagnosis) -> Section:
    stage, threshold = diagnosis.looked_at, diagnosis.exit_rule.threshold
    places = [Reached(curve, place) for curve in diagnosis.curves for place in curve.steps]
    depths = [skipped(curve.budget) for curve in diagnosis.curves]
    styles = {depths[0]: Style("full", dash=DASHED), **dict(zip(depths[1:], DEPTHS, strict=False))}
    lowest = min([threshold, *(one.confidence for one in places if one.confidence is not None)])
    most = max([1, *(one.place.rows for one in places)])
    measures = (
        (
            lambda one: one.confidence,
            Axis("Mean confidence", (max(0.0, lowest - 0.05), 1.005), padding=0),
            (Rule(threshold),),
        ),
        (lambda one: one.place.rows, Axis("Texts still running", (0.0, 1.05 * most), padding=0), ()),
    )
    charts = [
        Lines(
            records=places,
            x=lambda one: one.place.token,
            y=measure,
            series=lambda one: one.depth,
            styles=styles,
            across=whole("token of the text", [one.place.token for one in places]),
            up=up,
            tips={
                "depth": lambda one: one.depth,
                "token": lambda one: one.place.token,
                "mean confidence": lambda one: f"{one.place.confidence:.3f}",
                "texts still running": lambda one: f"{one.place.rows} of {one.curve.steps[0].rows}",
            },
            title=up.title,
            points=False,
            rules=rules,
        )
        for measure, up, rules in measures
    ]
    figure = Figure(
        name="confidence",
        alt=f"Confidence and rows still running by token, in {stage}",
        panels=tuple(Panel((chart,)) for chart in charts),
        legend=(*keys(styles, lines=True), Key("the exit rule's threshold", Style("ink", "dashes"))),
        caption="Confidence is the largest next-token probability, the mean over the texts that reach a token; it is "
        f"not drawn where fewer than {FEW_ROWS} do. Token 1 comes from prefill, so decode step t decides token t + 2.",
    )
    return Section(
        "confidence",
        f"How sure the model stays in {stage}",
        f"Only {stage} skips here, so that every budget starts from the same prompts; no text is ended "
        "early. Texts that never end stay in the curves to the token limit.",
        figures=(figure,),
    )


def _entropy(diagnosis: Diagnosis) -> Section:
    styles = stage_styles(diagnosis)
    measures: dict[str, tuple[Callable[[StageEntropy], float], int]] = {
        "Token ids over all texts": (lambda stage: stage.written.bits, 2),
        "Next token, mean": (lambda stage: stage.next_token, 3),
    }

    def bars(title: str, bits: Callable[[StageEntropy], float], digits: int) -> Ranges:
        longest = max(bits(stage) for stage in diagnosis.entropy)
        return Ranges(
            records=diagnosis.entropy,
            label=lambda stage: stage.name,
            low=lambda stage: 0.0,
            high=bits,
            style=lambda stage: styles[stage.name],
            across=Axis("bits", (0.0, LABEL_ROOM * longest or 1.0), 5, grid=True, padding=0),
            text=lambda stage: f"{bits(stage):.{digits}f}",
            tips={
                "stage": lambda stage: stage.name,
                "of token ids, bits": lambda stage: f"{stage.written.bits:.2f}",
                "of the next token, bits": lambda stage: f"{stage.next_token:.3f}",
                "tokens": lambda stage: f"{stage.written.tokens:,}",
                "distinct ids": lambda stage: f"{stage.written.distinct:,}",
            },
            title=title,
            step=44,
        )

    figure = Figure(
        name="entropy",
        alt="Entropy of the generated token ids and of the next-token distribution, by stage",
        panels=tuple(Panel((bars(title, bits, digits),)) for title, (bits, digits) in measures.items()),
        caption="Left: how varied what a stage writes is. Right: how open its choice of each token is, from the raw "
        "logits. The first can be high where the second is low: a sure model on varied questions.",
    )
    return Section(
        "entropy",
        "How varied each stage's tokens are",
        "Entropy is often taken for how much computation a stage needs; the curves above say how much it really bears.",
        figures=(figure,),
        tables=(entropies(diagnosis),),
    )


def _redundancy(diagnosis: Diagnosis) -> Section:
    places = {ranked.layer: place for place, ranked in enumerate(diagnosis.ranking, start=1)}
    ordered = sorted(diagnosis.ranking, key=lambda ranked: ranked.layer)
    entries = [(stage, ranked) for stage in diagnosis.stages for ranked in ordered]
    values = [ranked.by_stage[stage] for stage, ranked in entries]

    def chart(kind: str) -> Lines:
        def score(entry: tuple[str, RankedLayer]) -> float:
            return entry[1].by_stage[entry[0]]

        mine = [entry for entry in entries if entry[1].layer.kind == kind]
        return Lines(
            records=mine,
            x=lambda entry: entry[1].layer.block,
            y=score,
            series=lambda entry: entry[0],
            styles=stage_styles(diagnosis),
            across=whole("block", [entry[1].layer.block for entry in mine]),
            up=Axis(domain=(min(values), max(values)), nines=True),
            tips={
                "stage": lambda entry: entry[0],
                "sub-layer": lambda entry: KINDS[entry[1].layer.kind],
                "block": lambda entry: entry[1].layer.block,
                "redundancy": lambda entry: f"{score(entry):.4f}",
                "place": lambda entry: f"{places[entry[1].layer]} of {len(places)}",
            },
            title="Redundancy, by its distance to 1",
        )

    figure = Figure(
        name="redundancy",
        alt="Redundancy of every attention and FFN by block, a line a stage",
        panels=(Panel((chart("attention"),), "Attention"), Panel((chart("ffn"),), "FFN")),
        legend=keys(stage_styles(diagnosis)),
        caption="The cosine between what enters a sub-layer and what leaves it, the mean over a stage's prompts at "
        "full depth. High means that it changes little. A tooltip's place is in the ranking over all stages, which "
        "decides what every budget skips.",
    )
    return Section(
        "redundancy",
        "How redundant each sub-layer is, stage by stage",
        figures=(figure,),
        tables=(ranking_table(diagnosis.ranking, RANKED),),
    )


def _examples(diagnosis: Diagnosis) -> Section:
    return Section(
        "examples",
        "The same questions in three versions",
        f"Full depth, every stage with {words.sub_layers(diagnosis.examples[0].budget)} skipped, and the same with the "
        "exit rule. Words are marked where they differ from full depth's; a mark shows where exit ended a text, and "
        "what it cut is struck out.",
        examples=tuple(map(thrice, diagnosis.examples)),
    )


# Tables


def accuracies(diagnosis: Diagnosis) -> Table:
    """Percent right, a line a place that skips and a column a budget."""
    note = f"{TOLD} differs from full depth beyond chance, on the same {diagnosis.measured_on.used} questions."
    title = "Accuracy, %, by sub-layers skipped"
    return _table_by_budget(
        diagnosis, title, lambda point: f"{point.accuracy:.1f}{TOLD if point.paired.can_tell else ''}", note
    )


def latencies(diagnosis: Diagnosis) -> Table:
    """Seconds a question, likewise."""
    title = "Latency by sub-layers skipped"
    return _table_by_budget(diagnosis, title, lambda point: words.seconds(point.seconds), "Priced, a question.")


def _table_by_budget(diagnosis: Diagnosis, title: str, cell: Callable[[SweepPoint], str], note: str) -> Table:
    return Table(
        title=title,
        records=diagnosis.sweeps,
        columns=(
            name("Skipping in", lambda sweep: sweep.stage or TOGETHER),
            *each(thinned(diagnosis.budgets, MOST_COLUMNS), lambda budget, sweep: cell(sweep.point(budget))),
        ),
        note=note,
        tone=lambda sweep: "plain" if sweep.stage else "strong",
    )


def thinned(budgets: Sequence[int], most: int) -> tuple[int, ...]:
    """Every so many of the budgets, 0 among them, so that at most ``most`` are left."""
    return tuple(budgets[:: -(-len(budgets) // most)])


def sweeps(diagnosis: Diagnosis) -> Table:
    """Every budget with its interval: what the curves are drawn from."""
    full = diagnosis.together.points[0]
    records: list[tuple[Sweep | None, SweepPoint]] = [(None, full)]
    records += [(sweep, point) for sweep in diagnosis.sweeps for point in sweep.skipping]
    return Table(
        title="Every budget",
        records=records,
        columns=(
            name("Skipping in", lambda entry: entry[0].stage or TOGETHER if entry[0] else "full depth"),
            Column("Skipped", lambda entry: str(entry[1].budget)),
            Column("Latency", lambda entry: words.seconds(entry[1].seconds)),
            Column("Speedup", lambda entry: words.times(full.seconds / entry[1].seconds)),
            Column("Tokens", lambda entry: f"{entry[1].tokens:.1f}"),
            Column("Accuracy", lambda entry: words.percent(entry[1].accuracy)),
            Column("Against full depth", lambda entry: words.change(entry[1].paired) if entry[0] else ""),
        ),
        note="Latency: priced, a question. Differences are paired by question, with their 95 % interval; lines in grey "
        "cannot be told from full depth.",
        tone=lambda entry: "strong" if not entry[0] else "plain" if entry[1].paired.can_tell else "dim",
        sortable=True,
    )


def exits(diagnosis: Diagnosis) -> Table:
    """All stages together, with the exit rule and without."""
    return Table(
        title="The exit rule, all stages together",
        records=list(zip(diagnosis.together.points, diagnosis.with_exit, strict=True)),
        columns=(
            name("", lambda pair: skipped(pair[0].budget)),
            *beside("Steps", lambda point: f"{point.steps:.1f}", ("without", "with")),
            *beside("Accuracy", lambda point: words.percent(point.accuracy), ("without", "with")),
            Column("Change", lambda pair: words.difference(pair[1].paired), under="by exit"),
            Column("Texts", lambda pair: words.share(pair[1].performance.total.early_exit_share), under="ended"),
        ),
        note=f"A text ends {words.exit_rule(diagnosis.exit_rule)}. Steps: decode steps of a question, summed over its "
        "stages and branches.",
    )


def entropies(diagnosis: Diagnosis) -> Table:
    """Bits by stage, and what they rest on."""
    return Table(
        title="Entropy at full depth, bits",
        records=diagnosis.entropy,
        columns=(
            name("Stage", lambda stage: stage.name),
            Column("Token ids", lambda stage: f"{stage.written.bits:.2f}"),
            Column("Reads low by", lambda stage: f"{stage.written.shortfall:.2f}", under="about"),
            Column("Next token", lambda stage: f"{stage.next_token:.3f}", under="mean"),
            Column("Tokens", lambda stage: f"{stage.written.tokens:,}"),
            Column("Distinct ids", lambda stage: f"{stage.written.distinct:,}"),
        ),
        note="Token ids: of all texts of a stage together. Next token: how open the model's choice is, token by token.",
    )
