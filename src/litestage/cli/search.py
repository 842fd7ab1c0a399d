"""``litestage search``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from litestage.cli import options as o
from litestage.cli.console import ERR, OUT, Bars
from litestage.jobs.options import DataOptions, DecodingOptions, ModelOptions, OutputOptions, SearchSettings

if TYPE_CHECKING:
    from litestage.search import SearchRecord


def command(
    model: ModelOptions, data: DataOptions, settings: SearchSettings, decoding: DecodingOptions, output: OutputOptions
) -> None:
    """Find a plan: for each stage, what to leave out at the accuracy you set (Steps 1 to 3 of the paper).

    Writes a plan folder for --plan. A killed search goes on when you give the same command again.

    Example: [bold]litestage search --task everyday --max-drop 1 --out plans/everyday[/]
    """
    from litestage.jobs.search import search
    from litestage.report import plan, terminal
    from litestage.results import PlanSearch, Split

    folder = o.out_folder(output.out, "search", model, data, decoding, settings)
    with Bars() as bars:
        session = o.open_session(model, data, decoding, folder, bars)
        questions = session.questions()
        found = search(session, settings, questions, split=data.split)
    if output.json:
        typer.echo(found.plan.model_dump_json(indent=2))
        return
    used = Split(name=data.split, used=len(questions), available=len(session.questions(data.split)))
    searched = PlanSearch.of(found.record, used, settings.max_drop, settings.latency)
    strips = terminal.PlanStrips(found.plan.stages, session.engine.identity.num_blocks)
    OUT.print(terminal.shown([*plan.search_parts(searched), strips]))
    options = o.as_typed(model, data, decoding, without=("split", "limit"))
    _close(found.record, folder, options, "dev" if data.split == "test" else "test")


def _close(record: SearchRecord, folder: Path, options: str, other_split: str) -> None:
    """What became of the exit rule, what the search cost, and where the plan is."""
    if record.exit_note:
        OUT.print(record.exit_note, highlight=False)
    spent = record.spent
    ERR.print(
        f"{spent.points} settings on {spent.questions} questions; {spent.questions_saved} questions and "
        f"{spent.points_left_out} budgets were left out because they could not change the choice.\n"
        f"The plan is in {folder}. To measure it on other questions:",
        style="dim",
        highlight=False,
    )
    ERR.print(
        " ".join(
            filter(None, ("litestage evaluate", options, f"--plan {shlex.quote(str(folder))} --split {other_split}"))
        ),
        style="dim",
        highlight=False,
        soft_wrap=True,
    )
