"""Stopping votes early: the same majority for fewer votes, or most likely the same."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestage.evaluation import VoteStop, majority
from litestage.evaluation.votes import decided, leads_with_probability

answers = st.sampled_from([0, 1, 2, None])


def drawn_until_settled(stop: VoteStop, votes: Sequence[int | None]) -> list[int | None]:
    """What a run draws of the votes that lie ready."""
    drawn: list[int | None] = []
    while more := stop.fewest(drawn):
        drawn += votes[len(drawn) : len(drawn) + more]
    return drawn


@given(st.lists(answers, min_size=1, max_size=12))
def test_decided_gives_the_same_answer_for_no_more_votes(votes: list[int | None]) -> None:
    drawn = drawn_until_settled(VoteStop(kind="decided", votes=len(votes)), votes)
    assert drawn == votes[: len(drawn)]
    assert majority(drawn) == majority(votes)


@given(st.lists(answers, min_size=1, max_size=5), st.integers(0, 4))
def test_decided_is_what_trying_every_continuation_says(votes: list[int | None], remaining: int) -> None:
    """Answer 3 was not seen yet: it stands for all such."""
    continuations = itertools.product([0, 1, 2, 3, None], repeat=remaining)
    unchanged = all(majority([*votes, *more]) == majority(votes) for more in continuations)
    assert decided(votes, remaining) == unchanged


@pytest.mark.parametrize(
    ("votes", "fewest"),
    [
        ([], 5),  # five of ten that agree cannot be overtaken: the first seen wins a tie
        ([0] * 5, 0),
        ([0, 0, 0, 0, 1], 1),  # 5 to 1 with 4 to go: a tie is won by 0
        ([1, 0, 0, 0, 0], 2),  # 5 to 1 with 4 to go: a tie would be lost
        ([0, 1] * 4, 1),  # 5 to 4 with 1 to go
    ],
)
def test_the_fewest_votes_that_could_decide(votes: list[int], fewest: int) -> None:
    assert VoteStop(kind="decided", votes=10).fewest(votes) == fewest


def test_likely_against_a_direct_computation() -> None:
    def direct(first: int, second: int) -> float:
        """P(share > 1/2) of Beta(first + 1, second + 1), for whole numbers a binomial tail."""
        n = first + second + 1
        return sum(math.comb(n, k) for k in range(first + 1)) / 2**n

    for first, second in itertools.product(range(1, 8), range(8)):
        if first >= second:
            votes = [0] * first + [1] * second
            assert leads_with_probability(votes) == pytest.approx(direct(first, second))


def test_likely_stops_earlier_at_a_lower_confidence() -> None:
    def first_stop(confidence: float) -> int:
        return VoteStop(kind="likely", votes=40, confidence=confidence).fewest([])

    assert [first_stop(p) for p in (0.7, 0.9, 0.95, 0.99)] == [1, 3, 4, 6]  # 1 - 1/2^(n + 1)
    assert VoteStop(kind="decided", votes=40).fewest([]) == 20


@given(st.lists(answers, min_size=1, max_size=12), st.floats(0.51, 0.99))
def test_likely_never_draws_more_than_decided(votes: list[int | None], confidence: float) -> None:
    likely = drawn_until_settled(VoteStop(kind="likely", votes=len(votes), confidence=confidence), votes)
    certain = drawn_until_settled(VoteStop(kind="decided", votes=len(votes)), votes)
    assert 1 <= len(likely) <= len(certain)
