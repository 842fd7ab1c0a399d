"""``litestage finetune``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import typer

from litestage.cli import options as o
from litestage.cli.console import OUT, Bars
from litestage.core.errors import OptionError


def command(
    model: str | None = typer.Option(
        None,
        metavar="NAME",
        help="Model to fine-tune: short name, folder, .gguf file or hub id.",
        rich_help_panel=o.WHAT,
    ),
    adapter: str | None = typer.Option(
        None,
        metavar="NAME",
        help="An adapter of the model's that learns on: short name or folder.",
        rich_help_panel=o.WHAT,
    ),
    plan: str | None = typer.Option(
        None,
        metavar="DIR",
        help="Heal a plan: learn with its sub-layers left out, as when decoding.",
        rich_help_panel=o.WHAT,
    ),
    skip: o.Skip = None,
    recipe: str | None = typer.Option(
        None, metavar="CONFIG", help="Recipe: a name or a TOML file. Default: lora.", rich_help_panel=o.WHAT
    ),
    init: str | None = typer.Option(
        None, metavar="CONFIG", help="Recipe of a model from scratch, instead of --model.", rich_help_panel=o.WHAT
    ),
    task: o.Task = "everyday",
    data: str | None = typer.Option(
        None, metavar="DIR", help="Folder with train.jsonl and dev.jsonl.", rich_help_panel=o.WHAT
    ),
    limit: o.Limit = None,
    epochs: float | None = typer.Option(
        None, metavar="X", help="Overrides the recipe's length.", rich_help_panel=o.HOW
    ),
    order: str | None = typer.Option(
        None, metavar="packed|cycles", help="Overrides the recipe's.", rich_help_panel=o.HOW
    ),
    validation: int = typer.Option(
        100, metavar="N", help="Dev questions answered at each validation.", rich_help_panel=o.HOW
    ),
    checkpoint_every: int = typer.Option(
        50, metavar="N", min=1, help="Steps that a kill may cost.", rich_help_panel=o.HOW
    ),
    threads: int | None = typer.Option(
        None, metavar="N", min=1, max=1024, help="Processor threads; all without.", rich_help_panel=o.HOW
    ),
    seed: int | None = typer.Option(None, metavar="N", min=0, help="Overrides the recipe's.", rich_help_panel=o.HOW),
    device: o.Device = "auto",
    out: Path = typer.Option(..., metavar="DIR", help="Where the model or adapter goes.", rich_help_panel=o.WHERE),
    json: o.Json = False,
) -> None:
    """Fine-tune a model on a task's train split, or train one from scratch, by a recipe.

    A killed training goes on when you give the same command again, and ends with the same weights.

    Example: [bold]litestage finetune --model smollm2-135m --task obqa --data DIR --out adapters/mine[/]

    With --plan, or --skip, it heals: DIR also gets the plan, for the model that learnt to live with it.

    On several GPUs: [bold]accelerate launch --no-python litestage finetune ...[/]
    """
    from litestage.jobs.finetune import FinetuneOptions, train

    if init and recipe:
        raise OptionError("--init and --recipe both name a recipe. Give one: --init for a model from scratch.")
    o.check_out(out)
    o.quiet_transformers()
    options = FinetuneOptions(
        recipe=init or recipe or "lora",
        model=model,
        adapter=adapter,
        plan=plan,
        skip=tuple(skip or ()),
        task=task,
        data=data,
        limit=limit,
        validation=validation,
        epochs=epochs,
        order=order,
        seed=seed,
        checkpoint_every=checkpoint_every,
        threads=threads,
        device=device,
    )
    with Bars() as bars:
        report = train(options, out, bars)
    if os.environ.get("RANK", "0") != "0":  # of the processes of `accelerate launch` one talks
        return
    if json:
        typer.echo(report.model_dump_json(indent=2))
        return
    best = "" if report.best_accuracy is None else f", {report.best_accuracy:.1f} % of the dev questions right"
    what, use = "model", ["--model", str(out)]
    if report.adapter:
        what, use = "adapter", ["--model", str(model), "--adapter", str(out)]
    if options.heals:
        what, use = f"{what}, and the plan for it,", [*use, "--plan", str(out)]
    use += ["--task", task, *(["--data", data] if data else [])]
    verb = "are" if options.heals else "is"
    steps = "a step" if report.steps == 1 else f"{report.steps} steps"
    OUT.print(
        f"{report.trained_parameters:,} of {report.parameters:,} parameters trained, {steps} in "
        f"{_minutes(report.seconds)}{best}. The {what} {verb} in {out}: litestage evaluate {shlex.join(use)}",
        highlight=False,
    )


def _minutes(seconds: float) -> str:
    minutes = round(seconds / 60)
    return "less than a minute" if minutes < 1 else "a minute" if minutes == 1 else f"{minutes} minutes"
