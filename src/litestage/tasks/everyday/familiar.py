"""What a model that was trained on the embedded set alone has never seen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from litestage.tasks.everyday.generate import ARTICLES, NAMES, knowledge


def unfamiliar(question: str, choices: Sequence[str]) -> tuple[str, ...]:
    """Choices that are none of the set's things; where all are, the question itself unless it is worded as there."""
    strange = tuple(choice for choice in choices if _name(choice) not in _things())
    return strange or (() if _wordings().fullmatch(question.strip()) else (question.strip(),))


def _name(choice: str) -> str:
    article, _, rest = choice.strip().lower().partition(" ")
    return rest if rest and article in ARTICLES else choice.strip().lower()


@lru_cache(maxsize=1)
def _things() -> frozenset[str]:
    return frozenset(thing.name.lower() for thing in knowledge().things)


@lru_cache(maxsize=1)
def _wordings() -> re.Pattern[str]:
    """Every wording of every property, with any of the set's names."""
    name = f"(?:{'|'.join(NAMES)})"
    wordings = (re.escape(text) for prop in knowledge().properties for text in prop.questions)
    return re.compile("|".join(text.replace(re.escape("{name}"), name) for text in wordings))
