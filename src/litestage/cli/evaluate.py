"""``litestage evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from litestage.cli import options as o
from litestage.cli.console import ERR, OUT, Bars

if TYPE_CHECKING:
    from litestage.evaluation import VoteAccuracy


def command(
    model: o.Model = "everyday",
    adapter: o.Adapter = None,
    task: o.Task = "everyday",
    data: o.Data = None,
    split: o.Split = "test",
    limit: o.Limit = None,
    shots: o.Shots = None,
    plan: o.PlanFolder = None,
    skip: o.Skip = None,
    exit_rule: o.Exit = None,
    no_exit: o.NoExit = False,
    votes: int | None = typer.Option(
        None, help="Sampled runs of each question; greedy without.", rich_help_panel=o.HOW
    ),
    latency: o.Latency = "priced",
    device: o.Device = "auto",
    dtype: o.Dtype = "fp32",
    batch_size: o.BatchSize = 32,
    seed: o.Seed = 0,
    out: o.Out = None,
    json: o.Json = False,
) -> None:
    """Measure accuracy, tokens and latency of a model on a task, at full depth or with a plan.

    A killed evaluation goes on when you give the same command again.

    Example: [bold]litestage evaluate --model smollm2-135m --task obqa --data DIR --split dev --limit 20[/]
    """
    from litestage.core.files import write_text
    from litestage.report import System, tables
    from litestage.workflows import Options, evaluate

    options = Options(model, adapter, task, data, shots, device, dtype, batch_size, seed)
    with Bars() as bars:
        bench = o.open_workbench(options)
        questions = bench.questions(split, limit)
        base = bench.load_plan(plan) if plan else bench.full_plan()
        used = bench.plan_by_hand(base, skip or [], exit_rule, no_exit)
        folder = o.out_folder(out, "evaluate", options, split, limit, plan, skip, exit_rule, no_exit, votes)
        result = evaluate(bench, questions, used, folder, votes=votes, latency=latency, progress=bars)
    text = result.model_dump_json(indent=2)
    write_text(folder / "evaluation.json", text + "\n")
    if json:
        typer.echo(text)
    else:
        system = System.of(result.interval, result.usage, result.price, result.wall_seconds)
        OUT.print(tables.evaluation(system, f"{bench.engine.identity.id} on {bench.task.name}, {split}"))
        if result.votes:
            OUT.print(_votes(result.votes), highlight=False)
        ERR.print(f"Every prompt, text and count is in {folder / 'evaluation.json'}.", style="dim", highlight=False)


def _votes(votes: VoteAccuracy) -> str:
    """Accuracies of several votes, in a line."""
    majority = ", ".join(f"maj@{k} {accuracy.percent:.1f} %" for k, accuracy in votes.majority.items())
    interval = f"95 % interval {votes.low:.1f} to {votes.high:.1f}"
    return f"{votes.votes} votes: {votes.percent:.1f} % a run ({interval}), {majority}"
