"""Whose folder a results folder is: a search's files are its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from litestage.core import OptionError
from litestage.core.files import read_kept, write_text
from litestage.core.plan import content_hash
from litestage.jobs.session import Session
from litestage.results import RESULTS_FILE
from litestage.tasks import Question
from litestage.training.checkpoint import CHECKPOINT
from litestage.training.loop import REPORT

SETTINGS_FILE = "settings.json"
HASHED = ("model", "task", "questions")
"""Settings that are kept as a hash of their content."""


def claim(session: Session, questions: Sequence[Question], out: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder that holds another search; a run that was killed finds its own settings there."""
    described = json.loads(json.dumps(settings)) | {
        "model": session.engine.identity.fingerprint,
        "task": session.task.fingerprint,
        "questions": content_hash([question.model_dump(mode="json") for question in questions]),
        "dtype": session.options.dtype,
        "quantise": session.options.quantise,
        "device": session.engine.model.decoder.device.type,
        "batch_size": session.options.batch_size,
    }
    refuse_other_results(out, "plan")
    for file, what in ((REPORT, "a trained model or adapter"), (CHECKPOINT, "a training that was interrupted")):
        if (out / file).is_file():
            raise OptionError(f"{out} holds {what}, whose plan this would replace. Choose another --out.")
    path = out / SETTINGS_FILE
    if path.is_file():
        before = _content(path)
        if differing := list(_differing(before, described)):
            raise OptionError(
                f"{out} holds another search ({'; '.join(differing)}): going on there would mix the two. "
                "Choose another --out, or delete that folder."
            )
    else:
        write_text(path, json.dumps(described, indent=2) + "\n")


def refuse_other_jobs(out: Path, kind: str) -> None:
    """Raise `OptionError` for a folder of another kind of job: its ranking, prices or results would be replaced."""
    if (out / SETTINGS_FILE).is_file():
        raise OptionError(
            f"{out} holds a search, and this would change what it goes on with. "
            f"Choose another --out, such as {out / 'test'}."
        )
    refuse_other_results(out, kind)


def refuse_other_results(out: Path, kind: str) -> None:
    """Raise `OptionError` for a folder that holds what another kind of job left."""
    path = out / RESULTS_FILE
    if path.is_file() and _content(path).get("kind") != kind:
        raise OptionError(f"{path} is of another job and would be spoilt by this {kind}. Choose another --out.")


def _content(path: Path) -> dict[str, Any]:
    if isinstance(content := read_kept(path, json.loads), dict):
        return content
    raise OptionError(
        f"{path} cannot be read, so whose folder this is cannot be told. Delete it, or choose another --out."
    )


def _differing(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Settings that changed, with their values where those say something to a person."""
    for name, value in now.items():
        was = before.get(name)
        if isinstance(value, dict) and isinstance(was, dict):
            yield from _differing(was, value)
        elif was != value:
            yield f"other {name}" if name in HASHED else f"its {name} is {was}, now {value}"
