"""The forwards that recorded texts take with drafts, worked out from the texts and what is remembered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from litestage.core.drafts import Drafter, Drafts, Writing, as_tokens
from litestage.core.engine import TokenIds
from litestage.core.plan import StagePlan
from litestage.core.rows import Decode


class Recorded(NamedTuple):
    """A text that was written, behind its prompt: what drafts depend on of a request and its completion."""

    prompt: TokenIds
    tokens: TokenIds
    most_tokens: int
    """As asked, or what the context left."""
    names: Drafts = Drafts()
    plan: StagePlan = StagePlan()


def forwards(texts: Sequence[Recorded], drafter: Drafter) -> Iterator[Decode]:
    """The decode forwards of texts that are written side by side from their first tokens on, in order.

    So they are in an engine with room for all of them, whose drafter is in the same state; it learns as that one does.
    """
    rows = [_Row(text, drafter) for text in texts]
    for row in rows:
        row.take(1, drafter)
    while active := [row for row in rows if row.at < len(row.text.tokens)]:
        asked = [(row.writing, row.room) for row in active if row.writing is not None]
        guessed = iter(drafter.guess(asked, len(active), len(active)))
        drafts = [as_tokens(next(guessed)) if row.writing is not None else () for row in active]
        yield Decode(
            len(active),
            max(len(row.text.prompt) + row.at + len(draft) for row, draft in zip(active, drafts, strict=True)),
            min(row.at - 1 for row in active),
            sum(map(len, drafts)),
        )
        for row, draft in zip(active, drafts, strict=True):
            row.take(row.right(draft) + 1, drafter)


class _Row:
    """A recorded text, as far as it is written again."""

    def __init__(self, text: Recorded, drafter: Drafter) -> None:
        self.text = text
        self.at = 0
        """Tokens that are there."""
        self.writing: Writing | None = drafter.begin(text.prompt, text.names)

    @property
    def room(self) -> int:
        """Tokens that a draft may have: of this segment of the schedule, and none behind the last to be decided."""
        ran = self.at - 1
        return min(self.text.most_tokens - 1, self.text.plan.schedule.segment_end(ran)) - ran - 1

    def right(self, draft: TokenIds) -> int:
        """How many of a draft's tokens the text goes on with; none behind its end count."""
        rest = self.text.tokens[self.at :]
        agree = 0
        while agree < min(len(draft), len(rest) - 1) and draft[agree] == rest[agree]:
            agree += 1
        return agree

    def take(self, count: int, drafter: Drafter) -> None:
        new = self.text.tokens[self.at : self.at + count]
        self.at += len(new)
        if self.writing is not None:
            drafter.take(self.writing, new)
            if self.at == len(self.text.tokens):
                drafter.end(self.writing, whole=True)
