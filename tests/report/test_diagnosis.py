"""A diagnosis in words, rows and tables, from made-up numbers: a fixture, not a measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from litestage.core import DataError, MeanConfidence, ModelIdentity
from litestage.evaluation import Paired, accuracy_of
from litestage.evaluation.entropy import Place, TokenEntropy
from litestage.report import diagnosis as report
from litestage.results import (
    ConfidenceCurve,
    Diagnosis,
    Performance,
    Provenance,
    RankedLayer,
    Split,
    StageCost,
    StageEntropy,
    Sweep,
    SweepPoint,
)

Numbers = Sequence[tuple[int, float]]
"""Right answers of 100 and seconds, a pair a budget of 0, 4, 8, ..."""
STAGES = ("recall", "summary")
N = 100


def cost(name: str, seconds: float, steps: float, exits: float = 0.0) -> StageCost:
    return StageCost(
        name=name, seconds=seconds, prefill_share=0.2, tokens=steps + 1, decode_steps=steps, prompt_tokens=50,
        early_exit_share=exits,
    )  # fmt: skip


def point(budget: int, right: int, seconds: float, against: int, steps: float = 60, exits: float = 0.0) -> SweepPoint:
    """Losses of ten points and more are called beyond chance."""
    system = Performance(
        accuracy=accuracy_of([True] * right + [False] * (N - right)),
        stages=tuple(cost(name, seconds / 2, steps / 2, exits) for name in STAGES),
        total=cost("all", seconds, steps, exits),
    )
    difference = right - against
    paired = Paired(
        n=N, baseline_percent=against, percent=right, difference=difference, low=difference - 6, high=difference + 6,
        gained=max(difference, 0), lost=max(-difference, 0), p_value=0.01, can_tell=abs(difference) >= 10,
    )  # fmt: skip
    return SweepPoint(budget=budget, performance=system, paired=paired)


def sweep(stage: str | None, numbers: Numbers, steps: Sequence[float] = ()) -> Sweep:
    return Sweep(
        stage=stage,
        points=tuple(
            point(4 * place, right, seconds, numbers[0][0], steps[place] if steps else 60)
            for place, (right, seconds) in enumerate(numbers)
        ),
    )


def place(token: int, rows: int, confidence: float) -> Place:
    return Place(token=token, rows=rows, confidence=confidence)


def made_up(
    alone: Mapping[str, Numbers],
    together: Numbers,
    with_exit: Sequence[tuple[int, float, float]],
    bits: Sequence[float] = (6.0, 3.0),
    steps: Sequence[float] = (),
) -> Diagnosis:
    """``with_exit``: right answers, decode steps and the share of texts ended, a triple a budget."""
    return Diagnosis(
        model=ModelIdentity(id="made-up", fingerprint="f" * 64, num_blocks=8),
        task="made-up",
        measured_on=Split(name="dev", used=N, available=400),
        exit_rule=MeanConfidence(),
        entropy=tuple(
            StageEntropy(name=name, written=TokenEntropy(tokens=1000, distinct=100, bits=b), next_token=b / 10)
            for name, b in zip(STAGES, bits, strict=True)
        ),
        sweeps=(sweep(None, together, steps), *(sweep(name, numbers) for name, numbers in alone.items())),
        with_exit=tuple(
            point(4 * place, right, 1.0, together[place][0], count, share)
            for place, (right, count, share) in enumerate(with_exit)
        ),
        looked_at="recall",
        curves=(
            ConfidenceCurve(budget=0, steps=(place(1, 9, 0.9), place(2, 4, 0.8))),
            ConfidenceCurve(budget=8, steps=(place(1, 9, 0.6),)),
        ),
        ranking=tuple(
            RankedLayer(layer=layer, redundancy=score, by_stage=dict.fromkeys(STAGES, score))
            for layer, score in (("1.ffn", 0.99), ("0.attention", 0.9), ("0.ffn", 0.5))
        ),
        provenance=Provenance(
            command="litestage diagnose", date="2026-01-01", hardware="a made-up processor", device="cpu", threads=1,
            dtype="fp32", batch_size=64, seed=0, shots=0, versions={"litestage": "0"},
        ),
    )  # fmt: skip


FLAT: Numbers = [(80, 1.0), (80, 0.9), (79, 0.8)]
NO_EXIT = [(80, 60, 0.0), (80, 60, 0.0), (79, 60, 0.0)]


@pytest.fixture
def uneven() -> Diagnosis:
    """Recall bears what was tried; summary, whose tokens vary least, loses at 4; all together grow slower at 8."""
    return made_up(
        {"recall": FLAT, "summary": [(80, 1.0), (60, 0.95), (10, 0.9)]},
        together=[(80, 1.0), (59, 0.9), (8, 1.2)],
        with_exit=[(80, 60, 0.0), (59, 60, 0.0), (6, 90, 0.4)],
        steps=(60, 60, 120),
    )


def test_stages_that_bear_unlike_amounts(uneven: Diagnosis) -> None:
    assert all(part in report.headline(uneven) for part in ("8 of 16", "recall", "4 in summary"))
    for said, parts in zip(
        report.summary(uneven),
        (
            ("100 dev questions", "80.0 %", "1.00 s", "4 sub-layers in summary", "6.0 points"),
            ("20 % in recall", "0 % in summary"),
            ("4 to 8", "all stages", "900 ms", "1.20 s", "121 tokens instead of 61"),
            ("summary", "3.00 bits", "6.00 in recall"),
            ("25.0 %", "8 sub-layers", "−2.0 points (−8.0 to 4.0)"),
        ),
        strict=True,
    ):
        assert all(part in said for part in parts), said


def test_stages_that_bear_the_same() -> None:
    same = made_up({"recall": FLAT, "summary": FLAT}, FLAT, NO_EXIT)
    assert report.headline(same) == ("No loss beyond chance shows up to 8 of 16 sub-layers skipped, in any stage")
    summary = report.summary(same)
    assert "No stage alone loses accuracy that so many questions could tell from chance." in summary[0]
    assert "not always faster" not in " ".join(summary)
    assert summary[-2].endswith("but losses show at the same budget in all stages.")
    assert summary[-1] == "The exit rule ends no text at any budget: the model stays sure of what it writes."


def test_stages_that_bear_nothing() -> None:
    steep: Numbers = [(80, 1.0), (40, 0.9), (90, 0.8)]
    fragile = made_up({"recall": steep, "summary": steep}, steep, [(80, 60, 0), (40, 60, 0), (90, 60, 0)])
    assert report.headline(fragile) == "Every stage loses accuracy at 4 of 16 sub-layers skipped"
    assert fragile.together.borne == 0  # a budget that recovers by luck is not borne


@pytest.mark.parametrize(
    ("bits", "said"),
    [((3.0, 6.0), "The tokens of recall vary least"), ((6.0, 3.0), "and yet in no stage does a loss show earlier")],
)
def test_entropy_is_held_against_what_is_borne(uneven: Diagnosis, bits: tuple[float, float], said: str) -> None:
    entropy = tuple(
        stage.model_copy(update={"written": stage.written.model_copy(update={"bits": b})})
        for stage, b in zip(uneven.entropy, bits, strict=True)
    )
    sentences = report.summary(uneven.model_copy(update={"entropy": entropy}))
    assert said in sentences[3]
    assert ("in no stage does a loss show later" in sentences[3]) == (bits[0] < bits[1])


def test_five_questions_show_no_loss_at_all(uneven: Diagnosis) -> None:
    few = uneven.model_copy(update={"measured_on": uneven.measured_on.model_copy(update={"used": 5})})
    assert "So few questions cannot show any loss at all" in report.summary(few)[0]


def test_points_of_the_charts(uneven: Diagnosis) -> None:
    points = report.tried(uneven)
    assert len(points) == 9
    last = points[-1]
    assert (last.curve, last.point.budget, last.point.accuracy, last.point.seconds) == ("summary", 8, 10, 0.9)
    verdicts = {one.curve: [report.verdict(p.point) for p in points if p.curve == one.curve] for one in points}
    assert verdicts["summary"][1:] == ["differs from full depth"] * 2
    assert verdicts["recall"][1:] == ["cannot be told from full depth"] * 2
    reached = [report.Reached(curve, place).confidence for curve in uneven.curves for place in curve.steps]
    assert reached == [0.9, None, 0.6], "a mean of four texts is not drawn"


def test_verdicts_are_values(uneven: Diagnosis) -> None:
    assert uneven.borne == {"recall": 8, "summary": 0}
    assert [sweep.first_loss for sweep in uneven.sweeps] == [4, None, 4]
    assert uneven.entropy_verdict == "bears least"
    assert uneven.exit_saving.share == pytest.approx(0.25)
    assert uneven.exit_saving.point.budget == 8
    rise = uneven.steepest_rise
    assert rise
    assert (rise.sweep.stage, rise.before.budget, rise.after.budget) == (None, 4, 8)


def test_tables_tell_what_differs_beyond_chance(uneven: Diagnosis) -> None:
    cells = {line.cells[0]: line.cells[1:] for line in report.accuracies(uneven).lines}
    assert cells["recall"] == ("80.0", "80.0", "79.0")
    assert cells["summary"] == ("80.0", "60.0*", "10.0*")
    exits = report.exits(uneven).lines[-1].cells
    assert exits == ("8 skipped", "120.0", "90.0", "8.0 %", "6.0 %", "−2.0 (−8.0 to 4.0)", "40 %")
    assert report.thinned(range(0, 44, 2), 7) == (0, 8, 16, 24, 32, 40)


def test_parts_that_do_not_fit_each_other_are_refused(uneven: Diagnosis, tmp_path: Path) -> None:
    for changed in ({"sweeps": uneven.sweeps[1:]}, {"with_exit": uneven.with_exit[:2]}):
        uneven.model_copy(update=changed).save(tmp_path)
        with pytest.raises(DataError, match=r"json: \w+.*not written by this version"):
            Diagnosis.load(tmp_path)
    uneven.save(tmp_path)
    assert Diagnosis.load(tmp_path) == uneven
    with pytest.raises(DataError, match="No results at"):
        Diagnosis.load(tmp_path / "nowhere")
