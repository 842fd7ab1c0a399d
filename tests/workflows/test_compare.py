"""The comparison on the embedded model, small: what it leaves, that it resumes, and that budgets are the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from report.test_browser import BROWSER, PROBE, visit

from litestage.core import Completion, Counts, OptionError, Segment, SkipSchedule, StageTrace, Trace
from litestage.report import comparison_words
from litestage.report.comparison import Comparison
from litestage.report.comparison_report import comparison_page, write_report
from litestage.report.page import to_html
from litestage.report.rebuild import rebuild
from litestage.runner import CachedEngine
from litestage.search import SearchOptions
from litestage.skipping.rules import RULES
from litestage.workflows import Workbench
from litestage.workflows.compare import Sizes, compare_methods, mean_skipped
from litestage.workflows.setups import cap_for, full_depth, token_cap

SIZES = Sizes(search=6, test=6, wall=1, blocks=(1, 5), max_drops=(20.0, 40.0))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def comparison(bench: Workbench, out: Path) -> Comparison:
    return compare_methods(bench, out, sizes=SIZES, options=SearchOptions(step=8), workers=2)


def test_every_method_ablation_and_control_is_there(comparison: Comparison) -> None:
    methods = {system.method for system in comparison.systems}
    assert set(RULES) <= methods
    assert {"litestage_uniform", "litestage_uniform_exit", "exit_only", "without_recall", "without_analysis"} <= methods
    assert comparison.full.paired.difference == 0
    assert comparison.full.speedup == 1
    for system in comparison.systems:
        right = [answer == gold for answer, gold in zip(system.answers, comparison.gold, strict=True)]
        assert system.accuracy == pytest.approx(100 * sum(right) / len(right)), system.name


def test_actual_budgets_are_counted(comparison: Comparison) -> None:
    at = {system.name: system for system in comparison.systems}
    assert at["adaskip-5"].blocks_skipped == 5
    assert at["unifiedskip-5"].blocks_skipped == 6, "asked for 5 of 12 blocks, it skips every second one"
    assert 1 < at["skipdecode-5"].blocks_skipped < 5, "it skips ever more, and texts end before it has skipped all"
    assert at["without_recall"].skipped.keys() == {"analysis", "summary"}


def test_it_resumes_without_decoding_and_tells_the_same(
    bench: Workbench, out: Path, comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something was decoded again")

    monkeypatch.setattr(CachedEngine, "_generate", refuse)
    again = compare_methods(bench, out, sizes=SIZES, options=SearchOptions(step=8), workers=1)
    assert again.systems == comparison.systems
    assert Comparison.load(out).systems == comparison.systems


def test_the_page_says_whether_the_claim_holds(comparison: Comparison, out: Path) -> None:
    text = " ".join(comparison_words.summary(comparison))
    assert "The paper claims" in text
    assert any(word in text for word in ("holds here", "does not hold here", "not settled here", "is as fast"))
    page = write_report(Comparison.load(out), out).read_text()
    assert rebuild(out).read_text() == page, "results alone make the report"
    assert (out / "figures" / "frontier.svg").is_file()
    assert (out / "figures" / "frontier.png").is_file()
    assert "McNemar" in page


@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
@pytest.mark.parametrize("width", [1280, 375])
def test_charts_are_drawn_and_nothing_overflows(comparison: Comparison, tmp_path: Path, width: int) -> None:
    path = tmp_path / "report.html"
    page = comparison_page(comparison)
    path.write_text(to_html(page) + PROBE, encoding="utf-8")
    seen, logged = visit(path, tmp_path / "profile", width)
    assert not logged
    assert seen["drawn"] == sum(len(panel.charts) for figure in page.figures for panel in figure.panels)
    assert (seen["loaded"], seen["wide"]) == (0, [])
    assert seen["page"] <= width


def test_an_unknown_method_is_refused(bench: Workbench, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--methods adaskp is not known. Choose among litestage, adaskip"):
        compare_methods(bench, tmp_path, methods=["adaskp"])


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


def test_texts_that_are_not_shorter_have_no_cap(bench: Workbench) -> None:
    traces = lengths(9, 9)
    assert token_cap(bench, full_depth(bench), traces, traces) is None
