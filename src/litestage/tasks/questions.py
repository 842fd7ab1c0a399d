"""Question sets: JSONL files, the hub, and what is embedded in the package."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import ValidationError

from litestage.core.complaints import RepeatedError, did_you_mean, once, problem, shown
from litestage.core.errors import DataError, OptionError
from litestage.tasks import everyday
from litestage.tasks.hub import HUB, hub_rows
from litestage.tasks.question import LETTERS, Question, check_text
from litestage.tasks.task import Stage, Task

T = TypeVar("T")
Split = Literal["train", "dev", "test", "certify"]
SPLITS: tuple[Split, ...] = get_args(Split)
REQUIRED = ("id", "question", "choices", "answer")
EMBEDDED: Mapping[str, Callable[[Split, int | None], list[dict[str, Any]]]] = {"everyday": everyday.questions}

Entry = tuple[str, object]
"""Where a question stands, as a message names it, and what stands there."""


def load_questions(task: Task, split: str, data: str | Path | None = None, limit: int | None = None) -> list[Question]:
    """The first ``limit`` questions of a split, or all of them.

    ``data`` is a folder with ``{split}.jsonl``, one ``.jsonl`` file, ``hub:NAME`` or ``embedded:NAME``; None takes the
    task's own source. A field that is called like a stage holds that stage's training target; further scalar fields go
    to ``extra``. A file is checked whole, whatever the limit. Raises `OptionError` for a split, limit or source that
    cannot be, and `DataError` that names file, line and field.
    """
    split = _split(split)
    if limit is not None and limit < 1:
        raise OptionError(f"--limit {limit} would leave no question. Choose 1 or more, or leave it out to take all.")
    source = data if data is not None else task.questions
    if source is None:
        raise OptionError(f"Task {task.name} has no questions of its own. Give some with --data DIR.")
    questions = _questions(_entries(str(source), split, limit), task)
    if not questions:
        raise DataError(f"{source} has no {split} questions: it is empty. Put one JSON object on each line.")
    return questions[:limit]


def has_certify_questions(task: Task, data: str | Path | None = None) -> bool:
    """Whether a source has a split that is for certificates alone."""
    source = str(data if data is not None else task.questions)
    kind, _, name = source.partition(":")
    if kind == "hub":
        return False
    return name in EMBEDDED if kind == "embedded" else (Path(source) / "certify.jsonl").is_file()


def question_from(row: object, task: Task) -> Question:
    """A question from the fields of one line. Raises ValueError that says which field cannot be used."""
    if not isinstance(row, dict):
        raise ValueError(f"it should be one object with {', '.join(REQUIRED)}, but is {shown(row)}")
    if missing := [name for name in REQUIRED if row.get(name) is None]:
        raise ValueError(f"{missing[0]} is missing; a question needs {', '.join(REQUIRED)}")
    stages = [stage for stage in task.stages if stage.name not in REQUIRED and row.get(stage.name) is not None]
    content = {name: _frozen(row[name]) for name in REQUIRED}
    try:
        question = Question.model_validate(content | {"extra": _extra(row, task)}, strict=True)
    except ValidationError as error:
        raise ValueError(problem(error, row, {})) from None
    _check_texts(question)
    if question.answer is not None and not task.can_read(question):
        right = f"({LETTERS[question.answer]}) {question.choices[question.answer]}"
        raise ValueError(f"its answer is {right}, which the task's answer_pattern {task.answer_pattern!r} never finds")
    return question.model_copy(update={"targets": {stage.name: _target(row, stage, question) for stage in stages}})


def _split(split: str) -> Split:
    for known in SPLITS:
        if split == known:
            return known
    raise OptionError(f"--split {split} is not known.{did_you_mean(split, SPLITS)} Choose {', '.join(SPLITS)}.")


def _entries(source: str, split: Split, limit: int | None) -> Iterable[Entry]:
    """All of a split; of what is written as it is asked for, so many."""
    kind, _, name = source.partition(":")
    if kind == "embedded":
        rows = _named(EMBEDDED, source, name)(split, limit)
    elif kind == "hub":
        hub_set = _named(HUB, source, name)
        if split not in hub_set.splits:
            raise OptionError(f"{source} has no {split} questions. Give --certify, to take some of dev.")
        rows = hub_rows(hub_set, split)
    else:
        return _jsonl(Path(source), split)
    return ((f"{source} ({split}), question {number}", row) for number, row in enumerate(rows, 1))


def _named(known: Mapping[str, T], source: str, name: str) -> T:
    if name not in known:
        raise OptionError(
            f"There are no questions at {source!r}.{did_you_mean(name, known)} Known there: {', '.join(known)}; "
            "questions of your own are a folder, given with --data DIR."
        )
    return known[name]


def _jsonl(source: Path, split: Split) -> Iterator[Entry]:
    path = source if source.suffix == ".jsonl" else source / f"{split}.jsonl"
    if path == source and not path.exists():
        near = did_you_mean(path.name, (file.name for file in path.parent.glob("*.jsonl")))
        raise DataError(f"{path} is not there.{near} Give --data a folder or a .jsonl file.")
    # Not splitlines: a text may hold line separators of its own, such as U+2028.
    for number, line in enumerate(_read(path).split("\n"), 1):
        if line.strip():
            yield (where := f"{path}, line {number}"), _parse(line, where)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
    except OSError as error:
        raise DataError(f"No questions could be read from {path} ({error.strerror}). {_what_is_there(path)}") from None


def _what_is_there(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"{folder} is {'a file' if folder.exists() else 'not there'}: give --data a folder or a .jsonl file."
    there = sorted(entry.name for entry in folder.iterdir())
    there = [name for name in there if name.endswith(".jsonl")] or there
    listed = ", ".join(there[:8] + ["..."] * bool(there[8:])) or "nothing"
    return f"{folder} holds {listed}: check --data and --split."


def _parse(line: str, where: str) -> object:
    try:
        return json.loads(line, object_pairs_hook=once)
    except RepeatedError as error:
        raise DataError(f"{where}: {error}. Leave one out.") from None
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(
            f"{where}: it is not JSON ({reason}). Each line should hold one whole object, "
            'such as {"id": "1", "question": "...", "choices": ["...", "..."], "answer": 0}.'
        ) from None


def _questions(entries: Iterable[Entry], task: Task) -> list[Question]:
    questions: dict[str, Question] = {}
    places: dict[str, str] = {}
    for where, row in entries:
        try:
            question = question_from(row, task)
        except ValueError as error:
            raise DataError(f"{where}: {error}. Correct the question or take it out.") from None
        if first := places.get(question.id):
            raise DataError(
                f"{where}: id {question.id!r} stands in {first} already. Results are kept by id: give each its own."
            )
        questions[question.id], places[question.id] = question, where
    return list(questions.values())


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _extra(row: Mapping[str, object], task: Task) -> dict[str, object]:
    known = {*REQUIRED, *task.stage_names}
    return {
        name: value
        for name, value in row.items()
        if name not in known and (value is None or isinstance(value, str | int | float))
    }


def _check_texts(question: Question) -> None:
    check_text("question", question.question)
    for index, choice in enumerate(question.choices):
        check_text(f"choices[{index}]", choice)


def _target(row: Mapping[str, object], stage: Stage, question: Question) -> str | tuple[str, ...]:
    value, choices = row[stage.name], len(question.choices)
    if stage.fan_out == "none" and isinstance(value, str):
        return value
    if stage.fan_out == "none":
        raise ValueError(f"{stage.name} should be a text or null, but is {shown(value)}")
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{stage.name} should be a list of texts, one a choice, or null, but is {shown(value)}")
    if len(value) != choices:
        raise ValueError(f"{stage.name} has {len(value)} texts, but there are {choices} choices: it needs one for each")
    return tuple(value)
