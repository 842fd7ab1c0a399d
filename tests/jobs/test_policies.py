"""Policies to leave sub-layers out: what is prepared, what is kept, and what a search makes of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from litestage.core import OptionError, PlanError
from litestage.engine.forcing import Text
from litestage.jobs.evaluate import evaluate
from litestage.jobs.options import RankOptions, SearchSettings
from litestage.jobs.policies import PAPER, PRESETS, Policies, Policy, drawn, policies_of, stage_texts
from litestage.jobs.progress import Silent
from litestage.jobs.rankings import rank
from litestage.jobs.search import lay_baseline, search_greedily
from litestage.jobs.session import Session, load
from litestage.results import Rankings
from litestage.skipping import RANKINGS, Probe

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def prepared(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Policies:
    session = session.at(tmp_path_factory.mktemp("policies"))
    baseline = lay_baseline(session, session.questions("dev", 6))
    return Policies(session, baseline.full, policies_of(list(RANKINGS), ["none", "mean", "lowrank:4"]))


def test_every_ranking_orders_every_sub_layer(prepared: Policies) -> None:
    layers = {str(layer) for layer in prepared.session.engine.model.decoder.layers}
    orders = {}
    for name in RANKINGS:
        ranking = prepared.ranking("analysis", Policy(name))
        assert {str(score.layer) for score in ranking.scores} == layers
        orders[name] = [score.layer for score in ranking.scores]
    assert len({tuple(order) for order in orders.values()}) >= 5, "they differ, or nothing could be compared"


def test_pooled_rankings_are_one_for_all_stages_and_the_others_are_not(prepared: Policies) -> None:
    for name, kind in RANKINGS.items():
        both = [prepared.ranking(stage, Policy(name)).scores for stage in ("recall", "summary")]
        assert (both[0] == both[1]) == kind.pooled, name


def test_the_best_way_is_the_one_that_changes_the_fewest_tokens(prepared: Policies) -> None:
    few = Policies(prepared.session, prepared.traces, policies_of(["cosine", "probe"], ["none", "mean"]))
    policy, effect = few.best("analysis", 8)
    effects = {one: few.effect("analysis", 8, one) for one in few.policies}
    assert effect == effects[policy]
    assert effect.agreement == max(one.agreement for one in effects.values())
    assert effect.agreement > prepared.effect("analysis", 8, PAPER).agreement
    assert Policies(prepared.session.at(None), prepared.traces, [PAPER]).best("analysis", 8) == (PAPER, None)


def test_sets_are_judged_on_questions_that_nothing_was_fitted_on(prepared: Policies) -> None:
    """By hand: the texts of every other question, the skip set of a policy, a probe."""
    session, policy = prepared.session, Policy("probe", "mean")
    judged = stage_texts(session, prepared.traces[1::2], 1)
    assert len(judged) == 3 * 4
    assert all(isinstance(text, Text) and text.written for text in judged)
    stand = session.engine.stands[prepared.compensation("analysis", "mean").content or ""]
    by_hand = Probe(session.engine, judged).effect(prepared.skip_set("analysis", 6, policy), stand)
    assert prepared.effect("analysis", 6, policy) == pytest.approx(by_hand)


def test_texts_of_a_stage_that_fans_out_are_those_of_all_its_choices(prepared: Policies, session: Session) -> None:
    """A quarter of them is not one choice's; none comes twice, and they stay in question order."""
    everything = stage_texts(session, prepared.traces[1::2], 1)
    at = [everything.index(text) for text in drawn(everything, len(everything) // 4)]
    assert at == sorted(set(at))
    assert len({i % 4 for i in at}) > 1
    assert drawn(everything, 1000) == everything


def test_nothing_is_fitted_on_what_is_judged(prepared: Policies) -> None:
    """By hand: rankings and stand-ins of the calibrating half alone are the same in every policy."""
    half = [trace for trace in prepared.traces[::2] for _ in range(2)]  # every other one is one of them
    alone = Policies(prepared.session.at(None), half, prepared.policies)
    for name in RANKINGS:
        orders = [[s.layer for s in one.ranking("recall", Policy(name)).scores] for one in (prepared, alone)]
        assert orders[0] == orders[1], name
    for kind in ("norm_ratio", "mean", "lowrank:4"):
        assert prepared.compensation("recall", kind) == alone.compensation("recall", kind), "the same numbers"


def test_a_stage_without_room_in_the_calibrating_half_is_named(prepared: Policies) -> None:
    """The other half's prompts may well have fitted."""
    traces = list(prepared.traces)
    for i in range(0, len(traces), 2):
        *others, last = traces[i].stages
        none = last.model_copy(update={"prompt_tokens": (0,) * len(last.prompts), "completions": ()})
        traces[i] = traces[i].model_copy(update={"stages": (*others, none)})
    policies = Policies(prepared.session.at(None), traces, policies_of(["cosine", "cosine_by_stage"], ["none"]))
    for policy in policies.policies:
        with pytest.raises(OptionError, match="No prompt of stage summary fits the 512 tokens"):
            policies.ranking("summary", policy)


def test_what_was_prepared_for_other_texts_is_not_taken_up(
    prepared: Policies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts may well be the same: those of a last stage say nothing of what it writes."""
    prepared.ranking("recall", Policy("probe"))
    shutil.copytree(prepared.session.folder.path or "", tmp_path, dirs_exist_ok=True)
    session = prepared.session.at(tmp_path)
    monkeypatch.setattr("litestage.jobs.policies.probe", None)
    assert Policies(session, prepared.traces, [PAPER]).ranking("recall", Policy("probe"))
    *others, last = prepared.traces
    completion = last.stages[-1].completions[0]
    longer = completion.model_copy(update={"token_ids": (*completion.token_ids, 5)})
    stage = last.stages[-1].model_copy(update={"completions": (longer, *last.stages[-1].completions[1:])})
    changed = last.model_copy(update={"stages": (*last.stages[:-1], stage)})
    with pytest.raises(TypeError):  # it is probed again
        Policies(session, [*others, changed], [PAPER]).ranking("recall", Policy("probe"))


def test_stand_ins_that_were_lost_are_fitted_again(prepared: Policies, tmp_path: Path) -> None:
    before = prepared.compensation("recall", "mean")
    shutil.copytree(prepared.session.folder.path or "", tmp_path, dirs_exist_ok=True)
    (tmp_path / f"compensation-{(before.content or '')[:16]}.safetensors").unlink()
    again = Policies(prepared.session.at(tmp_path), prepared.traces, prepared.policies)
    assert again.compensation("recall", "mean") == before


def test_what_was_prepared_is_taken_up_again(prepared: Policies, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prepared.effect("recall", 4, Policy("greedy", "mean"))
    compensation = prepared.compensation("recall", "mean")
    fresh = load(out=prepared.session.folder.path)
    again = Policies(fresh, prepared.traces, prepared.policies)
    monkeypatch.setattr("litestage.jobs.policies.greedy", None)
    monkeypatch.setattr("litestage.jobs.policies.fit", None)
    monkeypatch.setattr("litestage.jobs.policies.Probe", None)
    assert again.effect("recall", 4, Policy("greedy", "mean")) == before
    assert again.compensation("recall", "mean") == compensation
    assert compensation.content in fresh.engine.stands


def test_a_search_chooses_ways_and_its_plan_runs_elsewhere(session: Session, tmp_path: Path) -> None:
    questions = session.questions("dev", 6)
    session = session.at(tmp_path)
    paper = SearchSettings(preset="paper", max_drop=20, step=10, no_exit=True)
    settings = replace(paper, ranking=("cosine", "probe"), compensation=("none", "mean"))
    found = search_greedily(session, settings, questions)
    points = [point for profile in found.record.profiles for point in profile.points if point.budget]
    assert all(point.agreement is not None and point.policy in map(str, settings.policies) for point in points)
    again = search_greedily(session, settings, questions)
    assert (again.plan.stages, again.record.profiles) == (found.plan.stages, found.record.profiles)
    other = load(out=tmp_path / "check")
    evaluation = evaluate(other, other.load_plan(tmp_path), questions)
    assert evaluation.accuracy == pytest.approx(found.record.result.accuracy)
    with pytest.raises(OptionError, match="its policies is"):
        search_greedily(session, paper, questions)
    compensated = [stage for stage in found.plan.stages.values() if stage.compensation.content]
    if compensated:
        (tmp_path / f"compensation-{(compensated[0].compensation.content or '')[:16]}.safetensors").unlink()
        with pytest.raises(PlanError, match="is missing"):
            load().load_plan(tmp_path)


def test_names_that_are_not_known_are_refused() -> None:
    with pytest.raises(OptionError, match=r"--ranking cosin is not known\. Choose from cosine, "):
        policies_of(["cosin"], ["none"])
    with pytest.raises(OptionError, match=r"'median' is not known\. Choose none, norm_ratio, mean, affine, lowrank:R"):
        policies_of(["cosine"], ["median"])
    assert policies_of(*PRESETS["paper"]) == (PAPER,)


def test_rank_shows_and_draws_the_rankings_side_by_side(litestage: Run, tmp_path: Path) -> None:
    options = ["--limit", "6", "--step", "8", "--ranking", "cosine,probe", "--compensation", "none,mean", "--answers"]
    code, shown, _ = litestage("rank", *options, "--out", str(tmp_path))
    assert code == 0
    assert "Rankings for recall" in shown
    assert "Same tokens, summary" in shown
    assert "Must stay: 0.ffn" in shown
    assert "Right answers, left out of every stage" in shown
    found = Rankings.model_validate_json((tmp_path / "rankings.json").read_text(encoding="utf-8"))
    assert [stage.stage for stage in found.stages] == ["recall", "analysis", "summary"]
    for stage in found.stages:
        assert list(stage.rankings) == ["cosine", "probe"]
        assert [(c.ranking, c.compensation) for c in stage.curves] == [
            ("cosine", "none"), ("cosine", "mean"), ("probe", "none"), ("probe", "mean"),
        ]  # fmt: skip
        assert all(0 <= point.agreement <= 1 and point.tokens > 0 for c in stage.curves for point in c.points)
    assert (tmp_path / "rankings.svg").read_text(encoding="utf-8").startswith("<svg")
    assert (tmp_path / "rankings.png").stat().st_size > 1000


def test_one_question_cannot_be_fitted_on_and_judge(session: Session, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="Give 2 or more: half are fitted on, half judged"):
        rank(session.at(tmp_path), questions=session.questions("dev", 1))


def test_rank_counts_no_part_of_its_work_further_than_it_goes(session: Session, tmp_path: Path) -> None:
    """Work that another part starts on its way would be counted as that part's own."""
    parts: list[list[int]] = []

    class Counting(Silent):
        def start(self, what: str, total: int | None = None) -> None:
            parts.append([0, total or 0])

        def advance(self, steps: int = 1, note: str = "") -> None:
            parts[-1][0] += steps

    options = RankOptions(ranking=("cosine", "greedy"), compensation=("none", "affine"), step=12)
    rank(load(out=tmp_path, progress=Counting()), options, session.questions("dev", 2))
    assert len(parts) == 2 + 3 * 4, "answers, the cosine; of each stage stand-ins, two removals and what is judged"
    assert all(done <= total for done, total in parts)
    assert sum(done == total for done, total in parts) >= len(parts) - 6, "greedy removal ends early"


def test_rank_answers_the_questions_that_nothing_was_fitted_on(session: Session, tmp_path: Path) -> None:
    """By hand: the plan that leaves the budget out of every stage, evaluated on every other question."""
    questions, session = session.questions("dev", 8), session.at(tmp_path)
    options = RankOptions(ranking=("cosine", "probe"), compensation=("mean",), step=12, answers=True)
    found = rank(session, options, questions)
    assert [(one.ranking, one.compensation) for one in found.answers] == list(options.policies)
    for one in found.answers:
        assert [point.budget for point in one.points] == list(range(12, 12 * len(one.points) + 1, 12))
        assert all(point.against_full.high >= 0 for point in one.points[:-1])
        assert one.points[-1].against_full.high < 0 or one.points[-1].budget + 12 > 20, "20 are the most that are tried"
    prepared = Policies(session, lay_baseline(session, questions).full, options.policies)
    policy = options.policies[1]
    plan = session.plan({stage: prepared.stage_plan(stage, 12, policy) for stage in session.task.stage_names})
    by_hand = evaluate(session.at(tmp_path / "by-hand"), plan, questions[1::2])
    assert found.answers[1].points[0].accuracy == by_hand.interval
