"""``litestage finetune``."""

from __future__ import annotations

from pathlib import Path

import typer

from litestage.cli import options as o
from litestage.cli.console import OUT, Bars


def command(
    init: str = typer.Option(
        ..., metavar="CONFIG", help="Recipe of a model from scratch: a name or a TOML file.", rich_help_panel=o.WHAT
    ),
    task: o.Task = "everyday",
    data: str | None = typer.Option(
        None, metavar="DIR", help="Folder with train.jsonl and dev.jsonl.", rich_help_panel=o.WHAT
    ),
    limit: o.Limit = None,
    validation: int = typer.Option(100, help="Dev questions answered at each validation.", rich_help_panel=o.HOW),
    threads: int | None = typer.Option(None, min=1, help="Processor threads; all without.", rich_help_panel=o.HOW),
    seed: int | None = typer.Option(None, min=0, help="Overrides the recipe's.", rich_help_panel=o.HOW),
    out: Path = typer.Option(..., metavar="DIR", help="Where the model goes.", rich_help_panel=o.WHERE),
    json: o.Json = False,
) -> None:
    """Train a model from scratch on a task's train split, by a recipe.

    A killed training goes on when you give the same command again, and ends with the same weights.

    Example: [bold]litestage finetune --init everyday --task everyday --out models/everyday[/]
    """
    from litestage.workflows.finetune import FinetuneOptions, train_from_scratch

    o.check_out(out)
    with Bars() as bars:
        report = train_from_scratch(FinetuneOptions(init, task, data, limit, validation, seed, threads), out, bars)
    if json:
        typer.echo(report.model_dump_json(indent=2))
        return
    best = "" if report.best_accuracy is None else f", {report.best_accuracy:.1f} % of the dev questions right"
    OUT.print(
        f"{report.parameters:,} parameters, {report.steps} steps in {report.seconds / 60:.0f} minutes{best}. "
        f"The model is in {out}: litestage evaluate --model {out}",
        highlight=False,
    )
