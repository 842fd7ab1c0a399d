"""``litestage compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from litestage.cli import spelling as o
from litestage.cli.console import ERR, OUT, Bars
from litestage.jobs.options import ClusterOptions, CompareOptions, DataOptions, ModelOptions, OutputOptions

COMPARED = o.Taken(
    help={
        "split": "Questions that all systems answer; of dev those that the search leaves.",
        "limit": "How many of them.",
    }
)


def command(
    model: ModelOptions,
    data: Annotated[DataOptions, COMPARED] = DataOptions(split="test", limit=200),
    *,
    options: CompareOptions,
    decoding: ClusterOptions = ClusterOptions(batch_size=64),
    output: Annotated[OutputOptions, o.Taken(help={"out": "Where results go."})] = OutputOptions(Path("comparison")),
) -> None:
    """Compare LiteStage with the other methods and with controls, on the same questions and engine.

    Leaves results.json and report.html. A killed comparison goes on when you give the same command again.

    Example: [bold]litestage compare --out comparison[/]
    """
    from litestage.jobs.compare import compare, known_methods
    from litestage.report import draw, shown

    known_methods(options.methods)
    out = o.check_out(output.out or Path())
    with Bars() as bars:
        session = o.open_session(model, data, decoding, out, bars)
        comparison = compare(session, options, split=data.split, limit=data.limit)
        draw(comparison, out)
    if output.json:
        typer.echo(comparison.model_dump_json(indent=2))
        return
    OUT.print(shown(comparison))
    ERR.print(f"Open {out / 'report.html'} for the charts.", highlight=False)
