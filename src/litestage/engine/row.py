"""One generation while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from litestage.core import Completion, Counts, FinishReason, Request, TokenIds
from litestage.core.choices import allowed, forced, probabilities
from litestage.core.drafts import Writing
from litestage.core.exits import Value
from litestage.engine.detokeniser import TextStream


@dataclass(slots=True, eq=False)
class Generation:
    """A request's tokens so far, and why it ended once it has."""

    id: int
    request: Request
    max_new_tokens: int
    """As asked, or what the context leaves."""
    uniforms: Tensor | None = None
    tokens: list[int] = field(default_factory=list)
    ran: int = 0
    """How many of its tokens have run: their keys and values are in the cache. The others are pending."""
    confidences: list[float] = field(default_factory=list)
    seen: list[Value] = field(default_factory=list)
    """What the exit rule looks at, of the last tokens."""
    programs: tuple[int, ...] = (0,)
    """Numbers of the layer programs of its schedule's segments."""
    stream: TextStream | None = None
    """For one that is told as it comes."""
    writing: Writing | None = None
    """Its text, where something may be guessed to follow."""
    cache_row: int = -1
    to_prefill: int = 0
    """Prompt tokens that the cache will not hold when it enters, as far as is known."""
    looked_at: bool = False
    """Whether what it shares with others that wait is in the cache."""
    reason: FinishReason | None = None
    cancelled: bool = False
    told: int = 0
    """Tokens that whoever listens has heard of."""
    opened: int = 0
    """Generated tokens that are prefilled with the prompt, as nothing had to be decided before them."""
    asked: list[tuple[int, dict[int, float]]] = field(default_factory=list)
    """Forks of an answer by choice: how many tokens came before, and how probable each allowed one was."""

    @property
    def runs(self) -> bool:
        return self.reason is None and not self.cancelled

    @property
    def opening(self) -> TokenIds:
        """What is prefilled."""
        return self.request.prompt_ids + tuple(self.tokens[: self.opened])

    @property
    def length(self) -> int:
        """Tokens in the cache: the prompt, and the generated ones that have run."""
        return len(self.request.prompt_ids) + self.ran

    def positions(self, count: int) -> range:
        """Of the tokens that run next."""
        return range(self.length, self.length + count)

    @property
    def last_length(self) -> int:
        """Slots that its cache row must have: the last token is not run, and the last slot is for padding."""
        return len(self.request.prompt_ids) + self.max_new_tokens

    @property
    def step(self) -> int:
        """The decode step that comes next: the number of the token that it runs."""
        return self.ran

    @property
    def pending(self) -> int:
        """Tokens that have not run."""
        return len(self.tokens) - self.ran

    @property
    def most_tokens(self) -> int:
        """Tokens that one forward may run: of one segment of the schedule, and none behind the last to be decided."""
        if len(self.programs) == 1:
            return self.max_new_tokens - 1 - self.ran
        return min(self.max_new_tokens - 1, self.request.stage_plan.schedule.segment_end(self.ran)) - self.ran

    @property
    def program(self) -> int:
        """The number of that step's layer program."""
        if len(self.programs) == 1:
            return self.programs[0]
        return self.programs[self.request.stage_plan.schedule.segment_index(self.step)]

    @property
    def reads_logits(self) -> bool:
        """Whether its exit rule looks at more of a forward than the confidence."""
        rule = self.request.stage_plan.exit
        return rule is not None and rule.looks_at == "entropy"

    @property
    def at_full_depth(self) -> list[int]:
        """The generated tokens that full-depth steps ran: from the first that left something out, keys are missing."""
        return self.tokens[: self.request.stage_plan.schedule.leading_full_depth(self.ran)]

    def accept(self, token: int, confidence: float, eos_ids: tuple[int, ...], seen: Value = None) -> None:
        """Take the next token, or EOS in its place when the exit rule says so (paper, section 4.4).

        ``seen`` is what the rule looks at, where that is not the confidence.
        """
        rule = self.request.stage_plan.exit
        self.confidences.append(confidence)
        if rule is not None:
            self.seen = [*self.seen, confidence if rule.looks_at == "confidence" else seen][-rule.window :]
        if token in eos_ids:
            self.reason = "eos"
        elif rule is not None and len(self.seen) == rule.window and rule.broken_by(self.seen):
            token, self.reason = eos_ids[0], rule.reason
        self.tokens.append(token)
        if self.reason is None and len(self.tokens) >= self.max_new_tokens:
            self.reason = "length"

    def choose(self, token: int, confidence: float) -> None:
        """Take the next token of an answer by choice, and what follows from it up to the next fork or the end."""
        rest = forced(self.request.choices, [*self.tokens, token])
        self.tokens += [token, *rest]
        self.confidences += [confidence, *[1.0] * len(rest)]
        if not allowed(self.request.choices, self.tokens):
            self.reason = "eos"

    def completion(self, text: str) -> Completion:
        """Its counts are of the request alone; what the cache held of the prompt is not in them."""
        assert self.reason is not None
        tokens, choices = tuple(self.tokens), self.request.choices
        return Completion(
            token_ids=tokens,
            text=text,
            confidences=tuple(self.confidences),
            finish_reason=self.reason,
            counts=Counts(prefilled=len(self.request.prompt_ids), decoded=self.ran - self.opened, joined=self.opened),
            choices=probabilities(choices, tokens, self.asked),
            chosen=choices.index(tokens) if choices else None,
            asked=tuple(at for at, _ in self.asked),
        )
