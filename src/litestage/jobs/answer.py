"""One question, typed by a person, answered stage by stage as the text comes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from litestage.core import DataError, Plan, StageTrace, Trace
from litestage.jobs.session import Session
from litestage.pipeline import run
from litestage.tasks import LETTERS, Question, check_text

OnText = Callable[[str, int, str], None]
"""Called with a stage's name, a branch, and that branch's text so far."""


def read_question(text: str, choices: Sequence[str]) -> Question:
    """A question with its choices, given apart or inside the text as "(A) first (B) second"."""
    inside = re.findall(r"\(([A-Z])\)", text)
    if choices and inside[:2] == ["A", "B"]:
        raise DataError("The question has choices of its own, (A) and (B), beside each --choice. Give them in one way.")
    if not choices:
        parts = re.split(r"\s*\(([A-Z])\)\s*", text.strip())
        text, letters, choices = parts[0], parts[1::2], parts[2::2]
        if letters != list(LETTERS[: len(letters)]):
            raise DataError(f"The choices are lettered {', '.join(letters)}; they must go A, B, C and so on.")
    if not text.strip() or not choices or not all(choice.strip() for choice in choices):
        raise DataError(
            'A question needs its choices: litestage run "Which of these floats? (A) a cork (B) a stone", '
            "or one --choice for each."
        )
    if len(choices) < 2:
        raise DataError(f"A question needs two choices or more, but this one has only {choices[0].strip()!r}.")
    if len(choices) > len(LETTERS):
        raise DataError(f"{len(choices)} choices are more than there are letters for.")
    try:
        for name, part in (("The question", text), *(("A choice", choice) for choice in choices)):
            check_text(name, part)
    except ValueError as error:
        raise DataError(f"{error}. Type it again; is the terminal set to UTF-8?") from None
    return Question(id="typed", question=text.strip(), choices=tuple(choice.strip() for choice in choices))


def ask(
    session: Session,
    question: Question,
    plan: Plan,
    *,
    on_text: OnText | None = None,
    on_stage: Callable[[StageTrace], None] | None = None,
) -> Trace:
    """Answer one question greedily; ``on_text`` hears every token, ``on_stage`` every finished stage."""
    names = list(session.task.stage_names)
    tokens: dict[int, list[int]] = {}
    decode = session.engine.model.tokenizer.decode

    def heard(branch: int, token: int) -> None:
        tokens.setdefault(branch, []).append(token)
        if on_text is not None:
            on_text(names[0], branch, decode(tokens[branch], skip_special_tokens=True))

    def finished(traces: Sequence[StageTrace]) -> None:
        names.pop(0)
        tokens.clear()
        if on_stage is not None:
            on_stage(traces[0])

    (trace,) = run(
        session.engine, session.task, [question], plan, on_token=heard, on_stage=lambda _, traces: finished(traces)
    )
    return trace
