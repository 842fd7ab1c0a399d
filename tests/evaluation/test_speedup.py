from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestage.core.errors import DataError, OptionError
from litestage.evaluation import Sample, medians, price_error, priced_speedup, skip_efficiency, speedup, timed_speedup


def test_medians_of_turns_taken() -> None:
    turns = [("full", 1.0), ("plan", 0.7), ("full", 9.0), ("plan", 0.6), ("full", 1.2), ("plan", 8.0)]
    samples = [Sample(system=system, question_id="a", seconds=seconds) for system, seconds in turns]
    assert medians([*samples, Sample(system="full", question_id="b", seconds=2)]) == {
        "full": {"a": 1.2, "b": 2.0},
        "plan": {"a": 0.7},
    }


def test_speedup_is_the_ratio_of_totals_with_an_interval() -> None:
    rng = np.random.default_rng(0)
    full = {f"q{i}": float(seconds) for i, seconds in enumerate(rng.uniform(0.5, 2, 100))}
    plan = {question: seconds / 1.25 * float(rng.uniform(0.8, 1.25)) for question, seconds in full.items()}
    result = speedup(full, plan, baseline_name="full depth, same engine")
    assert result.speedup == pytest.approx(sum(full.values()) / sum(plan.values()))
    assert result.baseline_seconds == pytest.approx(sum(full.values()) / 100)
    assert result.seconds == pytest.approx(sum(plan.values()) / 100)
    assert 1 < result.low < result.speedup < result.high < 1.5
    assert result.can_tell
    assert result == speedup(dict(reversed(full.items())), plan, baseline_name="full depth, same engine")


def test_an_even_ratio_of_few_questions_is_not_sure_of_itself() -> None:
    """Two questions that agree by chance: times differ by 2 % from run to run, and Student's t knows two."""
    full = {"a": 1.0, "b": 3.0}
    halved = speedup(full, {question: seconds / 2 for question, seconds in full.items()}, baseline_name="full")
    assert (halved.low, halved.speedup, halved.high) == (
        pytest.approx(1.67, abs=0.01),
        2,
        pytest.approx(2.39, abs=0.01),
    )
    assert halved.can_tell
    many = {str(i): 1.0 + i % 7 for i in range(50)}
    same = speedup(many, {question: seconds / 2 for question, seconds in many.items()}, baseline_name="full")
    assert 1.98 < same.low < 2 < same.high < 2.02
    assert not speedup(full, full, baseline_name="full").can_tell


def test_few_questions_cover_the_truth_as_often_as_they_say() -> None:
    """Six questions with 10 % of noise, timed once: an interval that is too narrow misses the truth in one of seven."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        before = rng.uniform(0.5, 2, 6)
        noise = rng.normal(1, 0.1, (2, 6))
        full, plan = before * noise[0], before / 1.25 * noise[1]
        found = speedup(dict(enumerate(full)), dict(enumerate(plan)), baseline_name="full")
        hits += found.low <= 1.25 <= found.high
    assert 0.93 <= hits / 400 <= 0.98


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 100)), min_size=2, max_size=5))
def test_no_interval_reaches_below_zero(times: list[tuple[float, float]]) -> None:
    """Three questions of a system ten times as slow, which a symmetric interval gives a negative speed."""
    found = speedup(dict(enumerate(a for a, _ in times)), dict(enumerate(b for _, b in times)), baseline_name="full")
    assert 0 < found.low <= found.speedup <= found.high
    assert found.speedup**2 == pytest.approx(found.low * found.high)
    assert found.can_tell == (found.low > 1 or found.high < 1)


def test_one_question_tells_nothing() -> None:
    one = speedup({"a": 2.0}, {"a": 1.0}, baseline_name="full")
    assert (one.low, one.speedup, one.high, one.can_tell) == (2, 2, 2, False)


def test_a_priced_ratio_is_as_wide_as_its_questions_are_uneven() -> None:
    """Prices do not jitter, so that equal ratios are certain; one rambling text of six is not."""
    even = {str(i): 1.0 + i for i in range(6)}
    halved = priced_speedup(even, {question: seconds / 2 for question, seconds in even.items()}, baseline_name="full")
    assert (halved.low, halved.high) == (pytest.approx(2), pytest.approx(2))
    rambling = even | {"0": 40.0}
    found = priced_speedup(even, rambling, baseline_name="full")
    assert found.speedup == pytest.approx(21 / 60)
    assert found.low < 21 / 60 / 2
    assert found.high > 1, "five of six questions take as long as before"
    assert not found.can_tell


def test_each_turn_of_the_clock_speaks_for_itself() -> None:
    seconds = {"full": [(1.0, 1.2), (2.0, 2.0)], "plan": [(0.5, 0.6), (1.0, 4.0)]}
    samples = [
        Sample(system=system, question_id=str(place), seconds=both[turn], turn=turn)
        for turn in range(2)
        for place in range(2)
        for system, times in seconds.items()
        for both in [times[place]]
    ]
    found = timed_speedup(samples, "full", "plan", baseline_name="full")
    assert found.turns == (pytest.approx(3 / 1.5), pytest.approx(3.2 / 4.6))
    assert found.speedup == pytest.approx((1.1 + 2.0) / (0.55 + 2.5))
    once = timed_speedup([s for s in samples if not s.turn], "full", "plan", baseline_name="full")
    assert (once.speedup, once.turns) == (pytest.approx(2), ())


def test_speedup_needs_the_same_questions() -> None:
    with pytest.raises(DataError, match="did not answer the same questions"):
        speedup({"a": 1.0}, {"b": 1.0}, baseline_name="full")


def test_price_against_the_clock() -> None:
    error = price_error([1.1, 2.0, 2.7], [1.0, 2.0, 3.0])
    assert error.total == pytest.approx(5.8 / 6 - 1)
    assert error.median == pytest.approx(0.1)
    assert error.max == pytest.approx(0.1)


@given(st.floats(1e-4, 10), st.floats(0.01, 1))
def test_skip_efficiency_is_one_when_all_skipped_bytes_save_their_time(full: float, share: float) -> None:
    assert skip_efficiency(full, full * (1 - share), share) == pytest.approx(1)
    assert skip_efficiency(full, full, share) == 0
    assert skip_efficiency(full, full * (1 - share / 2), share) == pytest.approx(0.5)
    assert skip_efficiency(full, full * 1.1, share) < 0


def test_skip_efficiency_of_nothing_skipped() -> None:
    with pytest.raises(OptionError, match="undefined when 0% of the weight bytes"):
        skip_efficiency(1.0, 1.0, 0.0)
