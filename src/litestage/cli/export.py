"""``litestage export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from litestage.cli import spelling as o
from litestage.cli.console import OUT, Bars
from litestage.jobs.options import WHERE, DataOptions, DecodingOptions, ExportOptions, ModelOptions


def command(
    options: ExportOptions,
    model: Annotated[ModelOptions, o.Taken(without=("device", "quantise"))],
    data: Annotated[DataOptions, o.Taken(without=("limit", "shots"))],
    decoding: DecodingOptions,
    out: Path = typer.Option(..., metavar="DIR", help="A new folder for the model.", rich_help_panel=WHERE),
    json: bool = typer.Option(False, "--json", help="Print one JSON document.", rich_help_panel=WHERE),
) -> None:
    """Write a plan with one set of whole blocks in all stages as a smaller plain model, for any engine.

    Prompts lose the blocks too, which a plan keeps for them. What that changes is measured and said.

    Example: [bold]litestage export --blocks 5,6 --out smaller[/]
    """
    from litestage.jobs.export import export, sentences

    with Bars() as bars:
        session = o.open_session(model, data, decoding, None, bars)
        done = export(session, out, options)
    if json:
        typer.echo(done.model_dump_json(indent=2))
        return
    taken = ", ".join(map(str, done.blocks))
    what = f"{done.model} without blocks {taken} of {done.num_blocks}"
    OUT.print(f"{done.folder} holds {what}.", highlight=False, soft_wrap=True)
    for sentence in sentences(done, session.task.name):
        OUT.print(sentence, highlight=False)
