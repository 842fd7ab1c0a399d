"""The report of a plan: what it saved, how it was found, what it leaves out, and what it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from litestage.evaluation import Paired
from litestage.report import path, words
from litestage.report.certificate import NOT_CERTIFIED
from litestage.report.chart import Axis, Key, Lines, Ranges, Rule, Style, in_unit, padded
from litestage.report.examples import twice
from litestage.report.page import Card, Figure, Page, Panel, Section
from litestage.report.parts import (
    ATTENTION,
    FFN,
    KINDS,
    OPEN,
    facts,
    first_skip,
    map_figure,
    plan_map,
    skipped_table,
)
from litestage.report.table import Column, Table, Tone, beside, name
from litestage.report.terminal import Part, PlanStrips, Sentence, conditions
from litestage.results import (
    ExitCheck,
    PathSearch,
    Performance,
    PlanResult,
    PlanSearch,
    Profile,
    ProfilePoint,
    RankedLayer,
    StageCost,
    verdict_on,
)

FULL_STYLE, PLAN_STYLE = Style("full", "square"), Style("plan", "square")
SYSTEMS = (Key("full depth", FULL_STYLE), Key("plan", PLAN_STYLE))
MARKS = {
    "chosen": Style("plan"),
    "keeps the target": Style("plan"),
    "misses the target": Style("full", open=True),
    "misses the target, ended early": Style("full", "triangle-down"),
    "slower than the best, ended early": Style("muted", "triangle-down"),
}
"""Of a profile's points, by what became of them."""
PROFILE = (
    Key("keeps the target", MARKS["keeps the target"]),
    Key("chosen", Style("plan", "ring")),
    Key("misses the target", MARKS["misses the target"]),
    Key("misses it for certain: at most this", MARKS["misses the target, ended early"]),
    Key("slower than the best: at most this", MARKS["slower than the best, ended early"]),
    Key("target accuracy", Style("ink", "dashes")),
)


def page(result: PlanResult) -> Page:
    sections = [
        *([path.section(result.path)] if result.path else []),
        *([_search(result.search)] if result.search else []),
        _plan(result),
        _time(result),
        *([_ranking(result)] if result.ranking else []),
        _numbers(result),
        *([_examples(result)] if result.examples else []),
    ]
    tested = {"Tested on": str(result.tested_on)}
    if result.search:
        tested["Searched on"] = f"{result.search.split}, {result.search.latency}"
    if result.path:
        tested["Searched on"] = f"{result.path.searched_on}, {result.path.latency}"
        tested["Certified on"] = str(result.path.certified_on)
    return Page(
        title=f"{result.model.id} on {result.task}",
        headline=headline(result),
        summary=tuple(summary(result)),
        notes=result.notes,
        cards=_cards(result),
        sections=tuple(sections),
        facts=facts(result.provenance, result.model, result.task, tested),
    )


def terminal(result: PlanResult) -> list[Part]:
    """In words, in all, per stage, what is skipped, and the conditions."""
    said = [Sentence(sentence) for sentence in first(result)] if result.path else [Sentence(" ".join(summary(result)))]
    return [
        *said,
        *(Sentence(note, "yellow") for note in result.notes),
        overview(result),
        *([path.path_table(result.path)] if result.path else []),
        stages(result),
        PlanStrips(result.stage_plans, result.model.num_blocks),
        conditions(result.provenance),
    ]


def search_parts(search: PlanSearch) -> list[Part]:
    """Every stage's profile in the order of the search, then what became of the exit rule."""
    profiles = [profile_table(profile, search.target) for profile in search.profiles]
    return [*profiles, *([exit_checks(search)] if search.exit_checks else []), Sentence(NOT_CERTIFIED, "yellow")]


def path_parts(search: PathSearch) -> list[Part]:
    """What is promised, and the path."""
    return [Sentence(path.promise(search)), path.path_table(search)]


def headline(result: PlanResult) -> str:
    """The result in one line, for a title."""
    change = words.signed(result.paired.difference)
    points = "the same accuracy" if change == "0.0" else f"{change} points of accuracy"
    speedup = words.times(result.wall.speedup)
    return {
        "nothing left out": "Nothing to leave out: the plan is the full model",
        "open": f"No difference in speed that the clock can tell, {points}",
        "slower": f"Slower: {speedup} the speed of full depth, {points}",
        "faster": f"{speedup} faster, {points}",
    }[result.speed_verdict]


