"""``litestage rank``."""

from __future__ import annotations

import typer

from litestage.cli import spelling as o
from litestage.cli.console import ERR, OUT, Bars
from litestage.jobs.options import ClusterOptions, DataOptions, ModelOptions, OutputOptions, RankOptions


def command(
    model: ModelOptions,
    data: DataOptions = DataOptions(limit=50),
    *,
    options: RankOptions,
    decoding: ClusterOptions,
    output: OutputOptions,
) -> None:
    """Rank sub-layers, in several ways side by side: the first in a list are skipped first (Step 1 of the paper).

    Example: [bold]litestage rank --task everyday --limit 50 --compensation none,affine[/]
    """
    from litestage.jobs.rankings import rank
    from litestage.report import rankings, terminal
    from litestage.report.page import write_figure

    folder = o.out_folder(output.out, "rank", model, data, decoding, options)
    with Bars() as bars:
        session = o.open_session(model, data, decoding, folder, bars)
        found = rank(session, options)
    write_figure(rankings.figure(found), folder)
    if output.json:
        typer.echo(found.model_dump_json(indent=2))
        return
    OUT.print(terminal.shown(rankings.terminal(found)))
    ERR.print(f"rankings.json, rankings.svg and rankings.png are in {folder}.", style="dim", highlight=False)
