"""Reading an answer: what the pattern finds in a text, and which choice that stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

import regex

from litestage.core.errors import TaskError
from litestage.tasks.question import LETTERS

Answers = Literal["letters", "numbers", "choices"] | dict[str, str]
"""What the pattern's group finds: a choice's letter, its number from 1 on, its own words, or words of a table that
says which letter each stands for."""
SECONDS = 1.0
"""Longest that a pattern may search one text: some take longer than a life."""
AROUND = " \t\n()[].,:;!*\"'"
"""What may stand around an answer in the group: a model that writes ``**(b)**`` means B."""
WAYS = ("{}", "({})", "{})", "({}", "{}.", " {}", "{} ", "*{}*", "**{}**", '"{}"')
"""How an answer may stand in the group."""


def find(pattern: str, text: str) -> str | None:
    """What the pattern's group is in its first match; raises `TaskError` for a pattern that does not come to an end."""
    try:
        match = regex.search(pattern, text, timeout=SECONDS)
    except TimeoutError:
        raise TaskError(
            f"answer_pattern {pattern!r} was still searching a text of {len(text)} characters after {SECONDS:g} s: it "
            "tries too many ways to match. Make it simpler: nothing that repeats inside something that repeats, such "
            "as (a+)+, and as few .* as will do."
        ) from None
    return match[1] if match else None


def read(found: str, answers: Answers, choices: Sequence[str]) -> int | None:
    """The choice that a found text stands for; None when it is none of them."""
    said = _plain(found)
    if isinstance(answers, dict):
        letters = {_plain(text): letter for text, letter in answers.items()}
        index = LETTERS.index(letters[said]) if said in letters else None
    elif answers == "choices":
        same = [i for i, choice in enumerate(choices) if _plain(choice) == said]
        same = [i for i in same if choices[i].strip() == found.strip()] or same
        index = same[0] if len(same) == 1 else None
    elif answers == "numbers":
        index = int(said) - 1 if said.isascii() and said.isdecimal() and said != "0" else None
    else:
        index = LETTERS.index(said.upper()) if len(said) == 1 and said.upper() in LETTERS else None
    return index if index is not None and index < len(choices) else None


def can_read(pattern: str, answers: Answers, index: int, choice: str | None = None) -> bool:
    """Whether the pattern can find some text that stands for this choice; of a ``choice`` not known it may."""
    if isinstance(answers, dict):
        return any(_may_find(pattern, text) for text, letter in answers.items() if letter == LETTERS[index])
    if answers == "choices":
        return choice is None or _may_find(pattern, choice.strip())
    return _may_find(pattern, str(index + 1) if answers == "numbers" else LETTERS[index])


def check(pattern: str, answers: Answers) -> None:
    """Raise ValueError for a pattern that can never answer, and for a table that names no choice or nothing found."""
    if isinstance(answers, Mapping):
        _check_table(pattern, answers)
    elif not any(can_read(pattern, answers, index) for index in range(len(LETTERS))):
        what = "the number of a choice" if answers == "numbers" else "the letter of a choice"
        raise ValueError(
            f"answer_pattern {pattern!r} can never answer: its group does not match {what}. Change it, or say what it "
            'finds: answers = "numbers", answers = "choices" for their own words, or a table such as '
            'answers = { yes = "A", no = "B" }'
        )


def _check_table(pattern: str, answers: Mapping[str, str]) -> None:
    plain = [_plain(text) for text in answers]
    for text, letter in answers.items():
        if len(letter) != 1 or letter not in LETTERS:
            raise ValueError(f"answers: {text!r} should stand for the letter of a choice, A to Z, but has {letter!r}")
        if not _plain(text) or plain.count(_plain(text)) > 1:
            raise ValueError(f"answers: {text!r} is empty, or cannot be told from another one: letter case is ignored")
        if not _may_find(pattern, text):
            raise ValueError(f"answers: {text!r} is never found by answer_pattern {pattern!r}: change one of the two")
    if len(set(answers.values())) < 2:
        raise ValueError("answers should name two choices or more")


def groups(pattern: str) -> int:
    """How many groups a pattern has; raises ValueError for one that is not a regular expression."""
    try:
        return int(regex.compile(pattern).groups)
    except regex.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None


@lru_cache(maxsize=4096)
def _may_find(pattern: str, text: str) -> bool:
    """Whether the group by itself matches a text in one of the ways that it may be written in.

    True where that cannot be told: a group that looks around itself is nothing by itself.
    """
    group = _group(pattern)
    if regex.search(r"\(\?<?[=!]|\(\?\(|\\[1-9gKG]|[$^]", group):
        return True
    try:
        alone = regex.compile(group, regex.compile(pattern).flags)
        written = {text, text.lower(), text.upper(), text.capitalize()}
        return any(alone.fullmatch(way.format(one), timeout=SECONDS) for one in written for way in WAYS)
    except (regex.error, TimeoutError):
        return True


def _group(pattern: str) -> str:
    """The text of the pattern's one group."""
    depth, start, capturing = 0, 0, -1
    at = 0
    while at < len(pattern):
        rest = pattern[at:]
        if token := regex.match(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", rest, regex.DOTALL):
            at += token.end()
            continue
        if rest[0] == "(":
            depth += 1
            if opening := regex.match(r"\((?!\?)|\(\?P?<(?![=!])\w+>", rest):
                start, capturing = at + opening.end(), depth
        elif rest[0] == ")":
            if depth == capturing:
                return pattern[start:at]
            depth -= 1
        at += 1
    return pattern[start:]


def _plain(text: str) -> str:
    """Without what stands around it, letter case and runs of space."""
    return " ".join(text.strip(AROUND).casefold().split())
