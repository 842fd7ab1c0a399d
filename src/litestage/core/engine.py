"""The contract between whoever generates and whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from litestage.core.errors import LitestageError
from litestage.core.plan import ModelIdentity
from litestage.core.request import Chat, Completion, Request

TokenIds = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NewToken:
    """A request has its next token."""

    id: int
    token: int


@dataclass(frozen=True, slots=True)
class NewText:
    """A request's text goes on; the pieces together are the completion's text, and none breaks a character."""

    id: int
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A request is done."""

    id: int
    completion: Completion


@dataclass(frozen=True, slots=True)
class Failed:
    """A request that cannot be answered, and why; the others go on."""

    id: int
    reason: str


Event = NewToken | NewText | Finished | Failed
OnEvent = Callable[[Event], None]


@runtime_checkable
class Engine(Protocol):
    """Turns requests into completions; knows tokens, sampling and stage plans, and no questions."""

    @property
    def identity(self) -> ModelIdentity: ...

    @property
    def max_context(self) -> int:
        """Most tokens of a prompt and its completion together."""
        ...

    @property
    def keeps_written(self) -> bool:
        """Whether text that was written at full depth is, as a later prompt's beginning, not prefilled again."""
        ...

    def encode(self, text: str, chat: Chat | None = None) -> TokenIds:
        """Token ids of a prompt, with the tokenizer's own special tokens in front where it has them.

        With ``chat`` the text is a user's turn in the model's chat template, which writes those itself.
        """
        ...

    def continuations(self, prompt: str, texts: Sequence[str], chat: Chat | None = None) -> tuple[TokenIds, ...]:
        """Token ids of each text behind a prompt, with the token that ends it: what a request may choose between."""
        ...

    @property
    def eos_id(self) -> int:
        """The token that ends a text, and takes the place of one that breaks the exit rule."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, without special tokens."""
        ...

    def add(self, request: Request, *, stream: bool = False) -> int:
        """Take a request and return its id; raises `OptionError` for one that can never run.

        With ``stream`` its tokens and text are told as they come; without, only that it is finished.
        """
        ...

    def cancel(self, id: int) -> None:
        """Drop a request: nothing more is told of it. One that is finished or unknown is no error."""
        ...

    def step(self) -> list[Event]:
        """Do one piece of work, for all requests together; what came of it, in order. No work, no events."""
        ...

    def generate(self, requests: Sequence[Request], on_event: OnEvent | None = None) -> list[Completion]:
        """Completions in the order of the requests: add all, step until they are done.

        ``on_event`` hears what is told of them; there an id is a request's index. Raises `UnansweredError` once all is
        done where some could not be answered.
        """
        ...


class UnansweredError(LitestageError):
    """Some requests could not be answered; ``done`` are the others' completions, both by their index."""

    def __init__(self, reasons: Mapping[int, str], done: Mapping[int, Completion]) -> None:
        super().__init__(next(iter(reasons.values())))
        self.reasons, self.done = reasons, done


class Stepping:
    """`Engine.generate` in terms of `add`, `cancel` and one piece of work."""

    _kept: list[Event] | None = None
    """Events of others' requests, which came while `generate` ran."""

    def add(self, request: Request, *, stream: bool = False) -> int:
        raise NotImplementedError

    def cancel(self, id: int) -> None:
        raise NotImplementedError

    def work(self) -> list[Event]:
        """One piece of work."""
        raise NotImplementedError

    def step(self) -> list[Event]:
        """See `Engine.step`."""
        kept, self._kept = self._kept or [], None
        return kept + self.work()

    def generate(self, requests: Sequence[Request], on_event: OnEvent | None = None) -> list[Completion]:
        """See `Engine.generate`."""
        index: dict[int, int] = {}
        done: dict[int, Completion] = {}
        reasons: dict[int, str] = {}
        try:
            for place, request in enumerate(requests):
                index[self.add(request, stream=on_event is not None)] = place
            while len(done) + len(reasons) < len(requests):
                for event in self.work():
                    if event.id not in index:
                        self._kept = [*(self._kept or ()), event]
                        continue
                    if isinstance(event, Finished):
                        done[index[event.id]] = event.completion
                    if isinstance(event, Failed):
                        reasons[index[event.id]] = event.reason
                    if on_event is not None:
                        on_event(replace(event, id=index[event.id]))
        except BaseException:  # nobody will ask for the others
            for id in index:
                self.cancel(id)
            raise
        if reasons:
            raise UnansweredError(reasons, done)
        return [done[place] for place in range(len(requests))]


class EngineAround(Stepping):
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
    def keeps_written(self) -> bool:
        return self.engine.keeps_written

    @property
    def eos_id(self) -> int:
        return self.engine.eos_id

    def encode(self, text: str, chat: Chat | None = None) -> TokenIds:
        return self.engine.encode(text, chat)

    def continuations(self, prompt: str, texts: Sequence[str], chat: Chat | None = None) -> tuple[TokenIds, ...]:
        return self.engine.continuations(prompt, texts, chat)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self.engine.decode(token_ids)

    def add(self, request: Request, *, stream: bool = False) -> int:
        return self.engine.add(request, stream=stream)

    def cancel(self, id: int) -> None:
        self.engine.cancel(id)

    def work(self) -> list[Event]:
        return self.engine.step()
