"""``litestage finetune``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from litestage.cli import spelling as o
from litestage.cli.console import OUT, Bars
from litestage.jobs.options import OutputOptions, TrainingOptions

TRAINED = o.Taken(help={"out": "Where the model or adapter goes."}, required=("out",))


def command(options: TrainingOptions, output: Annotated[OutputOptions, TRAINED]) -> None:
    """Fine-tune a model on a task's train split, or train one from scratch, by a recipe.

    A killed training goes on when you give the same command again, and ends with the same weights.

    Example: [bold]litestage finetune --model smollm2-135m --task obqa --data DIR --out adapters/mine[/]

    With --plan, or --skip, it heals: DIR also gets the plan, for the model that learnt to live with it.

    On several GPUs: [bold]accelerate launch --no-python litestage finetune ...[/]
    """
    from litestage.jobs.finetune import finetune
    from litestage.report import training
    from litestage.report.page import write_figure

    out = o.check_out(output.out or Path())
    o.quiet_transformers()
    with Bars() as bars:
        report = finetune(options, out, bars)
    if os.environ.get("RANK", "0") != "0":  # of the processes of `accelerate launch` one talks
        return
    losses = [(point.step, point.loss) for point in report.curve]
    right = [(point.step, point.accuracy) for point in report.curve if point.accuracy is not None]
    write_figure(training.figure(losses, right), out)
    if output.json:
        typer.echo(report.model_dump_json(indent=2))
        return
    best = "" if report.best_accuracy is None else f", {report.best_accuracy:.1f} % of the dev questions right"
    what, use = "model", ["--model", str(out)]
    if report.adapter:
        what, use = "adapter", ["--model", str(options.model), "--adapter", str(out)]
    if options.heals:
        what, use = f"{what}, and the plan for it,", [*use, "--plan", str(out)]
    use += ["--task", options.task, *(["--data", options.data] if options.data else [])]
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
