"""``litestage compare``."""

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
    methods: str = typer.Option(
        "all", metavar="all|NAME,NAME", help="Methods to compare, by name.", rich_help_panel=o.WHAT
    ),
    blocks: str | None = typer.Option(
        None,
        metavar="N,N",
        help="What each method is asked to skip, in blocks. Default: four amounts, up to what LiteStage's plans skip.",
        rich_help_panel=o.WHAT,
    ),
    max_drops: str = typer.Option(
        "1,3,5,10", metavar="POINTS,POINTS", help="Points that LiteStage's plans may lose.", rich_help_panel=o.WHAT
    ),
    plans: str | None = typer.Option(
        None,
        metavar="DIR,DIR",
        help="Plan folders of `litestage search` to compare, in place of a search for each of --max-drops.",
        rich_help_panel=o.WHAT,
    ),
    split: str = typer.Option(
        "test",
        metavar="test|dev|train",
        callback=o.listed,
        help="Questions that all systems answer; of dev those that the search leaves.",
        rich_help_panel=o.WHAT,
    ),
    search_limit: int = typer.Option(
        150, metavar="N", min=1, help="Dev questions that LiteStage searches on.", rich_help_panel=o.WHAT
    ),
    limit: int = typer.Option(200, metavar="N", min=1, help="How many of them.", rich_help_panel=o.WHAT),
    wall: int = typer.Option(6, metavar="N", help="Of them, questions timed by the wall clock.", rich_help_panel=o.HOW),
    full: bool = typer.Option(
        False,
        "--full",
        help="All questions, and every budget up to half the blocks, whatever --limit, --search-limit and "
        "--blocks say.",
        rich_help_panel=o.WHAT,
    ),
    step: o.Step = 2,
    exit_rule: o.TriedExit = None,
    device: o.Device = "auto",
    dtype: o.Dtype = "fp32",
    quantise: o.Quantise = "none",
    batch_size: o.BatchSize = 64,
    workers: o.Workers = None,
    seed: o.Seed = 0,
    out: Path = typer.Option(Path("comparison"), metavar="DIR", help="Where results go.", rich_help_panel=o.WHERE),
    json: o.Json = False,
) -> None:
    """Compare LiteStage with the other methods and with controls, on the same questions and engine.

    Leaves results.json and report.html. A killed comparison goes on when you give the same command again.

    Example: [bold]litestage compare --out comparison[/]
    """
    from litestage.core import ExitRule
    from litestage.jobs import Options
    from litestage.jobs.compare import Sizes, check_methods, compare_methods
    from litestage.jobs.session import parse_exit
    from litestage.report import comparison_report, comparison_tables
    from litestage.search import SearchOptions
    from litestage.skipping.rules import RULES

    chosen = list(RULES) if methods == "all" else list(dict.fromkeys(name.strip() for name in methods.split(",")))
    check_methods(chosen)
    amounts = o.numbers("--blocks", blocks, int) if blocks else None
    drops = o.numbers("--max-drops", max_drops, float, least=0)
    options = Options(model, adapter, task, data, shots, device, dtype, batch_size, seed, quantise, workers)
    o.check_out(out)
    with Bars() as bars:
        session = o.open_session(options)
        every = tuple(range(1, session.engine.identity.num_blocks // 2 + 1))
        result = compare_methods(
            session,
            out,
            methods=chosen,
            plans=[Path(name.strip()) for name in plans.split(",")] if plans else [],
            split=split,
            sizes=Sizes(None, None, wall, every, drops) if full else Sizes(search_limit, limit, wall, amounts, drops),
            options=SearchOptions(step=step),
            exit_rule=parse_exit(exit_rule) if exit_rule else ExitRule(),
            progress=bars,
        )
        comparison_report.write_report(result, out)
    if json:
        typer.echo(result.model_dump_json(indent=2))
        return
    OUT.print(comparison_tables.report(result))
    ERR.print(f"Open {out / 'report.html'} for the charts.", highlight=False)
