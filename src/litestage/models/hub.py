"""Reading other people's files, from a folder or fetched from the hub; what goes wrong becomes a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from litestage.core import ModelError

NO_CODE = {"trust_remote_code": False}
"""Code that comes with a model is never run, and nobody is asked whether it may."""
PANIC = "PanicException"
"""What libraries in Rust raise where they go wrong; it is no `Exception`, and has no name to import."""


def fetch(name: str, files: Sequence[str]) -> Path:
    """The folder into which files of a hub's repository are fetched, unless they lie there."""
    return Path(attempt("files", name, snapshot_download, name, allow_patterns=list(files)))


def attempt(what: str, name: str, reader: Any, place: Any, **options: Any) -> Any:
    """What ``reader`` makes of ``place``; raises `ModelError` with a sentence."""
    try:
        return reader(place, **options)
    except ModelError:
        raise
    except BaseException as error:  # readers of other people's files raise whatever their format can go wrong with
        if not isinstance(error, Exception) and type(error).__name__ != PANIC:
            raise
        if any(isinstance(one, LocalEntryNotFoundError | OfflineModeIsEnabled) for one in _causes(error)):
            raise ModelError(
                f"There is no folder {name!r} here, and the Hugging Face hub could not be reached to fetch a model of "
                "that name. Check the network, or give --model a folder or a .gguf file."
            ) from None
        raise ModelError(
            f"The {what} of model {name!r} could not be read: {first_line(error)} "
            "Give a folder, a .gguf file, a hub id, or a name that `litestage models` lists."
        ) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: BaseException) -> str:
    """What an error says, as one sentence."""
    said = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, KeyError) and " " not in said:
        return f"It lacks {said}."
    lines = [line.strip() for line in said.splitlines() if line.strip()] or [type(error).__name__]
    while len(lines) > 1 and lines[0].endswith(":"):
        lines[:2] = [f"{lines[0]} {lines[1]}"]
    return lines[0].rstrip(".:") + "."
