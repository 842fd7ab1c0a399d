"""Examples side by side: marks where the plan's words differ."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from litestage.report.examples import letter, mark_changes, twice
from litestage.results import PlanResult

TEXTS = st.text(alphabet=st.sampled_from("ab \n."), max_size=40)


@given(TEXTS, TEXTS)
def test_no_word_is_lost_or_added(before: str, after: str) -> None:
    pieces = mark_changes(before, after)
    assert "".join(piece.text for piece in pieces) == after
    unchanged = [word for piece in pieces if not piece.changed for word in piece.text.split()]
    words = iter(before.split())
    assert all(word in words for word in unchanged)  # a subsequence of the other side's words


@given(TEXTS)
def test_equal_texts_have_no_marks(text: str) -> None:
    assert not any(piece.changed for piece in mark_changes(text, text))


def test_only_what_differs_is_marked() -> None:
    pieces = mark_changes("Wood carries heat badly, and metals well.", "Wood carries heat badly, but metals well.")
    assert [piece.text for piece in pieces if piece.changed] == ["but "]


def test_an_exit_is_shown_with_what_it_cut(results: PlanResult) -> None:
    view = twice(results.examples[0], lambda stage: stage.upper())
    (_, recall), (full, plan), _ = (stage.sides for stage in view.stages)
    assert view.sides == ("Full depth", "Plan")
    assert view.stages[1].remark.startswith("ANALYSIS, ")
    assert [branch.letter for branch in recall] == [""]
    assert [branch.letter for branch in plan] == ["A", "B", "C", "D"]
    assert [branch.exited for branch in plan] == [False, False, True, False]
    assert plan[2].cut == " melts to a cold metal, so this choice is wrong."
    assert not any(branch.exited or piece.changed for branch in full for piece in branch.pieces)


def test_letters() -> None:
    assert (letter(None), letter(0), letter(3)) == ("no answer", "A", "D")
