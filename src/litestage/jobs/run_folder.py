"""Where a job keeps its work: what is made lies beside what it was made from, and is made again for anything else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from litestage.core import OptionError
from litestage.core.files import read_kept, write_text
from litestage.core.plan import content_hash
from litestage.results import RESULTS_FILE
from litestage.training.checkpoint import CHECKPOINT
from litestage.training.loop import REPORT

T = TypeVar("T")
SETTINGS_FILE = "settings.json"
HASHED = ("model", "task", "questions")
"""Settings that are kept as a hash of their content."""


class RunFolder:
    """A folder of one job, or none at all: then nothing is kept.

    Everything in it rests on the same ``conditions``: model, machine and versions.
    """

    def __init__(self, path: Path | None, conditions: Mapping[str, Any]) -> None:
        self.path, self.conditions = path, conditions

    def remember(self, name: str, inputs: object, kind: type[T], make: Callable[[], T]) -> T:
        """What ``make`` gives of ``inputs``, made once: it is kept in the file ``name``, as JSON of a ``kind``."""
        kept = self.recall(name, inputs, kind)
        return self.keep(name, inputs, kind, make()) if kept is None else kept

    def recall(self, name: str, inputs: object, kind: type[T]) -> T | None:
        """What was kept of these inputs; None where that is nothing, or cannot be read and is better made again."""
        document = read_kept(self.path / name, json.loads) if self.path else None
        if document is None:
            return None
        try:
            made_from, content = _parts(document, stamp := self.stamp(inputs))
            return TypeAdapter(kind).validate_python(content) if made_from == stamp else None
        except (KeyError, TypeError, ValueError):
            return None

    def keep(self, name: str, inputs: object, kind: type[T], content: T) -> T:
        """Keep ``content`` and what it was made from, in place of what was kept before; returns it."""
        if self.path:
            document = {"made_from": self.stamp(inputs), "content": TypeAdapter(kind).dump_python(content, mode="json")}
            write_text(self.path / name, json.dumps(document, indent=1) + "\n")
        return content

    def stamp(self, inputs: object) -> str:
        """A name for what is computed or timed from ``inputs`` here: another model, machine or version has another."""
        fixed = {name: value for name, value in self.conditions.items() if name != "threads"}
        return content_hash([fixed, *(inputs if isinstance(inputs, list) else [inputs])])

    def reserve(self, kind: str, settings: Mapping[str, Any] | None = None) -> None:
        """Take the folder for a kind of job; raises `OptionError` where another one's work would be spoilt.

        A search gives its ``settings``: it goes on where a killed one with the same settings stopped, and nowhere else.
        """
        if self.path is None:
            return
        path = self.path / SETTINGS_FILE
        if settings is None and path.is_file():
            raise OptionError(
                f"{self.path} holds a search, and this would change what it goes on with. "
                f"Choose another --out, such as {self.path / 'test'}."
            )
        self._refuse_other_results(kind)
        if settings is None:
            return
        for file, what in ((REPORT, "a trained model or adapter"), (CHECKPOINT, "a training that was interrupted")):
            if (self.path / file).is_file():
                raise OptionError(f"{self.path} holds {what}, whose plan this would replace. Choose another --out.")
        described = json.loads(json.dumps(settings))
        if not path.is_file():
            write_text(path, json.dumps(described, indent=2) + "\n")
        elif differing := list(_differing(_settings(path), described)):
            raise OptionError(
                f"{self.path} holds another search ({'; '.join(differing)}): going on there would mix the two. "
                "Choose another --out, or delete that folder."
            )

    def _refuse_other_results(self, kind: str) -> None:
        path = (self.path or Path()) / RESULTS_FILE
        if path.is_file() and _settings(path).get("kind") != kind:
            raise OptionError(f"{path} is of another job and would be spoilt by this {kind}. Choose another --out.")


def _parts(document: Any, stamp: str) -> tuple[Any, Any]:
    """What a file was made from, and its content. Before there were run folders each kind of file said it elsewhere."""
    if "made_from" in document:
        return document["made_from"], document["content"]
    for name in ("inputs", "stamp"):
        if name in document:
            return document[name], {key: value for key, value in document.items() if key != name}
    if isinstance(document, list):  # its name told
        return stamp, document
    return document["conditions"]["stamp"], document


def _settings(path: Path) -> dict[str, Any]:
    if isinstance(content := read_kept(path, json.loads), dict):
        return {"policies" if name == "ways" else name: value for name, value in content.items()}  # as they were called
    raise OptionError(
        f"{path} cannot be read, so whose folder this is cannot be told. Delete it, or choose another --out."
    )


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Settings that changed, with their values where those say something to a person."""
    for name, value in now.items():
        was = before.get(name)
        if isinstance(value, dict) and isinstance(was, dict):
            yield from _differing(was, value)
        elif was != value:
            yield f"other {name}" if name in HASHED else f"its {name} is {was}, now {value}"
