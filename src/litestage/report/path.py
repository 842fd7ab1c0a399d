"""A path of plans in words, tables and a chart: what was found, what is promised of it, and what was tried besides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from litestage.evaluation import would_do
from litestage.report import words
from litestage.report.certificate import points, rounded
from litestage.report.chart import Axis, Key, Lines, Rule, Style, padded
from litestage.report.page import Figure, Panel, Section
from litestage.report.table import Column, Table, Tone, name
from litestage.results import PathPlan, PathSearch, Tried

GRANTED, REFUSED = Style("plan"), Style("full", "triangle-down")
UNTESTED, TRIED = Style("muted", open=True), Style("muted", size=18, opacity=0.7)
LEGEND = (
    Key("granted: seen, and up to its bound", GRANTED),
    Key("the plan", Style("plan", "ring")),
    Key("refused: seen, and up to its bound", REFUSED),
    Key("on the path, not tested any more", UNTESTED),
    Key("tried and left behind, on the search's questions", TRIED),
    Key("points that may be lost", Style("ink", "dashes")),
)


def promise(search: PathSearch) -> str:
    """What is promised, in one sentence or two; or what was found where nothing is."""
    asked, plan = search.options, search.plan
    if plan and (told := plan.certificate):
        seen = f"on {told.n} questions that the search had not seen it lost {told.lost} and gained {told.gained}"
        if told.granted:
            return f"It is promised to lose less than {points(told.bound)}: {seen} (95 % confidence)."
        return (
            f"It is the safest plan found within {words.seconds(asked.latency or 0)} a question, and may lose up to "
            f"{points(told.bound)}: {seen} (95 % confidence)."
        )
    if asked.latency is not None and search.full_seconds <= asked.latency:
        full, target = words.seconds(search.full_seconds), words.seconds(asked.latency)
        return f"Full depth itself takes {full} a question, within the {target} asked for, so nothing is left out."
    if asked.latency is not None:
        return f"No plan was found that takes {words.seconds(asked.latency)} a question or less."
    refused = search.refused
    if refused is None or refused.certificate is None:
        return "Nothing that the search tried was both faster and nearly as accurate, so nothing is left out."
    told = refused.certificate
    needed = would_do(told)
    more = f" About {rounded(needed):,} certify questions would do." if needed else " No number of questions would do."
    return (
        f"No plan can be promised to lose less than {points(asked.max_drop)}. The safest one found, "
        f"{words.times(refused.tried.speedup)} as fast by price, lost {told.lost} and gained {told.gained} of {told.n} "
        f"questions, which allows up to {points(told.bound)}.{more}"
    )


def what(plan: PathPlan | Tried) -> str:
    """What a plan does, stage by stage."""
    return str(plan.candidate if isinstance(plan, Tried) else plan.tried.candidate)


def verdict(search: PathSearch, plan: PathPlan) -> str:
    if search.plan == plan:
        return "the plan"
    if plan.certificate is None:
        return "not tested"
    return "granted" if plan.certificate.granted else "refused"


def path_table(search: PathSearch) -> Table:
    """The path, safest first, with the bound of each plan that was tested."""

    def tone(plan: PathPlan) -> Tone:
        return "strong" if plan == search.plan else "plain" if plan.certificate else "dim"

    def seen(plan: PathPlan) -> str:
        told = plan.certificate
        return f"{told.lost}, {told.gained} of {told.n}" if told else words.NOTHING

    note = (
        f"Faster: by price, on {search.searched_on.used} {search.searched_on.name} questions of the search. "
        f"Lost, gained: on {search.certified_on.name} questions that it had not seen. "
        f"Bound: 95 %, for each plan by itself; {points(search.options.max_drop)} may be lost."
    )
    return Table(
        title="The path, from the safest plan to the fastest",
        records=search.plans,
        columns=(
            name("Left out", what),
            Column("Faster", lambda plan: words.times(plan.tried.speedup)),
            Column("Lost, gained", seen),
            Column("Bound", lambda plan: f"{plan.certificate.bound:.2f}" if plan.certificate else words.NOTHING),
            name("", lambda plan: verdict(search, plan)),
        ),
        note=note,
        tone=tone,
    )


def tried_table(search: PathSearch) -> Table:
    """Everything that was tried, the slowest first."""
    return Table(
        title="All that was tried",
        records=search.tried,
        columns=(
            name("Left out", what),
            Column("Faster", lambda one: words.times(one.speedup)),
            Column("Lost, gained", lambda one: f"{one.lost}, {one.gained} of {one.questions}"),
            Column("Risk", lambda one: f"{one.risk:.1f}"),
            name("", lambda one: "on the path" if one.on_path else ""),
        ),
        note="On questions of the search. Risk: about the bound that the certify questions would give, if what was "
        "seen is the truth.",
        tone=lambda one: "strong" if one.on_path else "plain",
    )


@dataclass(frozen=True)
class Mark:
    """A plan in the chart."""

    plan: PathPlan | Tried
    what: str
    speedup: float
    loss: float
    bound: float | None
    verdict: str


def marks(search: PathSearch) -> Iterator[Mark]:
    """What was tried, then the path: what was seen on certify questions where there is that, else on the search's."""
    for one in search.tried:
        if not one.on_path and one.loss <= 4 * search.options.max_drop:
            yield Mark(one, what(one), one.speedup, one.loss, None, "tried")
    for plan in search.plans:
        told = plan.certificate
        loss = -told.change if told else plan.tried.loss
        yield Mark(plan, what(plan), plan.tried.speedup, loss, told.bound if told else None, verdict(search, plan))


