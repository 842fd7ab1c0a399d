"""``litestage quickstart``."""

from __future__ import annotations

from pathlib import Path

import typer

from litestage.cli import options as o
from litestage.cli.console import ERR, OUT, Bars


def command(
    model: o.Model = "everyday",
    adapter: o.Adapter = None,
    task: o.Task = "everyday",
    data: o.Data = None,
    shots: o.Shots = None,
    max_drop: o.MaxDrop = 1.0,
    step: o.Step = 2,
    search_limit: int = typer.Option(
        200, metavar="N", min=1, help="Dev questions that the search uses.", rich_help_panel=o.WHAT
    ),
    limit: int = typer.Option(
        300, metavar="N", min=1, help="Test questions that the result is shown on.", rich_help_panel=o.WHAT
    ),
    wall: int = typer.Option(30, metavar="N", help="Test questions timed by the wall clock.", rich_help_panel=o.HOW),
    exit_rule: o.TriedExit = None,
    no_exit: o.NoExit = False,
    device: o.Device = "auto",
    dtype: o.Dtype = "fp32",
    quantise: o.Quantise = "none",
    batch_size: o.BatchSize = 64,
    workers: o.Workers = None,
    seed: o.Seed = 0,
    out: Path = typer.Option(Path("quickstart"), metavar="DIR", help="Where results go.", rich_help_panel=o.WHERE),
    json: o.Json = False,
) -> None:
    """The main job in one command: find a plan on dev questions, and show on test questions what it saves.

    Leaves plan.json, results.json and report.html. Without options it takes the embedded model and its questions.

    Example: [bold]litestage quickstart[/]
    """
    from litestage.core import OptionError
    from litestage.jobs import Options
    from litestage.jobs.quickstart import Sizes, quickstart
    from litestage.jobs.session import parse_exit
    from litestage.report import tables
    from litestage.search import SearchOptions

    if no_exit and exit_rule:
        raise OptionError("--exit and --no-exit contradict each other. Leave one out.")
    options = Options(model, adapter, task, data, shots, device, dtype, batch_size, seed, quantise, workers)
    wanted = SearchOptions(max_drop=max_drop, step=step, use_exit=not no_exit)
    rule = parse_exit(exit_rule) if exit_rule else None
    o.check_out(out)
    with Bars() as bars:
        session = o.open_session(options)
        results = quickstart(session, out, wanted, Sizes(search_limit, limit, wall), exit_rule=rule, progress=bars)
    if json:
        typer.echo(results.model_dump_json(indent=2))
        return
    OUT.print(tables.report(results))
    ERR.print(f"Open {out / 'report.html'} for the profiles, the plan and examples.", highlight=False)
