"""The exit rule as a logits processor: it sees a model's raw logits and ends rows one by one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import LogitsProcessor

from litestage.core import ExitRule

RawLogits = Callable[[int], Tensor | None]
"""Logits [B, V], as the model made them, of the token that comes behind so many tokens; None for one not run yet."""


DRAFT = 64
"""Most tokens that a draft may have guessed in vain: so far back a text may go on from."""


class ExitProcessor(LogitsProcessor):  # type: ignore[misc]
    """Make a row's next token the end of its text once the mean confidence of its last tokens is too low (paper, 4.4).

    A confidence is the largest probability of the raw logits, before any other processor. Confidences are remembered
    by the tokens that they belong to, because a beam search moves rows about.
    """

    def __init__(self, rule: ExitRule, eos_id: int, raw: RawLogits) -> None:
        self.rule, self.eos_id = rule, eos_id
        self._raw = raw
        self._seen: dict[int, dict[tuple[int, ...], tuple[float, ...]]] = {}
        """By number of tokens: a row's tokens, and the confidences of those that were written (the last ones)."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        length = input_ids.shape[1]
        raw = self._raw(length)
        if raw is None:  # transformers tries the tokens of a draft on its processors before the model has seen them
            return scores
        confidences = torch.softmax(raw.float(), dim=-1).amax(dim=-1).tolist()
        before = self._seen.get(length - 1, {})
        now: dict[tuple[int, ...], tuple[float, ...]] = {}
        ends = []
        for tokens, confidence in zip(map(tuple, input_ids.tolist()), confidences, strict=True):
            last = (*before.get(tokens[:-1], ()), confidence)[-self.rule.window :]
            now[tokens] = last
            ends.append(len(last) == self.rule.window and sum(last) / self.rule.window < self.rule.threshold)
        self._seen = {at: rows for at, rows in self._seen.items() if at > length - DRAFT} | {length: now}
        if not any(ends):
            return scores
        ended = torch.tensor(ends, device=scores.device)
        scores = scores.masked_fill(ended[:, None], float("-inf"))
        scores[ended, self.eos_id] = 0.0  # a token that is forced costs a beam nothing
        return scores
