"""Figure data of a diagnosis: what each chart draws, as rows, without a drawing library."""

from __future__ import annotations

from collections.abc import Sequence

from litestage.evaluation import Paired
from litestage.report import words
from litestage.report.figures import Row, kind_name
from litestage.results import ConfidenceCurve, Diagnosis, RankedLayer, StageEntropy, SweepPoint

TOGETHER = "all stages together"
WITHOUT, WITH = "without exit", "with exit"
FEW_ROWS = 5
"""Fewest texts whose mean confidence is drawn."""
SURE, UNSURE = "differs from full depth", "cannot be told from full depth"


def sweep_rows(diagnosis: Diagnosis) -> list[Row]:
    """Accuracy (percent) and latency (seconds a question) by budget, where one stage skips and where all do."""
    return [
        {
            "where": TOGETHER if sweep.stage is None else sweep.stage,
            "budget": point.budget,
            "accuracy": point.accuracy,
            "seconds": point.seconds,
            "verdict": _verdict(point),
            "accuracy_text": words.percent(point.accuracy),
            "change_text": change(point.paired) if point.budget else "",
            "seconds_text": words.seconds(point.seconds),
            "tokens_text": f"{point.performance.total.tokens:.1f}",
        }
        for sweep in diagnosis.sweeps
        for point in sweep.points
    ]


def _verdict(point: SweepPoint) -> str:
    if not point.budget:
        return "full depth itself"
    return SURE if point.paired.can_tell else UNSURE


def change(paired: Paired) -> str:
    """A paired difference in points with its interval."""
    return f"{words.signed(paired.difference)} points ({words.interval(paired.low, paired.high)})"


def exit_rows(diagnosis: Diagnosis) -> list[Row]:
    """Decode steps a question and accuracy (percent) by budget, with the exit rule and without."""
    return [
        _exit_row(name, point)
        for name, points in ((WITHOUT, diagnosis.together.points), (WITH, diagnosis.with_exit))
        for point in points
    ]


def _exit_row(name: str, point: SweepPoint) -> Row:
    return {
        "rule": name,
        "budget": point.budget,
        "steps": point.performance.total.decode_steps,
        "accuracy": point.accuracy,
        "steps_text": f"{point.performance.total.decode_steps:.1f}",
        "accuracy_text": words.percent(point.accuracy),
        "change_text": f"{change(point.paired)} from exit" if name == WITH else "",
        "exits_text": words.share(point.performance.total.early_exit_share) if name == WITH else "",
    }


def curve_rows(curves: Sequence[ConfidenceCurve]) -> list[Row]:
    """Mean confidence (0 to 1) and rows still running by token, a curve a budget."""
    return [
        {
            "curve": skipped(curve.budget),
            "token": step.token,
            "confidence": step.confidence if step.rows >= FEW_ROWS else None,
            "rows": step.rows,
            "confidence_text": f"{step.confidence:.3f}",
            "rows_text": f"{step.rows} of {curve.steps[0].rows}",
        }
        for curve in curves
        for step in curve.steps
    ]


def skipped(budget: int) -> str:
    return f"{budget} skipped" if budget else "full depth"


def entropy_rows(stages: Sequence[StageEntropy]) -> list[Row]:
    """Bits by stage: of the token ids written, and of what decides the next token."""
    return [
        {
            "stage": stage.name,
            "written": stage.written.bits,
            "next_token": stage.next_token,
            "written_text": f"{stage.written.bits:.2f}",
            "next_token_text": f"{stage.next_token:.3f}",
            "tokens_text": f"{stage.written.tokens:,}",
            "distinct_text": f"{stage.written.distinct:,}",
        }
        for stage in stages
    ]


def redundancy_rows(ranking: Sequence[RankedLayer], stages: Sequence[str]) -> list[Row]:
    """Each sub-layer's redundancy on each stage's prompts, in block order."""
    ordered = sorted(enumerate(ranking, start=1), key=lambda entry: entry[1].layer)
    return [
        {
            "stage": stage,
            "kind": kind_name(ranked.layer),
            "block": ranked.layer.block,
            "redundancy": ranked.by_stage[stage],
            "place": f"{place} of {len(ranking)}",
        }
        for stage in stages
        for place, ranked in ordered
    ]
