"""``litestage diagnose``."""

from __future__ import annotations

import typer

from litestage.cli import options as o
from litestage.cli.console import ERR, OUT, Bars


def command(
    model: o.Model = "everyday",
    adapter: o.Adapter = None,
    task: o.Task = "everyday",
    data: o.Data = None,
    split: o.Split = "dev",
    limit: o.Limit = 100,
    shots: o.Shots = None,
    step: int = typer.Option(
        4, metavar="N", min=1, help="Sub-layers between two budgets tried.", rich_help_panel=o.HOW
    ),
    budgets_up_to: int | None = typer.Option(
        None,
        metavar="N",
        help="Largest budget. Default: all sub-layers but four, and at most six steps.",
        rich_help_panel=o.HOW,
    ),
    stage: str | None = typer.Option(
        None,
        metavar="NAME",
        help="Whose texts to follow token by token. Default: the slowest stage.",
        rich_help_panel=o.HOW,
    ),
    exit_rule: str = typer.Option(
        "5,0.5", "--exit", metavar="WINDOW,THRESHOLD", help="The exit rule that is looked at.", rich_help_panel=o.HOW
    ),
    device: o.Device = "auto",
    dtype: o.Dtype = "fp32",
    quantise: o.Quantise = "none",
    batch_size: o.BatchSize = 64,
    workers: o.Workers = None,
    seed: o.Seed = 0,
    out: o.Out = None,
    json: o.Json = False,
) -> None:
    """Show where skipping hurts and where it pays: the paper's motivation figures for any model and task.

    A killed diagnosis goes on when you give the same command again.

    Example: [bold]litestage diagnose --limit 100 --step 4[/]
    """
    from litestage.jobs import Options
    from litestage.jobs.diagnose import Depths, diagnose
    from litestage.jobs.session import parse_exit
    from litestage.report import diagnosis_tables

    options = Options(model, adapter, task, data, shots, device, dtype, batch_size, seed, quantise, workers)
    rule, depths = parse_exit(exit_rule), Depths(step, budgets_up_to, stage)
    with Bars() as bars:
        session = o.open_session(options)
        folder = o.out_folder(out, "diagnose", options, split, limit, step, budgets_up_to, stage, exit_rule)
        diagnosis = diagnose(session, folder, split=split, limit=limit, depths=depths, exit_rule=rule, progress=bars)
    if json:
        typer.echo(diagnosis.model_dump_json(indent=2))
        return
    OUT.print(diagnosis_tables.terminal(diagnosis))
    ERR.print(f"Open {folder / 'report.html'} for the charts and the examples.", highlight=False)
