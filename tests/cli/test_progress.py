"""What a log is told of a long job; the bars of a terminal are rich's own."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from litestage.cli import console


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    written = StringIO()
    monkeypatch.setattr(console, "ERR", Console(file=written, width=80))
    return written


def test_a_short_part_leaves_one_line(log: StringIO) -> None:
    with console.Bars() as bars:
        bars.start("answering", 2)
        bars.advance(note="50.0 % right")
        bars.advance()
    (line,) = log.getvalue().splitlines()
    assert line.startswith("✓ answering  50.0 % right  ")


def test_a_long_part_says_how_far_it_is(log: StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "QUIET", 0.0)
    with console.Bars() as bars:
        bars.start("answering", 20)
        bars.advance(5, "40.0 % right")
        bars.start("looking", None)
        bars.advance(3)
    assert [line.rsplit("  ", 1)[0] if "✓" in line else line for line in log.getvalue().splitlines()] == [
        "  answering: 5 of 20  40.0 % right",
        "✓ answering  40.0 % right",
        "  looking: 3",
        "✓ looking",
    ]