def section(search: PathSearch) -> Section:
    """The frontier with bounds, the path and all that was tried."""
    every = list(marks(search))
    styles = {"granted": GRANTED, "the plan": GRANTED, "refused": REFUSED, "not tested": UNTESTED, "tried": TRIED}
    losses = [0.0, search.options.max_drop, *(end for one in every for end in (one.loss, one.bound) if end is not None)]
    chart = Lines(
        records=every,
        x=lambda one: one.speedup,
        y=lambda one: one.loss,
        series=lambda one: "tried" if one.verdict == "tried" else "path",
        styles={"path": Style("muted", width=1.2)},
        across=Axis("times as fast as full depth, by price", padded([1.0, *(one.speedup for one in every)]), padding=0),
        up=Axis(domain=padded(losses), ticks=5, padding=0),
        tips={
            "left out": lambda one: one.what,
            "times as fast": lambda one: words.times(one.speedup),
            "points lost": lambda one: words.number(one.loss),
            "bound": lambda one: words.NOTHING if one.bound is None else points(one.bound),
            "verdict": lambda one: one.verdict,
        },
        title="Points of accuracy lost",
        height=300,
        mark=lambda one: styles[one.verdict],
        joined=lambda one: one.verdict != "tried",
        chosen=lambda one: one.verdict == "the plan",
        interval=lambda one: None if one.bound is None else (one.loss, one.bound),
        rules=(Rule(search.options.max_drop, opacity=1),),
    )
    figure = Figure(
        name="path",
        alt="Points of accuracy lost by speed: the path of plans with bounds, and what was tried besides",
        panels=(Panel((chart,)),),
        legend=LEGEND,
        caption="Down the path plans get faster. Each is tested on questions that the search has not seen, until one "
        "is refused; the last one granted is the plan. A bar goes from the loss seen up to the bound.",
    )
    share = search.tokens / search.full_tokens if search.full_tokens else 0
    lead = (
        f"{promise(search)} The search tried {len(search.tried)} plans with {search.answers:,} answers on "
        f"{search.searched_on.used} {search.searched_on.name} questions; that took {share:.1f} times the tokens that "
        f"full depth writes there. The certificates took {search.certify_answers:,} answers on "
        f"{search.certified_on.name} questions."
    )
    return Section("search", "How the plan was found", lead, (figure,), (path_table(search), tried_table(search)))
