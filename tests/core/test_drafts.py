"""Guesses from what was written before: what follows the longest match, as far as it pays, and nothing but that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestage.core.drafts import (
    LONGEST,
    NOTHING,
    SOURCES,
    Drafter,
    Drafts,
    DraftSource,
    Limits,
    Prices,
    StageMemory,
    allowed_by,
    as_text,
    as_tokens,
    guess,
    lengths_that_pay,
)

CHEAP = Prices(tokens=(1, 2), seconds=(1.0, 1.01))
"""A token more costs next to nothing."""
DEAR = Prices(tokens=(1, 2), seconds=(1.0, 2.0))
"""A token more costs a forward: nothing pays but what is sure, and nothing is."""
token_ids = st.integers(0, 300_000)
texts = st.lists(st.integers(0, 5), min_size=1, max_size=30)


def remembering(*written: str, prompt: str = "") -> StageMemory:
    memory = StageMemory()
    for text in written:
        memory.add(prompt, text)
    return memory


def test_any_token_is_a_character_and_back() -> None:
    ids = (0, 1, 9, 0xD800, 0xDFFF, 0xFFFF, 299_999)
    assert as_tokens(as_text(ids)) == ids


def test_a_text_goes_on_as_it_did_before() -> None:
    """The longest match counts, the last place of those, and the draft ends with it."""
    assert guess("abcdXabceYabcd", (), NOTHING, 4).tokens == "Xabc"
    assert guess("the cat. a dog. the c", (), NOTHING, 6).tokens == "at. a "
    assert guess("abc", (), NOTHING, 4).tokens == ""


def test_siblings_and_the_stage_are_looked_at_too() -> None:
    assert guess("Q: it is ", ["it is hot."], NOTHING, 3).tokens == "hot"
    assert guess("Q: it is ", [], remembering("it is red.", "it is red."), 4).tokens == "red."
    both = guess("A: it is ", ["is blue"], remembering(*["it is red."] * 5), 3)
    assert both.tokens == "red", "a longer match of what was written five times"


def test_a_text_is_guessed_from_its_beginning_on() -> None:
    """A memory holds the end of the prompt too: what stages write first is what they wrote first before."""
    assert guess("say:", (), remembering("yes", "yes", prompt="say:"), 3).tokens == "yes"


def test_what_is_likelier_comes_and_what_is_unlikely_does_not() -> None:
    memory = remembering("ab", "ab", "ac")
    one = guess("a", (), memory, 1)
    assert one.tokens == "b"
    assert 0 < one.chances[0] < 1
    assert guess("a", (), memory, 1, Limits(least=one.chances[0] + 0.01)).tokens == ""
    assert guess("xyzxyz", (), NOTHING, 3, Limits(ends="y")).tokens == "x", "nothing follows an end"


def test_what_was_right_is_trusted_more_and_what_was_wrong_less() -> None:
    memory = remembering("ab")
    before = memory.chance(1, 1)
    for _ in range(20):
        memory.take((1, 1), True)
    assert memory.chance(1, 1) > before
    for _ in range(400):
        memory.take((1, 1), False)
    assert memory.chance(1, 1) < before


@given(written=st.lists(texts, max_size=12))
def test_a_memory_is_bounded_and_forgets_the_oldest(written: list[list[int]]) -> None:
    memory = StageMemory(most_tokens=40)
    for text in written:
        memory.add("", as_text(text))
        assert len(memory) <= 40
        assert len(memory) == sum(map(len, memory.texts))
        assert memory.texts[-1] == as_text(text), "what came last is there"
    kept = StageMemory(most_tokens=40)
    for one in memory.texts:
        kept.add("", one)
    for text in written:
        tail = as_text(text)
        assert memory.follow(tail)[1:] == kept.follow(tail)[1:], "and counts nothing that it forgot"


def test_a_frozen_memory_stays_as_it_is() -> None:
    memory = remembering("abc")
    memory.frozen = True
    before = memory.hash
    memory.add("", "xyz")
    memory.take((1, 1), True)
    assert memory.hash == before
    assert len(memory) == 3


def test_a_hash_names_all_that_guesses_depend_on() -> None:
    one, same, other, tried = remembering("ab"), remembering("ab"), remembering("ac"), remembering("ab")
    tried.take((0, 2), False)
    assert one.hash == same.hash
    assert len({one.hash, other.hash, tried.hash}) == 3


@given(
    chances=st.lists(st.lists(st.floats(0.01, 1.0), max_size=6), min_size=1, max_size=5),
    base=st.floats(0.0, 20.0),
)
def test_no_token_is_run_that_does_not_pay(chances: list[list[float]], base: float) -> None:
    """Of all ways to take beginnings of the guesses none brings more tokens a second, but for the margin."""
    cumulative = [[min(some[: i + 1]) for i in range(len(some))] for some in chances]
    prices = Prices(tokens=(1, 2), seconds=(base + 1.0, base + 2.0))
    rows = len(cumulative)
    lengths = lengths_that_pay(cumulative, rows, rows, prices)

    def rate(taken: Sequence[int]) -> float:
        expected = rows + sum(sum(own[:length]) for own, length in zip(cumulative, taken, strict=True))
        return expected / prices.of(rows + sum(taken))

    assert all(0 <= length <= len(own) for length, own in zip(lengths, cumulative, strict=True))
    assert rate(lengths) >= rate([0] * rows)
    for row, own in enumerate(cumulative):
        if lengths[row] < len(own):
            more = [length + (place == row) for place, length in enumerate(lengths)]
            assert rate(more) <= rate(lengths) * 1.05


def test_prices_are_straight_between_what_was_timed_and_beyond() -> None:
    prices = Prices(tokens=(1, 4, 8), seconds=(1.0, 4.0, 6.0))
    assert [prices.of(tokens) for tokens in (1, 2, 4, 6, 8, 10)] == [1.0, 2.0, 4.0, 5.0, 6.0, 7.0]


def test_a_source_allows_what_is_narrower() -> None:
    assert allowed_by("stage", "prompt") == allowed_by("prompt", "stage") == "prompt"
    assert allowed_by("none", "stage") == "none"
    assert allowed_by("request") == "request"


@pytest.mark.parametrize("allowed", SOURCES)
def test_nothing_is_taken_from_where_it_may_not_be(allowed: DraftSource) -> None:
    """Each source is the only one that knows how the text goes on."""
    drafter = Drafter(allowed, CHEAP)

    def writing(prompt: str, family: str, written: str = "") -> Any:
        one = drafter.begin(as_tokens(prompt), Drafts(family=family, stage="s"))
        if one is not None:
            drafter.take(one, as_tokens(written))
        return one

    first = writing("1", "first", "Zef")
    if first is None:
        assert allowed == "none"
        return
    drafter.end(first, whole=True)
    sibling, found = writing("2", "second", "Ycd"), []
    for prompt in ("XabX", "?Y", "!Z"):
        one = writing(prompt, "second")
        found += drafter.guess([(one, 2)], 1, 1)
        drafter.end(one, whole=False)
    drafter.end(sibling, whole=False)
    knows = SOURCES.index(allowed)
    assert found == ["ab", "cd" * (knows >= 2), "ef" * (knows >= 3)]


def test_families_do_not_draft_from_each_other() -> None:
    drafter = Drafter("request", CHEAP)
    other = drafter.begin(as_tokens("1"), Drafts(family="a", stage="s"))
    own = drafter.begin(as_tokens("xyz"), Drafts(family="b", stage="s"))
    assert other is not None
    assert own is not None
    drafter.take(other, as_tokens("xyz secret"))
    assert drafter.guess([(own, 4)], 1, 1) == [""]
    assert not drafter.memories


def test_drafts_are_short_where_they_are_dear_and_no_longer_than_asked() -> None:
    def drafted(prices: Prices, most: int) -> str:
        drafter = Drafter("prompt", prices)
        one = drafter.begin(as_tokens("abcdefghijklmnop" * 2 + "abcdef"), Drafts())
        assert one is not None
        return drafter.guess([(one, most)], 1, 1)[0]

    assert drafted(DEAR, 99) == ""
    long = drafted(CHEAP, 99)
    assert ("ghijklmnop" + "abcdefghijklmnop")[: len(long)] == long
    assert 3 < len(long) <= LONGEST
    assert drafted(CHEAP, 3) == "ghi"
