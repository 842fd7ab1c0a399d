"""An exit rule as a logits processor: it sees a model's raw logits and ends rows one by one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import LogitsProcessor

from litestage.core import ExitRule, PlanError
from litestage.models.logits import entropy_bits

RawLogits = Callable[[int], Tensor | None]
"""Logits [B, V], as the model made them, of the token that comes behind so many tokens; None for one not run yet."""


DRAFT = 64
"""Most tokens that a draft may have guessed in vain: so far back a text may go on from."""


class ExitProcessor(LogitsProcessor):  # type: ignore[misc]
    """Make a row's next token the end of its text once its last tokens break the rule (paper, 4.4).

    Rules are about the raw logits, before any other processor. What they look at is remembered by the tokens that it
    belongs to, because a beam search moves rows about. Raises `PlanError` for a rule that logits alone cannot settle.
    """

    def __init__(self, rule: ExitRule, eos_id: int, raw: RawLogits) -> None:
        if rule.looks_at == "answer":
            raise PlanError(
                f"The exit rule {rule} reads the text that was written, but a logits processor sees numbers alone. Run "
                "the plan by litestage's own engine, or leave the rule out of its stage in plan.json."
            )
        if rule.missing:
            raise PlanError(f"The exit rule {rule} lacks {rule.missing}. `litestage search` finds it.")
        self.rule, self.eos_id = rule, eos_id
        self._raw = raw
        self._seen: dict[int, dict[tuple[int, ...], tuple[float, ...]]] = {}
        """By number of tokens: a row's tokens, and what the rule looks at in the last ones written."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        length = input_ids.shape[1]
        raw = self._raw(length)
        if raw is None:  # transformers tries the tokens of a draft on its processors before the model has seen them
            return scores
        values = self._values(raw)
        before = self._seen.get(length - 1, {})
        now: dict[tuple[int, ...], tuple[float, ...]] = {}
        ends = []
        for tokens, value in zip(map(tuple, input_ids.tolist()), values, strict=True):
            last = (*before.get(tokens[:-1], ()), value)[-self.rule.window :]
            now[tokens] = last
            ends.append(len(last) == self.rule.window and self.rule.broken_by(last))
        self._seen = {at: rows for at, rows in self._seen.items() if at > length - DRAFT} | {length: now}
        if not any(ends):
            return scores
        ended = torch.tensor(ends, device=scores.device)
        scores = scores.masked_fill(ended[:, None], float("-inf"))
        scores[ended, self.eos_id] = 0.0  # a token that is forced costs a beam nothing
        return scores

    def _values(self, raw: Tensor) -> list[float]:
        """What the rule looks at in each row."""
        if self.rule.looks_at == "entropy":
            return [entropy_bits(row) for row in raw]
        confidences: list[float] = torch.softmax(raw.float(), dim=-1).amax(dim=-1).tolist()
        return confidences