def first(result: PlanResult) -> list[str]:
    """How fast, what is promised, and what it came to, in three sentences."""
    assert result.path is not None
    return [_speed(result), path.promise(result.path), _kept(result)]


def _kept(result: PlanResult) -> str:
    """What the test questions say of the promise."""
    paired = result.paired
    change = f"{words.signed(paired.difference)} points, from {words.percent(paired.baseline_percent)} to"
    said = f"On {paired.n} test questions accuracy changed by {change} {words.percent(paired.percent)}"
    if result.certificate is None or not result.certificate.granted:
        return f"{said}."
    inside = -paired.difference <= result.certificate.bound
    return f"{said}, {'inside' if inside else 'outside'} that bound."


def summary(result: PlanResult) -> list[str]:
    """What a reader should take away, honest when the plan is slower or the data cannot tell."""
    if result.path:
        return [*first(result), what_is_left_out(result), prefill(result)]
    sentences = [_speed(result), accuracy(result.paired)]
    if result.search and result.loses_more_than_allowed:
        search = result.search
        sentences.append(
            f"That is more than the {words.drop(search.max_drop)} that the search allowed, "
            f"which it kept on the {search.split.used} {search.split.name} questions it tuned on."
        )
    if result.search:
        sentences.append(NOT_CERTIFIED)
    return [*sentences, what_is_left_out(result), prefill(result)]


def _speed(result: PlanResult) -> str:
    wall, speedup = result.wall, words.times(result.wall.speedup)
    ends = f"95 % interval {words.interval(wall.low, wall.high, 2)}; {wall.n} questions by the wall clock"
    return {
        "nothing left out": "The search found nothing to leave out, so the plan is the full model "
        f"({speedup}, {ends}).",
        "open": f"The clock cannot tell the plan's speed from full depth's: {speedup} ({ends}).",
        "slower": f"With this plan the model answers more slowly, at {speedup} full depth's speed ({ends}).",
        "faster": f"With this plan the model answers {speedup} faster ({ends}).",
    }[result.speed_verdict]


def accuracy(paired: Paired) -> str:
    """The change on the same questions, and whether they can tell."""
    change = (
        f"Accuracy goes from {words.percent(paired.baseline_percent)} to {words.percent(paired.percent)} "
        f"({words.signed(paired.difference)} points, 95 % interval {words.ends(paired)}; n = {paired.n})"
    )
    test = f"McNemar {words.p_value(paired.p_value)}"
    verdict = verdict_on(paired)
    if verdict in ("gain", "loss"):
        return f"{change}, a {verdict} beyond chance ({test})."
    if verdict == "no answer changed":
        return f"{change}: not one answer turned from right to wrong or back."
    unsettled = f"{change}: these questions cannot settle which is more accurate ({test})."
    return (
        f"{unsettled} A loss of {words.number(-paired.low)} points is not ruled out." if paired.low < 0 else unsettled
    )


def what_is_left_out(result: PlanResult) -> str:
    gone = [name for name, stage in result.stage_plans.items() if stage.left_out]
    counts = [f"{count or 'none'} in {stage}" for stage, count in result.num_skipped.items() if stage not in gone]
    if not any(result.num_skipped.values()):
        skipped = "It skips no sub-layer"
    else:
        of = 2 * result.model.num_blocks
        skipped = f"Of {of} sub-layers it skips {words.listed(counts)}, while decoding only"
    if gone:
        skipped = f"It goes without {words.listed(gone)}. {skipped}"
    if not result.exits:
        return f"{skipped}; no generation is ended early."
    if not result.exits_that_fire:
        return f"{skipped}; its exit rule ended no text."
    rule = result.stage_plans[result.exits_that_fire[0]].exit
    assert rule is not None
    idle = [name for name in result.exits if name not in result.exits_that_fire]
    nothing = f" In {words.listed(idle)} that ended no text." if idle else ""
    return f"{skipped}; in {words.listed(result.exits_that_fire)} a generation ends {words.exit_rule(rule)}.{nothing}"


def prefill(result: PlanResult) -> str:
    return (
        f"Prefill, which always runs at full depth, takes {words.share(result.full.total.prefill_share)} of full "
        f"depth's time and {words.share(result.plan.total.prefill_share)} of the plan's."
    )


