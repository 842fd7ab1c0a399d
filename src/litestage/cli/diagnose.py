"""``litestage diagnose``."""

from __future__ import annotations

import typer

from litestage.cli import spelling as o
from litestage.cli.console import ERR, OUT, Bars
from litestage.jobs.options import DataOptions, DecodingOptions, DiagnoseOptions, ModelOptions, OutputOptions


def command(
    model: ModelOptions,
    data: DataOptions = DataOptions(limit=100),
    *,
    options: DiagnoseOptions,
    decoding: DecodingOptions = DecodingOptions(batch_size=64),
    output: OutputOptions,
) -> None:
    """Show where skipping hurts and where it pays: the paper's motivation figures for any model and task.

    A killed diagnosis goes on when you give the same command again.

    Example: [bold]litestage diagnose --limit 100 --step 4[/]
    """
    from litestage.jobs.diagnose import diagnose
    from litestage.report import draw, shown

    folder = o.out_folder(output.out, "diagnose", model, data, decoding, options)
    with Bars() as bars:
        session = o.open_session(model, data, decoding, folder, bars)
        diagnosis = diagnose(session, options)
        draw(diagnosis, folder)
    if output.json:
        typer.echo(diagnosis.model_dump_json(indent=2))
        return
    OUT.print(shown(diagnosis))
    ERR.print(f"Open {folder / 'report.html'} for the charts and the examples.", highlight=False)
