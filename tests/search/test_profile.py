"""Budgets, targets and the choice in one profile."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestage.search import ProfilePoint, budgets, choose, estimate_effort, hopeless, needed_correct


def point(budget: int, accuracy: float, seconds: float | None) -> ProfilePoint:
    correct = round(accuracy * 10)
    return ProfilePoint(
        budget=budget,
        questions=1000,
        measured=1000 if seconds is not None else 900,
        correct=correct,
        accuracy=accuracy,
        seconds=seconds,
        feasible=accuracy >= 50.7,
    )


def test_the_papers_worked_example() -> None:
    """CSQA, Stage 2, epsilon 1.0 (REFERENCE, section 3): only the row of budget 4 is the paper's."""
    profile = [
        point(0, 51.7, 0.3250),
        point(2, 51.4, 0.3090),
        point(3, 52.0, 0.3010),
        point(4, 50.7, 0.2986),  # exactly on the target
        point(5, 50.9, 0.3040),  # latency rises again: it writes more
        point(6, 51.0, 0.3300),  # and is slower than full depth
        point(7, 50.6, 0.2700),  # faster, but it misses the target
        point(8, 50.69, None),  # ended early
        point(9, 52.0, None),  # ended early as well, because it was slower than the best
    ]
    best = choose(profile, target=51.7 - 1.0)
    assert best is not None
    assert (best.budget, best.seconds) == (4, 0.2986)
    stricter = choose(profile, target=51.7)
    assert stricter is not None
    assert stricter.budget == 3


def test_ties_go_to_the_smaller_budget_in_any_order() -> None:
    tied = [point(6, 52, 0.2), point(2, 51, 0.2), point(4, 53, 0.2), point(0, 51, 0.3)]
    for points in (tied, tied[::-1]):
        best = choose(points, 50.7)
        assert best is not None
        assert best.budget == 2


def test_no_point_keeps_the_target() -> None:
    assert choose([point(0, 50, 0.3), point(2, 49, 0.2)], 50.7) is None
    assert choose([], 0) is None


@pytest.mark.parametrize(
    ("blocks", "step", "count", "last"),
    [(22, 2, 21, 40), (22, 1, 41, 40), (12, 2, 11, 20), (12, 3, 7, 18), (2, 2, 1, 0), (1, 2, 1, 0)],
)
def test_budgets_end_at_two_l_minus_four(blocks: int, step: int, count: int, last: int) -> None:
    found = budgets(blocks, step)
    assert (len(found), found[0], found[-1]) == (count, 0, last)
    assert all(b - a == step for a, b in itertools.pairwise(found))


@pytest.mark.parametrize(("minutes_a_pass", "hours"), [(2.6, 2.7), (7.2, 7.6), (1.0, 1.05)])
def test_estimate_is_the_papers_cost(minutes_a_pass: float, hours: float) -> None:
    """Appendix A.2: 21 passes for each of 3 stages of a model of 22 blocks."""
    cost = estimate_effort(3, num_blocks=22, step=2, num_questions=500, seconds_per_question=minutes_a_pass * 60 / 500)
    assert (cost.points, cost.questions) == (63, 63 * 500)
    assert cost.seconds / 3600 == pytest.approx(hours, abs=0.06)


@given(st.integers(1, 400), st.data())
def test_needed_is_the_fewest_right_answers_that_make_the_target(questions: int, data: st.DataObject) -> None:
    full = data.draw(st.integers(0, questions))
    drop = data.draw(st.sampled_from([0.0, 0.5, 1.0, 3.0, 100.0]))
    target = max(0.0, 100 * full / questions - drop)
    needed = needed_correct(questions, target)
    slow = next(k for k in range(questions + 1) if 100 * k / questions >= target - 1e-9)
    assert needed == slow <= full
    assert drop > 0 or needed == full


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 30))
def test_hopeless_exactly_when_no_ending_can_save_it(outcomes: list[bool], needed: int) -> None:
    for measured in range(len(outcomes) + 1):
        correct = sum(outcomes[:measured])
        saved_by_the_rest = correct + len(outcomes[measured:]) >= needed
        assert hopeless(correct, measured, len(outcomes), needed) == (not saved_by_the_rest)
