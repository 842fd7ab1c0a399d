"""Drafts change no text: whatever is guessed, a request gets what it gets without, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import tiny
from mixed import GUESSES, PLANS, REQUESTS, Guess, alone, drafting, engine, right, wrong

from litestage.core import Completion, Decode, Finished, Prefill, Request, Sampling
from litestage.core.drafts import SOURCES, Drafter, Drafts, DraftSource, Prices
from litestage.engine.draft_prices import at_their_lowest, time_forwards
from litestage.evaluation.forwards import Recorded, forwards
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


def seeds(round_: int) -> list[Request]:
    """What two users ask: each the same of a stage in several ways."""
    return [
        Request(
            prompt_ids=(*tiny.prompt(9, seed=7 * round_ + user), 40 + branch),
            max_new_tokens=14,
            stage_plan=PLANS[user * 2],
            sampling=Sampling(temperature=0.2 * user),
            seed=branch,
            drafts=Drafts(family=f"{round_}{user}", stage="ab"[user % 2]),
        )
        for user in range(2)
        for branch in range(3)
    ]


def recorded(requests: Sequence[Request], done: Sequence[Completion]) -> list[Recorded]:
    return [
        Recorded(one.prompt_ids, text.token_ids, one.max_new_tokens, one.drafts, one.stage_plan)
        for one, text in zip(requests, done, strict=True)
    ]


PRICES = Prices(tokens=(1, 2), seconds=(10.0, 11.0))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("frozen", [False, True])
def test_the_forwards_of_recorded_texts_are_worked_out_without_decoding(source: DraftSource, frozen: bool) -> None:
    """As the engine ran them, forward for forward: tokens, contexts, steps; what both remember is the same, too."""
    used = engine(batch_size=8)
    own, other = (Drafter(source, PRICES, tiny.packed().eos_ids, frozen=frozen) for _ in range(2))
    used.drafter = own
    seen: list[Decode | Prefill] = []
    used.on_pass = seen.append
    more = 0
    for round_ in range(3):
        requests, seen[:] = seeds(round_ % 2), []
        used.forget()
        done = used.generate(requests)
        ran = [one for one in seen if isinstance(one, Decode)]
        assert list(forwards(recorded(requests, done), other)) == ran
        assert own.hash == other.hash
        more += sum(one.more for one in ran)
        assert done == [engine().generate([one])[0] for one in requests]
    assert (more > 0) == (source != "none")
    assert bool(sum(map(len, own.memories.values()))) == (source == "stage" and not frozen)


def test_what_was_written_before_spares_forwards_when_it_is_asked_again() -> None:
    used = engine(batch_size=8)
    used.drafter = Drafter("stage", PRICES, tiny.packed().eos_ids)
    counts = []
    for _ in range(4):
        seen: list[Decode | Prefill] = []
        used.on_pass = seen.append
        used.forget()
        used.generate(seeds(0))
        counts.append(len([one for one in seen if isinstance(one, Decode)]))
    assert counts[-1] < counts[0] / 2


def test_a_cancelled_text_is_not_remembered_and_its_siblings_go_on() -> None:
    used = engine(batch_size=8)
    used.drafter = Drafter("stage", PRICES, tiny.packed().eos_ids)
    requests = seeds(0)
    ids = [used.add(request) for request in requests]
    used.step()
    for id in ids[::3]:
        used.cancel(id)
    done = {}
    while len(done) < 4:
        done |= {event.id: event.completion for event in used.step() if isinstance(event, Finished)}
    assert [done[id] for id in ids if id in done] == [
        engine().generate([request])[0] for place, request in enumerate(requests) if place % 3
    ]
    assert sum(len(memory.texts) for memory in used.drafter.memories.values()) == 4


def test_whoever_hears_logits_hears_them_one_by_one() -> None:
    used, heard = engine(batch_size=8), []
    used.drafter = Drafter("stage", PRICES, tiny.packed().eos_ids)
    used.on_logits = lambda ids, logits: heard.extend(ids)
    done = used.generate(seeds(0))
    assert len(heard) == sum(len(one.token_ids) for one in done)


def test_forwards_are_timed_and_more_tokens_take_longer() -> None:
    prices = time_forwards(engine())
    assert all(0 < one <= other for one, other in pairwise(prices.seconds))


def test_a_disturbed_time_makes_no_other_price_dearer() -> None:
    """What a machine does beside only adds to a time: more tokens in less time show it."""
    assert at_their_lowest([1.0, 9.0, 2.0, 4.0]) == (1.0, 2.0, 2.0, 4.0)
    assert at_their_lowest([5.0, 1.5, 2.0, 2.0]) == (1.5, 1.5, 2.0, 2.0)
