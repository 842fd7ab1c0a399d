"""``litestage report``."""

from __future__ import annotations

from pathlib import Path

import typer

from litestage.cli.console import OUT


def command(
    folder: Path = typer.Argument(metavar="DIR", help="Folder that a job wrote its results.json into."),
) -> None:
    """Draw the report of a finished job again, from its results alone.

    Example: [bold]litestage report quickstart[/]
    """
    from litestage.report import redraw

    OUT.print(f"{redraw(folder)} and its figures are drawn.", highlight=False, soft_wrap=True)
