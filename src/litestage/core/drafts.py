"""Drafts: tokens guessed from what was written before. What is here knows texts and prices, and runs no model.

A text is a string of one character a token, so that Python's own search finds what occurred before.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Literal, NamedTuple

from litestage.core.layers import Record

DraftSource = Literal["none", "prompt", "request", "stage"]
SOURCES: tuple[DraftSource, ...] = ("none", "prompt", "request", "stage")
"""From what a row may draft, each with all before it: nothing, its own prompt and text, the texts of other branches and
votes of its request, what its stage wrote before."""
MATCH = 6
"""Last tokens of a text that are looked for, at most."""
LONGEST = 16
"""Tokens of a draft, at most."""
MEMORY_TOKENS = 4096
"""That a stage memory holds, at most."""
GAP = "\U0010ffff"
"""Between texts; no token."""
NEAR, DIVIDED, REMEMBERED = 0, 1, 2
"""Where a guess is from: prompt, own text or siblings; the stage memory, where texts went on in several ways; or where
they nearly always went on in this one."""
NEARLY_ALWAYS = 0.7
"""Share of the places."""
CHANCES = ((0.1, 0.3, 0.45, 0.6, 0.7, 0.8), (0.2, 0.3, 0.35, 0.4, 0.45, 0.5), (0.5, 0.6, 0.65, 0.7, 0.8, 0.9))
"""That a token follows, before any was tried: by where it is from, and how many tokens before it match, one to `MATCH`.
"""
TRUST = 8.0
"""Guesses that count as tried before any was."""
MARGIN = 1.05
"""How much more than its price a token must be worth: prices and chances are not exact."""
LIKELY = 0.95
"""No guess is likelier: where a token would have to be, nothing is looked for."""


def allowed_by(*sources: DraftSource) -> DraftSource:
    """The narrowest of several."""
    return min(sources, key=SOURCES.index)


def as_text(tokens: Iterable[int]) -> str:
    """Token ids as characters."""
    return "".join(map(chr, tokens))


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256(GAP.join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def as_tokens(text: str) -> tuple[int, ...]:
    """Characters as token ids."""
    return tuple(map(ord, text))


class Prices(Record):
    """Seconds of a decode forward by its tokens, whatever rows they are of."""

    tokens: tuple[int, ...]
    """Ascending; two at least."""
    seconds: tuple[float, ...]

    def of(self, tokens: int) -> float:
        """Linear between what was timed, and on from it."""
        above = min(max(1, bisect_right(self.tokens, tokens)), len(self.tokens) - 1)
        low, high = self.tokens[above - 1], self.tokens[above]
        share = (tokens - low) / (high - low)
        return self.seconds[above - 1] + share * (self.seconds[above] - self.seconds[above - 1])

    def least_chance(self, tokens: int, expected: float) -> float:
        """How probable one more token must be, in a forward of so many that bring so many, to bring more a second."""
        seconds = self.of(tokens)
        return MARGIN * (self.of(tokens + 1) - seconds) * expected / seconds


class Drafts(Record):
    """What a request may be drafted from. It changes no text."""

    source: DraftSource = "stage"
    """At most; the engine may allow less."""
    family: str = ""
    """Requests of one family draft from each other: branches and votes of a question."""
    stage: str = ""
    """Whose memory."""


class Guess(NamedTuple):
    """Tokens that may follow, as characters."""

    tokens: str = ""
    chances: tuple[float, ...] = ()
    """How probable it is that each of them follows, with all before it."""
    grounds: tuple[tuple[int, int], ...] = ()
    """Of each: where it is from, and how many tokens before it match."""

    def first(self, count: int) -> Guess:
        """Its first tokens."""
        return Guess(self.tokens[:count], self.chances[:count], self.grounds[:count])


NO_GUESS = Guess()


class StageMemory:
    """Texts that a stage wrote, what followed each few tokens of them, and how often guesses were right.

    Where there are too many, the older half goes. Equal texts in the same order make equal memories. ``frozen`` it
    takes no more.
    """

    def __init__(self, most_tokens: int = MEMORY_TOKENS, frozen: bool = False) -> None:
        self.frozen = frozen
        self._most, self._held = most_tokens, 0
        self._texts: list[str] = []
        self._count: dict[str, int] = {}
        """How often each run of up to `MATCH` + 1 tokens is there."""
        self._next: dict[str, str] = {}
        """What followed each run of up to `MATCH` tokens most often; of equals, last."""
        self._tried = [[TRUST] * MATCH for _ in CHANCES]
        self._right = [[TRUST * chance for chance in some] for some in CHANCES]

    def __len__(self) -> int:
        """Tokens that it holds."""
        return self._held

    @property
    def texts(self) -> tuple[str, ...]:
        """The oldest first; each with the last few tokens of its prompt."""
        return tuple(self._texts)

    @property
    def hash(self) -> str:
        """Of its texts, and of how often guesses were right."""
        return _hash([*self._texts, repr((self._tried, self._right))])

    def add(self, prompt: str, text: str) -> None:
        """Remember what was written behind a prompt, of which the last few tokens are kept."""
        if self.frozen or not text:
            return
        whole = (prompt[-MATCH:] + text)[-self._most :]
        if self._held + len(whole) > self._most:
            self._keep(min(self._most // 2, self._most - len(whole)))
        self._texts.append(whole)
        self._held += len(whole)
        self._learn(whole)

    def _keep(self, most: int) -> None:
        """Forget the oldest texts, until so many tokens are left."""
        texts, self._texts, self._held = self._texts, [], 0
        while texts and self._held + len(texts[-1]) <= most:
            self._texts.insert(0, texts.pop())
            self._held += len(self._texts[0])
        self._count, self._next = {}, {}
        for text in self._texts:
            self._learn(text)

    def _learn(self, text: str) -> None:
        count, following = self._count, self._next
        for at, token in enumerate(text):
            count[token] = count.get(token, 0) + 1
            for start in range(max(0, at - MATCH), at):
                before, run = text[start:at], text[start : at + 1]
                count[run] = seen = count.get(run, 0) + 1
                usual = following.get(before)
                if usual is None or seen >= count[before + usual]:
                    following[before] = token

    def follow(self, tail: str) -> tuple[str, int, float]:
        """The likeliest next token, how many tokens before it match, and the share of those places that it follows.

        An empty token where nothing matches.
        """
        for start in range(max(0, len(tail) - MATCH), len(tail)):
            before = tail[start:]
            token = self._next.get(before)
            if token is not None:
                return token, len(before), self._count[before + token] / self._count[before]
        return "", 0, 0.0

    def chance(self, where: int, matched: int) -> float:
        """How probable a guess is, by those of its kind so far."""
        return self._right[where][matched - 1] / self._tried[where][matched - 1]

    def take(self, ground: tuple[int, int], right: bool) -> None:
        """A guess was tried."""
        if not self.frozen:
            where, matched = ground
            self._tried[where][matched - 1] += 1
            self._right[where][matched - 1] += right


NOTHING = StageMemory(0, frozen=True)
"""The memory of who may not have one."""


class Limits(NamedTuple):
    """Where a guess ends: before a token of ``ends``, or one whose chance is below ``least``."""

    least: float = 0.0
    ends: str = ""


def guess(text: str, siblings: Sequence[str], memory: StageMemory, most: int, limits: Limits = Limits()) -> Guess:
    """What may follow a text, prompt and all: as it, a sibling or the stage went on before, whichever is likelier."""
    near, at, matched = _last_place(text, siblings)
    tail, tokens, chances, grounds, chance = text[-MATCH:], "", [], [], 1.0
    while len(tokens) < most:
        token, remembered, share = memory.follow(tail)
        ground = REMEMBERED if share > NEARLY_ALWAYS else DIVIDED, remembered
        likely = memory.chance(*ground) if token else 0.0
        if matched and at < len(near) and near[at] != GAP:
            here = min(MATCH, matched)
            if (other := memory.chance(NEAR, here)) > likely:
                token, likely, ground = near[at], other, (NEAR, here)
        chance *= likely
        if not token or chance < limits.least or token in limits.ends:
            break
        tokens += token
        chances.append(chance)
        grounds.append(ground)
        tail = (tail + token)[-MATCH:]
        matched = matched + 1 if matched and at < len(near) and near[at] == token else 0
        at += 1
    return Guess(tokens, tuple(chances), tuple(grounds))


def _last_place(text: str, siblings: Sequence[str]) -> tuple[str, int, int]:
    """All texts in one, where it goes on behind the last place of most of a text's last tokens, and how many those are.

    Nothing matches: none.
    """
    near = GAP.join([*siblings, text])
    for length in range(min(MATCH, len(text)), 0, -1):
        found = near.rfind(text[-length:], 0, len(near) - 1)
        if found >= 0:
            return near, found + length, length
    return near, 0, 0


def lengths_that_pay(chances: Sequence[Sequence[float]], tokens: int, rows: int, prices: Prices) -> list[int]:
    """How much of each guess to run in a forward of ``tokens`` others, which decides one token for each of its rows.

    The likeliest come first, as long as each brings more tokens a second than the forward without it.
    """
    lengths, expected = [0] * len(chances), float(rows)
    likeliest = [(-own[0], row) for row, own in enumerate(chances) if own]
    heapify(likeliest)
    while likeliest and -likeliest[0][0] > prices.least_chance(tokens, expected):
        chance, row = heappop(likeliest)
        lengths[row] += 1
        tokens, expected = tokens + 1, expected - chance
        if lengths[row] < len(chances[row]):
            heappush(likeliest, (-chances[row][lengths[row]], row))
    return lengths


@dataclass(slots=True, eq=False)
class Writing:
    """A text under way, as whoever guesses sees it."""

    prompt: str
    names: Drafts
    written: str = ""
    guess: Guess = NO_GUESS
    """What was guessed last, and ran."""


class Drafter:
    """Guesses for texts under way, from prompts, siblings and what their stages wrote before.

    What it guesses depends on the texts, in their order, on the prices and on the memories alone. So the forwards that
    recorded texts take can be worked out (`litestage.evaluation.forwards`).
    """

    def __init__(
        self,
        source: DraftSource,
        prices: Prices | Callable[[], Prices],
        ends: Iterable[int] = (),
        memories: Mapping[str, StageMemory] | None = None,
        frozen: bool = False,
    ) -> None:
        """``source`` is the most that any request may draft from; ``ends`` are tokens that end a text.

        ``frozen`` it learns nothing.
        """
        self.source: DraftSource = source
        self.frozen = frozen
        self.memories = dict(memories or {})
        """By stage."""
        self._prices, self._ends = prices, as_text(ends)
        self._families: dict[tuple[str, str], list[Writing]] = {}
        self._open: Counter[tuple[str, str]] = Counter()

    @property
    def prices(self) -> Prices:
        """Of this machine's forwards; timed when they are first asked for."""
        if not isinstance(self._prices, Prices):
            self._prices = self._prices()
        return self._prices

    @property
    def hash(self) -> str:
        """Of all memories."""
        return _hash(f"{stage} {self.memories[stage].hash}" for stage in sorted(self.memories))

    def begin(self, prompt: Sequence[int], names: Drafts) -> Writing | None:
        """A text begins; None where nothing may be guessed for it."""
        source = allowed_by(self.source, names.source)
        if source == "none":
            return None
        writing = Writing(as_text(prompt), names.model_copy(update={"source": source}))
        if family := self._family(writing):
            self._families.setdefault(family, []).append(writing)
            self._open[family] += 1
        return writing

    def guess(self, asked: Sequence[tuple[Writing, int]], tokens: int, rows: int) -> list[str]:
        """What to run of each text behind its last token, of so many tokens at most, where it is worth its price.

        The forward runs ``tokens`` others, for ``rows`` rows.
        """
        for writing, _ in asked:
            writing.guess = NO_GUESS
        limits = Limits(self.prices.least_chance(tokens, rows), self._ends)
        if limits.least > LIKELY:
            return [""] * len(asked)
        found = [
            guess(one.prompt + one.written, self._siblings(one), self._memory(one), min(most, LONGEST), limits)
            for one, most in asked
        ]
        lengths = lengths_that_pay([one.chances for one in found], tokens, rows, self.prices)
        for (writing, _), one, length in zip(asked, found, lengths, strict=True):
            writing.guess = one.first(length)
        return [writing.guess.tokens for writing, _ in asked]

    def take(self, writing: Writing, tokens: Sequence[int]) -> None:
        """A text has its next tokens; what was guessed for their places was right or wrong."""
        new, memory = as_text(tokens), self._memory(writing)
        for guessed, came, ground in zip(writing.guess.tokens, new, writing.guess.grounds, strict=False):
            if not self.frozen:
                memory.take(ground, guessed == came)
        writing.written += new
        writing.guess = NO_GUESS

    def end(self, writing: Writing, whole: bool) -> None:
        """A text is over; if it is whole, its stage remembers it."""
        if whole and not self.frozen:
            self._memory(writing).add(writing.prompt, writing.written)
        if family := self._family(writing):
            self._open[family] -= 1
            if not self._open[family]:
                del self._open[family], self._families[family]

    def _family(self, writing: Writing) -> tuple[str, str] | None:
        """Texts of one family and stage are siblings."""
        names = writing.names
        return (names.family, names.stage) if names.family and names.source in ("request", "stage") else None

    def _siblings(self, writing: Writing) -> list[str]:
        family = self._family(writing)
        return [one.written for one in self._families[family] if one is not writing] if family else []

    def _memory(self, writing: Writing) -> StageMemory:
        if writing.names.source != "stage" or not writing.names.stage:
            return NOTHING
        return self.memories.setdefault(writing.names.stage, StageMemory())
