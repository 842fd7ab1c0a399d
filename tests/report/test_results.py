"""The schema of results.json: what goes in comes out, and what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from report.conftest import MADE_UP

from litestage.core import (
    EMPTY,
    Completion,
    Conditions,
    Counts,
    DataError,
    FinishReason,
    RunConditions,
    Segment,
    SkipSchedule,
    StagePlan,
    StageTrace,
    Trace,
    whole_blocks,
)
from litestage.evaluation import Price, StagePrice, accuracy_of, usage_of
from litestage.report.plan import what_is_left_out
from litestage.results import (
    Comparison,
    Diagnosis,
    Example,
    Performance,
    PlanResult,
    PlanSearch,
    Provenance,
    Rankings,
    Split,
)
from litestage.search import SearchOptions, Trial, TrialResult, search_budgets


def test_saved_results_load_as_they_were(results: PlanResult, tmp_path: Path) -> None:
    path = results.save(tmp_path)
    assert PlanResult.load(tmp_path) == results
    assert PlanResult.load(path) == results
    top = json.loads(path.read_text())
    assert {"full", "plan", "speedup", "accuracy_change_points"} <= top.keys()
    assert top["speedup"] == results.wall.speedup
    assert top["full"]["accuracy"]["percent"] == pytest.approx(91.1667, abs=1e-4)


def test_a_plan_that_only_goes_without_a_stage_is_not_the_full_model(results: PlanResult) -> None:
    whole = {**dict.fromkeys(results.stage_plans, StagePlan())}
    assert results.model_copy(update={"stage_plans": whole}).is_full_depth
    gone = results.model_copy(update={"stage_plans": {**whole, "recall": StagePlan(left_out=True)}})
    assert not gone.is_full_depth
    assert gone.speed_verdict == results.speed_verdict != "nothing left out"
    assert "without recall" in what_is_left_out(gone)


def changed(results: PlanResult, **changes: Any) -> dict[str, Any]:
    return json.loads(results.model_dump_json()) | changes


@pytest.mark.parametrize("change", [{"speedup": 2.0}, {"accuracy_change_points": 0.5}])
def test_headline_figures_must_be_those_of_their_evidence(results: PlanResult, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="must be those of wall and paired"):
        PlanResult.model_validate(changed(results, **change))


def test_every_part_speaks_of_the_same_stages(results: PlanResult) -> None:
    plans = changed(results)["stage_plans"]
    plans.pop("summary")
    with pytest.raises(ValidationError, match="the same stages"):
        PlanResult.model_validate(changed(results, stage_plans=plans))


def test_what_cannot_be_read_is_said(results: PlanResult, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No results at .*results.json .*nothing to report"):
        PlanResult.load(tmp_path)
    path = tmp_path / "results.json"
    path.write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        PlanResult.load(tmp_path)
    path.write_text(json.dumps(changed(results, schema_version=3)))
    with pytest.raises(DataError, match=r"schema_version should be 2.*Run the job again"):
        PlanResult.load(tmp_path)
    path.write_text(json.dumps(changed(results, surprise=1)))
    with pytest.raises(DataError, match="surprise"):
        PlanResult.load(tmp_path)


def test_a_plan_that_changes_nothing_is_full_depth(results: PlanResult) -> None:
    untouched = {name: StagePlan() for name in results.stage_plans}
    assert results.model_copy(update={"stage_plans": untouched}).is_full_depth
    assert not results.is_full_depth
    assert results.num_skipped == {"recall": 14, "analysis": 10, "summary": 2}
    assert results.exits == ("recall", "analysis")


def test_a_search_record_fits_as_it_is() -> None:
    """The search's own record and the report's agree field by field."""
    right = {0: 10, 2: 10, 4: 8}

    def measure(trial: Trial) -> TrialResult:
        skipped = sum(trial.candidate.budgets.values())
        correct = 7 if trial.candidate.exits else right.get(skipped, 5)
        outcomes = tuple(i < correct for i in range(10))
        return TrialResult(outcomes=outcomes, seconds=1.0 - skipped / 100, stage_seconds={"first": 0.7, "last": 0.3})

    record = search_budgets(("first", "last"), 4, 10, SearchOptions(max_drop=0), measure)
    split = Split(name="dev", used=10, available=40)
    search = PlanSearch.of(record, split, max_drop=0)
    assert search.order == ("first", "last")
    assert [profile.model_dump() for profile in search.profiles] == [p.model_dump() for p in record.profiles]
    assert [check.model_dump() for check in search.exit_checks] == [c.model_dump() for c in record.exit_checks]
    assert search.exit_checks[0].exits == ("first", "last")
    assert search.spent.points == record.spent.points


def completion(text: str, reason: FinishReason = "eos") -> Completion:
    ids = tuple(range(len(text.split())))
    return Completion(
        token_ids=ids,
        text=text,
        confidences=(1.0,) * len(ids),
        finish_reason=reason,
        counts=Counts(prefilled=5, decoded=len(ids) - 1),
    )


def trace(*stages: tuple[Completion, ...], answer: int | None = 0) -> Trace:
    return Trace(
        question_id="q",
        stages=tuple(
            StageTrace(
                name=name,
                prompts=("?",) * len(done),
                prompt_tokens=(5,) * len(done),
                shared_tokens=0,
                header_tokens=0,
                text=" ".join(one.text for one in done),
                completions=done,
            )
            for name, done in zip(("recall", "analysis"), stages, strict=False)
        ),
        answer=answer,
        gold=0,
    )


def test_a_system_adds_up_what_was_measured() -> None:
    traces = [trace((completion("a b c"),), (completion("d e"), completion("f g", "low_confidence")))]
    price = Price(
        questions_at_once=1,
        stages=(
            StagePrice(name="recall", prefill_seconds=0.1, decode_seconds=0.3),
            StagePrice(name="analysis", prefill_seconds=0.2, decode_seconds=0.2),
        ),
        by_question=(0.8,),
    )
    system = Performance.of(accuracy_of([True]), usage_of(traces), price, wall_seconds=0.9)
    recall, analysis = system.stages
    assert (recall.seconds, recall.prefill_share, recall.tokens) == (pytest.approx(0.4), pytest.approx(0.25), 3)
    assert (analysis.tokens, analysis.decode_steps, analysis.early_exit_share) == (4, 2, 0.5)
    assert (system.total.seconds, system.total.tokens) == (pytest.approx(0.8), 7)
    assert system.total.prefill_seconds == pytest.approx(0.3)
    assert system.total.decode_seconds == pytest.approx(0.5)


def test_an_example_shows_what_exit_cut() -> None:
    full = trace((completion("a b c"),), (completion("d e f"), completion("g h")))
    plan = trace((completion("a b c"),), (completion("d x", "low_confidence"), completion("g h")), answer=None)
    longer = trace((completion("a b c"),), (completion("d x y z"), completion("g h")))
    example = Example.of("Why?", ("one", "two"), full, plan, longer)
    assert (example.full_answer, example.plan_answer, example.gold) == (0, None, 0)
    cut, whole = example.stages[1].plan
    assert (cut.text, cut.cut, cut.finish_reason) == ("d x", " y z", "low_confidence")
    assert whole.cut == ""
    assert [done.tokens for done in example.stages[1].full] == [3, 2]


def test_nothing_was_cut_where_the_texts_part_before() -> None:
    plan = trace((completion("a b", "low_confidence"),))
    assert Example.of("Why?", ("one",), plan, plan, trace((completion("a c d"),))).stages[0].plan[0].cut == ""
    assert Example.of("Why?", ("one",), plan, plan).stages[0].plan[0].cut == ""


def test_provenance_takes_its_part_of_the_conditions(results: PlanResult) -> None:
    came = results.provenance
    run = came.model_dump(include=set(RunConditions.model_fields))
    conditions = Conditions(**run, model="m", fingerprint="f", tokenizer="t", task="t")
    assert came.decode_fit
    assert came.prefill_fit
    fits = (came.decode_fit, came.prefill_fit)
    assert Provenance.of(conditions, command=came.command, date=came.date, durations=came.durations, fits=fits) == came


RESULTS = Path(__file__).parents[2] / "results"
COMMITTED = [path for path in sorted(RESULTS.glob("*/*/results.json")) if '"schema_version": 1' in path.read_text()]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: "-".join(path.parts[-3:-1]))
def test_comparisons_of_version_1_are_read_with_what_their_names_meant(path: Path, tmp_path: Path) -> None:
    before = json.loads(path.read_text())
    found = Comparison.load(path)
    assert [method.name for method in found.results] == [system["name"] for system in before["systems"]]
    for method, system in zip(found.results, before["systems"], strict=True):
        assert method.accuracy == system["system"]["accuracy"]["percent"]
        assert method.answers == tuple(system["answers"])
        assert (
            (method.amount is not None)
            == (method.requested == str(method.amount))
            == ("block" in method.requested or "sub-layer" in method.requested)
        ), "said in words, and known in figures"
        if method.without_exit:
            patient = found.method(method.without_exit)
            assert (patient.skipped.keys(), patient.requested) == (method.skipped.keys(), method.requested)
        if method.method == "token_cap":
            assert found.method(method.control_of or "").kind == "litestage"
    assert {duel.other for duel in found.duels if duel.by == "exit"} == {
        method.without_exit for method in found.of_kind("litestage")
    }
    found.save(tmp_path)
    assert Comparison.load(tmp_path) == found


@pytest.mark.parametrize("path", sorted(RESULTS.glob("rankings/*/rankings.json")), ids=lambda path: path.parent.name)
def test_rankings_of_before_are_read(path: Path) -> None:
    before = json.loads(path.read_text())
    found = Rankings.model_validate_json(path.read_text())
    first = next(iter(found.stages[0].rankings.values()))
    theirs = next(iter(before["stages"][0]["rankings"].values()))
    assert [str(score.layer) for score in first.scores] == [score["layer"] for score in theirs["scores"]]


def test_plans_and_diagnoses_of_version_1_are_read(results: PlanResult) -> None:
    before = json.loads(MADE_UP.read_text())
    assert before["schema_version"] == 1
    assert results.search
    told = [[point.get("way", "") for point in profile["points"]] for profile in before["search"]["profiles"]]
    assert [[point.policy for point in profile.points] for profile in results.search.profiles] == told
    upgraded = Diagnosis.upgraded({"schema_version": 1, "sweeps": [{"stage": "all"}, {"stage": "recall"}]})
    assert upgraded == {"schema_version": 2, "sweeps": [{"stage": None}, {"stage": "recall"}]}


def test_a_schedule_of_steps_survives(results: PlanResult, tmp_path: Path) -> None:
    schedule = SkipSchedule(
        segments=(Segment(skipped=EMPTY), Segment(first_step=57, skipped=whole_blocks([1, 2]))),
    )
    plans = dict(results.stage_plans) | {"recall": StagePlan(schedule=schedule)}
    stepped = results.model_copy(update={"stage_plans": plans})
    stepped.save(tmp_path)
    assert PlanResult.load(tmp_path).stage_plans["recall"].schedule == schedule
