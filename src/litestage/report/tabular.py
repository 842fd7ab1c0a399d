"""Table data: the cells of every table, in words, for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from litestage.core import StagePlan, SubLayer
from litestage.evaluation import Accuracy, StoppedVotes, VoteAccuracy
from litestage.report import words
from litestage.report.figures import ATTENTION, FFN, kind_name, state_of, verdict_on
from litestage.results import Performance, PlanResult, PlanSearch, Profile, ProfilePoint, RankedLayer, StageCost

Tone = Literal["plain", "strong", "dim"]
NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """A column's title, what stands under it, and which way its cells lean."""

    title: str
    right: bool = True
    under: str = ""


@dataclass(frozen=True)
class Line:
    cells: tuple[str, ...]
    tone: Tone = "plain"


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    note: str = ""
    sortable: bool = False
    """Whether a page lets the reader sort its lines by a column."""


def overview(results: PlanResult) -> Table:
    """Full depth against the plan, all stages together."""
    full, plan, wall = results.full, results.plan, results.wall
    change = results.paired
    rows = [
        (
            "Accuracy",
            _with_interval(full),
            _with_interval(plan),
            f"{words.signed(change.difference)} ({words.interval(change.low, change.high)})",
        ),
        ("None rate", words.percent(full.accuracy.none_percent), words.percent(plan.accuracy.none_percent), ""),
        (
            "Latency, clock",
            words.seconds(wall.baseline_seconds),
            words.seconds(wall.seconds),
            f"{words.times(wall.speedup)} ({wall.low:.2f}–{wall.high:.2f})",
        ),
        (
            "Latency, priced",
            words.seconds(full.total.seconds),
            words.seconds(plan.total.seconds),
            words.times(full.total.seconds / plan.total.seconds),
        ),
        ("Tokens", f"{full.total.tokens:.1f}", f"{plan.total.tokens:.1f}", ""),
        ("Decode steps", f"{full.total.decode_steps:.1f}", f"{plan.total.decode_steps:.1f}", ""),
        ("Prefill's share", words.share(full.total.prefill_share), words.share(plan.total.prefill_share), ""),
    ]
    return Table(
        title=f"Full depth against the plan: {change.n} {results.tested_on.name} questions",
        columns=(Column("", right=False), Column("Full depth"), Column("Plan"), Column("Change")),
        lines=tuple(Line(row) for row in rows),
        note=f"Means a question; intervals are 95 %. The clock timed {wall.n} questions, one at a time and in turn.",
    )


def _with_interval(system: Performance) -> str:
    accuracy = system.accuracy
    return f"{words.percent(accuracy.percent)} ({accuracy.low:.1f}–{accuracy.high:.1f})"


def stages(results: PlanResult) -> Table:
    """Each stage under full depth and the plan."""
    pairs = list(zip(results.full.stages, results.plan.stages, strict=True))
    lines = [Line(_stage_cells(before, after, results.num_skipped[before.name])) for before, after in pairs]
    whole = Line(_stage_cells(results.full.total, results.plan.total, None), tone="strong")
    return Table(
        title="Stage by stage",
        columns=(
            Column("Stage", right=False),
            Column("Skipped"),
            *(Column(what, under=whose) for what in ("Latency", "Tokens", "Prefill") for whose in ("full", "plan")),
            Column("Exits"),
        ),
        lines=(*lines, whole),
        note=f"Skipped: sub-layers of {2 * results.model.num_blocks}. Latency: priced, a question. "
        "Exits: share of generations that the exit rule ended.",
    )


def _stage_cells(before: StageCost, after: StageCost, skipped: int | None) -> tuple[str, ...]:
    return (
        before.name,
        "" if skipped is None else str(skipped),
        words.seconds(before.seconds),
        words.seconds(after.seconds),
        f"{before.tokens:.1f}",
        f"{after.tokens:.1f}",
        words.share(before.prefill_share),
        words.share(after.prefill_share),
        words.share(after.early_exit_share),
    )


