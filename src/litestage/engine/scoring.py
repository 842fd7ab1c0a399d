"""How likely a model finds a text that is there already, token by token."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from litestage.core import TokenIds
from litestage.models.decoder import Decoder

PIECE = 128
"""Tokens of one forward: whoever has other work as well goes on with it in between."""


class TokenScore(NamedTuple):
    """A token, its log-probability where it stands, and the likeliest ones there with theirs."""

    token: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...]


def score_tokens(logits: Float[Tensor, "N V"], tokens: TokenIds, likeliest: int) -> list[TokenScore]:
    """Scores of ``tokens``, each by the logits that stand before it, from a softmax in fp32."""
    logprobs = logits.float().log_softmax(-1)
    own = logprobs.gather(-1, torch.tensor(tokens, device=logprobs.device)[:, None])[:, 0].tolist()
    if not likeliest:
        return [TokenScore(token, value, ()) for token, value in zip(tokens, own, strict=True)]
    values, ids = logprobs.topk(likeliest)
    return [
        TokenScore(token, value, tuple(zip(some, theirs, strict=True)))
        for token, value, some, theirs in zip(tokens, own, ids.tolist(), values.tolist(), strict=True)
    ]


class Scoring:
    """A text's own tokens from the second on, at full depth, a piece of the text at a time, in a cache of its own."""

    def __init__(self, decoder: Decoder, text: TokenIds, likeliest: int = 0) -> None:
        self._decoder, self._text, self._likeliest = decoder, text, likeliest
        self._cache = decoder.new_cache(1, len(text) + 1)
        self._at = 0
        self.scores: list[TokenScore] = []

    @property
    def is_done(self) -> bool:
        return self._at >= len(self._text) - 1

    @torch.inference_mode()
    def work(self) -> None:
        """One forward over the next piece."""
        part = self._text[self._at : self._at + PIECE]
        device, end = self._decoder.device, self._at + len(part)
        start, row = torch.tensor([self._at], device=device), torch.zeros(1, dtype=torch.long, device=device)
        step = self._decoder.step(len(part), start, self._cache, row, end)
        x = self._decoder.run(self._decoder.embed(torch.tensor([part], device=device)), step, self._decoder.layers)
        following = self._text[self._at + 1 : end + 1]
        logits = self._decoder.logits(x[0, : len(following)])
        self.scores += score_tokens(logits, following, self._likeliest)
        self._at = end