def _cards(result: PlanResult) -> tuple[Card, ...]:
    """The headline figures."""
    wall, paired, full, plan = result.wall, result.paired, result.full, result.plan
    none = f"{words.percent(full.accuracy.none_percent)} → {words.percent(plan.accuracy.none_percent)}"
    skipped = result.num_skipped
    return (
        Card(
            "Speedup by the clock", words.times(wall.speedup), f"95 % interval {words.interval(wall.low, wall.high, 2)}"
        ),
        Card(
            "Latency a question",
            words.seconds(wall.seconds),
            f"{wall.n} questions, in turn",
            words.seconds(wall.baseline_seconds),
        ),
        Card("Accuracy", words.percent(paired.percent), words.change(paired), words.percent(paired.baseline_percent)),
        Card("Tokens a question", f"{plan.total.tokens:.1f}", f"None rate {none}", f"{full.total.tokens:.1f}"),
        Card(
            "Sub-layers skipped",
            " / ".join(map(str, skipped.values())),
            f"of {2 * result.model.num_blocks}, in {' / '.join(skipped)}",
        ),
    )


@dataclass(frozen=True)
class Change:
    """One measure of full depth and of the plan."""

    what: str
    full: str
    plan: str
    change: str = ""


def overview(result: PlanResult) -> Table:
    """Full depth against the plan, all stages together."""
    full, plan, wall, change = result.full, result.plan, result.wall, result.paired
    none = [words.percent(one.accuracy.none_percent) for one in (full, plan)]
    priced = full.total.seconds, plan.total.seconds
    records = [
        Change("Accuracy", words.accuracy(full.accuracy), words.accuracy(plan.accuracy), words.difference(change)),
        Change("None rate", none[0], none[1]),
        Change("Latency, clock", words.seconds(wall.baseline_seconds), words.seconds(wall.seconds), words.clock(wall)),
        Change(
            "Latency, priced",
            words.seconds(priced[0]),
            words.seconds(priced[1]),
            words.clock(result.priced) if result.priced else words.times(priced[0] / priced[1]),
        ),
        Change("Tokens", f"{full.total.tokens:.1f}", f"{plan.total.tokens:.1f}"),
        Change("Decode steps", f"{full.total.decode_steps:.1f}", f"{plan.total.decode_steps:.1f}"),
        Change("Prefill's share", words.share(full.total.prefill_share), words.share(plan.total.prefill_share)),
    ]
    return Table(
        title=f"Full depth against the plan: {change.n} {result.tested_on.name} questions",
        records=records,
        columns=(
            name("", lambda one: one.what),
            Column("Full depth", lambda one: one.full),
            Column("Plan", lambda one: one.plan),
            Column("Change", lambda one: one.change),
        ),
        note=f"Means a question; intervals are 95 %. The clock timed {wall.n} questions, one at a time and in turn."
        f"{words.turns(wall)}",
    )


def stages(result: PlanResult) -> Table:
    """Each stage under full depth and the plan, and all together."""
    pairs = list(zip(result.full.stages, result.plan.stages, strict=True))
    whole = (result.full.total, result.plan.total)
    measures: dict[str, Callable[[StageCost], str]] = {
        "Latency": lambda cost: words.seconds(cost.seconds),
        "Tokens": lambda cost: f"{cost.tokens:.1f}",
        "Prefill": lambda cost: words.share(cost.prefill_share),
    }
    return Table(
        title="Stage by stage",
        records=[*pairs, whole],
        columns=(
            name("Stage", lambda pair: pair[0].name),
            Column("Skipped", lambda pair: "" if pair is whole else str(result.num_skipped[pair[0].name])),
            *(column for measure in measures.items() for column in beside(*measure, ("full", "plan"))),
            Column("Exits", lambda pair: words.share(pair[1].early_exit_share)),
        ),
        note=f"Skipped: sub-layers of {2 * result.model.num_blocks}. Latency: priced, a question. "
        "Exits: share of generations that the exit rule ended.",
        tone=lambda pair: "strong" if pair is whole else "plain",
    )


