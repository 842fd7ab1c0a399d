"""The certificate against a slow statement of the same test: every outcome, every rate of flips."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from math import comb, sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.optimize import minimize_scalar
from scipy.special import xlogy
from scipy.stats import binom, binomtest, multinomial

from litestage.core import Certificate, DataError
from litestage.evaluation import (
    Outcomes,
    bound,
    certify,
    down_path,
    look_early,
    outcomes,
    p_value,
    questions_hash,
    questions_needed,
    would_do,
)
from litestage.evaluation.tango import interval, restricted_gain, score

VECTORS = {
    (33, 32, 350): 4.2,
    (34, 30, 350): 5.0,
    (5, 3, 500): 1.55,
    (38, 41, 500): 2.4,
    (24, 17, 149): 12,
    (1, 1, 350): 1.05,
    (5, 5, 350): 1.7,
    (0, 0, 350): 0.9,
}
NEEDED = {1: (3100, 6200, 12_000), 2: (840, 1600, 3100), 3: (390, 720, 1400), 5: (160, 265, 510)}
"""By points, for 5, 10 and 20 % of questions that flip."""
CORNERS = list(product((30, 60, 120, 250, 400), (1.1, 2.0, 5.0), (0.02, 0.05)))
"""Questions, how much more flip than the loss asks for, and the loss."""


@cache
def slow_score(lost: int, gained: int, n: int, loss: float) -> float:
    """By maximising the likelihood of (lost, gained, unchanged) over the gain rate."""

    def surprise(gain: float) -> float:
        rest = max(0.0, 1 - 2 * gain - loss)
        return -float(xlogy(lost, gain + loss) + xlogy(gained, gain) + xlogy(n - lost - gained, rest))

    best = minimize_scalar(surprise, bounds=(0, (1 - loss) / 2), method="bounded", options={"xatol": 1e-12}).x
    gain = min((0.0, (1 - loss) / 2, float(best)), key=surprise)
    return (lost - gained - n * loss) / sqrt(n * (2 * gain + loss * (1 - loss)))


def slow_p(seen: Outcomes, loss: float) -> float:
    """Add up every outcome ordered no later, at each of many rates of flips that the flips seen allow."""
    n, least = seen.n, slow_score(*seen, loss) + 1e-4
    region = [(b, c) for b in range(n + 1) for c in range(n + 1 - b) if slow_score(b, c, n, loss) <= least]
    allowed = binomtest(seen.flipped, n).proportion_ci(1 - 1e-4, method="exact")
    rates = np.linspace(max(allowed.low, loss), allowed.high, 400) if allowed.high >= loss else ()

    def chance(rate: float) -> float:
        lose, gain = (rate + loss) / 2, (rate - loss) / 2
        return sum(comb(n, b) * comb(n - b, c) * lose**b * gain**c * (1 - rate) ** (n - b - c) for b, c in region)

    return max(map(chance, rates), default=0.0) + 1e-4


def error_rate(n: int, flips: float, loss: float) -> float:
    """Chance of a grant at the null's edge, where the true loss is all that was asked for: over all outcomes."""

    def granted(lost: int, flipped: int) -> bool:
        return p_value(Outcomes(lost, flipped - lost, n), loss) <= 0.05

    total = 0.0
    for flipped in range(int(binom.ppf(1e-7, n, flips)), int(binom.isf(1e-7, n, flips)) + 1):
        low, high = -1, flipped + 1  # of so many flips, the more are lost the larger is p
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if granted(middle, flipped) else (low, middle)
        total += binom.pmf(flipped, n, flips) * binom.cdf(low, flipped, (1 + loss / flips) / 2) if low >= 0 else 0.0
    return float(total)


@pytest.mark.parametrize(("seen", "points"), VECTORS.items())
def test_bounds_of_known_counts(seen: tuple[int, int, int], points: float) -> None:
    assert bound(Outcomes(*seen)) == pytest.approx(points, abs=0.1)


@pytest.mark.parametrize("n", [1, 3, 7])
@pytest.mark.parametrize("loss", [0.01, 0.1, 0.37, 0.8])
def test_p_is_that_of_full_enumeration(n: int, loss: float) -> None:
    for lost in range(n + 1):
        for gained in range(n + 1 - lost):
            seen = Outcomes(lost, gained, n)
            assert p_value(seen, loss) == pytest.approx(slow_p(seen, loss), abs=2e-4), seen


@given(st.integers(1, 300), st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 0.9))
@settings(max_examples=60)
def test_score_is_that_of_the_restricted_likelihood(n: int, flips: float, share: float, loss: float) -> None:
    flipped = round(flips * n)
    lost = round(share * flipped)
    seen = Outcomes(lost, flipped - lost, n)
    assert float(score(*seen, loss)) == pytest.approx(slow_score(*seen, loss), rel=1e-3, abs=1e-3)
    assert 0 <= float(restricted_gain(*seen, loss)) <= (1 - loss) / 2 + 1e-9


