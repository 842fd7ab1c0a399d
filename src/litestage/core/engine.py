"""The contract between whoever generates and whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from litestage.core.plan import ModelIdentity
from litestage.core.request import Chat, Completion, Request

TokenIds = tuple[int, ...]
OnToken = Callable[[int, int], None]
"""Called with (index of the request, token id) as tokens are decided."""


@runtime_checkable
class Engine(Protocol):
    """Turns requests into completions; knows tokens, sampling and stage plans, and no questions."""

    @property
    def identity(self) -> ModelIdentity: ...

    @property
    def max_context(self) -> int:
        """Most tokens of a prompt and its completion together."""
        ...

    def encode(self, text: str, chat: Chat | None = None) -> TokenIds:
        """Token ids of a prompt, with the tokenizer's own special tokens in front where it has them.

        With ``chat`` the text is a user's turn in the model's chat template, which writes those itself.
        """
        ...

    @property
    def eos_id(self) -> int:
        """The token that ends a text, and takes the place of one that breaks the exit rule."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, without special tokens."""
        ...

    def generate(
        self, requests: Sequence[Request], prefixes: Sequence[TokenIds] = (), on_token: OnToken | None = None
    ) -> list[Completion]:
        """Completions in the order of the requests.

        ``prefixes`` names prompt beginnings worth keeping: each is prefilled once and copied to the rows, of this call
        and of later ones, that start with it.
        """
        ...


class EngineAround:
    """What an engine around another one takes from it: all but how requests are answered."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def identity(self) -> ModelIdentity:
        return self.engine.identity

    @property
    def max_context(self) -> int:
        return self.engine.max_context

    @property
    def eos_id(self) -> int:
        return self.engine.eos_id

    def encode(self, text: str, chat: Chat | None = None) -> TokenIds:
        return self.engine.encode(text, chat)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self.engine.decode(token_ids)


def beginning(requests: Sequence[Request], prefixes: Sequence[TokenIds]) -> list[TokenIds]:
    """The prefixes that one of the requests begins with."""
    return [p for p in prefixes if any(request.prompt_ids[: len(p)] == p for request in requests)]