def profile_table(profile: Profile, target: float) -> Table:
    """A stage's budgets as they were measured; the chosen one stands out, those out of the question fade."""
    left_out = f" {profile.left_out} larger budgets were left out." if profile.left_out else ""
    compared = any(point.agreement is not None for point in profile.points)
    policies = (
        name("Policy", lambda point: point.policy or words.NOTHING),
        Column("Same tokens", lambda p: words.NOTHING if p.agreement is None else words.percent(100 * p.agreement)),
    )

    def tone(point: ProfilePoint) -> Tone:
        in_question = point.feasible and not point.cut_short
        return "strong" if point.budget == profile.chosen else "plain" if in_question else "dim"

    return Table(
        title=f"Search profile of {profile.stage}",
        records=profile.points,
        columns=(
            Column("Skipped", lambda point: str(point.budget)),
            *(policies if compared else ()),
            Column("Accuracy", lambda point: f"{'≤ ' if point.cut_short else ''}{words.percent(point.accuracy)}"),
            Column("Latency", lambda point: _latency(point, "≥ ", words.NOTHING)),
            Column("Questions", lambda point: f"{point.measured} of {point.questions}"),
            name("", profile.verdict),
        ),
        note=f"Target {words.percent(target)}. Accuracy and latency are end to end.{left_out}",
        tone=tone,
    )


def _latency(point: ProfilePoint, at_least: str, nothing: str) -> str:
    if point.seconds is not None:
        return words.seconds(point.seconds)
    return nothing if point.seconds_at_least is None else f"{at_least}{words.seconds(point.seconds_at_least)}"


def exit_checks(search: PlanSearch) -> Table:
    """What became of the exit rule after the budgets were chosen."""

    def tone(check: ExitCheck) -> Tone:
        return "strong" if check.kept and check.feasible else "plain" if check.feasible else "dim"

    return Table(
        title="Exit rule",
        records=search.exit_checks,
        columns=(
            name("Exit on in", lambda check: words.listed(check.exits) or "no stage"),
            Column("Accuracy", lambda check: f"{'≤ ' if check.cut_short else ''}{words.percent(check.accuracy)}"),
            Column("Latency", lambda check: words.NOTHING if check.seconds is None else words.seconds(check.seconds)),
            name("", lambda check: check.verdict),
        ),
        note=f"The whole plan, checked on {search.split.used} {search.split.name} questions against the target of "
        f"{words.percent(search.target)}.",
        tone=tone,
    )


