"""``litestage search``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from litestage.cli import options as o
from litestage.cli.console import ERR, OUT, Bars

if TYPE_CHECKING:
    from litestage.search import SearchRecord


def command(
    model: o.Model = "everyday",
    adapter: o.Adapter = None,
    task: o.Task = "everyday",
    data: o.Data = None,
    split: o.Split = "dev",
    limit: o.Limit = None,
    shots: o.Shots = None,
    max_drop: o.MaxDrop = 1.0,
    step: o.Step = 2,
    exhaustive: bool = typer.Option(
        False, "--exhaustive", help="Profile every budget, also after three misses in a row.", rich_help_panel=o.HOW
    ),
    preset: o.Preset = "paper",
    ranking: o.Rankings = None,
    compensation: o.Compensations = None,
    exit_rule: o.TriedExit = None,
    no_exit: o.NoExit = False,
    search_exit: bool = typer.Option(
        False, "--search-exit", help="Profile with exit on already.", rich_help_panel=o.HOW
    ),
    latency: o.Latency = "priced",
    device: o.Device = "auto",
    dtype: o.Dtype = "fp32",
    quantise: o.Quantise = "none",
    batch_size: o.BatchSize = 32,
    workers: o.Workers = None,
    seed: o.Seed = 0,
    out: o.Out = None,
    json: o.Json = False,
) -> None:
    """Find a plan: for each stage, what to leave out at the accuracy you set (Steps 1 to 3 of the paper).

    Writes a plan folder for --plan. A killed search goes on when you give the same command again.

    Example: [bold]litestage search --task everyday --max-drop 1 --out plans/everyday[/]
    """
    from litestage.core import OptionError
    from litestage.jobs import Options, search
    from litestage.jobs.session import parse_exit
    from litestage.report import tables
    from litestage.results import PlanSearch, Split
    from litestage.search import SearchOptions

    if no_exit and exit_rule:
        raise OptionError("--exit and --no-exit contradict each other. Leave one out.")
    options = Options(model, adapter, task, data, shots, device, dtype, batch_size, seed, quantise, workers)
    wanted = SearchOptions(
        max_drop=max_drop, step=step, exhaustive=exhaustive, use_exit=not no_exit, search_exit=search_exit
    )
    rule = parse_exit(exit_rule) if exit_rule else None
    policies = o.policies(preset, ranking, compensation)
    folder = o.out_folder(out, "search", options, split, limit, wanted, policies, rule, latency)
    with Bars() as bars:
        session = o.open_session(options)
        questions = session.questions(split, limit)
        found = search(
            session,
            questions,
            folder,
            wanted,
            split=split,
            exit_rule=rule,
            policies=policies,
            latency=latency,
            progress=bars,
        )
    if json:
        typer.echo(found.plan.model_dump_json(indent=2))
        return
    used = Split(name=split, used=len(questions), available=len(session.questions(split)))
    OUT.print(tables.search_profiles(PlanSearch.of(found.record, used, max_drop, latency)))
    OUT.print(tables.plan_map(found.plan.stages, session.engine.identity.num_blocks))
    _close(found.record, folder, o.spelled(options), "dev" if split == "test" else "test")


def _close(record: SearchRecord, folder: Path, options: str, other_split: str) -> None:
    """What became of the exit rule, what the search cost, and where the plan is."""
    if record.exit_note:
        OUT.print(record.exit_note, highlight=False)
    spent = record.spent
    ERR.print(
        f"{spent.points} settings on {spent.questions} questions; {spent.questions_saved} questions and "
        f"{spent.points_left_out} budgets were left out because they could not change the choice.\n"
        f"The plan is in {folder}. To measure it on other questions:",
        style="dim",
        highlight=False,
    )
    ERR.print(
        " ".join(
            filter(None, ("litestage evaluate", options, f"--plan {shlex.quote(str(folder))} --split {other_split}"))
        ),
        style="dim",
        highlight=False,
        soft_wrap=True,
    )