def system(evaluated: Performance, title: str) -> Table:
    """One system alone, per stage and in all."""
    lines = [Line(_cost_cells(stage)) for stage in evaluated.stages]
    accuracy = evaluated.accuracy
    said = [f"Accuracy {_with_interval(evaluated)}; {accuracy.correct} of {accuracy.n} right"]
    said.append(f"None rate {words.percent(accuracy.none_percent)}")
    if evaluated.wall_seconds is not None:
        said.append(f"{words.seconds(evaluated.wall_seconds)} a question by the clock")
    return Table(
        title=title,
        columns=(
            Column("Stage", right=False),
            *(Column(name) for name in ("Latency", "Prefill", "Tokens", "Decode steps", "Prompt tokens", "Exits")),
        ),
        lines=(*lines, Line(_cost_cells(evaluated.total), tone="strong")),
        note=". ".join(said) + ".",
    )


def votes(voted: VoteAccuracy | StoppedVotes) -> Table:
    """What several votes a question come to."""
    if isinstance(voted, StoppedVotes):
        lines = [_vote_line(f"maj@{voted.votes}", voted.majority, "strong")]
        note = (
            f"{voted.drawn:.1f} of {voted.votes} votes drawn a question; the rule left "
            f"{words.share(1 - voted.drawn / voted.votes)} undrawn. A single run's accuracy cannot be told from votes "
            "that stop: questions on which they disagree draw more."
        )
    else:
        majorities = [_vote_line(f"maj@{k}", accuracy) for k, accuracy in voted.majority.items()]
        lines = [_vote_line("one run, mean", voted.of_runs), *majorities[:-1], replace(majorities[-1], tone="strong")]
        error = "" if voted.standard_error is None else f" (standard error {voted.standard_error:.1f} points)"
        note = (
            f"{voted.votes} votes on each of {voted.questions} questions; maj@k is the majority of the first k. The "
            f"run's interval is clustered by question{error}."
        )
    return Table(
        title="Votes",
        columns=(Column("", right=False), Column("Accuracy"), Column("95 % interval"), Column("None rate")),
        lines=tuple(lines),
        note=note,
    )


def _vote_line(name: str, accuracy: Accuracy, tone: Tone = "plain") -> Line:
    interval = words.interval(accuracy.low, accuracy.high)
    return Line((name, words.percent(accuracy.percent), interval, words.percent(accuracy.none_percent)), tone)


def _cost_cells(stage: StageCost) -> tuple[str, ...]:
    return (
        stage.name,
        words.seconds(stage.seconds),
        words.share(stage.prefill_share),
        f"{stage.tokens:.1f}",
        f"{stage.decode_steps:.1f}",
        f"{stage.prompt_tokens:.1f}",
        words.share(stage.early_exit_share),
    )


def profile(searched: Profile, target: float) -> Table:
    """A stage's budgets as they were measured; the chosen one stands out, those out of the question fade."""
    left_out = f" {searched.left_out} larger budgets were left out." if searched.left_out else ""
    compared = any(point.agreement is not None for point in searched.points)
    ways = (Column("Way", right=False), Column("Same tokens")) if compared else ()
    return Table(
        title=f"Search profile of {searched.stage}",
        columns=(
            Column("Skipped"),
            *ways,
            Column("Accuracy"),
            Column("Latency"),
            Column("Questions"),
            Column("", right=False),
        ),
        lines=tuple(_point_line(point, searched.chosen, compared) for point in searched.points),
        note=f"Target {words.percent(target)}. Accuracy and latency are end to end.{left_out}",
    )


def _point_line(point: ProfilePoint, chosen: int, compared: bool) -> Line:
    same = NOTHING if point.agreement is None else words.percent(100 * point.agreement)
    cells = (
        str(point.budget),
        *((point.policy or NOTHING, same) if compared else ()),
        f"{'≤ ' if point.cut_short else ''}{words.percent(point.accuracy)}",
        _latency(point),
        f"{point.measured} of {point.questions}",
        state_of(point, chosen),
    )
    in_question = point.feasible and not point.cut_short
    return Line(cells, tone="strong" if point.budget == chosen else "plain" if in_question else "dim")


def _latency(point: ProfilePoint) -> str:
    if point.seconds is not None:
        return words.seconds(point.seconds)
    return NOTHING if point.seconds_at_least is None else f"≥ {words.seconds(point.seconds_at_least)}"


