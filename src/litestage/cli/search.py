"""``litestage search``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from litestage.cli import spelling as o
from litestage.cli.console import ERR, OUT, Bars
from litestage.jobs.options import ClusterOptions, DataOptions, ModelOptions, OutputOptions, SearchSettings

if TYPE_CHECKING:
    from litestage.search import SearchRecord


def command(
    model: ModelOptions, data: DataOptions, settings: SearchSettings, decoding: ClusterOptions, output: OutputOptions
) -> None:
    """Find the fastest way to run a task that loses no more accuracy than you allow, and prove it.

    A path of plans is searched on some questions and tested on others, which decide what is promised. Writes a plan
    folder for --plan. A killed search goes on when you give the same command again.

    Example: [bold]litestage search --task everyday --max-drop 3 --out plans/everyday[/]
    """
    from litestage.jobs.path import FoundPath
    from litestage.jobs.search import search
    from litestage.report import plan, terminal

    folder = o.out_folder(output.out, "search", model, data, decoding, settings)
    with Bars() as bars:
        session = o.open_session(model, data, decoding, folder, bars)
        found = search(session, settings, split=data.split)
    if output.json:
        typer.echo(found.plan.model_dump_json(indent=2))
        return
    strips = terminal.PlanStrips(found.plan.stages, session.engine.identity.num_blocks)
    if isinstance(found, FoundPath):
        parts: list[terminal.Part] = plan.path_parts(found.search)
    else:
        parts = plan.search_parts(found.search)
    OUT.print(terminal.shown([*parts, strips]))
    if not isinstance(found, FoundPath):
        _spent(found.record)
    options = o.as_typed(model, data, decoding, without=("split", "limit"))
    _close(folder, options, "dev" if data.split == "test" else "test")


def _spent(record: SearchRecord) -> None:
    """What became of the exit rule, and what the paper's search cost."""
    if record.exit_note:
        OUT.print(record.exit_note, highlight=False)
    spent = record.spent
    ERR.print(
        f"{spent.points} settings on {spent.questions} questions; {spent.questions_saved} questions and "
        f"{spent.points_left_out} budgets were left out because they could not change the choice.",
        style="dim",
        highlight=False,
    )


def _close(folder: Path, options: str, other_split: str) -> None:
    """Where the plan is."""
    ERR.print(f"The plan is in {folder}. To measure it on other questions:", style="dim", highlight=False)
    ERR.print(
        " ".join(
            filter(None, ("litestage evaluate", options, f"--plan {shlex.quote(str(folder))} --split {other_split}"))
        ),
        style="dim",
        highlight=False,
        soft_wrap=True,
    )
