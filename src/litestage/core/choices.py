"""Answers by choice: a text that is one of a finite set is a way down a trie, and the model is asked at forks alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

TokenIds = tuple[int, ...]


def allowed(choices: Sequence[TokenIds], written: Sequence[int]) -> list[int]:
    """Tokens that may come next, in order of their ids; none behind a whole text."""
    at, begun = len(written), tuple(written)
    return sorted({one[at] for one in choices if len(one) > at and one[:at] == begun})


def forced(choices: Sequence[TokenIds], written: Sequence[int] = ()) -> TokenIds:
    """Tokens that come next without asking the model, up to the next fork or to the end."""
    text = list(written)
    while len(only := allowed(choices, text)) == 1:
        text += only
    return tuple(text[len(written) :])


def probabilities(
    choices: Sequence[TokenIds], text: TokenIds, asked: Sequence[tuple[int, dict[int, float]]]
) -> tuple[float, ...]:
    """How probable each text was among all, as far as the model was asked.

    ``asked`` has the forks on the way of ``text``: how many tokens came before, and how probable each allowed one was.
    """
    found = []
    for one in choices:
        p = 1.0
        for at, likely in asked:
            if one[:at] != text[:at]:
                break
            p *= likely[one[at]]
        found.append(p)
    return tuple(found)


def check_choices(choices: Sequence[TokenIds]) -> None:
    """Raise ValueError where a text would be over before another one parts from it: none may be another's beginning."""
    ordered = sorted(set(choices))
    for one, other in itertools.pairwise(ordered):
        if other[: len(one)] == one:
            raise ValueError(f"{list(one)} is no choice beside {list(other)}, which begins with it: end each by EOS")
    if () in ordered:
        raise ValueError("a choice needs at least one token")
