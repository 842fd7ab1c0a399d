"""Examples side by side: where the words of one version part from full depth's."""

from __future__ import annotations

import difflib
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from litestage.results import Example, ExampleVersions, Generation


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
    """A stage's branches in every version, and a remark."""

    name: str
    sides: tuple[tuple[Branch, ...], ...]
    remark: str


@dataclass(frozen=True)
class ExampleView:
    """A question answered in several versions, full depth first."""

    question: str
    choices: tuple[tuple[str, str, bool], ...]
    """Letter, text, and whether it is the right one."""
    answers: str
    sides: tuple[str, ...]
    """What the versions are called."""
    stages: tuple[StageView, ...]


def twice(example: Example, remark: Callable[[str], str]) -> ExampleView:
    """A question at full depth and under a plan; ``remark`` says what a stage leaves out."""
    full, plan = (_judged(answer, example.gold, ", {}") for answer in (example.full_answer, example.plan_answer))
    same = example.full_answer == example.plan_answer
    answers = f"Both answer {full}" if same else f"Full depth answers {full}; the plan {plan}"
    return _view(example, (example,), ("Full depth", "Plan"), answers, remark)


def thrice(versions: ExampleVersions) -> ExampleView:
    """A question at full depth, skipping, and skipping with exit."""
    without, ended = versions.without_exit, versions.with_exit
    answers = (without.full_answer, without.plan_answer, ended.plan_answer)
    told = [_judged(answer, without.gold, " ({})") for answer in answers]
    said = f"All answer {told[0]}"
    if len(set(answers)) > 1:
        said = f"Full depth answers {told[0]}; skipping {told[1]}; with exit {told[2]}"
    return _view(without, (without, ended), ("Full depth", "Skipping", "Skipping, with exit"), said)


def _view(
    asked: Example,
    versions: Sequence[Example],
    sides: tuple[str, ...],
    answers: str,
    remark: Callable[[str], str] = lambda stage: "",
) -> ExampleView:
    stages = []
    for place, stage in enumerate(asked.stages):
        drawn = [branches(stage.full)]
        drawn += [branches(version.stages[place].plan, stage.full) for version in versions]
        counts = f"{' → '.join(map(str, _tokens(drawn)))} tokens"
        stages.append(StageView(stage.name, tuple(drawn), ", ".join(filter(None, (remark(stage.name), counts)))))
    choices = tuple((letter(place), choice, place == asked.gold) for place, choice in enumerate(asked.choices))
    return ExampleView(asked.question, choices, answers, sides, tuple(stages))


def branches(done: Sequence[Generation], before: Sequence[Generation] = ()) -> tuple[Branch, ...]:
    """A stage's texts, their words marked where they differ from those ``before``, if any."""
    return tuple(
        Branch(
            letter=letter(place) if len(done) > 1 else "",
            pieces=mark_changes(before[place].text, one.text) if before else (Piece(one.text),),
            exited=one.exited,
            cut=one.cut,
            tokens=one.tokens,
        )
        for place, one in enumerate(done)
    )


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


def letter(answer: int | None) -> str:
    return "no answer" if answer is None else string.ascii_uppercase[answer]


def _tokens(sides: Sequence[Sequence[Branch]]) -> list[int]:
    return [sum(branch.tokens for branch in side) for side in sides]


def _judged(answer: int | None, gold: int | None, form: str) -> str:
    verdict = "" if gold is None else form.format("right" if answer == gold else "wrong")
    return f"{letter(answer)}{verdict}"