def test_score_interval_of_few_changes() -> None:
    """Nothing changed in 100 questions: z^2 / (n + z^2), 3.7 points to both sides."""
    low, high = interval(0, 0, 100)
    assert (low, high) == (pytest.approx(-0.0370, abs=1e-4), pytest.approx(0.0370, abs=1e-4))
    assert interval(5, 0, 5)[1] == 1
    assert interval(0, 5, 5)[0] == -1


@given(st.integers(1, 400), st.integers(0, 400), st.integers(0, 400))
@settings(max_examples=60)
def test_score_interval_is_mirrored_and_holds_what_was_seen(n: int, lost: int, gained: int) -> None:
    assume(lost + gained <= n)
    low, high = interval(lost, gained, n)
    assert interval(gained, lost, n) == (pytest.approx(-high, abs=1e-9), pytest.approx(-low, abs=1e-9))
    assert -1 <= low <= (lost - gained) / n <= high <= 1
    assert low < high


@pytest.mark.parametrize("corner", [corner for corner in CORNERS if corner[0] <= 30])
def test_a_loss_as_large_as_asked_for_is_granted_one_time_in_twenty(corner: tuple[int, float, float]) -> None:
    n, more, loss = corner
    assert error_rate(n, more * loss, loss) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("corner", CORNERS)
def test_the_error_rate_holds_at_thirty_corners(corner: tuple[int, float, float]) -> None:
    n, more, loss = corner
    assert error_rate(n, more * loss, loss) <= 0.05


@given(st.integers(5, 300), st.integers(0, 30), st.integers(0, 30))
@settings(max_examples=15)
def test_a_bound_rises_with_losses_and_falls_with_gains_and_questions(n: int, lost: int, gained: int) -> None:
    assume(lost + gained + 1 <= n)
    here = bound(Outcomes(lost, gained, n))
    assert max(0.0, 100 * (lost - gained) / n) <= here <= 100
    assert bound(Outcomes(lost + 1, gained, n)) >= here
    assert bound(Outcomes(lost, gained, 2 * n)) <= here
    assert bound(Outcomes(lost, gained, n), 0.01) >= here
    if lost:
        assert bound(Outcomes(lost - 1, gained + 1, n)) <= here


@given(st.integers(5, 300), st.integers(0, 20), st.integers(0, 20))
@settings(max_examples=20)
def test_losses_above_the_bound_are_refuted_and_below_are_not(n: int, lost: int, gained: int) -> None:
    assume(lost + gained <= n)
    seen = Outcomes(lost, gained, n)
    limit = bound(seen) / 100
    assert limit == 1 or p_value(seen, limit) <= 0.05
    assert limit == 1 or p_value(seen, (limit + 1) / 2) <= 0.05
    assert limit <= 1e-4 or p_value(seen, limit - 1e-4) > 0.05


def test_thousands_of_questions() -> None:
    """As many as the normal limit says: there the score's own interval is near."""
    seen = Outcomes(500, 480, 10_000)
    assert bound(seen) == pytest.approx(100 * interval(*seen, level=0.9)[1], abs=0.03)


@pytest.mark.parametrize(("epsilon", "needed"), NEEDED.items())
def test_questions_needed(epsilon: float, needed: tuple[int, ...]) -> None:
    found = [questions_needed(epsilon, flips) for flips in (0.05, 0.1, 0.2)]
    assert found == pytest.approx(needed, rel=0.05)


@pytest.mark.parametrize(("epsilon", "flips", "loss"), [(5, 0.1, 0), (20, 0.3, 5)])
def test_so_many_questions_are_granted_four_times_in_five(epsilon: float, flips: float, loss: float) -> None:
    """By the exact test over all outcomes, which grants in steps."""
    n = questions_needed(epsilon, flips, loss=loss)
    assert n is not None
    power = 0.0
    for flipped in range(int(binom.ppf(1e-4, n, flips)), int(binom.isf(1e-4, n, flips)) + 1):
        for lost in range(flipped + 1):
            if p_value(Outcomes(lost, flipped - lost, n), epsilon / 100) > 0.05:
                break  # nor with more of them lost
            share = (flips + loss / 100) / 2 / flips
            power += float(binom.pmf(flipped, n, flips) * binom.pmf(lost, flipped, share))
    assert power == pytest.approx(0.8, abs=0.06)


def test_no_number_of_questions_grants_a_loss_that_is_there() -> None:
    assert questions_needed(2, 0.1, loss=2) is None
    assert would_do(certify(Outcomes(20, 10, 400), 2)) is None
    assert would_do(certify(Outcomes(20, 20, 400), 2)) == questions_needed(2, 0.1)
    seldom = questions_needed(1, 0)
    assert seldom is not None
    assert bound(Outcomes(0, 0, seldom)) <= 1.0 < bound(Outcomes(0, 0, seldom - 2))


def sequence(n: int, flips: float, loss: float, seed: int) -> np.ndarray:
    """Cumulated (lost, gained) after each of n questions."""
    shares = [(flips + loss) / 2, (flips - loss) / 2, 1 - flips]
    return np.asarray(multinomial.rvs(1, shares, size=n, random_state=seed)[:, :2].cumsum(axis=0))


