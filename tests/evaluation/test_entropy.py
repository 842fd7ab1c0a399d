"""Entropy of tokens and confidence by step, against direct computations."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as by_scipy

from litestage.core import NO_ROOM, Completion, DataError
from litestage.evaluation.entropy import confidence_by_place, entropy, token_entropy


def said(*tokens: int, sure: tuple[float, ...] = ()) -> Completion:
    return Completion(token_ids=tokens, text="", confidences=sure or (1.0,) * len(tokens), finish_reason="eos")


@pytest.mark.parametrize(
    ("counts", "bits"), [([7], 0), ([3, 3], 1), ([2, 2, 2, 2], 2), ([1, 3, 0], 0.811278), ([0, 5], 0)]
)
def test_entropy_of_known_distributions(counts: list[int], bits: float) -> None:
    assert entropy(counts) == pytest.approx(bits, abs=1e-6)


@given(st.lists(st.integers(0, 1000), min_size=1).filter(any))
def test_entropy_is_that_of_scipy_and_within_its_bounds(counts: list[int]) -> None:
    bits = entropy(counts)
    assert bits == pytest.approx(float(by_scipy(counts, base=2)), abs=1e-9)
    assert -1e-12 <= bits <= math.log2(sum(count > 0 for count in counts)) + 1e-9


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=1).filter(any))
def test_all_texts_of_a_stage_are_one_distribution(texts: list[list[int]]) -> None:
    """Their mean entropy would be another number: each text repeats few of its own tokens."""
    together = Counter(token for text in texts for token in text)
    found = token_entropy([said(*text) for text in texts])
    assert (found.tokens, found.distinct) == (together.total(), len(together))
    assert found.bits == pytest.approx(float(by_scipy(list(together.values()), base=2)), abs=1e-9)


def test_eos_is_one_of_the_tokens_and_a_text_that_was_not_run_has_none() -> None:
    assert token_entropy([said(5, 0), said(6, 0), NO_ROOM]).bits == pytest.approx(1.5)
    with pytest.raises(DataError, match="No token was generated"):
        token_entropy([NO_ROOM])


def test_the_shortfall_is_miller_and_madows() -> None:
    assert token_entropy([said(1, 2, 3, 4)]).shortfall == pytest.approx(3 / 8 / math.log(2))
    assert token_entropy([said(1, 1)]).shortfall == 0


def test_confidence_by_place_averages_over_the_texts_that_reach_it() -> None:
    texts = [
        said(1, 2, 0, sure=(0.9, 0.5, 0.25)),
        said(1, 0, sure=(0.7, 0.1)),
        said(0, sure=(0.8,)),
        NO_ROOM,
    ]
    steps = confidence_by_place(texts)
    assert [(step.token, step.rows) for step in steps] == [(1, 3), (2, 2), (3, 1)]
    assert [step.confidence for step in steps] == pytest.approx([0.8, 0.3, 0.25])
    assert confidence_by_place([NO_ROOM]) == ()


@given(st.lists(st.lists(st.floats(0, 1), max_size=8), max_size=8))
def test_rows_never_grow_and_every_confidence_counts_once(texts: list[list[float]]) -> None:
    steps = confidence_by_place([said(*range(len(sure)), sure=tuple(sure)) for sure in texts if sure])
    rows = [step.rows for step in steps]
    assert rows == sorted(rows, reverse=True)
    assert sum(rows) == sum(map(len, texts))
    assert sum(step.rows * step.confidence for step in steps) == pytest.approx(sum(map(sum, texts)))
