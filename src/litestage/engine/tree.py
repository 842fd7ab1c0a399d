"""Shared beginnings: every row of the cache remembers its tokens, and a prompt starts where the longest match ends."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from litestage.core import TokenIds
from litestage.core.rows import common_length
from litestage.kernels import SharedPrefixes
from litestage.models.cache import Cache

NOTHING = -1
"""In place of a token where a row holds none."""


class Found(NamedTuple):
    """How many of a prompt's tokens a cache row holds."""

    row: int
    length: int
    logits: Float[Tensor, " V"] | None = None
    """Raw logits after the last token, where the whole prompt is there: nothing is left to compute."""


class TokenTree:
    """The tokens whose keys and values the rows of a cache hold, all of full depth, also of rows that nobody uses."""

    def __init__(self, cache: Cache, rows: int) -> None:
        """``rows`` of the cache may be used."""
        self.cache = cache
        self._tokens = np.full((rows, cache.slots), NOTHING, dtype=np.int32)
        self._lengths = [0] * rows
        self._logits: list[dict[int, Tensor]] = [{} for _ in range(rows)]
        """Of each row, after so many of its tokens."""
        self._kept: dict[int, None] = {}
        """Rows that hold something and that nobody uses, the least recently used first."""
        self._empty = list(reversed(range(rows)))
        """Rows that hold nothing; those at the end were used before."""

    @property
    def rows(self) -> int:
        return len(self._lengths)

    @property
    def free(self) -> int:
        """Rows that nobody uses."""
        return len(self._kept) + len(self._empty)

    def find(self, prompt: TokenIds) -> Found:
        """The longest beginning of a prompt that is there; of a whole prompt without its logits all but one token."""
        differs = np.ones((len(self._lengths), len(prompt) + 1), dtype=bool)
        width = min(len(prompt), self._tokens.shape[1])
        np.not_equal(self._tokens[:, :width], prompt[:width], out=differs[:, :width])
        lengths = differs.argmax(axis=1)
        for row in np.flatnonzero(lengths == len(prompt)).tolist():
            if (logits := self._logits[row].get(len(prompt))) is not None:
                return Found(row, len(prompt), logits)
        row = int(lengths.argmax())
        return Found(row, min(int(lengths[row]), len(prompt) - 1))

    def place(self, found: Sequence[Found]) -> list[int]:
        """A row for each, with what was found in its first slots; there must be as many free rows.

        A kept row that holds no more than what was found is used as it is. Where there is nothing else, so is one that
        holds more, by one of those that begin with it.
        """
        sources = {one.row for one in found if one.length and one.row in self._kept}
        others = [*(row for row in self._kept if row not in sources), *self._empty]
        placed: dict[int, int] = {}

        def stay(place: int) -> None:
            placed[place] = found[place].row
            sources.discard(found[place].row)

        for place, one in enumerate(found):
            if one.row in sources and self._lengths[one.row] == one.length:
                stay(place)
        for place, one in enumerate(found):
            if place not in placed and len(found) - len(placed) > len(others) and one.row in sources:
                stay(place)
        copies: dict[tuple[int, int], list[int]] = {}
        for place, one in enumerate(found):
            if place not in placed:
                placed[place] = self._empty.pop() if self._empty else others.pop(0)
                if one.length:
                    copies.setdefault((one.row, one.length), []).append(placed[place])
        for (source, length), targets in copies.items():
            self.cache.copy(source, sorted(targets), length)
            if source in self._kept:
                self._kept[source] = self._kept.pop(source)
        for place in sorted(placed, key=lambda place: placed[place] == found[place].row):  # sources are cut last
            self._kept.pop(placed[place], None)
            self._write(placed[place], found[place])
        return [placed[place] for place in range(len(found))]

    def hold(self, row: int, tokens: Sequence[int], logits: Float[Tensor, " V"] | None = None) -> None:
        """A row holds these tokens now, and the logits after the last of them."""
        self._tokens[row, : len(tokens)] = tokens
        self._tokens[row, len(tokens) :] = NOTHING
        self._lengths[row] = len(tokens)
        if logits is not None:
            self._logits[row][len(tokens)] = logits

    def release(self, row: int) -> None:
        """Nobody uses a row any more: what it holds is kept for a while."""
        if not self._lengths[row]:
            self._empty.append(row)
            return
        self._kept[row] = None

    def trim(self, most: int) -> None:
        """Keep at most so many tokens in rows that nobody uses; those least recently used go."""
        held = sum(self._lengths[row] for row in self._kept)
        while held > most:
            oldest = next(iter(self._kept))
            held -= self._lengths[oldest]
            self._drop(oldest, 0)

    def forget(self, but: Sequence[TokenIds] = ()) -> None:
        """Drop what rows hold that nobody uses, except the tokens of ``but``."""
        for row in list(self._kept):
            held = tuple(self._tokens[row, : self._lengths[row]].tolist())
            self._drop(row, max((len(one) for one in but if held[: len(one)] == one), default=0))

    def rows_of(self, slots: int) -> int:
        """How many rows could be used if each had so many slots."""
        return self.cache.rows_of(slots) - (self.cache.rows - self.rows)

    def lengthen(self, slots: int, used: Sequence[int]) -> dict[int, int]:
        """Make the cache's rows longer; the new rows of those in use, behind which others are kept as room is left."""
        rows = self.rows_of(slots)
        kept = list(self._kept)[max(0, len(self._kept) + len(used) - rows) :]
        at = {row: place for place, row in enumerate([*used, *kept])}
        self.cache.lengthen(slots, list(at))
        before, lengths, logits = self._tokens, self._lengths, self._logits
        self._tokens = np.full((rows, slots), NOTHING, dtype=np.int32)
        self._lengths = [0] * rows
        self._logits = [{} for _ in range(rows)]
        for row, place in at.items():
            self._logits[place] = logits[row]
            self._tokens[place, : before.shape[1]] = before[row]
            self._lengths[place] = lengths[row]
        self._kept = {at[row]: None for row in kept}
        self._empty = list(reversed(range(len(at), rows)))
        return {row: at[row] for row in used}

    def _write(self, row: int, found: Found) -> None:
        """A row in use holds what was found for it."""
        if row != found.row:
            self._tokens[row, : found.length] = self._tokens[found.row, : found.length]
            self._logits[row] = {}  # of what the row held before
        self._drop_behind(row, found.length)

    def _drop_behind(self, row: int, length: int) -> None:
        self._tokens[row, length:] = NOTHING
        self._lengths[row] = length
        self._logits[row] = {at: logits for at, logits in self._logits[row].items() if at <= length}

    def _drop(self, row: int, length: int) -> None:
        """Drop a kept row's tokens behind its first ``length``."""
        self._drop_behind(row, length)
        if not length:
            del self._kept[row]
            self._empty.append(row)


