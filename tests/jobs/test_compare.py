"""The comparison on the embedded model, small: what it leaves, that it resumes, and that budgets are the real ones."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report.test_browser import BROWSER, PROBE, visit

from litestage.core import (
    Completion,
    Counts,
    DataError,
    OptionError,
    Segment,
    SkipSchedule,
    StagePlan,
    StageTrace,
    Trace,
    sub_layers,
)
from litestage.jobs.compare import amounts, compare, duels, mean_skipped, splits
from litestage.jobs.methods import cap_for, full_depth, token_cap
from litestage.jobs.options import CompareOptions
from litestage.jobs.session import Session, load
from litestage.report import comparison as report
from litestage.report import draw, redraw
from litestage.report.page import to_html
from litestage.results import Amount, Comparison, MethodResult
from litestage.skipping.rules import RULES

OPTIONS = CompareOptions(search_limit=6, wall=2, blocks=(1, 5), max_drops=(20.0, 40.0), step=8)
TESTED = 6


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def comparison(session: Session, out: Path) -> Comparison:
    found = compare(session.at(out), OPTIONS, limit=TESTED)
    draw(found, out)
    return found


def test_every_method_ablation_and_control_is_there(comparison: Comparison) -> None:
    methods = {system.method for system in comparison.results}
    assert set(RULES) <= methods
    assert {"litestage_uniform", "litestage_uniform_exit", "exit_only", "without_recall", "without_analysis"} <= methods
    assert comparison.full.paired.difference == 0
    assert comparison.full.speedup == 1
    for system in comparison.results:
        right = [answer == gold for answer, gold in zip(system.answers, comparison.gold, strict=True)]
        assert system.accuracy == pytest.approx(100 * sum(right) / len(right)), system.name


def test_actual_budgets_are_counted(comparison: Comparison) -> None:
    at = {system.name: system for system in comparison.results}
    assert at["adaskip-5"].blocks_skipped == 5
    assert at["unifiedskip-5"].blocks_skipped == 6, "asked for 5 of 12 blocks, it skips every second one"
    assert 1 < at["skipdecode-5"].blocks_skipped < 5, "it skips ever more, and texts end before it has skipped all"
    assert at["without_recall"].skipped.keys() == {"analysis", "summary"}


def test_it_resumes_without_decoding_and_tells_the_same(session: Session, out: Path, comparison: Comparison) -> None:
    there = session.at(out)
    again = compare(there, OPTIONS, limit=TESTED)
    assert there.stored.decoded == 0
    assert again.results == comparison.results
    assert Comparison.load(out).results == comparison.results


def test_the_page_says_whether_the_claim_holds(comparison: Comparison, out: Path) -> None:
    text = " ".join(report.summary(comparison))
    assert "The paper claims" in text
    said = ("holds here", "does not hold here", "not settled here", "is as fast", "that was not tested")
    assert any(word in text for word in said)
    assert "Every other method was asked for 2 and 10 sub-layers or 1 and 5 blocks, on 6 of" in text
    page = draw(Comparison.load(out), out).read_text()
    assert redraw(out).read_text() == page, "results alone make the report"
    assert (out / "figures" / "frontier.svg").is_file()
    assert (out / "figures" / "frontier.png").is_file()
    assert "McNemar" in page
    old = [out / "figures" / f"plan-9.{kind}" for kind in ("svg", "png")]
    for path in (*old, out / "figures" / "mine.svg"):
        path.write_text("")
    redraw(out)
    assert not any(path.exists() for path in old), "figures of an earlier page would be taken for this one's"
    assert (out / "figures" / "mine.svg").exists()


def test_methods_are_held_against_each_other_and_against_no_model(comparison: Comparison) -> None:
    answer, percent = comparison.constant
    assert percent == pytest.approx(100 * max(comparison.gold.count(c) for c in comparison.gold) / len(comparison.gold))
    assert f"Always {'ABCD'[answer]}, the answer most common" in " ".join(report.summary(comparison))
    plan = max(comparison.of_kind("litestage"), key=lambda system: system.speedup)
    matched = {plan.name} | {pair.other for pair in comparison.pairs if pair.one == plan.name}
    assert {comparison.method(name).method for name in matched} >= set(RULES) - {"litestage"}
    assert len(comparison.pairs) == len(matched) * (len(matched) - 1) // 2
    assert all(pair.adjusted >= pair.paired.p_value for pair in comparison.pairs)


def test_steps_of_long_stages_count_for_more(comparison: Comparison) -> None:
    same = comparison.method("adaskip-5")
    assert same.blocks_a_step == pytest.approx(5)
    steps = {stage.name: stage.decode_steps for stage in same.performance.stages}
    analysis = same.model_copy(update={"skipped": {"recall": 0.0, "analysis": 6.0, "summary": 0.0}})
    assert analysis.blocks_skipped == 1
    assert analysis.blocks_a_step == pytest.approx(3 * steps["analysis"] / sum(steps.values()))
    assert analysis.blocks_a_step > 1, "analyses are most of the text"


def test_what_is_worth_it_is_timed_and_held_against_its_price(
    session: Session, out: Path, comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = 0.9999 * sorted(system.speedup for system in comparison.results)[5]
    monkeypatch.setattr("litestage.jobs.compare.WORTH_TIMING", floor)
    again = compare(session.at(out), OPTIONS, limit=TESTED)
    comparison.save(out)
    slow = {system.name for system in again.results[1:] if system.speedup < floor}
    assert slow
    assert all((system.wall is None) == (system.name in slow) for system in again.results)
    assert all((system.performance.price_error is None) == (system.name in slow) for system in again.results)
    assert all(system.wall and system.wall.n == OPTIONS.wall for system in again.results if system.name not in slow)
    assert "were not timed" in report.systems(again).note
    assert redraw(out)


def test_plans_that_were_found_are_compared_without_a_search(
    session: Session, out: Path, comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("litestage.jobs.compare.search_greedily", None)
    session, given = session.at(tmp_path), str(out / "plan-20")
    some = CompareOptions(search_limit=4, wall=2, blocks=(1,))
    with pytest.raises(OptionError, match=r"--methods leaves out\. Add litestage"):
        compare(session, replace(some, methods=("adaskip",), plans=(given,)))
    with pytest.raises(OptionError, match=r"--plans names .*plan-20 twice\. Leave one out"):
        replace(some, plans=(given, given))
    shutil.copytree(out / "plan-20", tmp_path / "again")
    with pytest.raises(
        OptionError, match=r"may lose 20 points, as another one does, and plans are told apart by those"
    ):
        compare(session, replace(some, plans=(given, str(tmp_path / "again"))))
    found = compare(session, replace(some, methods=("litestage",), plans=(given,)), limit=TESTED)
    assert found.method("litestage-20").answers == comparison.method("litestage-20").answers
    assert found.searched_on.used == OPTIONS.search_limit, "what the plan was searched on"
    draw(found, tmp_path)  # with one amount of each method no line joins any
    assert 'height="Infinity"' not in (tmp_path / "figures" / "ablations.svg").read_text()


def test_results_that_name_a_system_that_is_not_there_are_refused(comparison: Comparison, tmp_path: Path) -> None:
    stray = comparison.duels[0].model_copy(update={"other": "gone"})
    comparison.model_copy(update={"duels": (stray,)}).save(tmp_path)
    with pytest.raises(DataError, match=r"'gone' is none of the methods.*Run the job again"):
        Comparison.load(tmp_path)


def test_dev_is_compared_on_what_the_search_leaves(session: Session) -> None:
    dev, tested = splits(session, "dev", 6, {})
    assert (dev, tested) == (session.questions("dev"), session.questions("dev")[6:])
    assert splits(session, "train", None, {})[1] == session.questions("train")
    with pytest.raises(OptionError, match="none are left to compare on"):
        splits(session, "dev", None, {})


def test_plans_are_not_compared_on_what_they_were_tuned_on(session: Session) -> None:
    plan = session.full_plan()
    plans = {
        drop: plan.model_copy(update={"evidence": {"split": split, "n": n}})
        for drop, split, n in ((1.0, "dev", 9), (3.0, "dev", 7), (5.0, "train", 20))
    }
    assert splits(session, "dev", 6, plans)[1] == session.questions("dev")[9:]
    assert splits(session, "test", 6, plans)[1] == session.questions("test")
    with pytest.raises(OptionError, match="--plans were searched on train questions, so --split train would flatter"):
        splits(session, "train", 6, plans)


@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
@pytest.mark.parametrize("width", [1280, 375])
def test_charts_are_drawn_and_nothing_overflows(comparison: Comparison, tmp_path: Path, width: int) -> None:
    path = tmp_path / "report.html"
    page = report.page(comparison)
    path.write_text(to_html(page) + PROBE, encoding="utf-8")
    seen, logged = visit(path, tmp_path / "profile", width)
    assert not logged
    assert seen["drawn"] == sum(len(panel.charts) for figure in page.figures for panel in figure.panels)
    assert (seen["loaded"], seen["wide"]) == (0, [])
    assert seen["page"] <= width


def test_other_methods_alone_make_a_page_too(comparison: Comparison, tmp_path: Path) -> None:
    systems = (comparison.full, *comparison.of_kind("rule"))
    names = {system.name for system in systems}
    alone = comparison.model_copy(
        update={
            "results": systems,
            "frontier": tuple(
                point.model_copy(update={"rivals": tuple(name for name in point.rivals if name in names)})
                for point in comparison.frontier
                if point.name in names
            ),
            "duels": (),
            "pairs": (),
            "plans": {},
            "examples": (),
        }
    )
    assert "LiteStage was not among them" in draw(alone, tmp_path).read_text()


def test_budgets_reach_what_the_plans_skip(session: Session) -> None:
    deep = StagePlan(schedule=SkipSchedule.fixed(sub_layers(12)[:17]))
    plan = session.plan(dict.fromkeys(session.task.stage_names, deep))
    assert amounts([session.full_plan()]) == (1, 2, 3, 4)
    assert amounts([session.full_plan(), plan]) == (3, 5, 7, 9)


def made_up(name: str, kind: str, speedup: float, wrong: int, comparison: Comparison) -> MethodResult:
    """A system that gets the first ``wrong`` of 200 questions wrong."""
    full = comparison.full
    accuracy = full.performance.accuracy.model_copy(update={"percent": 100 - wrong / 2})
    return full.model_copy(
        update={
            "name": name,
            "method": name.split("-")[0],
            "title": name,
            "kind": kind,
            "requested": "1 block",
            "speedup": speedup,
            "skipped": dict.fromkeys(full.skipped, 2.0),
            "amount": Amount(number=1, unit="block") if kind == "rule" else None,
            "performance": full.performance.model_copy(update={"accuracy": accuracy}),
        }
    )


def test_systems_that_lost_half_are_named_in_place_of_a_mark(comparison: Comparison) -> None:
    rules = comparison.of_kind("rule")
    drawn = comparison.worth_drawing(*rules)
    assert 0 < len(drawn) < len(rules)
    assert all(2 * system.accuracy >= comparison.full.accuracy for system in drawn)
    said = report.not_drawn(comparison, rules)
    lost = [system.title for system in rules if system not in drawn]
    assert all(f"{title} ({lost.count(title)})" in said for title in lost)
    (figure,) = (figure for figure in report.page(comparison).figures if figure.name == "frontier")
    assert said in figure.caption
    assert report.not_drawn(comparison, drawn) == ""


@pytest.mark.parametrize(
    ("speedup", "ours", "rules", "says"),
    [
        (1.5, 20, (80,), "So the claim holds here"),
        (1.5, 80, (20,), "So the claim does not hold here"),
        (1.5, 38, (30,), "So the claim does not hold here: −4.0 points, 95 % interval"),
        (1.5, 38, (30, *range(60, 79)), "So the claim is not settled here: −4.0 points"),
        (1.0, 20, (80,), "so that was not tested"),
        (1.5, 20, (), "no uniform system here is as fast"),
    ],
)
def test_the_claim_is_judged_by_what_the_questions_tell(
    comparison: Comparison, speedup: float, ours: int, rules: tuple[int, ...], says: str
) -> None:
    """A rival that is the best of twenty on these questions has to win by more than one that was alone."""
    wrong = {"litestage-1": ours, **{f"rule{i}-1": count for i, count in enumerate(rules)}}
    systems = [
        comparison.full,
        *(
            made_up(name, "litestage" if name == "litestage-1" else "rule", speedup, count, comparison)
            for name, count in wrong.items()
        ),
    ]
    wrong |= {"full": 0, "constant": 150}
    scores = {name: {f"q{i}": float(i >= count) for i in range(200)} for name, count in wrong.items()}
    judged = comparison.model_copy(update={"results": tuple(systems), "duels": tuple(duels(systems, scores))})
    assert says in report.claim(judged)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"search_limit": 0}, "--search-limit 0 is too"),
        ({"wall": 1}, "--wall 1 is too few to compare anything. Choose 2 or more"),
        ({"blocks": (13,)}, "--blocks 13: the model has 12 blocks to skip"),
        ({"max_drops": (1.0, float("nan"))}, "--max-drops nan cannot be points of accuracy to lose"),
        ({"max_drops": (101.0,)}, "--max-drops 101 cannot be"),
        ({"max_drops": (1.0, 1.0000001)}, "--max-drops has 1 twice"),
    ],
)
def test_sizes_that_compare_nothing_are_refused_at_once(
    session: Session, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(OptionError, match=says):
        compare(session.at(tmp_path), CompareOptions(**changes))
    assert not any(tmp_path.iterdir())


def test_folders_and_questions_that_a_comparison_refuses(session: Session, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"kind": "diagnosis"}')
    with pytest.raises(OptionError, match="is of another job and would be spoilt by this comparison"):
        compare(session.at(tmp_path))
    one = tmp_path / "one.jsonl"
    one.write_text('{"id": "1", "question": "Is it?", "choices": ["a", "b"], "answer": 0}\n')
    same = load(data=one, out=tmp_path / "out")
    with pytest.raises(OptionError, match="1 questions are in dev and in test, such as 1"):
        compare(same)
    assert not same.may_show_texts
    assert session.may_show_texts


def test_an_unknown_method_is_refused(session: Session, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--methods 'adaskp' is not known. Did you mean adaskip\? Choose all"):
        compare(session.at(tmp_path), CompareOptions(methods=("adaskp",)))


def lengths(*decoded: int) -> list[Trace]:
    return [
        Trace(
            question_id=str(i),
            stages=(
                StageTrace(
                    name="say", prompts=("",), prompt_tokens=(5,), shared_tokens=0, header_tokens=0, text="",
                    completions=(
                        Completion(
                            token_ids=(1,) * (n + 1), text="", confidences=(1.0,) * (n + 1), finish_reason="eos",
                            counts=Counts(decoded=n),
                        ),
                    ),
                ),
            ),
            answer=0,
        )
        for i, n in enumerate(decoded)
    ]  # fmt: skip


def test_a_growing_schedule_counts_the_steps_that_ran() -> None:
    """Steps 0 and 1 skip one sub-layer, later ones three: texts of 1 and 4 steps skip 1 + (1 + 1 + 3 + 3) in 5."""
    schedule = SkipSchedule(
        segments=(Segment(skipped={"1.ffn"}), Segment(first_step=2, skipped={"1.ffn", "2.ffn", "3.attention"}))
    )
    assert mean_skipped(lengths(1, 4), 0, schedule) == pytest.approx(9 / 5)
    assert mean_skipped(lengths(0), 0, schedule) == 1


def test_a_cap_makes_texts_as_long_in_the_mean() -> None:
    assert cap_for([4, 10, 10], 6) == 7
    assert cap_for([4, 10, 10], 8) == 10
    assert cap_for([3, 3], 3) == 3


def test_texts_that_are_not_shorter_have_no_cap(session: Session) -> None:
    traces = lengths(9, 9)
    assert token_cap(session, full_depth(session), traces, traces) is None
