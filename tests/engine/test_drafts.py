"""Drafts change no text: whatever is guessed, a request gets what it gets without, bit for bit."""

from __future__ import annotations

import pytest
from mixed import GUESSES, REQUESTS, Guess, alone, drafting, right, wrong

from litestage.core import Decode, Prefill
from litestage.kernels import find_kernels

pytestmark = pytest.mark.skipif(find_kernels() is None, reason="needs a C compiler")


@pytest.mark.parametrize("guess", GUESSES)
@pytest.mark.parametrize("fixed_steps", [False, True])
def test_a_completion_is_what_it_is_without_drafts(guess: Guess, fixed_steps: bool) -> None:
    """Plans with segments, compensation and exit, greedy and sampled, with stop strings: confidences too."""
    used = drafting(guess, batch_size=6, fixed_steps=fixed_steps)
    assert used.generate(REQUESTS) == alone()
    assert used.generate(REQUESTS[::-1]) == alone()[::-1], "what the rows before left in the cache"


@pytest.mark.parametrize("fixed_steps", [False, True])
def test_right_drafts_spare_forwards_and_wrong_ones_cost_none(fixed_steps: bool) -> None:
    def forwards(guess: Guess | None) -> list[Decode]:
        used = drafting(guess, batch_size=len(REQUESTS), fixed_steps=fixed_steps)
        seen: list[Decode | Prefill] = []
        used.on_pass = seen.append
        used.generate(REQUESTS)
        return [one for one in seen if isinstance(one, Decode)]

    without, with_right, with_wrong = forwards(None), forwards(right), forwards(wrong)
    assert not any(one.more for one in without)
    if not fixed_steps:  # else those of a plan and a sampling have forwards of their own
        assert len(with_right) == 2, "one, and one behind the beginning of the longest schedule's second segment"
        assert len(with_wrong) == len(without)
    assert sum(one.tokens for one in with_right) == sum(one.counts.decoded for one in alone())
    assert sum(one.tokens for one in with_wrong) > sum(one.tokens for one in without)
