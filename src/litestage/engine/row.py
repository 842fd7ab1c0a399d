"""One generation while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from litestage.core import Completion, Counts, FinishReason, OnToken, Request
from litestage.engine.prefixes import Prefix


@dataclass(slots=True)
class Row:
    """A request's tokens so far, and why it ended once it has."""

    index: int
    """Which request of the call it is."""
    request: Request
    max_new_tokens: int
    """As asked, or what the context leaves."""
    uniforms: Tensor | None = None
    tokens: list[int] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    prefix: Prefix | None = None
    """The longest kept beginning of its prompt."""
    reused: int = 0
    """Prompt tokens that some other row has been counted for."""
    reason: FinishReason | None = None

    @property
    def to_prefill(self) -> int:
        """Prompt tokens that no prefix holds."""
        return len(self.request.prompt_ids) - (len(self.prefix.tokens) if self.prefix else 0)

    @property
    def length(self) -> int:
        """Tokens in the cache: the prompt and all generated ones but the last, which the next step runs."""
        return len(self.request.prompt_ids) + max(0, len(self.tokens) - 1)

    @property
    def step(self) -> int:
        """The decode step that comes next."""
        return len(self.tokens) - 1

    def take(self, prefix: Prefix | None) -> None:
        """Start behind a kept beginning; its tokens are counted for the first row that takes it."""
        self.prefix = prefix
        self.reused = len(prefix.tokens) - prefix.bill() if prefix else 0

    def accept(self, token: int, confidence: float, eos_ids: tuple[int, ...], on_token: OnToken | None) -> None:
        """Take the next token, or EOS in its place when the exit rule says so (REFERENCE, section 4)."""
        self.confidences.append(confidence)
        if token in eos_ids:
            self.reason = "eos"
        elif self._unsure():
            token, self.reason = eos_ids[0], "low_confidence"
        self.tokens.append(token)
        if self.reason is None and len(self.tokens) >= self.max_new_tokens:
            self.reason = "length"
        if on_token is not None:
            on_token(self.index, token)

    def _unsure(self) -> bool:
        rule = self.request.stage_plan.exit
        return rule is not None and rule.first_exit(self.confidences[-rule.window :]) is not None

    def completion(self, text: str) -> Completion:
        assert self.reason is not None
        prompt = len(self.request.prompt_ids)
        return Completion(
            token_ids=tuple(self.tokens),
            text=text,
            confidences=tuple(self.confidences),
            finish_reason=self.reason,
            counts=Counts(prefilled=prompt - self.reused, reused=self.reused, decoded=len(self.tokens) - 1),
        )
