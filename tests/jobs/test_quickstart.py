"""The main job on the embedded model, small, and what it leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from litestage.core import MeanConfidence, OptionError, Plan, PlanError
from litestage.evaluation import price
from litestage.jobs.answer import answer
from litestage.jobs.diagnose import diagnose
from litestage.jobs.evaluate import evaluate
from litestage.jobs.finetune import finetune
from litestage.jobs.options import PlanOptions, QuickstartOptions, SearchSettings, TrainingOptions
from litestage.jobs.policies import Policies
from litestage.jobs.quickstart import quickstart
from litestage.jobs.search import lay_baseline, search, search_greedily
from litestage.jobs.session import Session, load
from litestage.jobs.timing import wall_clock
from litestage.jobs.trials import Trials
from litestage.report import draw
from litestage.results import PlanResult
from litestage.search import Candidate, Trial


@pytest.fixture(scope="module")
def out(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart")
    sizes = QuickstartOptions(search_limit=16, certify=60, wall=2)
    settings = SearchSettings(max_drop=10, step=6, compensation=("none",))
    results = quickstart(session.at(folder), settings, sizes, limit=16)
    draw(results, folder)
    return folder


def test_it_leaves_plan_results_and_report(out: Path) -> None:
    results = json.loads((out / "results.json").read_text())
    assert {"full", "plan", "speedup", "accuracy_change_points"} <= set(results)
    assert results["full"]["accuracy"]["n"] == 16
    assert "https://" not in (out / "report.html").read_text().split("<script", 1)[0]
    assert Plan.from_pretrained(out).evidence["n"] == 16


def test_its_figures_are_those_of_its_traces(session: Session, out: Path) -> None:
    """Every headline figure can be checked from the texts that are kept beside it."""
    results = PlanResult.load(out)
    kept = json.loads((out / "evaluation-plan.json").read_text())
    right = [trace["answer"] == trace["gold"] for trace in kept["questions"]]
    assert results.plan.accuracy.percent == pytest.approx(100 * sum(right) / len(right))
    tokens = [len(c["token_ids"]) for t in kept["questions"] for s in t["stages"] for c in s["completions"]]
    assert results.plan.total.tokens == pytest.approx(sum(tokens) / len(right))
    assert kept["accuracy"] == pytest.approx(results.plan.accuracy.percent)
    for trace in kept["questions"]:
        assert trace["answer"] == session.task.parse(trace["stages"][-1]["completions"][0]["text"])


def test_the_plan_runs_where_it_belongs_alone(session: Session, out: Path) -> None:
    plan = session.load_plan(out)
    heard: dict[tuple[str, int], str] = {}
    trace = answer(
        session,
        "Which of these can float? (A) a cork (B) a stone (C) a key (D) a fork",
        plan,
        on_text=lambda stage, branch, text: heard.__setitem__((stage, branch), text),
    )
    assert {stage for stage, _ in heard} == set(session.task.stage_names)
    assert heard["summary", 0] == trace.stages[2].completions[0].text
    other = plan.model_copy(update={"task_fingerprint": "0" * 64})
    with pytest.raises(PlanError, match="changed version of task everyday"):
        other.check_fits(session.engine.identity, session.task.name, session.task.fingerprint, session.task.stage_names)


def test_a_folder_with_another_search_is_refused(session: Session, out: Path) -> None:
    with pytest.raises(OptionError, match=r"holds another search \(its max_drop is 10.0, now 3.0"):
        search(session.at(out), SearchSettings(max_drop=3, step=6, certify=60), session.questions("dev", 16))


def test_wall_latency_and_norm_ratio_search_to_the_end(session: Session, tmp_path: Path) -> None:
    settings = SearchSettings(
        preset="paper",
        max_drop=100,
        step=20,
        exit=MeanConfidence(window=4, threshold=0.4),
        compensation=("norm_ratio",),
        latency="wall",
    )
    session = session.at(tmp_path)
    found = search_greedily(session, settings, session.questions("dev", 3))
    assert found.plan.evidence["latency"] == "wall"
    assert sum(found.record.stage_seconds.values()) == pytest.approx(found.record.full.seconds, rel=0.1)
    threads = found.cost.threads
    kept = wall_clock(session, {"plan": session.full_plan()}, session.questions("dev", 3), threads)
    for stage, seconds in found.record.stage_seconds.items():
        assert seconds == pytest.approx(sum(sample.stage_seconds[stage] for sample in kept) / 3)
    again = load(out=tmp_path / "check")
    evaluation = evaluate(again, again.load_plan(tmp_path), again.questions("dev", 3))
    assert evaluation.accuracy == pytest.approx(found.record.result.accuracy)


def test_a_setting_slower_than_the_best_is_not_run_to_its_end(tmp_path: Path) -> None:
    session = load(batch_size=16, out=tmp_path)
    questions, settings = session.questions("dev", 16), SearchSettings(preset="paper")
    baseline = lay_baseline(session, questions)
    seconds = price(baseline.cost, baseline.full, session.full_plan()).seconds
    trials = Trials(session, baseline.cost, questions, settings, Policies(session, baseline.full, settings.policies))
    order = tuple(reversed(range(16)))
    trial = Trial(candidate=Candidate.full_depth(session.task.stage_names), needed=0, order=order, purpose="profile")
    told = trials.run(trial.model_copy(update={"too_slow": seconds / 8}))
    assert told.cut_short
    assert told.outcomes == (None,) * (16 - told.measured) + tuple(
        t.correct for t in baseline.full[16 - told.measured :]
    )
    assert told.seconds is None
    assert told.seconds_at_least is not None
    assert seconds / 8 < told.seconds_at_least < seconds
    assert trials.run(trial.model_copy(update={"too_slow": 2 * seconds})).seconds == pytest.approx(seconds)
    one_row = replace(trials, session=load(batch_size=1))
    assert one_row.run(trial.model_copy(update={"too_slow": seconds / 8})).cut_short
    by_clock = replace(trials, settings=SearchSettings(preset="paper", latency="wall"), questions=questions[:2])
    told = by_clock.run(trial.model_copy(update={"too_slow": seconds / 8, "order": (1, 0)}))
    assert not told.cut_short
    assert told.seconds is not None


def test_the_number_of_processes_does_not_change_what_a_search_records(tmp_path: Path) -> None:
    """Where one has answered, two have nothing left to decode: a larger group would ask for more."""
    found = []
    for workers in (1, 2):
        session = load(batch_size=4, workers=workers, out=tmp_path)
        settings = SearchSettings(preset="paper", max_drop=0, step=10, no_exit=True)
        found.append(search_greedily(session, settings, session.questions("dev", 8)))
    assert found[0].record.spent.questions_saved > 0
    assert found[1].record == found[0].record
    assert found[1].plan == found[0].plan


def test_a_skip_set_by_hand_is_what_runs(session: Session) -> None:
    plan = session.chosen_plan(PlanOptions(skip=("recall=7.attention, 9.ffn",), exit=MeanConfidence()))
    assert [str(layer) for layer in sorted(plan.stage("recall").schedule.at(0))] == ["7.attention", "9.ffn"]
    assert plan.stage("summary").exit == MeanConfidence(window=5, threshold=0.5)
    for skips, words in (
        (("recal=7.ffn",), "recal"),
        (("recall=7.mlp",), "7.mlp"),
        (("recall",), "write a stage"),
        (("recall=99.ffn",), "99.ffn"),
    ):
        with pytest.raises(OptionError, match=words):
            session.chosen_plan(PlanOptions(skip=skips))


def test_a_search_keeps_its_folder_to_itself(session: Session, out: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    with pytest.raises(OptionError, match=r"holds a search.* Choose another --out"):
        evaluate(session.at(out), None, session.questions("dev", 2))
    with pytest.raises(OptionError, match=r"holds a search.* Choose another --out"):
        diagnose(session.at(out), questions=session.questions("dev", 2))
    with pytest.raises(OptionError, match=r"holds a search.* Choose another --out"):
        finetune(TrainingOptions(model="everyday", plan=str(out)), out)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_search_leaves_the_folders_of_other_jobs_alone(session: Session, tmp_path: Path) -> None:
    for file, says in (
        ("training.json", "holds a trained model or adapter"),
        ("checkpoint.pt", "holds a training that was interrupted"),
        ("results.json", "is of another job"),
    ):
        folder = tmp_path / file.partition(".")[0]
        folder.mkdir()
        (folder / file).write_text('{"kind": "diagnosis"}')
        with pytest.raises(OptionError, match=says):
            search(session.at(folder), SearchSettings(), session.questions("dev", 2))
        assert [path.name for path in folder.iterdir()] == [file]
    with pytest.raises(OptionError, match="spoilt by this evaluation"):
        evaluate(session.at(tmp_path / "results"), None, session.questions("dev", 2))
