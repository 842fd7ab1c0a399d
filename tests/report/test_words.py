"""What the report says in words, honest when the plan is slower or the data cannot tell."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestage.core import StagePlan
from litestage.evaluation import Paired, Speedup
from litestage.report import plan, words
from litestage.results import PlanResult


def with_wall(results: PlanResult, **changes: Any) -> PlanResult:
    wall = Speedup.model_validate(results.wall.model_dump() | changes)
    return results.model_copy(update={"wall": wall, "speedup": wall.speedup})


def with_paired(results: PlanResult, **changes: Any) -> PlanResult:
    paired = Paired.model_validate(results.paired.model_dump() | changes)
    return results.model_copy(update={"paired": paired, "accuracy_change_points": paired.difference})


def test_a_faster_plan(results: PlanResult) -> None:
    assert plan.headline(results) == "1.34× faster, −0.7 points of accuracy"
    assert plan.summary(results) == [
        "With this plan the model answers 1.34× faster (95 % interval 1.31 to 1.38; 60 questions by the wall clock).",
        "Accuracy goes from 91.2 % to 90.5 % (−0.7 points, 95 % interval −2.0 to 0.7; n = 600): these questions "
        "cannot settle which is more accurate (McNemar p = 0.5). A loss of 2.0 points is not ruled out.",
        "Of 32 sub-layers it skips 14 in recall, 10 in analysis and 2 in summary, while decoding only; in recall and "
        "analysis a generation ends once the mean confidence of its last 5 tokens falls below 0.5.",
        "Prefill, which always runs at full depth, takes 21 % of full depth's time and 28 % of the plan's.",
    ]


def test_a_slower_plan_is_called_slower(results: PlanResult) -> None:
    slower = with_wall(results, speedup=0.93, low=0.9, high=0.96)
    assert plan.headline(slower).startswith("Slower: 0.93× the speed of full depth")
    assert "more slowly, at 0.93× full depth's speed" in plan.summary(slower)[0]


def test_a_speed_that_the_clock_cannot_tell(results: PlanResult) -> None:
    unsure = with_wall(results, speedup=1.02, low=0.97, high=1.06, can_tell=False)
    assert "faster" not in plan.headline(unsure)
    assert plan.summary(unsure)[0].startswith("The clock cannot tell the plan's speed from full depth's: 1.02×")


def test_a_plan_of_full_depth(results: PlanResult) -> None:
    nothing = results.model_copy(update={"stage_plans": {name: StagePlan() for name in results.stage_plans}})
    assert plan.headline(nothing) == "Nothing to leave out: the plan is the full model"
    assert plan.summary(nothing)[0].startswith("The search found nothing to leave out")
    assert "It skips no sub-layer; no generation is ended early." in plan.summary(nothing)


def test_a_loss_beyond_chance_and_beyond_what_was_allowed(results: PlanResult) -> None:
    lossy = with_paired(
        results, percent=87.0, difference=-4.2, low=-6.1, high=-2.3, gained=5, lost=30, p_value=0.00002, can_tell=True
    )
    said = plan.summary(lossy)
    assert "a loss beyond chance (McNemar p < 0.001)." in said[1]
    assert said[2] == (
        "That is more than the 1 point that the search allowed, which it kept on the 150 dev questions it tuned on."
    )


def test_a_gain_and_no_change(results: PlanResult) -> None:
    gain = with_paired(results, difference=2.5, low=1.0, high=4.0, p_value=0.004, can_tell=True)
    assert "(+2.5 points" in plan.summary(gain)[1]
    assert "a gain beyond chance (McNemar p = 0.004)" in plan.summary(gain)[1]
    same = with_paired(results, difference=0.0, low=0.0, high=0.0, gained=0, lost=0, p_value=1.0)
    assert "not one answer turned" in plan.summary(same)[1]
    assert plan.headline(same) == "1.34× faster, the same accuracy"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0421, "42.1 ms"),
        (0.381, "381 ms"),
        (1.5, "1.50 s"),
        (53.84, "53.8 s"),
        (119, "119.0 s"),
        (130, "2.2 min"),
        (9000, "2.5 h"),
    ],
)
def test_seconds_in_the_unit_that_suits(value: float, said: str) -> None:
    assert words.seconds(value) == said


@given(st.floats(-1e3, 1e3), st.integers(0, 3))
def test_signed_numbers_read_back(value: float, digits: int) -> None:
    text = words.signed(value, digits)
    assert float(text.replace(words.MINUS, "-")) == pytest.approx(value, abs=0.5 * 10**-digits + 1e-9)
    assert text[0] in "+−" or float(text) == 0
    assert float(words.number(value, digits).replace(words.MINUS, "-")) == float(text.replace(words.MINUS, "-"))


def test_lists() -> None:
    assert [words.listed(list(some)) for some in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]
