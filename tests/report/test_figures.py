"""What charts are drawn from, against small made-up results, and that a chart shows it."""

from __future__ import annotations

import pytest

from litestage.core import EMPTY, Segment, SkipSchedule, StagePlan, SubLayer
from litestage.report import plan
from litestage.report.chart import Axis, Lines, Style
from litestage.report.parts import map_cells, plan_map
from litestage.report.theme import PAPER
from litestage.results import ExitCheck, PlanResult, Profile, ProfilePoint


def point(budget: int, correct: int, seconds: float | None, measured: int = 10) -> ProfilePoint:
    most = correct + 10 - measured
    return ProfilePoint(
        budget=budget,
        questions=10,
        measured=measured,
        correct=correct,
        accuracy=10.0 * most,
        seconds=seconds,
        feasible=most >= 8,
    )


def test_each_point_of_a_profile_says_what_became_of_it() -> None:
    points = (point(0, 9, 0.5), point(2, 8, 0.4), point(4, 7, 0.3), point(6, 2, None, measured=7))
    profile = Profile(stage="recall", points=points, chosen=2, left_out=3)
    assert [profile.verdict(one) for one in points] == [
        "keeps the target",
        "chosen",
        "misses the target",
        "misses the target, ended early",
    ]
    slow = point(6, 5, None, measured=7).model_copy(update={"feasible": None, "seconds_at_least": 0.45})
    assert profile.verdict(slow) == "slower than the best, ended early"
    cells = [
        line.cells for line in plan.profile_table(profile.model_copy(update={"points": (*points, slow)}), 80).lines
    ]
    assert cells[3][1:4] == ("≤ 50.0 %", "–", "7 of 10")
    assert cells[4][2] == "≥ 450 ms"


def test_an_exit_check_that_ended_undecided_claims_neither() -> None:
    told = point(0, 5, None, measured=7).model_dump(include={*ExitCheck.model_fields} - {"feasible"})
    checks = [ExitCheck(**told, feasible=kept, exits=(), without=None, kept=False) for kept in (True, False, None)]
    assert [check.verdict for check in checks] == [
        "keeps the target",
        "misses the target",
        "less accurate than another, ended early",
    ]


def test_the_map_shows_exactly_what_the_plan_skips(results: PlanResult) -> None:
    cells = map_cells(results.stage_plans, 16, results.ranking)
    assert len(cells) == 3 * 32
    for stage, planned in results.stage_plans.items():
        drawn = {cell.layer for cell in cells if cell.stage == stage and cell.first_step is not None}
        assert drawn == planned.schedule.at(0)
    assert {cell.place for cell in cells if cell.layer == SubLayer(9, "attention")} == {1}


def test_the_map_knows_when_skipping_starts() -> None:
    late = SkipSchedule(
        segments=(Segment(skipped=EMPTY), Segment(first_step=57, skipped=frozenset({SubLayer(1, "ffn")})))
    )
    cells = map_cells({"recall": StagePlan(schedule=late)}, 2)
    assert [cell.first_step for cell in cells] == [None, None, None, 57]
    assert cells[-1].when == "skipped from decode step 57"
    drawn = plan_map({"recall": StagePlan(schedule=late)}, 2, ()).draw(PAPER, 400).to_dict()
    colours = [row["fill"] for row in drawn["data"]["values"]]
    assert colours == [PAPER.kept] * 3 + [PAPER.ffn]


def test_times_add_up(results: PlanResult) -> None:
    phases = plan.phases(results)
    for name, of in (("full depth", results.full), ("plan", results.plan)):
        mine = [phase for phase in phases if phase.system == name]
        assert sum(phase.seconds for phase in mine) == pytest.approx(sum(stage.seconds for stage in of.stages))
        prefill = sum(phase.seconds for phase in mine if phase.prefill)
        assert prefill == pytest.approx(sum(stage.prefill_seconds for stage in of.stages))
    assert len(phases) == 2 * 2 * 3


def test_a_line_joins_what_it_should_and_leaves_out_what_has_no_value() -> None:
    chart = Lines(
        records=[(0, 1.0), (2, 2.0), (4, None), (6, 9.0)],
        x=lambda entry: entry[0],
        y=lambda entry: entry[1],
        series=lambda entry: "",
        styles={"": Style("plan")},
        across=Axis("budget"),
        up=Axis(factor=1000.0),
        joined=lambda entry: entry[0] != 6,
        start=(-1, 0.5),
        tips={"budget": lambda entry: entry[0]},
    )
    layers = chart.draw(PAPER, 300).to_dict()["layer"]
    line = next(layer for layer in layers if layer["mark"]["type"] == "line")
    assert [(row["x"], row["y"]) for row in line["data"]["values"]] == [(-1, 500), (0, 1000), (2, 2000)]
    points = next(layer for layer in layers if layer["mark"].get("strokeWidth") == 1.6)
    assert [(row["x"], row["tip0"]) for row in points["data"]["values"]] == [(0, "0"), (2, "2"), (6, "6")]
