"""Examples side by side: where the plan's words part from full depth's."""

from __future__ import annotations

import difflib
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

from litestage.results import Example, Generation


@dataclass(frozen=True)
class Piece:
    """A run of text, and whether the other side says it differently."""

    text: str
    changed: bool = False


@dataclass(frozen=True)
class Branch:
    """One generation as it is shown: its option's letter where there are several, and what exit cut off."""

    letter: str
    pieces: tuple[Piece, ...]
    exited: bool
    cut: str
    tokens: int


@dataclass(frozen=True)
class StageView:
    name: str
    full: tuple[Branch, ...]
    plan: tuple[Branch, ...]
    middle: tuple[Branch, ...] = ()
    """A third version that stands between the two, if there is one."""


def stage_views(example: Example) -> list[StageView]:
    """Each stage's branches, the plan's words marked where they differ from full depth's."""
    return [
        StageView(
            name=stage.name,
            full=_branches(stage.full, [(Piece(done.text),) for done in stage.full]),
            plan=_branches(
                stage.plan,
                [mark_changes(a.text, b.text) for a, b in zip(stage.full, stage.plan, strict=True)],
            ),
        )
        for stage in example.stages
    ]


def mark_changes(before: str, after: str) -> tuple[Piece, ...]:
    """``after`` in pieces, marked where its words are not those of ``before``; the pieces join to ``after``."""
    words = [re.findall(r"\S+\s*|^\s+", text) for text in (before, after)]
    plain = [[word.strip() for word in side] for side in words]
    matcher = difflib.SequenceMatcher(a=plain[0], b=plain[1], autojunk=False)
    return tuple(
        Piece("".join(words[1][start:end]), changed=kind != "equal")
        for kind, _, _, start, end in matcher.get_opcodes()
        if end > start
    )


def _branches(done: Sequence[Generation], pieces: Sequence[tuple[Piece, ...]]) -> tuple[Branch, ...]:
    return tuple(
        Branch(
            letter=string.ascii_uppercase[index] if len(done) > 1 else "",
            pieces=shown,
            exited=generation.finish_reason == "low_confidence",
            cut=generation.cut,
            tokens=generation.tokens,
        )
        for index, (generation, shown) in enumerate(zip(done, pieces, strict=True))
    )


def letter(answer: int | None) -> str:
    return "no answer" if answer is None else string.ascii_uppercase[answer]
