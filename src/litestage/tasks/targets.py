"""Training targets by rule: facts, explanations and the gold answer become the text that each stage should write.

What a question brings of its own is kept; a rule fills what is missing. Gold answers are read here and in
`Task.targets` alone: prompts never see them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from litestage.tasks.question import LETTERS, Question
from litestage.tasks.task import Stage, TargetRule, Task


def with_targets(task: Task, question: Question) -> Question:
    """The question with a target for every stage that it has one for, or for which the task has a rule."""
    if question.answer is None:
        return question
    targets: dict[str, str | tuple[str, ...]] = {}
    for stage in task.stages:
        if (text := _target(stage, task.target_rules.get(stage.name), question, targets)) is not None:
            targets[stage.name] = text
    return question.model_copy(update={"targets": targets})


def trainable(task: Task, questions: Sequence[Question]) -> list[Question]:
    """Questions with all their targets; those that have nothing to write for some stage are left out."""
    complete = (with_targets(task, question) for question in questions)
    return [question for question in complete if all(task.targets(stage, question) for stage in task.stages)]


def _target(
    stage: Stage, rule: TargetRule | None, question: Question, earlier: Mapping[str, str | tuple[str, ...]]
) -> str | tuple[str, ...] | None:
    own = question.targets.get(stage.name)
    if rule is None or (rule.right and own):
        return own
    return _by_choice(rule, question, earlier) if rule.right else _from_text(rule, question)


def _from_text(rule: TargetRule, question: Question) -> str | None:
    """The first ``sentences`` of the first text there is, as sentences: a capital first, a full stop last."""
    texts = (question.targets.get(name) or question.extra.get(name) for name in rule.take)
    text = next((text.strip() for text in texts if isinstance(text, str) and text.strip()), None)
    if text is None:
        return None
    text = " ".join(re.split(r"(?<=[.!?])\s+", " ".join(text.split()))[: rule.sentences])
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _by_choice(
    rule: TargetRule, question: Question, earlier: Mapping[str, str | tuple[str, ...]]
) -> tuple[str, ...] | None:
    """One text a choice, worded by ``right`` or ``wrong``; a choice keeps its wording from run to run."""
    answer = question.answer
    if answer is None:
        return None
    fields = {name: text.rstrip(".!?") for name, text in earlier.items() if isinstance(text, str)}
    fields |= {"answer": question.choices[answer].strip().rstrip("."), "answer_letter": LETTERS[answer]}
    return tuple(
        _pick(rule.right if i == answer else rule.wrong, f"{question.id} {i}").format(
            choice=choice.strip().rstrip("."), letter=LETTERS[i], **fields
        )
        for i, choice in enumerate(question.choices)
    )


def _pick(wordings: Sequence[str], key: str) -> str:
    return wordings[int(hashlib.sha256(key.encode()).hexdigest(), 16) % len(wordings)]
