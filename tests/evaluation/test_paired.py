from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from litestage.core.errors import DataError
from litestage.evaluation import compare, holm


def pair(both: int, lost: int, gained: int, neither: int = 0) -> tuple[dict[str, float], dict[str, float]]:
    """Right or wrong of two systems with so many questions of each kind."""
    kinds = [(1, 1)] * both + [(1, 0)] * lost + [(0, 1)] * gained + [(0, 0)] * neither
    return {f"q{i}": a for i, (a, _) in enumerate(kinds)}, {f"q{i}": b for i, (_, b) in enumerate(kinds)}


def test_difference_in_points_and_exact_mcnemar() -> None:
    result = compare(*pair(both=80, lost=9, gained=1, neither=10))
    assert (result.n, result.gained, result.lost) == (100, 1, 9)
    assert result.baseline_percent == 89
    assert result.percent == 81
    assert result.difference == pytest.approx(-8)
    assert result.p_value == pytest.approx(2 * (1 + 10) / 2**10)
    assert result.low < -8 < result.high < 0
    assert result.can_tell


def test_no_question_changed() -> None:
    result = compare(*pair(both=50, lost=0, gained=0))
    assert (result.difference, result.low, result.high, result.p_value, result.can_tell) == (0, 0, 0, 1, False)


def test_few_changes_do_not_settle_it_even_where_the_bootstrap_is_sure() -> None:
    """All four changes in one direction: the bootstrap interval excludes 0, but chance does that one time in eight."""
    result = compare(*pair(both=96, lost=4, gained=0))
    assert result.high < 0
    assert result.p_value == pytest.approx(0.125)
    assert not result.can_tell


def test_interval_is_the_percentile_bootstrap_over_questions() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.integers(0, 4, size=(2, 200)) / 3
    result = compare(dict(enumerate(first)), dict(enumerate(second)), resamples=20_000)  # type: ignore[arg-type]
    slow = bootstrap((second - first,), np.mean, n_resamples=20_000, method="percentile", rng=1)
    assert result.low == pytest.approx(100 * slow.confidence_interval.low, abs=0.4)
    assert result.high == pytest.approx(100 * slow.confidence_interval.high, abs=0.4)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_same_seed_same_result_in_any_order_and_mirrored(both: int, lost: int, gained: int, seed: int) -> None:
    first, second = pair(both, lost, gained, neither=1)
    result = compare(first, second, seed, resamples=500)
    assert compare(dict(reversed(first.items())), second, seed, resamples=500) == result
    mirrored = compare(second, first, seed, resamples=500)
    assert mirrored.difference == pytest.approx(-result.difference)
    assert (mirrored.gained, mirrored.p_value) == (result.lost, pytest.approx(result.p_value))
    assert result.low - 1e-9 <= result.difference <= result.high + 1e-9 or lost + gained < 3


def test_unpaired_questions_are_refused() -> None:
    with pytest.raises(DataError, match=r"1 only in the baseline \(such as a\) and 2 only in the other \(such as c\)"):
        compare({"a": 1, "b": 0}, {"b": 0, "c": 1, "d": 0})
    with pytest.raises(DataError, match="1 only in the other"):
        compare({"a": 1}, {"a": 1, "b": 0})
    with pytest.raises(DataError, match="no question to compare on"):
        compare({}, {})


def test_holm_adjusts_the_smallest_for_all_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([]) == []
