"""Tables: the cells, and that they fit a terminal of 80 columns."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from litestage.core import MeanConfidence, Segment, SkipSchedule, StagePlan, whole_blocks
from litestage.report import evaluation, parts, plan, shown
from litestage.report import terminal as screen
from litestage.results import PlanResult


def lines(content: RenderableType, width: int = 80) -> list[str]:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(content)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def row(content: RenderableType, start: str) -> list[str]:
    """The cells of the one line that starts so."""
    found = [line for line in lines(content) if line.strip().startswith(start)]
    assert len(found) == 1, found
    return [cell.strip() for cell in found[0].strip().split("  ") if cell.strip()]


def test_full_depth_against_the_plan(results: PlanResult) -> None:
    drawn = screen.shown([plan.overview(results), plan.stages(results)])
    assert row(drawn, "Accuracy") == ["Accuracy", "91.2 % (88.6–93.2)", "90.5 % (87.9–92.6)", "−0.7 (−2.0 to 0.7)"]
    assert row(drawn, "Latency, clock") == ["Latency, clock", "512 ms", "381 ms", "1.34× (1.31–1.38)"]
    assert row(drawn, "analysis") == [
        "analysis", "10", "318 ms", "221 ms", "68.3", "66.9", "17 %", "24 %", "4 %",
    ]  # fmt: skip
    assert row(drawn, "all") == ["all", "505 ms", "371 ms", "89.5", "88.5", "21 %", "28 %", "3 %"]


def test_profiles_and_exit_checks(results: PlanResult) -> None:
    assert results.search
    drawn = screen.shown(plan.search_parts(results.search))
    assert row(drawn, "14    91.3 %")[-1] == "chosen"
    assert row(drawn, "16  ≤ 90.0 %") == ["16", "≤ 90.0 %", "–", "38 of 150", "misses the target, ended early"]
    assert row(drawn, "recall and analysis") == ["recall and analysis", "90.7 %", "374 ms", "keeps the target"]


def test_one_system_alone(results: PlanResult) -> None:
    drawn = screen.shown([evaluation.performance(results.plan, "made-up")])
    assert row(drawn, "summary") == ["summary", "79.0 ms", "40 %", "7.0", "6.0", "139.0", "0 %"]
    assert "Accuracy 90.5 % (87.9–92.6); 543 of 600 right. None rate 0.5 %. 381 ms a" in lines(drawn)


def test_a_ranking_is_cut_where_asked(results: PlanResult) -> None:
    drawn = screen.shown([parts.ranking_table(results.ranking, limit=3)])
    assert row(drawn, "1  9.attention") == ["1", "9.attention", "0.9843", "0.9990", "0.9774", "0.9766"]
    assert "The other 29 are less redundant." in " ".join(lines(drawn))
    assert "The other" not in " ".join(lines(screen.shown([parts.ranking_table(results.ranking)])))


def test_the_plan_as_a_strip_of_blocks(results: PlanResult) -> None:
    drawn = lines(screen.shown([screen.PlanStrips(results.stage_plans, 16)]))
    assert "recall    ····■■■■■■■■■■■·  attention 4–14; FFN 7–9; exit below 0.5 (5 tokens)" in drawn
    assert "          ·······■■■······" in [line.rstrip() for line in drawn]


def test_a_schedule_that_changes_with_the_step_is_named_step_by_step() -> None:
    schedule = SkipSchedule(
        segments=(Segment(skipped=whole_blocks([1])), Segment(first_step=2, skipped=whole_blocks([1, 2])))
    )
    plan = StagePlan(schedule=schedule, exit=MeanConfidence(window=3, threshold=0.25))
    assert (
        parts.skipped_names(plan)
        == "attention 1; FFN 1; from step 2: attention 1, 2; FFN 1, 2; exit below 0.25 (3 tokens)"
    )
    assert parts.skipped_names(StagePlan()) == "nothing"


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_wider_than_the_terminal_or_cut(results: PlanResult, width: int) -> None:
    assert results.search
    for content in (
        shown(results),
        screen.shown(plan.search_parts(results.search)),
        screen.shown([evaluation.performance(results.full, "full depth")]),
        screen.shown([parts.ranking_table(results.ranking)]),
    ):
        drawn = lines(content, width)
        assert max(map(len, drawn)) <= width
        assert not any("…" in line for line in drawn)


@given(st.sets(st.integers(0, 40)))
def test_ranges_name_every_number(numbers: set[int]) -> None:
    named: list[int] = []
    for part in filter(None, parts.ranges(sorted(numbers)).split(", ")):
        first, _, last = part.partition("–")
        named += range(int(first), int(last or first) + 1)
    assert named == sorted(numbers)