def shared_prefixes(rows: Sequence[tuple[int, TokenIds]]) -> SharedPrefixes | None:
    """Which cache rows' prompts begin alike; None where none do.

    Rows that share a beginning may share more of it with some: the depth is taken that spares the most reading.
    """
    order = sorted(range(len(rows)), key=lambda place: rows[place][1])
    between = [common_length(rows[one][1], rows[other][1]) for one, other in pairwise(order)]
    groups, spared = max(((_groups(between, depth)) for depth in {*between, 1}), key=lambda one: one[1])
    if not spared:
        return None
    leaders, slots = [row for row, _ in rows], [0] * len(rows)
    for first, end, length in groups:
        for place in order[first:end]:
            leaders[place], slots[place] = rows[order[first]][0], length
    return SharedPrefixes(torch.tensor(leaders), torch.tensor(slots))


def _groups(between: Sequence[int], depth: int) -> tuple[list[tuple[int, int, int]], int]:
    """Neighbours that share ``depth`` tokens or more (first, end and how many they share), and the reading spared."""
    found, spared, first = [], 0, 0
    for place in range(len(between) + 1):
        if place == len(between) or between[place] < depth:
            if place > first:
                length = min(between[first:place])
                found.append((first, place + 1, length))
                spared += length * (place - first)
            first = place + 1
    return found, spared
