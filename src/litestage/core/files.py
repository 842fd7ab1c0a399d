"""Writing files whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from litestage.core.errors import LitestageError

T = TypeVar("T")


def read_kept(path: Path, read: Callable[[bytes], T]) -> T | None:
    """What an earlier run kept; None where it kept nothing, or what cannot be read and is better made again."""
    try:
        return read(path.read_bytes())
    except (OSError, ValueError):
        return None


def write_text(path: Path, text: str) -> None:
    """Write beside, then rename: a reader never sees half a file."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(beside, 0o644)
            os.replace(beside, path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise
    except OSError as error:
        space = "Free some space or choose" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Choose"
        raise LitestageError(
            f"{path} could not be written ({error.strerror}); nothing was changed there. "
            f"{space} another folder, and run the command again."
        ) from error
