"""Which questions a finished job answered right, read from the folder it left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from litestage.core.complaints import did_you_mean, problem
from litestage.core.errors import DataError
from litestage.core.layers import Record
from litestage.results.comparison import Comparison
from litestage.results.kept import RESULTS_FILE

EVALUATION_FILE = "evaluation.json"
MARK = "#"
"""Between a comparison's folder and the name of one of its systems."""


class Answered(Record):
    """One system's answers."""

    place: str
    task: str
    correct: dict[str, bool]
    """By question id."""
    gold: dict[str, int | None]


class _Part(BaseModel):
    """What is read of an evaluation; all else there is of no interest here."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Answer(_Part):
    question_id: str
    vote: int
    answer: int | None
    gold: int | None


class _Plan(_Part):
    task: str


class _Evaluation(_Part):
    plan: _Plan
    questions: tuple[_Answer, ...]


def read_answered(place: str) -> Answered:
    """Answers of an evaluation's folder, or of a comparison's: ``DIR`` is its full depth, ``DIR#NAME`` a system of it.

    Raises `DataError` that says what is wrong with the folder.
    """
    folder, _, system = place.partition(MARK)
    path = Path(folder)
    if path.is_dir():
        path /= EVALUATION_FILE if (path / EVALUATION_FILE).is_file() else RESULTS_FILE
    try:
        content = path.read_bytes()
        kind = json.loads(content)
    except OSError as error:
        raise DataError(
            f"No answers at {path} ({error.strerror}). Give the folder of a `litestage evaluate` or a "
            "`litestage compare`: they keep every question's answer."
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}), so no answers can be read from it.") from None
    if isinstance(kind, dict) and kind.get("kind") == "comparison":
        return _checked(path, lambda: _of_comparison(place, Comparison.load(path), system))
    if isinstance(kind, dict) and kind.get("kind") is not None:
        raise DataError(
            f"{path} keeps no answers a question, so it cannot be paired. Run `litestage evaluate` on the same "
            "questions twice, or `litestage certify --plan DIR`."
        )
    if system:
        raise DataError(
            f"{place}: {folder} is no comparison, so it has no system {system!r}. Leave {MARK}{system} out."
        )
    return _checked(path, lambda: _of_evaluation(place, _Evaluation.model_validate_json(content)))


def _checked(path: Path, read: Callable[[], Answered]) -> Answered:
    try:
        return read()
    except ValidationError as error:
        raise DataError(
            f"{path}: {problem(error, None, {})}. No answers can be read from it; run the job again."
        ) from None


def _of_comparison(place: str, found: Comparison, name: str) -> Answered:
    systems = {method.name: method for method in found.results}
    if name and name not in systems:
        raise DataError(
            f"{place}: the comparison has no system {name!r}.{did_you_mean(name, systems)} It has {', '.join(systems)}."
        )
    answers = systems[name].answers if name else found.full.answers
    gold = dict(zip(found.question_ids, found.gold, strict=True))
    return _answered(place, found.task, dict(zip(found.question_ids, answers, strict=True)), gold)


def _of_evaluation(place: str, found: _Evaluation) -> Answered:
    answers = {one.question_id: one.answer for one in found.questions}
    if len(answers) < len(found.questions):
        raise DataError(
            f"{place} has several votes a question, and a certificate is of one answer to each. Evaluate without "
            "--votes."
        )
    return _answered(place, found.plan.task, answers, {one.question_id: one.gold for one in found.questions})


def _answered(place: str, task: str, answers: dict[str, Any], gold: dict[str, int | None]) -> Answered:
    if without := [question for question, right in gold.items() if right is None]:
        raise DataError(f"{place}: question {without[0]} has no right answer, so nothing can be lost on it.")
    correct = {question: answer is not None and answer == gold[question] for question, answer in answers.items()}
    return Answered(place=place, task=task, correct=correct, gold=gold)


def check_same_questions(before: Answered, after: Answered) -> None:
    """Raise `DataError` where the two are of other tasks, or a question has another right answer.

    Questions that only one of them answered are found when they are paired.
    """
    if before.task != after.task:
        raise DataError(
            f"{before.place} is of task {before.task}, but {after.place} is of {after.task}: their difference would "
            "mix the tasks with the systems. Give two folders of one task."
        )
    both = before.gold.keys() & after.gold.keys()
    if other := sorted(question for question in both if before.gold[question] != after.gold[question]):
        raise DataError(
            f"Question {other[0]} has another right answer in {before.place} than in {after.place}: these are other "
            "questions with the same ids. Evaluate both on the same data."
        )
