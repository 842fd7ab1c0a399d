"""``results.json``: how a job's results are written and read, those of earlier versions too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import ValidationError

from litestage.core import DataError
from litestage.core.complaints import problem
from litestage.core.files import write_text
from litestage.core.layers import Record
from litestage.core.shown import Shown

RESULTS_FILE = "results.json"
SCHEMA_VERSION = 2


class Kept(Record, Shown):
    """Results of a job, which lie in its folder as ``results.json``."""

    KIND: ClassVar[str]
    """What the file calls them."""

    def save(self, folder: Path) -> Path:
        """Write ``results.json``, whole or not at all."""
        path = folder / RESULTS_FILE
        write_text(path, self.model_dump_json(indent=1) + "\n")
        return path

    @classmethod
    def load(cls, place: Path) -> Self:
        """Read a folder's ``results.json``; raises `DataError` that says what is wrong with it."""
        path = place / RESULTS_FILE if place.is_dir() else place
        try:
            return cls.model_validate_json(json.dumps(cls.upgraded(read(path))))
        except ValidationError as error:
            raise DataError(
                f"{path}: {problem(error, None, {})}. These results were not written by this version of litestage, "
                "or were changed. Run the job again."
            ) from None

    @classmethod
    def upgraded(cls, content: Any) -> Any:
        """The content as this version writes it; what is no older results passes unchanged."""
        older = isinstance(content, dict) and content.get("schema_version") == 1
        return cls.from_version_1(content) | {"schema_version": SCHEMA_VERSION} if older else content

    @classmethod
    def from_version_1(cls, content: dict[str, Any]) -> dict[str, Any]:
        """Version 1 called the policy of a profile's point its way, and a performance a system."""
        return dict(renamed(content, {"way": "policy", "system": "performance"}))


def read(path: Path) -> Any:
    """The JSON of a results file; raises `DataError`."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"No results at {path} ({error.strerror}), so there is nothing to report. "
            "Give the folder that quickstart, compare or diagnose wrote with --out."
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}). Run the job again.") from None


def kind_of(path: Path) -> Any:
    """Which job's results a file has; None where it does not say."""
    content = read(path)
    return content.get("kind") if isinstance(content, dict) else None


def renamed(value: Any, names: dict[str, str]) -> Any:
    """JSON with other names for some fields, wherever they are."""
    if isinstance(value, dict):
        return {names.get(name, name): renamed(part, names) for name, part in value.items()}
    return [renamed(part, names) for part in value] if isinstance(value, list) else value
