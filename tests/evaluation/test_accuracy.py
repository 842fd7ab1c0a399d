from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestage.core import Trace
from litestage.core.errors import DataError, OptionError
from litestage.evaluation import accuracy_of, majority, question_scores, score, vote_accuracy
from litestage.evaluation.accuracy import clustered_standard_error


def traces(answers: dict[str, Sequence[int | None]], gold: int = 0) -> list[Trace]:
    """The votes of each question, without stages."""
    return [
        Trace(question_id=question, vote=vote, stages=(), answer=answer, gold=gold)
        for question, votes in answers.items()
        for vote, answer in enumerate(votes)
    ]


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # Newcombe (1998), table I: the score method without continuity correction.
    [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0, 16.11), (1, 29, 0.61, 17.18)],
)
def test_wilson_interval_of_the_literature(correct: int, n: int, low: float, high: float) -> None:
    result = accuracy_of([True] * correct + [False] * (n - correct))
    assert (result.low, result.high) == (pytest.approx(low, abs=0.005), pytest.approx(high, abs=0.005))
    assert result.percent == pytest.approx(100 * correct / n)


def test_answers_that_did_not_parse_are_wrong_and_counted() -> None:
    result = score(traces({"a": [0], "b": [None], "c": [1], "d": [0]}))
    assert (result.n, result.correct, result.percent, result.none_percent) == (4, 2, 50, 25)


def test_nothing_answered_has_no_accuracy() -> None:
    with pytest.raises(DataError, match="No question was answered"):
        accuracy_of([])
    with pytest.raises(DataError, match="No question was answered"):
        score([])


def test_a_question_without_an_answer_cannot_be_scored() -> None:
    unlabelled = Trace(question_id="q7", stages=(), answer=1, gold=None)
    with pytest.raises(DataError, match="Question q7 has no right answer"):
        score([*traces({"a": [0]}), unlabelled])


def test_a_question_that_is_there_twice_is_refused() -> None:
    with pytest.raises(DataError, match="Question a is there twice"):
        score(traces({"a": [0]}) + traces({"a": [1]}))


def test_votes_are_not_independent_outcomes() -> None:
    with pytest.raises(ValueError, match="use vote_accuracy"):
        score(traces({"a": [0, 0]}))


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        ([1], 1),
        ([None, None, 2], None),  # None votes count
        ([2, 1, 1, 2], 2),  # ties go to the first seen
        ([1, 2, 2, 1], 1),
        ([None, 3, 3, None], None),
        ([0, 1, 2, 1], 1),
    ],
)
def test_majority(answers: list[int | None], winner: int | None) -> None:
    assert majority(answers) == winner


@given(st.lists(st.none() | st.integers(0, 3), min_size=1, max_size=12))
def test_majority_is_the_first_seen_of_the_most_frequent(answers: list[int | None]) -> None:
    most = max(answers.count(answer) for answer in answers)
    assert majority(answers) == next(answer for answer in answers if answers.count(answer) == most)


def test_votes_mean_and_majorities() -> None:
    votes = traces({"a": [0, 1, 1], "b": [0, 0, None], "c": [None, 2, None], "d": [1, 0, 0]})
    result = vote_accuracy(votes[::-1], ks=(1, 3))  # vote numbers count, not the order of the list
    assert (result.questions, result.votes) == (4, 3)
    assert result.percent == pytest.approx(100 * 5 / 12)
    assert result.none_percent == pytest.approx(100 * 3 / 12)
    assert result.majority[1].percent == 50
    assert result.majority[1].none_percent == 25
    assert result.majority[3].percent == 50
    assert question_scores(votes) == pytest.approx({"a": 1 / 3, "b": 2 / 3, "c": 0, "d": 2 / 3})


def test_more_votes_asked_for_than_drawn() -> None:
    with pytest.raises(OptionError, match="maj@10 needs 10 votes, but question a has 2"):
        vote_accuracy(traces({"a": [0, 0]}), ks=(10,))


def test_one_question_has_no_standard_error() -> None:
    result = vote_accuracy(traces({"a": [0, 1]}), ks=(1,))
    assert (result.standard_error, result.low, result.high) == (None, 0, 100)


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=2, max_size=10))
def test_clustered_error_with_equal_votes_is_that_of_the_question_means(rights: list[list[bool]]) -> None:
    means = [sum(votes) / 3 for votes in rights]
    mean = sum(means) / len(means)
    variance = sum((m - mean) ** 2 for m in means) / (len(means) - 1)
    assert clustered_standard_error(rights) == pytest.approx(math.sqrt(variance / len(means)))


def test_votes_that_agree_are_worth_no_more_than_one() -> None:
    rights = [[True], [False], [True], [True]]
    assert clustered_standard_error([votes * 10 for votes in rights]) == pytest.approx(clustered_standard_error(rights))
