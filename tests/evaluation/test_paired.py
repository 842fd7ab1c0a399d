from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multinomial, ttest_rel

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
    assert (result.difference, result.p_value, result.can_tell) == (0, 1, False)


def test_nothing_changed_leaves_room_for_what_so_few_cannot_show() -> None:
    """0 lost and 0 gained of 100: z^2 / (n + z^2), to both sides."""
    result = compare(*pair(both=60, lost=0, gained=0, neither=40))
    assert (result.low, result.high) == (pytest.approx(-3.70, abs=0.01), pytest.approx(3.70, abs=0.01))


def test_few_changes_do_not_settle_it_even_where_the_interval_is_sure() -> None:
    """All four changes in one direction: the interval excludes 0, but chance does that one time in eight."""
    result = compare(*pair(both=96, lost=4, gained=0))
    assert result.high < 0
    assert result.p_value == pytest.approx(0.125)
    assert not result.can_tell


@pytest.mark.parametrize(("lost", "gained", "n"), [(0, 3, 60), (2, 2, 80), (7, 1, 60), (0, 0, 40)])
def test_the_interval_covers_the_truth_as_often_as_it_says(lost: int, gained: int, n: int) -> None:
    """Over all outcomes at the rates seen, or at 2 % where none were: by enumeration, for few discordant pairs."""
    lose, gain = (max(rate / n, 0.02) for rate in (lost, gained))
    covered = 0.0
    for b in range(n + 1):
        for c in range(min(n - b, 40) + 1):
            chance = multinomial.pmf([b, c, n - b - c], n, [lose, gain, 1 - lose - gain])
            if chance > 1e-6:
                found = compare(*pair(both=n - b - c, lost=b, gained=c))
                covered += chance * (found.low / 100 <= gain - lose <= found.high / 100)
    assert covered > 0.935


def test_votes_have_the_interval_of_a_mean_by_students_t() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.integers(0, 4, size=(2, 40)) / 3
    result = compare(dict(enumerate(first)), dict(enumerate(second)))  # type: ignore[arg-type]
    slow = ttest_rel(second, first).confidence_interval(0.95)
    assert (result.low, result.high) == (pytest.approx(100 * slow.low), pytest.approx(100 * slow.high))


def test_votes_that_hardly_change_are_no_surer_than_answers_that_do_not() -> None:
    first = {f"q{i}": 0.5 for i in range(100)}
    result = compare(first, first | {"q1": 0.5001})
    assert result.low < -3.6
    assert result.high > 3.6
    one = compare({"a": 0.5}, {"a": 0.25})
    assert (one.low, one.high) == (-100, 100)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
@settings(max_examples=40, deadline=None)
def test_same_result_in_any_order_and_mirrored(both: int, lost: int, gained: int) -> None:
    first, second = pair(both, lost, gained, neither=1)
    result = compare(first, second)
    assert compare(dict(reversed(first.items())), second) == result
    mirrored = compare(second, first)
    assert mirrored.difference == pytest.approx(-result.difference)
    assert (mirrored.low, mirrored.high) == (pytest.approx(-result.high), pytest.approx(-result.low))
    assert (mirrored.gained, mirrored.p_value) == (result.lost, pytest.approx(result.p_value))
    assert result.low < result.difference < result.high


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
