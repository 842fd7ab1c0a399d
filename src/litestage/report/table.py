"""A table as data: what its columns say of each record, for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar

Key = TypeVar("Key")
Tone = Literal["plain", "strong", "dim"]


@dataclass(frozen=True)
class Column:
    """A column's title and what it says of a record."""

    title: str
    cell: Callable[[Any], str]
    right: bool = True
    """Which way its cells lean."""
    under: str = ""
    """What stands under the title, on the page."""
    short: Callable[[Any], str] | None = None
    """What it says in a terminal, where that is less."""
    page_only: bool = False
    """Whether a terminal has no room for it."""


@dataclass(frozen=True)
class Line:
    cells: tuple[str, ...]
    tone: Tone = "plain"


@dataclass(frozen=True)
class Table:
    """Records, a line each, under columns."""

    title: str
    records: Sequence[Any]
    columns: Sequence[Column]
    note: str = ""
    tone: Callable[[Any], Tone] = lambda record: "plain"
    sortable: bool = False
    """Whether a page lets the reader sort its lines by a column."""
    narrow: bool = False
    """Whether a terminal's note and columns are shorter than the page's."""
    short_note: str | None = None

    @property
    def lines(self) -> tuple[Line, ...]:
        return tuple(
            Line(tuple(column.cell(record) for column in self.columns), self.tone(record)) for record in self.records
        )

    def for_terminal(self) -> Table:
        """The same in 80 columns."""
        if not self.narrow:
            return self
        kept = [replace(c, cell=c.short or c.cell, under="") for c in self.columns if not c.page_only]
        return replace(self, columns=kept, note=self.note if self.short_note is None else self.short_note)


def name(title: str, cell: Callable[[Any], str], **more: Any) -> Column:
    """A column of words, which lean left."""
    return Column(title, cell, right=False, **more)


def each(keys: Iterable[Key], cell: Callable[[Key, Any], str], title: Callable[[Key], str] = str) -> Iterator[Column]:
    """A column a key; ``cell`` is called with the key and a record."""
    return (Column(title(key), partial(cell, key)) for key in keys)


def beside(title: str, cell: Callable[[Any], str], sides: Sequence[str]) -> Iterator[Column]:
    """Of records with several sides: the same of each, with the side's name under the title."""
    return (Column(title, partial(_of_side, cell, place), under=side) for place, side in enumerate(sides))


def _of_side(cell: Callable[[Any], str], place: int, record: Sequence[Any]) -> str:
    return cell(record[place])
