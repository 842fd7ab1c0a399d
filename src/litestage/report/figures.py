"""Figure data: what each chart draws, as rows, without a drawing library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from litestage.core import SkipSchedule, StagePlan, SubLayer
from litestage.core.layers import sub_layers
from litestage.evaluation import Accuracy
from litestage.report import words
from litestage.results import ExitCheck, Performance, Profile, ProfilePoint, QuestionGroup, RankedLayer

Row = dict[str, str | float | None]

CHOSEN, FEASIBLE, INFEASIBLE, AT_MOST, SLOWER, WORSE = (
    "chosen",
    "keeps the target",
    "misses the target",
    "misses the target, ended early",
    "slower than the best, ended early",
    "less accurate than another, ended early",
)
FULL, PLAN = "full depth", "plan"
PREFILL, DECODE = "prefill", "decode"
ATTENTION, FFN = "attention", "FFN"
KEPT = "kept"


def profile_rows(profile: Profile) -> list[Row]:
    """A stage's accuracy (percent) and latency (seconds a question) by budget; no seconds where a point ended early."""
    return [
        {
            "budget": point.budget,
            "accuracy": point.accuracy,
            "seconds": point.seconds,
            "state": state_of(point, profile.chosen),
            "accuracy_text": ("at most " if point.cut_short else "") + words.percent(point.accuracy),
            "seconds_text": _seconds_text(point),
            "questions_text": f"{point.measured} of {point.questions}",
        }
        for point in profile.points
    ]


def state_of(point: ProfilePoint, chosen: int) -> str:
    """What became of a budget."""
    if point.budget == chosen:
        return CHOSEN
    if point.cut_short:
        return AT_MOST if point.feasible is False else SLOWER
    return FEASIBLE if point.feasible else INFEASIBLE


def verdict_on(check: ExitCheck) -> str:
    """What became of a plan with exit on; one less accurate than the round's best may have ended undecided."""
    if check.feasible is None:
        return WORSE
    return FEASIBLE if check.feasible else INFEASIBLE


def _seconds_text(point: ProfilePoint) -> str:
    if point.seconds is not None:
        return words.seconds(point.seconds)
    if point.seconds_at_least is not None:
        return f"at least {words.seconds(point.seconds_at_least)}"
    return "not timed: ended early"


def map_rows(stage_plans: Mapping[str, StagePlan], num_blocks: int, ranking: Sequence[RankedLayer]) -> list[Row]:
    """Every sub-layer in every stage: skipped or kept, from which decode step, and its place in the ranking."""
    places = {ranked.layer: (place, ranked) for place, ranked in enumerate(ranking, start=1)}
    return [
        {
            "stage": stage,
            "block": layer.block,
            "kind": kind_name(layer),
            "state": f"{kind_name(layer)} skipped" if (first := first_skip(plan.schedule, layer)) is not None else KEPT,
            "when": _when(first),
            "place": _place(places.get(layer), len(places)),
        }
        for stage, plan in stage_plans.items()
        for layer in sub_layers(num_blocks)
    ]


def kind_name(layer: SubLayer) -> str:
    return ATTENTION if layer.kind == "attention" else FFN


def first_skip(schedule: SkipSchedule, layer: SubLayer) -> int | None:
    """The first decode step that skips the sub-layer."""
    return next((segment.first_step for segment in schedule.segments if layer in segment.skipped), None)


def _when(first: int | None) -> str:
    if first is None:
        return "kept"
    return "skipped at every decode step" if first == 0 else f"skipped from decode step {first}"


def _place(ranked: tuple[int, RankedLayer] | None, of: int) -> str:
    return f"{ranked[1].redundancy:.4f} (place {ranked[0]} of {of})" if ranked else "not ranked"


def time_rows(full: Performance, plan: Performance) -> list[Row]:
    """Seconds a question by stage, system and phase; ``total`` is stage and system's."""
    return [
        {
            "stage": stage.name,
            "system": name,
            "phase": phase,
            "seconds": value,
            "total": stage.seconds,
            "seconds_text": words.seconds(value),
            "total_text": words.seconds(stage.seconds),
            "share_text": words.share(value / system.total.seconds),
            "tokens_text": f"{stage.tokens:.1f}",
        }
        for name, system in ((FULL, full), (PLAN, plan))
        for stage in system.stages
        for phase, value in ((PREFILL, stage.prefill_seconds), (DECODE, stage.decode_seconds))
    ]


def ranking_rows(ranking: Sequence[RankedLayer], stage_plans: Mapping[str, StagePlan]) -> list[Row]:
    """Redundancy by block and kind, and where the plan skips the sub-layer."""
    rows: list[Row] = []
    for place, ranked in enumerate(ranking, start=1):
        layer = ranked.layer
        stages = [name for name, plan in stage_plans.items() if first_skip(plan.schedule, layer) is not None]
        rows.append(
            {
                "block": layer.block,
                "kind": kind_name(layer),
                "redundancy": ranked.redundancy,
                "place": place,
                "skipped": "skipped" if stages else KEPT,
                "skipped_in": words.listed(stages) or "no stage",
            }
        )
    return rows


def accuracy_rows(full: Performance, plan: Performance, groups: Sequence[QuestionGroup] = ()) -> list[Row]:
    """Accuracies with their intervals in percent: all questions first, then the groups."""
    pairs = [("all questions", full.accuracy, plan.accuracy), *((g.name, g.full, g.plan) for g in groups)]
    return [
        _accuracy_row(name, system, accuracy)
        for name, before, after in pairs
        for system, accuracy in ((FULL, before), (PLAN, after))
    ]


def _accuracy_row(group: str, system: str, accuracy: Accuracy) -> Row:
    return {
        "group": f"{group} (n = {accuracy.n})",
        "system": system,
        "percent": accuracy.percent,
        "low": accuracy.low,
        "high": accuracy.high,
        "percent_text": words.percent(accuracy.percent),
        "interval_text": words.interval(accuracy.low, accuracy.high),
    }
