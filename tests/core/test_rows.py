from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestage.core import Decode, Prefill, Row, passes
from litestage.core.rows import BEGINNING, PREFILL_TOKENS, common_length, rows_to_admit, shared_beginnings

rows_of = st.lists(
    st.builds(Row, prefill=st.integers(0, 60), reused=st.integers(1, 40), decode=st.integers(0, 12)), max_size=25
)


def test_rows_enter_together_and_leave_one_by_one() -> None:
    """Prompts of 5, 3 and 4 tokens, the last after a kept 10; 2, 0 and 1 decode steps."""
    rows = [Row(5, 0, 2), Row(3, 0, 0), Row(4, 10, 1)]
    assert list(passes(rows, 8)) == [Prefill(3, 12, 14), Decode(2, 15, 0), Decode(1, 7, 1)]


def test_a_free_slot_is_filled_between_steps() -> None:
    """Two slots: the second row ends after one step, and the third takes its slot beside the first."""
    rows = [Row(5, 0, 3), Row(5, 0, 1), Row(4, 0, 1)]
    assert list(passes(rows, 2)) == [
        Prefill(2, 10, 5),
        Decode(2, 6, 0),
        Prefill(1, 4, 4),
        Decode(2, 7, 0),
        Decode(1, 8, 2),
    ]


def test_refills_wait_for_a_quarter_of_the_slots_or_room_for_all() -> None:
    assert rows_to_admit(0, [1] * 50, 32) == 32
    assert rows_to_admit(25, [1] * 50, 32) == 0
    assert rows_to_admit(24, [1] * 50, 32) == 8
    assert rows_to_admit(31, [1], 32) == 1, "nothing more will come to share its prefill"
    assert rows_to_admit(30, [1] * 3, 32) == 0
    assert rows_to_admit(32, [1], 32) == 0
    assert rows_to_admit(1, [1], 1) == 0
    assert rows_to_admit(5, [], 32) == 0


def test_a_prefill_is_bounded_with_its_padding() -> None:
    assert rows_to_admit(0, [100] * 200, 400) == PREFILL_TOKENS // 100
    assert rows_to_admit(0, [1, 1, PREFILL_TOKENS], 8) == 2
    assert rows_to_admit(0, [PREFILL_TOKENS + 1, 1], 8) == 1, "a prompt larger than the bound still runs, alone"


def test_nothing_to_do() -> None:
    assert list(passes([], 4)) == []
    assert list(passes([Row(0, 7, 0)], 4)) == [], "a prompt that is there already needs no forward"
    assert list(passes([Row(0, 7, 1), Row(2, 7, 1)], 4)) == [Prefill(1, 2, 9), Decode(2, 10, 0)]


@given(rows=rows_of, capacity=st.integers(1, 12))
def test_all_work_is_done_once_within_the_slots(rows: list[Row], capacity: int) -> None:
    log = list(passes(rows, capacity))
    prefills = [step for step in log if isinstance(step, Prefill)]
    decodes = [step for step in log if isinstance(step, Decode)]
    assert sum(step.tokens for step in prefills) == sum(row.prefill for row in rows)
    assert sum(step.rows for step in prefills) == sum(row.prefill > 0 for row in rows)
    assert sum(step.rows for step in decodes) == sum(row.decode for row in rows)
    assert all(1 <= step.rows <= capacity for step in log)
    assert all(step.context <= max(row.prefill + row.reused + row.decode for row in rows) for step in log)


@given(rows=rows_of.filter(bool), more=st.integers(0, 50))
def test_more_slots_than_rows_change_nothing(rows: list[Row], more: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("litestage.core.rows.PREFILL_TOKENS", 100)
        assert list(passes(rows, len(rows) + more)) == list(passes(rows, len(rows)))


HEADER, LONG = tuple(range(100, 140)), tuple(range(200, 215))


def test_a_questions_branches_begin_with_the_question() -> None:
    branches = [(*LONG, branch, 7) for branch in range(4)]
    assert shared_beginnings(branches, [0] * 4) == [LONG]
    assert shared_beginnings(branches, [4] * 4) == [LONG]
    assert shared_beginnings(branches, [len(LONG) - BEGINNING + 1] * 4) == [], "too little to be worth a forward"
    assert shared_beginnings(branches[:1], [0]) == []


def test_equal_prompts_are_prefilled_whole() -> None:
    assert shared_beginnings([LONG, LONG, HEADER], [0, 0, 0]) == [LONG]
    assert shared_beginnings([LONG, LONG], [len(LONG)] * 2) == []


def test_what_several_questions_share_comes_first() -> None:
    """Worked examples, then the questions side by side, though two of them begin with the same few words."""
    questions = [(*HEADER, *start, *LONG, *range(n)) for n, start in ((1, (1, 2)), (2, (1, 2)), (3, (5,)))]
    branches = [(*question, branch) for question in questions for branch in (900, 901)]
    assert shared_beginnings(branches, [0] * 6) == [HEADER]
    assert shared_beginnings(branches, [len(HEADER)] * 6) == questions[1:], "the first is the second's beginning"
    assert shared_beginnings(branches[:2] + branches[4:], [len(HEADER)] * 4) == [questions[0], questions[2]]


@given(
    prompts=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=20).map(tuple), max_size=8),
    held=st.integers(0, 5),
)
def test_beginnings_are_shared_and_pay(prompts: list[tuple[int, ...]], held: int) -> None:
    there = [min(held, len(prompt)) for prompt in prompts]
    for beginning in shared_beginnings(prompts, there):
        users = [prompt for prompt in prompts if prompt[: len(beginning)] == beginning]
        assert len(users) >= 2
        assert len(beginning) - held >= BEGINNING


@given(st.lists(st.integers(0, 1), max_size=9), st.lists(st.integers(0, 1), max_size=9))
def test_the_common_length(one: list[int], other: list[int]) -> None:
    alike = [a == b for a, b in zip(one, other, strict=False)]
    assert common_length(one, other) == (alike.index(False) if False in alike else len(alike))
