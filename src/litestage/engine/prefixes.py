"""Prompt beginnings that are prefilled once and copied to every row that starts with them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import torch
from jaxtyping import Float
from torch import Tensor

from litestage.core import TokenIds
from litestage.kernels import Alike


@dataclass(slots=True, eq=False)
class Prefix:
    """The keys and values of a prompt's beginning: what its parent does not already hold."""

    tokens: TokenIds
    parent: Prefix | None
    content: Float[Tensor, "L T 2 K E"]
    """Of tokens ``start`` and following."""
    logits: Float[Tensor, " V"]
    """Raw logits after the last token: a prompt that equals the prefix needs no forward."""
    unbilled: int
    """Tokens that were computed for this prefix and that no row has counted yet."""

    @property
    def start(self) -> int:
        return len(self.parent.tokens) if self.parent else 0

    def chain(self) -> list[Prefix]:
        """The prefix and those it continues, the outermost first."""
        return [*(self.parent.chain() if self.parent else []), self]

    def bill(self) -> int:
        """Tokens to count for the first row that uses the prefix."""
        owed = sum(part.unbilled for part in self.chain())
        for part in self.chain():
            part.unbilled = 0
        return owed


class PrefixStore:
    """Prefixes by their tokens; the least recently used go when more than ``max_tokens`` are held."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._held: OrderedDict[TokenIds, Prefix] = OrderedDict()

    def __contains__(self, tokens: TokenIds) -> bool:
        return tokens in self._held

    @property
    def nbytes(self) -> int:
        return sum(prefix.content.nbytes + prefix.logits.nbytes for prefix in self._held.values())

    def add(self, prefix: Prefix) -> None:
        self._held[prefix.tokens] = prefix
        self._touch(prefix)

    def longest(self, prompt: TokenIds) -> Prefix | None:
        """The longest prefix held that the prompt starts with."""
        for length in sorted(set(map(len, self._held)), reverse=True):
            if (prefix := self._held.get(prompt[:length])) is not None:
                self._touch(prefix)
                return prefix
        return None

    def missing(self, prompt: TokenIds) -> int:
        """Tokens of the prompt that no prefix holds."""
        prefix = self.longest(prompt)
        return len(prompt) - (len(prefix.tokens) if prefix else 0)

    def _touch(self, prefix: Prefix) -> None:
        """Make a prefix the most recently used but for what it continues, which must not go before it."""
        for part in reversed(prefix.chain()):
            self._held.move_to_end(part.tokens)

    def trim(self) -> None:
        """Forget the least recently used until the rest fits."""
        held = sum(len(prefix.tokens) - prefix.start for prefix in self._held.values())
        while held > self.max_tokens and self._held:
            _, gone = self._held.popitem(last=False)
            held -= len(gone.tokens) - gone.start

    def clear(self, but: Sequence[TokenIds] = ()) -> None:
        """Forget all prefixes except ``but`` and what those continue."""
        kept = {part.tokens for tokens in but if tokens in self._held for part in self._held[tokens].chain()}
        self._held = OrderedDict((tokens, prefix) for tokens, prefix in self._held.items() if tokens in kept)


def alike(prefixes: Sequence[Prefix | None]) -> Alike | None:
    """Which of the cache rows 0, 1, ... that took these begin alike; None where none do.

    Rows that share a beginning may share more of it with some: the depth is taken that spares the most reading.
    """
    chains = [prefix.chain() if prefix else [] for prefix in prefixes]
    depths = [[chain[depth : depth + 1] for chain in chains] for depth in range(max(map(len, chains), default=0))]
    spared, best = max(((_spared(parts), parts) for parts in depths), key=itemgetter(0), default=(0, []))
    if not spared:
        return None
    first: dict[Prefix, int] = {}
    leaders = [first.setdefault(part[0], row) if part else row for row, part in enumerate(best)]
    return Alike(torch.tensor(leaders), torch.tensor([len(part[0].tokens) if part else 0 for part in best]))


def _spared(parts: Sequence[Sequence[Prefix]]) -> int:
    """Slots that need no reading where each beginning is read once."""
    held = [part[0] for part in parts if part]
    return sum(len(part.tokens) for part in held) - sum(len(part.tokens) for part in set(held))


def waves(prefixes: Sequence[TokenIds]) -> list[list[TokenIds]]:
    """Group prefixes so that each comes after those it continues: a wave can be prefilled as one batch."""
    pending = sorted(set(prefixes), key=len)
    found: list[list[TokenIds]] = []
    while pending:
        ready = [p for p in pending if not any(q != p and p[: len(q)] == q for q in pending)]
        found.append(ready)
        pending = [p for p in pending if p not in set(ready)]
    return found