def exit_checks(search: PlanSearch) -> Table:
    """What became of the exit rule after the budgets were chosen."""
    return Table(
        title="Exit rule",
        columns=(Column("Exit on in", right=False), Column("Accuracy"), Column("Latency"), Column("", right=False)),
        lines=tuple(
            Line(
                (
                    words.listed(check.exits) or "no stage",
                    f"{'≤ ' if check.cut_short else ''}{words.percent(check.accuracy)}",
                    NOTHING if check.seconds is None else words.seconds(check.seconds),
                    verdict_on(check),
                ),
                tone="strong" if check.kept and check.feasible else "plain" if check.feasible else "dim",
            )
            for check in search.exit_checks
        ),
        note=f"The whole plan, checked on {search.split.used} {search.split.name} questions against the target of "
        f"{words.percent(search.target)}.",
    )


def prices(results: PlanResult) -> Table:
    """What the latency model said against what the clock said."""
    rows = [
        (name, system.total.seconds, system.wall_seconds, system.price_error)
        for name, system in (("Full depth", results.full), ("Plan", results.plan))
    ]
    return Table(
        title="Price and clock",
        columns=(
            Column("", right=False),
            Column("Priced"),
            Column("Measured"),
            Column("Error of the total"),
            Column("Median error"),
            Column("Largest error"),
        ),
        lines=tuple(
            Line(
                (
                    name,
                    words.seconds(priced),
                    NOTHING if measured is None else words.seconds(measured),
                    NOTHING if error is None else f"{words.signed(100 * error.total)} %",
                    NOTHING if error is None else words.percent(100 * error.median),
                    NOTHING if error is None else words.percent(100 * error.max),
                )
            )
            for name, priced, measured, error in rows
        ),
        note="Priced over all test questions; measured, and the errors taken, over the timed ones.",
    )


def skipped(stage_plans: Mapping[str, StagePlan]) -> Table:
    """The sub-layers that each stage skips, by name, and its exit rule."""
    return Table(
        title="The plan",
        columns=(Column("Stage", right=False), Column("Skips"), Column("Sub-layers", right=False)),
        lines=tuple(
            Line((name, str(plan.schedule.num_skipped), skipped_names(plan))) for name, plan in stage_plans.items()
        ),
    )


def skipped_names(plan: StagePlan) -> str:
    """Names in running order, by kind: ``attention 3-5, 9; FFN 7``; a schedule of several segments step by step."""
    parts = [
        f"from step {segment.first_step}: {_by_kind(segment.skipped)}"
        if segment.first_step
        else _by_kind(segment.skipped)
        for segment in plan.schedule.segments
    ]
    exits = f"exit below {plan.exit.threshold:g} ({plan.exit.window} tokens)" if plan.exit else ""
    return "; ".join(part for part in (*parts, exits) if part) or "nothing"


def _by_kind(layers: frozenset[SubLayer]) -> str:
    blocks = {kind: sorted(layer.block for layer in layers if kind_name(layer) == kind) for kind in (ATTENTION, FFN)}
    return "; ".join(f"{kind} {ranges(numbers)}" for kind, numbers in blocks.items() if numbers)


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers with runs of three and more as ranges: 1, 2, 4–7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def ranking(ranked: Sequence[RankedLayer], limit: int | None = None) -> Table:
    """Step 1: sub-layers from the most to the least redundant."""
    shown = ranked[:limit]
    stage_names = list(shown[0].by_stage) if shown else []
    more = f" The other {len(ranked) - len(shown)} are less redundant." if len(shown) < len(ranked) else ""
    return Table(
        title="Redundancy of sub-layers",
        columns=(
            Column("Place"),
            Column("Sub-layer", right=False),
            Column("Redundancy"),
            *(Column(name) for name in stage_names),
        ),
        lines=tuple(
            Line((str(place), str(score.layer), *(f"{v:.4f}" for v in (score.redundancy, *score.by_stage.values()))))
            for place, score in enumerate(shown, start=1)
        ),
        note=f"Mean cosine of what enters and what leaves a sub-layer: high means skip first.{more}",
    )