def _search(search: PlanSearch) -> Section:
    points = [point for profile in search.profiles for point in profile.points]
    budgets = [0.0, 2.0, *(float(point.budget) for point in points)]
    latencies = [point.seconds for point in points if point.seconds is not None]
    across = Axis("sub-layers skipped", padded(budgets, air=0.05), _even(max(budgets)), format="d", padding=0)
    right = Axis(domain=padded([search.target, *(point.accuracy for point in points)]), ticks=4, padding=0)
    seconds = in_unit("Latency, {unit} a question", max(latencies, default=0.0))
    slow = Axis(domain=padded(latencies), factor=seconds.factor, ticks=4, padding=0)
    figure = Figure(
        name="profiles",
        alt="Accuracy and latency of each stage by the number of sub-layers skipped",
        panels=tuple(
            Panel(
                (
                    _profile(profile, "accuracy", across, right, "Accuracy, %", (Rule(search.target, opacity=1),)),
                    _profile(profile, "seconds", across, slow, seconds.title),
                ),
                heading=f"{place}. {profile.stage}",
                note=_searched_before(profile, search),
            )
            for place, profile in enumerate(search.profiles, start=1)
        ),
        legend=PROFILE,
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
    tables = (exit_checks(search),) if search.exit_checks else ()
    return Section("search", "How the budgets were found", lead, figures=(figure,), tables=tables)


def _profile(profile: Profile, measure: str, across: Axis, up: Axis, title: str, rules: Sequence[Rule] = ()) -> Lines:
    """A stage's accuracy or seconds by budget; what ended early is a bound, so no line joins it."""
    return Lines(
        records=profile.points,
        x=lambda point: point.budget,
        y=lambda point: getattr(point, measure),
        series=lambda point: "",
        styles={"": Style("full", width=1.5)},
        across=across,
        up=up,
        tips={
            "sub-layers skipped": lambda point: point.budget,
            "accuracy": lambda point: f"{'at most ' if point.cut_short else ''}{words.percent(point.accuracy)}",
            "latency": lambda point: _latency(point, "at least ", "not timed: ended early"),
            "verdict": profile.verdict,
            "questions measured": lambda point: f"{point.measured} of {point.questions}",
        },
        title=title,
        height=150,
        mark=lambda point: MARKS[profile.verdict(point)],
        joined=lambda point: not point.cut_short,
        chosen=lambda point: point.budget == profile.chosen,
        rules=rules,
    )


def _even(most: float) -> list[int]:
    """Even budgets, few enough to read."""
    return list(range(0, int(most) + 1, 2 if most < 12 else 4 if most < 40 else 8))


def _searched_before(profile: Profile, search: PlanSearch) -> str:
    before = search.order[: search.order.index(profile.stage)]
    return f"{words.listed(before)} at the chosen budget" if before else "the others at full depth"


def _plan(result: PlanResult) -> Section:
    chart = plan_map(result.stage_plans, result.model.num_blocks, result.ranking)
    figure = map_figure("plan", "Blocks by stages: which attention and which FFN each stage skips", chart)
    return Section(
        "plan",
        "What is left out where",
        what_is_left_out(result),
        (figure,),
        (skipped_table(result.stage_plans),),
    )


@dataclass(frozen=True)
class Phase:
    """Prefill or decode of one stage, at full depth or under the plan."""

    system: str
    of: Performance
    stage: StageCost
    prefill: bool

    @property
    def ends(self) -> tuple[float, float]:
        """Seconds of the stage at which it begins and ends."""
        first = self.stage.prefill_seconds
        return (0.0, first) if self.prefill else (first, self.stage.seconds)

    @property
    def seconds(self) -> float:
        return self.ends[1] - self.ends[0]


def phases(result: PlanResult) -> list[Phase]:
    pairs = zip(result.full.stages, result.plan.stages, strict=True)
    return [
        Phase(system, of, stage, prefill)
        for pair in pairs
        for system, of, stage in zip(("full depth", "plan"), (result.full, result.plan), pair, strict=True)
        for prefill in (True, False)
    ]


def _time(result: PlanResult) -> Section:
    longest = max(phase.stage.seconds for phase in phases(result))
    axis = in_unit("{unit} a question", longest)
    chart = Ranges(
        records=phases(result),
        label=lambda phase: phase.stage.name,
        low=lambda phase: phase.ends[0],
        high=lambda phase: phase.ends[1],
        style=lambda phase: Style(
            "full" if phase.system == "full depth" else "plan", "square", opacity=0.4 if phase.prefill else 1.0
        ),
        across=Axis(axis.title, (0.0, 1.25 * longest), 6, factor=axis.factor, padding=0),
        beside=lambda phase: phase.system,
        text=lambda phase: "" if phase.prefill else words.seconds(phase.stage.seconds),
        tips={
            "stage": lambda phase: phase.stage.name,
            "system": lambda phase: phase.system,
            "phase": lambda phase: "prefill" if phase.prefill else "decode",
            "time": lambda phase: words.seconds(phase.seconds),
            "of its question's time": lambda phase: words.share(phase.seconds / phase.of.total.seconds),
            "tokens generated": lambda phase: f"{phase.stage.tokens:.1f}",
        },
        step=58,
    )
    deep = Style("ink", "square")
    figure = Figure(
        name="time",
        alt="Seconds a question by stage and phase, full depth against the plan",
        panels=(Panel((chart,)),),
        legend=(
            *SYSTEMS,
            Key("prefill (always full depth)", Style("ink", "square", opacity=0.4)),
            Key("decode", deep),
        ),
        caption="Priced by a cost model fitted to this machine; the table shows how far prices lie from the clock.",
    )
    return Section("time", "Where the time goes", prefill(result), (figure,), (prices(result),))


def prices(result: PlanResult) -> Table:
    """What the cost model said against what the clock said."""

    def error(part: str) -> Column:
        def cell(entry: tuple[str, Performance]) -> str:
            found = entry[1].price_error
            if found is None:
                return words.NOTHING
            value = 100 * getattr(found, part)
            return f"{words.signed(value)} %" if part == "total" else words.percent(value)

        return Column({"total": "Error of the total", "median": "Median error", "max": "Largest error"}[part], cell)

    def measured(entry: tuple[str, Performance]) -> str:
        seconds = entry[1].wall_seconds
        return words.NOTHING if seconds is None else words.seconds(seconds)

    return Table(
        title="Price and clock",
        records=(("Full depth", result.full), ("Plan", result.plan)),
        columns=(
            name("", lambda entry: entry[0]),
            Column("Priced", lambda entry: words.seconds(entry[1].total.seconds)),
            Column("Measured", measured),
            *map(error, ("total", "median", "max")),
        ),
        note="Priced over all test questions; measured, and the errors taken, over the timed ones.",
    )


def _ranking(result: PlanResult) -> Section:
    def skipped_in(ranked: RankedLayer) -> list[str]:
        plans = result.stage_plans.items()
        return [stage for stage, plan in plans if first_skip(plan.schedule, ranked.layer) is not None]

    def mark(ranked: RankedLayer) -> Style:
        style = styles[KINDS[ranked.layer.kind]]
        return Style(style.colour, style.shape, open=not skipped_in(ranked), size=64)

    places = {ranked.layer: place for place, ranked in enumerate(result.ranking, start=1)}
    styles = {"attention": ATTENTION, "FFN": FFN}
    blocks = [float(block) for block in range(result.model.num_blocks)]
    chart = Lines(
        records=sorted(result.ranking, key=lambda ranked: ranked.layer),
        x=lambda ranked: ranked.layer.block,
        y=lambda ranked: ranked.redundancy,
        series=lambda ranked: KINDS[ranked.layer.kind],
        styles={what: Style(style.colour, style.shape, width=1.5) for what, style in styles.items()},
        across=Axis("block", (blocks[0], blocks[-1]), 8, format="d", padding=10),
        up=Axis(ticks=4),
        tips={
            "block": lambda ranked: ranked.layer.block,
            "sub-layer": lambda ranked: KINDS[ranked.layer.kind],
            "redundancy": lambda ranked: f"{ranked.redundancy:.4f}",
            "place": lambda ranked: places[ranked.layer],
            "skipped in": lambda ranked: words.listed(skipped_in(ranked)) or "no stage",
        },
        title="Redundancy: cosine of what enters and what leaves",
        height=220,
        mark=mark,
    )
    figure = Figure(
        name="redundancy",
        alt="Redundancy of every attention and FFN by block",
        panels=(Panel((chart,)),),
        legend=(Key("attention", ATTENTION), Key("FFN", FFN), Key("open: no stage skips it", OPEN)),
        caption="The mean over tokens, questions and stages of the cosine between a sub-layer's input and its output. "
        "High means that it changes little and is skipped first.",
    )
    return Section("redundancy", "How redundant each sub-layer is", figures=(figure,))


def _numbers(result: PlanResult) -> Section:
    groups = [("all questions", result.full.accuracy, result.plan.accuracy)]
    groups += [(group.name, group.full, group.plan) for group in result.groups]
    records = [(group, *side) for group, full, plan in groups for side in (("full depth", full), ("plan", plan))]
    ends = [end for _, _, accuracy in records for end in (accuracy.low, accuracy.high)]
    chart = Ranges(
        records=records,
        label=lambda entry: f"{entry[0]} (n = {entry[2].n})",
        low=lambda entry: entry[2].low,
        high=lambda entry: entry[2].high,
        dot=lambda entry: entry[2].percent,
        style=lambda entry: FULL_STYLE if entry[1] == "full depth" else PLAN_STYLE,
        beside=lambda entry: entry[1],
        across=Axis("accuracy, %", padded(ends), 6, grid=True, padding=0),
        tips={
            "questions": lambda entry: f"{entry[0]} (n = {entry[2].n})",
            "system": lambda entry: entry[1],
            "accuracy": lambda entry: words.percent(entry[2].percent),
            "95 % interval": lambda entry: words.interval(entry[2].low, entry[2].high),
        },
    )
    figure = Figure(
        name="accuracy",
        alt="Accuracy with its 95 % interval at full depth and under the plan",
        panels=(Panel((chart,)),),
        legend=SYSTEMS,
        caption="Each interval is of one system alone; whether the two differ is for the paired interval in the table, "
        "because both answered the same questions.",
    )
    tables = (overview(result), stages(result))
    return Section("numbers", "What it saves and what it costs", figures=(figure,), tables=tables)


def _examples(result: PlanResult) -> Section:
    return Section(
        "examples",
        "The same questions, answered twice",
        "The plan's words are marked where they differ from full depth's; a mark shows where the exit rule ended a "
        "generation, and what it cut where that is known.",
        examples=tuple(
            twice(example, lambda stage: left_out_of(result.num_skipped[stage], result.stage_plans[stage].left_out))
            for example in result.examples
        ),
    )


def left_out_of(skipped: int, whole: bool = False) -> str:
    """What is not run of a stage, or that it is not run at all."""
    if whole:
        return "left out"
    return f"{words.sub_layers(skipped)} skipped" if skipped else "full depth"
