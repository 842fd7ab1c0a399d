"""``litestage quickstart``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from litestage.cli import spelling as o
from litestage.cli.console import ERR, OUT, Bars
from litestage.jobs.options import (
    DataOptions,
    DecodingOptions,
    ModelOptions,
    OutputOptions,
    QuickstartOptions,
    SearchSettings,
)

TESTED = o.Taken(without=("split",), help={"limit": "Test questions that the result is shown on."})
SEARCHED = o.Taken(only=("max_drop", "step", "exit", "no_exit"))


def command(
    model: ModelOptions,
    data: Annotated[DataOptions, TESTED] = DataOptions(limit=300),
    *,
    settings: Annotated[SearchSettings, SEARCHED] = SearchSettings(plans=3),
    sizes: QuickstartOptions,
    decoding: DecodingOptions = DecodingOptions(batch_size=64),
    output: Annotated[OutputOptions, o.Taken(help={"out": "Where results go."})] = OutputOptions(Path("quickstart")),
) -> None:
    """The main job in one command: find a plan on dev questions, and show on test questions what it saves.

    Leaves plan.json, results.json and report.html. Without options it takes the embedded model and its questions.

    Example: [bold]litestage quickstart[/]
    """
    from litestage.jobs.quickstart import quickstart
    from litestage.report import draw, shown

    out = o.check_out(output.out or Path())
    with Bars() as bars:
        session = o.open_session(model, data, decoding, out, bars)
        results = quickstart(session, settings, sizes, limit=data.limit)
        draw(results, out)
    if output.json:
        typer.echo(results.model_dump_json(indent=2))
        return
    OUT.print(shown(results))
    ERR.print(f"Open {out / 'report.html'} for the profiles, the plan and examples.", highlight=False)
