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
    assert results.speed_verdict == "faster"
    assert results.accuracy_verdict == "open"
    assert all(number in plan.headline(results) for number in ("1.34×", "−0.7"))
    speed, accuracy, promised, skipped, prefill = plan.summary(results)
    for said, parts in (
        (speed, ("1.34×", "1.31 to 1.38", "60 questions")),
        (accuracy, ("91.2 %", "90.5 %", "−0.7 points", "−2.0 to 0.7", "n = 600", "p = 0.5", "2.0 points")),
        (promised, ("ot certified",)),
        (skipped, ("32 sub-layers", "14 in recall", "10 in analysis", "2 in summary", "5 tokens", "0.5")),
        (prefill, ("21 %", "28 %")),
    ):
        assert all(part in said for part in parts), said


def test_a_slower_plan_is_called_slower(results: PlanResult) -> None:
    slower = with_wall(results, speedup=0.93, low=0.9, high=0.96)
    assert slower.speed_verdict == "slower"
    assert "faster" not in plan.headline(slower) + plan.summary(slower)[0]
    assert "0.93×" in plan.summary(slower)[0]


def test_a_speed_that_the_clock_cannot_tell(results: PlanResult) -> None:
    unsure = with_wall(results, speedup=1.02, low=0.97, high=1.06, can_tell=False)
    assert "faster" not in plan.headline(unsure)
    assert unsure.speed_verdict == "open"
    assert "1.02×" in plan.summary(unsure)[0]


def test_a_plan_of_full_depth(results: PlanResult) -> None:
    nothing = results.model_copy(update={"stage_plans": {name: StagePlan() for name in results.stage_plans}})
    assert nothing.speed_verdict == "nothing left out"
    assert "faster" not in plan.headline(nothing) + plan.summary(nothing)[0]


def test_a_loss_beyond_chance_and_beyond_what_was_allowed(results: PlanResult) -> None:
    lossy = with_paired(
        results, percent=87.0, difference=-4.2, low=-6.1, high=-2.3, gained=5, lost=30, p_value=0.00002, can_tell=True
    )
    assert (lossy.accuracy_verdict, lossy.loses_more_than_allowed) == ("loss", True)
    said = plan.summary(lossy)
    assert "p < 0.001" in said[1]
    assert all(part in said[2] for part in ("1 point", "150 dev questions"))


def test_a_gain_and_no_change(results: PlanResult) -> None:
    gain = with_paired(results, difference=2.5, low=1.0, high=4.0, p_value=0.004, can_tell=True)
    assert "(+2.5 points" in plan.summary(gain)[1]
    assert gain.accuracy_verdict == "gain"
    same = with_paired(results, difference=0.0, low=0.0, high=0.0, gained=0, lost=0, p_value=1.0)
    assert same.accuracy_verdict == "no answer changed"
    assert "points" not in plan.headline(same)


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
