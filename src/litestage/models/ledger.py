"""What was read of a model's files: every key and tensor is used, known to be harmless, or refused by name."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from litestage.core import ModelError

Kind = Literal["tensor", "key"]
Verdict = Literal["used", "harmless", "unapplied", "refused", "missing"]
"""Unapplied is what would change texts and is left to whoever asks for them; missing is what a file ought to hold."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor or key of a file, and what became of it."""

    kind: Kind
    name: str
    verdict: Verdict
    why: str = ""
    """What uses it, why it changes no text, or what it would break."""


@dataclass(slots=True)
class Ledger:
    """The entries of one file or folder, in the order of the file."""

    source: str
    """What a person would call it: a path, a hub id, a short name."""
    entries: list[Entry] = field(default_factory=list)

    def add(self, kind: Kind, name: str, verdict: Verdict, why: str = "") -> None:
        self.entries.append(Entry(kind, name, verdict, why))

    def of(self, verdict: Verdict) -> Iterator[Entry]:
        return (entry for entry in self.entries if entry.verdict == verdict)

    def tell(self) -> None:
        """Warn of what would change texts and is not applied."""
        if left := [f"{entry.name} ({entry.why})" for entry in self.of("unapplied")]:
            warnings.warn(f"Of {self.source} this is not applied: {'; '.join(left)}.", stacklevel=2)

    def check(self) -> None:
        """Raise `ModelError` naming the first entry that is refused or missing, and how many more there are."""
        wrong = [*self.of("refused"), *self.of("missing")]
        if not wrong:
            return
        first, others = wrong[0], len(wrong) - 1
        verb = "lacks" if first.verdict == "missing" else "holds"
        raise ModelError(
            f"{self.source} {verb} the {first.kind} {first.name}: {first.why} "
            + ("" if first.verdict == "missing" else "So another model would run. ")
            + (f"There {'is 1' if others == 1 else f'are {others}'} more of this kind. " if others else "")
            + f"`litestage models check {self.source}` lists all that was read."
        )
