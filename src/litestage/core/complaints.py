"""Validation errors as one sentence, in the words of files and fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from tomllib import TOMLDecodeError
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

Place = tuple[int | str, ...]
PLAIN_WORDS = (
    ("tuple", "list"),
    ("array", "list"),
    ("string", "text"),
    ("integer", "whole number"),
    ("dictionary", "table of fields"),
)


class RepeatedError(ValueError):
    """A field stands twice in one JSON object, of which a reader would take the last without a word."""


def once(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose fields stand there once, as ``object_pairs_hook`` of a reader; else `RepeatedError`."""
    found = dict(fields)
    if len(found) < len(fields):
        names = [name for name, _ in fields]
        raise RepeatedError(f"{next(name for name in names if names.count(name) > 1)} is there twice")
    return found


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean X?`` for the known name that looks most like this one, or nothing."""
    close = get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def listed(parts: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def shown(value: object) -> str:
    """A value as a message quotes it: on one line, and short."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def problem(error: ValidationError, content: object, fields: Mapping[str, Iterable[str]]) -> str:
    """What is wrong with the first bad field of ``content``, without a full stop at the end.

    ``fields`` names the fields of each part that has some (``""`` for the top). A field that is not known comes first,
    because it is often the misspelt one that another complaint calls missing.
    """
    return complaint(error.errors(), content, fields)[1]


def complaint(errors: Sequence[ErrorDetails], content: object, fields: Mapping[str, Iterable[str]]) -> tuple[str, str]:
    """Where the first bad field is, and `problem`'s sentence."""
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    where = place(first["loc"], content)
    if first["type"] == "extra_forbidden":
        return where, _unknown(where, first["loc"], fields)
    return where, _complaint(where, first)


def toml_problem(error: TOMLDecodeError, text: str) -> str:
    """What tomllib says, with a line also where it names none because the file ended too early."""
    return str(error).replace("at end of document", f"at line {len(text.splitlines())}, the end of the file")


def place(loc: Place, content: object) -> str:
    """Where a field is: ``stages.analysis.prompt``, or ``stages[1].prompt`` for a stage without a name."""
    where = ""
    for at, step in enumerate(loc):
        if isinstance(step, str) and _is_kind(step, content, last=at + 1 == len(loc)):
            continue
        content = _step_into(content, step)
        where += f".{step}" if isinstance(step, str) else _entry(step, content)
    return where.removeprefix(".")


def _is_kind(step: str, content: object, last: bool) -> bool:
    """Whether a step is not in the file: which of several kinds its reader took the content for."""
    if isinstance(content, dict):
        return step not in content and not last
    return content is not None


def _entry(index: int, content: object) -> str:
    name = content.get("name") if isinstance(content, dict) else None
    return f".{name}" if isinstance(name, str) else f"[{index}]"


def _step_into(content: object, step: int | str) -> object:
    if isinstance(content, dict):
        return content.get(step)
    if isinstance(content, list | tuple) and isinstance(step, int) and step < len(content):
        return content[step]
    return None


def _complaint(where: str, error: ErrorDetails) -> str:
    context: dict[str, Any] = error.get("ctx", {})
    match error["type"]:
        case "value_error":
            sentence = str(context["error"]).rstrip(".")
            return f"{where}: {sentence}" if where else sentence
        case "json_invalid":
            return f"it is not JSON ({context['error']})"
        case "missing":
            return f"{where} is missing"
        case "too_short":
            return _few(where, context["actual_length"], context["min_length"])
        case "too_long":
            return f"{where} has {context['actual_length']} entries, but there are {context['max_length']} letters"
        case "unknown_kind":
            return f"{where}.kind {error['msg']}, but is {shown(error['input'].get('kind'))}"
        case "string_pattern_mismatch":
            return f"{where} is {shown(error['input'])}, which does not look as it should ({context['pattern']})"
    return f"{where} {expectation(error['msg'])}, but is {shown(error['input'])}"


def expectation(message: str) -> str:
    """``should be a list`` from pydantic's "Input should be a valid tuple"."""
    words = message.removeprefix("Input ").removeprefix("String ").split(", unable")[0].split(" or instance")[0]
    for theirs, ours in PLAIN_WORDS:
        words = words.replace(theirs, ours)
    return words.replace("a valid", "a")


def _unknown(where: str, loc: Place, fields: Mapping[str, Iterable[str]]) -> str:
    part = next((step for step in reversed(loc[:-1]) if isinstance(step, str)), "")
    known = list(fields.get(part, ()))
    if not known:
        return f"{where} is not a field there"
    return f"{where} is not a field there.{did_you_mean(str(loc[-1]), known)} The fields are {', '.join(known)}"


def _few(where: str, entries: int, needed: int) -> str:
    return f"{where} has {entries} of at least {needed} entries" if entries else f"{where} is empty"