def looked(draws: np.ndarray, epsilon: float) -> Certificate:
    return look_early(lambda k: Outcomes(*map(int, draws[k - 1]), k), len(draws), epsilon)


def test_looking_early_errs_no_more_and_ends_earlier() -> None:
    """200 simulated tests at the null's edge, and 100 of no loss, of 150 questions each."""
    edge = [looked(sequence(150, 0.1, 0.08, seed), 8) for seed in range(200)]
    assert sum(one.granted for one in edge) <= binom.isf(0.001, 200, 0.05)
    safe = [looked(sequence(150, 0.1, 0.0, 10_000 + seed), 8) for seed in range(100)]
    assert sum(one.granted for one in safe) > 0.7 * 100
    assert np.mean([one.n for one in safe]) < 125
    assert {one.n for one in safe} == {50, 100, 150}
    assert all(one.spent == {50: 0.01, 100: 0.015, 150: 0.025}[one.n] for one in safe)


def test_looking_early_ends_where_nothing_can_be_granted_any_more() -> None:
    asked: list[int] = []

    def first(k: int) -> Outcomes:
        asked.append(k)
        return Outcomes(k // 3, 0, k)

    verdict = look_early(first, 300, 2)
    assert (verdict.granted, verdict.n, asked) == (False, 100, [100])
    few = look_early(lambda k: Outcomes(0, 0, k), 30, 2)
    assert (few.n, few.spent) == (30, 0.05)


def answers(n: int, lost: int = 0, gained: int = 0) -> dict[str, bool]:
    """Of n questions, of which the baseline has the first half right."""
    right = [i < n // 2 for i in range(n)]
    return {f"q{i}": was != (i < lost or n // 2 <= i < n // 2 + gained) for i, was in enumerate(right)}


def test_a_path_is_tested_in_order_until_the_first_is_refused() -> None:
    asked: list[str] = []

    def tests(**lost: int) -> Iterator[tuple[str, Callable[[], Certificate]]]:
        for name, questions in lost.items():
            asked.append(name)
            yield name, partial(certify, Outcomes(questions, 0, 600), 3)

    tested = down_path(tests(safe=0, faster=4, fast=30, never=0))
    assert list(tested) == asked == ["safe", "faster", "fast"]
    assert [one.granted for one in tested.values()] == [True, True, False]
    assert list(down_path(tests(fast=30))) == ["fast"]
    assert list(down_path(tests(safe=0))) == ["safe"]
    assert down_path([]) == {}


def test_a_path_grants_a_plan_that_loses_too_much_one_time_in_twenty() -> None:
    """Eight plans of rising loss on the same 250 questions; from the fourth on they lose 6 points or more."""
    rng = np.random.default_rng(7)
    broken, runs = 0, 400
    for _ in range(runs):
        draws, gains = rng.random(250), rng.random(250) < 0.02
        baseline = {f"q{i}": not gains[i] for i in range(250)}
        plans = [{f"q{i}": bool(gains[i] or draws[i] > 0.02 * k + 0.02) for i in range(250)} for k in range(8)]
        seen = [outcomes(baseline, plan) for plan in plans]
        tested = down_path((k, partial(certify, one, 6)) for k, one in enumerate(seen))
        broken += any(k >= 3 and one.granted for k, one in tested.items())
    assert broken <= binom.isf(0.001, runs, 0.05)


def test_outcomes_are_paired_by_question() -> None:
    assert outcomes(answers(10), answers(10, lost=2, gained=1)) == Outcomes(2, 1, 10)
    with pytest.raises(DataError, match="only in the baseline"):
        outcomes(answers(10), answers(9))


def test_a_certificate_adds_up() -> None:
    granted = certify(Outcomes(5, 3, 500), 2, questions=questions_hash(["a", "b"]))
    assert (granted.granted, granted.bound, granted.change) == (True, bound(Outcomes(5, 3, 500)), -0.4)
    assert Certificate.model_validate_json(granted.model_dump_json()) == granted
    assert not certify(Outcomes(5, 3, 500), 1.5).granted
    with pytest.raises(ValidationError, match="more than 4 questions"):
        Certificate(epsilon=1, lost=3, gained=2, n=4, bound=100)
    with pytest.raises(ValidationError, match="spent"):
        Certificate(epsilon=1, lost=3, gained=1, n=4, bound=100, delta=0.01)


def test_the_table_of_the_guide_is_worked_out() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "certificate.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) points? \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", guide, re.MULTILINE)
    written = {int(row[0]): [int(count.replace(",", "")) for count in row[1:]] for row in rows}
    assert written == {points: [questions_needed(points, flips) for flips in (0.05, 0.1, 0.2)] for points in NEEDED}
    for points, count in re.findall(r"(\d+)(?: questions are enough)? to promise (\d+)", guide):
        assert questions_needed(float(count), 0) == int(points)
