"""One question, answered stage by stage as the text comes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from litestage.core import DataError, Event, NewText, OptionError, Plan, StageTrace, Trace
from litestage.core.complaints import listed
from litestage.jobs.session import Session
from litestage.models.catalog import EMBEDDED, PULLABLE
from litestage.pipeline import Listener, run
from litestage.tasks import LETTERS, Question, check_text
from litestage.tasks.everyday import knowledge, unfamiliar

OnText = Callable[[str, int, str], None]
"""Called with a stage's name, a branch, and that branch's text so far."""
EXAMPLE = (
    "Grace is lost in the dark and sees a glow far away. Which of these could it be? "
    "(A) a sleeping bag (B) a glove (C) an ice cream (D) a lantern"
)
"""A question of the embedded set that the embedded model answers right."""


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
            f'A question needs its choices: litestage run "{EXAMPLE}", or one --choice for each. '
            "Without a question it takes one of the embedded set."
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


def sample(session: Session, number: int) -> Question:
    """Question ``number`` of the embedded test set, counted from 1; raises `OptionError` where there is none."""
    if not session.may_show_texts:
        raise OptionError(
            f"Task {session.task.name} has no questions here to take one of. Type one with its choices: "
            f'litestage run --task {session.task.name} "Which ...? (A) this (B) that".'
        )
    questions = session.questions("test")
    if not 1 <= number <= len(questions):
        raise OptionError(f"--sample {number}: the embedded test set has {len(questions)} questions. Choose 1 to that.")
    return questions[number - 1]


def caution(session: Session, question: Question) -> str:
    """What to say of a question about what the embedded model has never seen; empty for any other."""
    if session.model.name != EMBEDDED or session.model.adapter:
        return ""
    if session.task.name != EMBEDDED:
        what = f"task {session.task.name}"
    elif strange := unfamiliar(question.question, question.choices):
        what = "a question put like this" if strange == (question.question.strip(),) else listed(strange)
    else:
        return ""
    real = next(iter(PULLABLE))
    return (
        f"The embedded model knows its own {len(knowledge().things)} everyday things alone, and has never seen {what}: "
        f"its answer is a guess. A model that has read more: `litestage models pull {real}`, then --model {real}."
    )


def answer(
    session: Session,
    question: Question | str,
    plan: Plan | None = None,
    *,
    on_text: OnText | None = None,
    on_stage: Callable[[StageTrace], None] | None = None,
) -> Trace:
    """Answer one question greedily, at full depth without a plan.

    A text has its choices inside: "... Which of these could it be? (A) a glove (B) a lantern". ``on_text`` hears a
    branch's text as it grows, ``on_stage`` every finished stage.
    """
    asked = read_question(question, ()) if isinstance(question, str) else question
    plan = session.full_plan() if plan is None else plan
    names = [name for name in session.task.stage_names if not plan.stage(name).left_out]
    texts: dict[int, str] = {}

    def heard(event: Event) -> None:
        if isinstance(event, NewText) and on_text is not None:
            texts[event.id] = texts.get(event.id, "") + event.text
            on_text(names[0], event.id, texts[event.id])

    def finished(traces: Sequence[StageTrace]) -> None:
        names.pop(0)
        texts.clear()
        if on_stage is not None:
            on_stage(traces[0])

    with session.drafting():
        (trace,) = run(
            session.engine,
            session.task,
            [asked],
            plan,
            tell=Listener(on_event=heard, on_stage=lambda _, traces: finished(traces)),
        )
    return trace
