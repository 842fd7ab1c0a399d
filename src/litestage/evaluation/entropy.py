"""How varied a stage's tokens are (paper, Figure 1b), and how sure the model stays as a text goes on (Figure 4)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from litestage.core.errors import DataError
from litestage.core.layers import Record
from litestage.core.request import Completion


class TokenEntropy(Record):
    """Entropy of the distribution of token ids over all texts of a stage; a text's EOS is one of its tokens."""

    tokens: int
    distinct: int
    """Token ids that occur at all."""
    bits: float
    """0 when one id is all there is, at most log2 of ``distinct``."""

    @property
    def shortfall(self) -> float:
        """By how many bits a sample of this size reads low, to first order (Miller and Madow, 1955)."""
        return (self.distinct - 1) / (2 * self.tokens * math.log(2))


class Place(Record):
    """The texts that have a token at one place."""

    token: int
    """The token's place in its text, from 1: prefill decides token 1, and decode step t token t + 2."""
    rows: int
    """Texts that have such a token: the rows still running."""
    confidence: float
    """Their mean largest next-token probability there, 0 to 1."""


def entropy(counts: Iterable[int]) -> float:
    """Entropy in bits of the distribution that the counts are of."""
    positive = [count for count in counts if count]
    total = sum(positive)
    return sum(count / total * math.log2(total / count) for count in positive)


def token_entropy(completions: Sequence[Completion]) -> TokenEntropy:
    """Of all tokens that the completions generated; raises `DataError` when they have none."""
    counts = Counter(token for completion in completions for token in completion.token_ids)
    if not counts:
        raise DataError("No token was generated, so their entropy is not defined: no prompt fitted the context.")
    return TokenEntropy(tokens=counts.total(), distinct=len(counts), bits=entropy(counts.values()))


def confidence_by_place(completions: Sequence[Completion]) -> tuple[Place, ...]:
    """Mean confidence of each token's place over the texts that reach it; a text that was not run reaches none."""
    sure = [completion.confidences for completion in completions]
    steps = []
    for place in range(max(map(len, sure), default=0)):
        here = [confidences[place] for confidences in sure if place < len(confidences)]
        steps.append(Place(token=place + 1, rows=len(here), confidence=sum(here) / len(here)))
    return tuple(steps)
