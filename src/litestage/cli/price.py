"""``litestage price``."""

from __future__ import annotations

from typing import Annotated

import typer

from litestage.cli import spelling as o
from litestage.cli.console import OUT, Bars
from litestage.jobs.options import DataOptions, DecodingOptions, ModelOptions, PriceOptions


def command(
    plan: str = typer.Option(..., "--plan", metavar="DIR", help="The folder of a finished search."),
    *,
    options: PriceOptions,
    model: ModelOptions,
    data: Annotated[DataOptions, o.Taken(only=("task", "shots"))],
    json: bool = typer.Option(False, "--json", help="Print one JSON document instead of a table."),
) -> None:
    """Price a finished search again, for this machine or another batch size, without decoding a token.

    A search keeps what its plans' texts were in counts. Forwards of this machine are timed, and the counts priced.

    Example: [bold]litestage price --plan plans/everyday --batch-size 8[/]
    """
    from litestage.jobs.price import price_search
    from litestage.report import prices, terminal

    with Bars() as bars:
        decoding = DecodingOptions(batch_size=max(32, 8 * options.batch_size), workers=1)
        session = o.open_session(model, data, decoding, None, bars)
        found = price_search(session, plan, options)
    if json:
        typer.echo(found.model_dump_json(indent=2))
        return
    OUT.print(terminal.shown([prices.table(found)]))
