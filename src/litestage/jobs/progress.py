"""How a job tells how far it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A listener: the command line draws bars, tests and scripts may stay silent."""

    def start(self, what: str, total: int | None = None) -> None:
        """A new part of the job begins; ``total`` steps are expected, if known."""
        ...

    def advance(self, steps: int = 1, note: str = "") -> None: ...

    def say(self, sentence: str) -> None:
        """Something the user should read."""
        ...


class Silent:
    """Nobody listens."""

    def start(self, what: str, total: int | None = None) -> None:
        return

    def advance(self, steps: int = 1, note: str = "") -> None:
        return

    def say(self, sentence: str) -> None:
        return


SILENT = Silent()
