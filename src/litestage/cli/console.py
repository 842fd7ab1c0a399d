"""Where commands print, and the progress that people see."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Printer(Console):
    """A console that lets a broken pipe through; see `litestage.cli.command`."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


OUT = _Printer(markup=False)
ERR = Console(stderr=True, markup=False)
"""Without markup: brackets in a question or a path are that, and no style."""


QUIET = 60.0
"""Seconds after which a log is told how far a part is."""


class Bars:
    """Progress bars on the error stream, so that what a command prints can be piped; plain lines without a terminal."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<34.34}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=ERR,
            transient=True,
            disable=not ERR.is_terminal,
        )
        self._task: TaskID | None = None
        self._what, self._note = "", ""
        self._told = 0.0

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        self._bars.stop()
        if kind is KeyboardInterrupt:
            ERR.print("What was done is kept: run the same command again to go on.")

    def start(self, what: str, total: int | None = None) -> None:
        """A new part of the job begins."""
        self._finish()
        self._what, self._note, self._told = what, "", time.monotonic()
        self._task = self._bars.add_task(escape(what), total=total, note="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._note = note or self._note
        if self._task is not None:
            self._bars.update(self._task, advance=steps, note=self._note)
            if self._bars.disable and time.monotonic() - self._told >= QUIET:
                self._tell(self._task)

    def say(self, sentence: str) -> None:
        """Something the user should read."""
        self._finish()
        ERR.print(sentence, highlight=False, style="dim")

    def _tell(self, task: TaskID) -> None:
        """Without a bar to look at, a line."""
        self._told = time.monotonic()
        now = self._bars.tasks[self._bars.task_ids.index(task)]
        of = "" if now.total is None else f" of {now.total:g}"
        left = f"  {now.time_remaining / 60:.0f} min left" if now.time_remaining else ""
        ERR.print(f"  {self._what}: {now.completed:g}{of}{left}  {self._note}".rstrip(), highlight=False, style="dim")

    def _finish(self) -> None:
        """Leave a line of what was done."""
        if self._task is None:
            return
        seconds = self._bars.tasks[self._bars.task_ids.index(self._task)].elapsed or 0.0
        self._bars.remove_task(self._task)
        self._task = None
        note = f"  {self._note}" if self._note else ""
        ERR.print(Text.assemble(("✓", "green"), f" {self._what}", (f"{note}  {seconds:.1f} s", "dim")), highlight=False)
