"""``litestage rank``."""

from __future__ import annotations

import typer

from litestage.cli import options as o
from litestage.cli.console import OUT, Bars


def command(
    model: o.Model = "everyday",
    adapter: o.Adapter = None,
    task: o.Task = "everyday",
    data: o.Data = None,
    split: o.Split = "dev",
    limit: o.Limit = 50,
    shots: o.Shots = None,
    device: o.Device = "auto",
    dtype: o.Dtype = "fp32",
    batch_size: o.BatchSize = 32,
    seed: o.Seed = 0,
    out: o.Out = None,
    json: o.Json = False,
) -> None:
    """Rank sub-layers by redundancy (Step 1 of the paper): the first in the list are skipped first.

    Example: [bold]litestage rank --task everyday --limit 50[/]
    """
    from litestage.report import RankedLayer, tables
    from litestage.workflows import Options, rank

    options = Options(model, adapter, task, data, shots, device, dtype, batch_size, seed)
    with Bars() as bars:
        bench = o.open_workbench(options)
        folder = o.out_folder(out, "rank", options, split, limit)
        ranking = rank(bench, bench.questions(split, limit), folder, bars)
    if json:
        typer.echo(ranking.model_dump_json(indent=2))
    else:
        OUT.print(tables.ranking([RankedLayer.model_validate(score.model_dump()) for score in ranking.scores]))
