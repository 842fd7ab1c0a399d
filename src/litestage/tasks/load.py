"""Tasks by name or from a TOML or YAML file, so that a new task needs no code."""

from __future__ import annotations

import tomllib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from litestage.core.complaints import did_you_mean, problem, shown, toml_problem
from litestage.core.errors import TaskError
from litestage.core.request import Sampling
from litestage.tasks.question import Question
from litestage.tasks.questions import EMBEDDED, question_from
from litestage.tasks.task import Stage, TargetRule, Task

BUILTIN = Path(__file__).parent / "builtin"
BUILTIN_NAMES = ("everyday", "obqa", "csqa", "strategyqa", "three_stage")
SUFFIXES = (".toml", ".yaml", ".yml")
FIELDS = {
    "": ("extends", *(name for name in Task.model_fields if name != "shots")),
    "stages": tuple(Stage.model_fields),
    "sampling": tuple(Sampling.model_fields),
    "target_rules": tuple(TargetRule.model_fields),
}
EXAMPLES_OF_EVERYDAY = slice(32, 36)
"""The first four in a row that are short, have each answer letter once, and show right choices and wrong ones."""

Content = dict[str, Any]


def list_tasks() -> tuple[Task, ...]:
    """The built-in tasks, the default one first."""
    return tuple(load_task(name) for name in BUILTIN_NAMES)


def load_task(name_or_path: str | Path) -> Task:
    """The task of a built-in name, or of a ``.toml``, ``.yaml`` or ``.yml`` file.

    Raises `TaskError` that names the file, the field and what to do.
    """
    return _load(_find(name_or_path, Path()), above=())


def _find(name_or_path: str | Path, folder: Path) -> Path:
    """The file of a task; a relative path counts from ``folder``."""
    if name_or_path in BUILTIN_NAMES:
        return BUILTIN / f"{name_or_path}.toml"
    path = folder / name_or_path
    if path.suffix not in SUFFIXES:
        files = [f"{name_or_path}{suffix}" for suffix in SUFFIXES if (folder / f"{name_or_path}{suffix}").is_file()]
        near = did_you_mean(str(name_or_path), files or BUILTIN_NAMES)
        raise TaskError(
            f"There is no task {str(name_or_path)!r}.{near} "
            f"Built in are {', '.join(BUILTIN_NAMES)}; a task of your own is the path of a .toml, .yaml or .yml file."
        )
    return path


def _load(path: Path, above: tuple[Path, ...]) -> Task:
    content = _read(path)
    if "questions" in content:
        content["questions"] = _source(content["questions"], path)
    inherited = _inherited(content.pop("extends", None), path, above)
    if "stages" in content:  # rules for other stages would name none of these
        inherited.pop("target_rules", None)
    examples = content.pop("examples", None)
    task = _task(inherited | content | ({} if examples is None else {"examples": ()}), path)
    return task if examples is None else _with_examples(task, examples, path)


def _inherited(extends: object, path: Path, above: tuple[Path, ...]) -> Content:
    """The fields of the task that this one extends: all but its name, and each only where this one has none."""
    if extends is None:
        return {}
    if not isinstance(extends, str):
        raise TaskError(f"{path}: extends should be the name or path of one task, but is {shown(extends)}.")
    try:
        parent = _find(extends, path.parent)
    except TaskError as error:
        raise TaskError(f"{path}: extends: {error}") from None
    if parent.resolve() in (*above, path.resolve()):
        raise TaskError(f"{path}: extends {extends!r}, which extends this file in turn. Take one of the two out.")
    return _load(parent, (*above, path.resolve())).model_dump(exclude={"name"}, exclude_unset=True)


def _task(content: Content, path: Path) -> Task:
    if "shots" in content:
        raise TaskError(f"{path}: shots is not a field there. Write examples as [[examples]]; --shots takes some.")
    try:
        return Task.model_validate(_frozen(content), strict=True)
    except ValidationError as error:
        raise TaskError(f"{path}: {problem(error, content, FIELDS)}. Correct it and run the command again.") from None
    except RecursionError:
        raise TaskError(f"{path} is nested too deeply, or holds itself. Write out what it repeats.") from None


def _frozen(content: object) -> object:
    """Lists as tuples: nothing else that a file holds is taken for something that it is not.

    Raises `RecursionError` for YAML that holds itself.
    """
    if isinstance(content, dict):
        return {name: _frozen(value) for name, value in content.items()}
    return tuple(map(_frozen, content)) if isinstance(content, list) else content


def _with_examples(task: Task, examples: object, path: Path) -> Task:
    """The task with worked examples written like questions in a JSONL file, or with those of the embedded set."""
    if examples == "embedded:everyday":
        rows: list[Any] = EMBEDDED["everyday"]("train", EXAMPLES_OF_EVERYDAY.stop)[EXAMPLES_OF_EVERYDAY]
    elif isinstance(examples, list):
        rows = examples
    else:
        raise TaskError(
            f'{path}: examples should be a list of questions ([[examples]]) or "embedded:everyday", '
            f"but is {shown(examples)}."
        )
    content = task.model_dump(exclude={"examples"}, exclude_unset=True)
    return _task(content | {"examples": [_example(row, i, task, path) for i, row in enumerate(rows)]}, path)


def _example(row: object, index: int, task: Task, path: Path) -> Question:
    try:
        return question_from({"id": f"{task.name}-example-{index + 1}", **row} if isinstance(row, dict) else row, task)
    except ValueError as error:
        raise TaskError(f"{path}: examples[{index}]: {error}. Write it like a line of a question file.") from None


def _source(questions: object, path: Path) -> object:
    """A question folder counts from the task file, wherever the command is run."""
    if not isinstance(questions, str) or questions.startswith(("embedded:", "hub:")):
        return questions
    return str(path.parent / questions)


def _read(path: Path) -> Content:
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = tomllib.loads(text) if path.suffix == ".toml" else yaml.load(text, _Loader)
    except OSError as error:
        raise TaskError(f"No task could be read from {path} ({error.strerror}). Check the path.") from None
    except UnicodeDecodeError as error:
        raise TaskError(f"{path} is not UTF-8 text (byte {error.start}), so no task can be read from it.") from None
    except tomllib.TOMLDecodeError as error:
        raise TaskError(
            f"{path} is not TOML: {toml_problem(error, text)}. No task can be read until that line is correct."
        ) from None
    except yaml.YAMLError as error:
        raise TaskError(f"{path} is not YAML: {_one_line(error)}. No task can be read until that is correct.") from None
    if not isinstance(content, dict):
        raise TaskError(f"{path} should hold the fields of a task (name, stages, ...), but holds {shown(content)}.")
    return content


class _Loader(yaml.SafeLoader):
    """Takes no key twice, as TOML and our JSON do."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen.update([key.value] if isinstance(key, yaml.ScalarNode) else ())
        return super().construct_mapping(node, deep)


def _one_line(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"{error.problem} (at line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1})"
    return " ".join(str(error).split())
