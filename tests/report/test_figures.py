"""Figure data against small made-up results."""

from __future__ import annotations

import pytest

from litestage.core import EMPTY, Segment, SkipSchedule, StagePlan, SubLayer
from litestage.report import figures
from litestage.results import ExitCheck, PlanResult, Profile, ProfilePoint, RankedLayer


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
    rows = figures.profile_rows(Profile(stage="recall", points=points, chosen=2, left_out=3))
    assert [row["state"] for row in rows] == [
        "keeps the target",
        "chosen",
        "misses the target",
        "misses the target, ended early",
    ]
    assert [row["accuracy"] for row in rows] == [90, 80, 70, 50]
    assert rows[-1]["seconds"] is None
    assert rows[-1]["accuracy_text"] == "at most 50.0 %"
    assert rows[-1]["questions_text"] == "7 of 10"
    slow = point(6, 5, None, measured=7).model_copy(update={"feasible": None, "seconds_at_least": 0.45})
    row = figures.profile_rows(Profile(stage="recall", points=(slow,), chosen=2, left_out=3))[0]
    assert (row["state"], row["seconds_text"]) == ("slower than the best, ended early", "at least 450 ms")


def test_an_exit_check_that_ended_undecided_claims_neither() -> None:
    told = point(0, 5, None, measured=7).model_dump(include={*ExitCheck.model_fields} - {"feasible"})
    checks = [ExitCheck(**told, feasible=kept, exits=(), without=None, kept=False) for kept in (True, False, None)]
    assert [figures.verdict_on(check) for check in checks] == [
        "keeps the target",
        "misses the target",
        "less accurate than another, ended early",
    ]


def test_the_map_shows_exactly_what_the_plan_skips(results: PlanResult) -> None:
    rows = figures.map_rows(results.stage_plans, 16, results.ranking)
    assert len(rows) == 3 * 32
    for stage, plan in results.stage_plans.items():
        drawn = {
            SubLayer(int(row["block"] or 0), "attention" if row["kind"] == "attention" else "ffn")
            for row in rows
            if row["stage"] == stage and row["state"] != "kept"
        }
        assert drawn == plan.schedule.at(0)
    assert all(row["state"] in ("kept", f"{row['kind']} skipped") for row in rows)
    places = {row["place"] for row in rows if row["block"] == 9 and row["kind"] == "attention"}
    assert places == {f"{results.ranking[0].redundancy:.4f} (place 1 of 32)"}


def test_the_map_knows_when_skipping_starts() -> None:
    late = SkipSchedule(
        segments=(Segment(skipped=EMPTY), Segment(first_step=57, skipped=frozenset({SubLayer(1, "ffn")})))
    )
    rows = figures.map_rows({"recall": StagePlan(schedule=late)}, 2, ())
    assert [row["when"] for row in rows] == ["kept", "kept", "kept", "skipped from decode step 57"]
    assert {row["place"] for row in rows} == {"not ranked"}


def test_times_add_up(results: PlanResult) -> None:
    rows = figures.time_rows(results.full, results.plan)
    for name, system in (("full depth", results.full), ("plan", results.plan)):
        mine = [row for row in rows if row["system"] == name]
        assert sum(float(row["seconds"] or 0) for row in mine) == pytest.approx(sum(s.seconds for s in system.stages))
        prefill = sum(float(row["seconds"] or 0) for row in mine if row["phase"] == "prefill")
        assert prefill == pytest.approx(sum(stage.prefill_seconds for stage in system.stages))
    assert len(rows) == 2 * 2 * 3


def test_the_ranking_says_where_each_sub_layer_is_skipped() -> None:
    ranking = (RankedLayer(layer="1.attention", redundancy=0.99), RankedLayer(layer="0.ffn", redundancy=0.5))
    plans = {
        "recall": StagePlan(schedule=SkipSchedule.fixed(["1.attention"])),
        "analysis": StagePlan(schedule=SkipSchedule.fixed(["1.attention"])),
        "summary": StagePlan(),
    }
    rows = figures.ranking_rows(ranking, plans)
    assert [(row["block"], row["kind"], row["place"], row["skipped_in"]) for row in rows] == [
        (1, "attention", 1, "recall and analysis"),
        (0, "FFN", 2, "no stage"),
    ]


def test_accuracies_start_with_all_questions(results: PlanResult) -> None:
    rows = figures.accuracy_rows(results.full, results.plan, results.groups)
    assert [row["group"] for row in rows[::2]] == [
        "all questions (n = 600)",
        "pairs seen in training (n = 432)",
        "pairs held out (n = 168)",
    ]
    assert all(float(r["low"] or 0) <= float(r["percent"] or 0) <= float(r["high"] or 0) for r in rows)
    assert [row["system"] for row in rows] == ["full depth", "plan"] * 3
