"""Prompts as token ids, and what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from litestage.core import DataError, Engine, TokenIds
from litestage.core.rows import common_length
from litestage.tasks.question import Question
from litestage.tasks.task import Stage, Task

WORTH_KEEPING = 16
"""Shortest header, in tokens, that is prefilled apart: a shorter one costs more in forwards than it saves."""


@dataclass(frozen=True)
class Prompts:
    """One stage of one question: its branches' prompts and the beginning to prefill once."""

    texts: tuple[str, ...]
    ids: tuple[TokenIds, ...]
    """Empty where the prompt does not fit the context."""
    header: TokenIds
    """What every question's prompt of this stage starts with."""
    shared: TokenIds
    """What the branches, the votes or a later stage's prompts have in common; empty when nothing more is gained."""
    reused: int
    """Leading tokens that earlier stages of this question prefilled."""
    choices: tuple[tuple[TokenIds, ...], ...]
    """What each prompt's text may be; nothing for one that is free."""


@dataclass
class Written:
    """What earlier stages of a question left for the next one."""

    texts: dict[str, str] = field(default_factory=dict)
    asked: list[TokenIds] = field(default_factory=list)
    """Their prompts, and what was written behind them where that is not prefilled again."""
    room: bool = True
    """False once a prompt did not fit the context."""


def encode_prompts(
    engine: Engine, task: Task, stage: Stage, header: TokenIds, question: Question, so_far: Written, votes: int
) -> Prompts:
    """Render and encode a stage's prompts.

    Raises `DataError` for a question that is too long by itself. A prompt that earlier stages made too long has no ids,
    nor have those behind it, for which there is no room.
    """
    prompts = tuple(task.prompts(stage, question, so_far.texts))
    ids = tuple(engine.encode(prompt, task.chat) for prompt in prompts)
    allowed = stage.choices(question)
    choices = tuple(engine.continuations(prompt, allowed, task.chat) if allowed else () for prompt in prompts)
    longest = max(len(prompt) + max(map(len, some), default=1) - 1 for prompt, some in zip(ids, choices, strict=True))
    if longest >= engine.max_context and not so_far.texts:
        raise DataError(
            f"Question {question.id}: its {stage.name} prompt has {longest} tokens, but {engine.identity.id} takes "
            f"{engine.max_context} with its answer. Shorten the question, or use fewer worked examples (--shots)."
        )
    if longest >= engine.max_context or not so_far.room:
        return Prompts(prompts, ((),) * len(prompts), (), (), 0, ())
    shared = common_prefix(ids) if len(ids) > 1 else ids[0] if votes > 1 or _continued(task, stage) else ()
    first = shared or ids[0]
    reused = max((common_length(first, prompt) for prompt in so_far.asked), default=0)
    worth = len(shared) > max(len(header), reused)
    return Prompts(prompts, ids, header, shared if worth else (), reused, choices)


def header_of(engine: Engine, task: Task, stage: Stage) -> TokenIds:
    """The tokens that every prompt of the stage starts with (its worked examples), or nothing if they are few.

    The last token may merge with what follows, so the header is what two different questions share.
    """
    if not task.shots or task.chat:
        return ()
    ids = engine.encode(task.header(stage))
    header = common_prefix([ids, engine.encode(task.header(stage) + "Which")])
    return header if len(header) >= WORTH_KEEPING else ()


def common_prefix(ids: Sequence[TokenIds]) -> TokenIds:
    """The tokens that all sequences start with."""
    same = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*ids, strict=False))
    return tuple(tokens[0] for tokens in same)


def _continued(task: Task, stage: Stage) -> bool:
    """Whether a later stage's prompt starts with this one's."""
    later = task.stages[task.stages.index(stage) + 1 :]
    return not task.shots and not task.chat and any(s.prompt.startswith(stage.prompt) for s in later)
