"""Plans and results in a notebook: what the command line prints, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich.console import Console

from litestage.report import shown

WIDTH = 100
PRE = '<pre style="font-family:monospace;line-height:1.25;white-space:pre;overflow-x:auto">{code}</pre>'


def html(records: Sequence[object]) -> str:
    """The records below one another, in a fixed pitch and in colours that go with a light and a dark page."""
    console = Console(record=True, file=StringIO(), width=WIDTH, force_terminal=True, color_system="standard")
    console.print(*map(shown, records), sep="")
    return console.export_html(inline_styles=True, code_format=PRE)
