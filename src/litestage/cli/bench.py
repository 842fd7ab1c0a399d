"""``litestage bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from litestage.cli import options as o
from litestage.cli.command import Command, Group
from litestage.cli.console import ERR, OUT, Bars

if TYPE_CHECKING:
    from litestage.report.tabular import Table

app = typer.Typer(
    cls=Group,
    help="Measure the engine's speed, beside others on the same weights.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.command("decode", cls=Command)
def decode(
    model: o.Model = "smollm2-135m",
    rows: str = typer.Option("1,8,32", metavar="N,...", help="Rows that decode together.", rich_help_panel=o.WHAT),
    context: int = typer.Option(128, metavar="N", min=1, help="Tokens of each row's prompt.", rich_help_panel=o.WHAT),
    peers: str = typer.Option(
        "all",
        metavar="NAME,...",
        help="transformers; llama.cpp (needs llama-cpp-python, a GGUF file and the CPU); all of these that run here; "
        "vllm (needs vllm and CUDA, never among all); or none.",
        rich_help_panel=o.WHAT,
    ),
    compensation: str = typer.Option(
        "none",
        metavar="KIND,...",
        help="Also time blocks that something stands in for: norm_ratio,mean,affine,lowrank:16.",
        rich_help_panel=o.WHAT,
    ),
    repeats: int = typer.Option(
        9, metavar="N", min=1, help="Samples of each setting, taken in turn.", rich_help_panel=o.HOW
    ),
    device: o.Device = "auto",
    out: o.Out = None,
    json: o.Json = False,
) -> None:
    """Time decode steps: rows, number formats and what is skipped, beside other engines on the same weights.

    Example: [bold]litestage bench decode --model smollm2-135m --rows 1,32[/]
    """
    from litestage.benchmarks.decode import bench_decode
    from litestage.benchmarks.peers import usable_peers
    from litestage.core.plan import check_compensation
    from litestage.models import pick_device
    from litestage.report import bench as records
    from litestage.report import tables

    if out is not None:
        o.check_out(out)
    counts = o.numbers("--rows", rows, int)
    kinds = [check_compensation(kind.strip()) for kind in compensation.split(",")]
    place = pick_device(device)
    wanted = usable_peers(peers, model, place)
    o.quiet_transformers()
    with Bars() as bars:
        result = bench_decode(model, counts, context, repeats, wanted, kinds, place, bars)
    if out is not None:
        records.write_decode_figure(result, out)
    if not json:
        OUT.print(tables.to_rich(records.full_depth(result)))
        if (stand_ins := records.compensated(result)) is not None:
            OUT.print(tables.to_rich(stand_ins))
    _show(result.model_dump_json(indent=2), records.skipping(result), out, "decode", json)


@app.command("pipeline", cls=Command)
def pipeline(
    model: o.Model = "everyday",
    adapter: o.Adapter = None,
    task: o.Task = "everyday",
    data: o.Data = None,
    split: o.Split = "test",
    limit: o.Limit = 16,
    shots: o.Shots = None,
    plan: o.PlanFolder = None,
    votes: int | None = typer.Option(
        None, min=1, metavar="N", help="Sampled runs of each question; greedy without.", rich_help_panel=o.HOW
    ),
    at_once: int = typer.Option(
        4, metavar="N", min=1, help="Questions that go through the stages together.", rich_help_panel=o.HOW
    ),
    peer_questions: int = typer.Option(
        4,
        min=0,
        metavar="N",
        help="Questions that transformers, and the engine in part, answer too, in whole groups of --at-once; "
        "0 leaves transformers out.",
        rich_help_panel=o.HOW,
    ),
    device: o.Device = "auto",
    dtype: o.Dtype = "fp32",
    quantise: o.Quantise = "none",
    batch_size: o.BatchSize = 32,
    peer_batch_size: int | None = typer.Option(
        None,
        metavar="N",
        min=1,
        help="Rows that transformers decodes together. Default: as many as we.",
        rich_help_panel=o.HOW,
    ),
    out: o.Out = None,
    json: o.Json = False,
) -> None:
    """Time whole questions: transformers' generate, and what the step, shared prefixes and refilled rows each gain.

    Example: [bold]litestage bench pipeline --votes 10 --dtype bf16[/]
    """
    from litestage.benchmarks.pipeline import bench_pipeline
    from litestage.jobs import Options
    from litestage.report import bench as records

    if out is not None:
        o.check_out(out)
    with Bars() as bars:
        session = o.open_session(
            Options(model, adapter, task, data, shots, device, dtype, batch_size, quantise=quantise)
        )
        questions = session.questions(split, limit)
        used = session.load_plan(plan) if plan else None
        result = bench_pipeline(session, questions, used, votes, at_once, peer_questions, bars, peer_batch_size)
    _show(result.model_dump_json(indent=2), records.pipeline(result), out, "pipeline", json)


@app.command("accuracy", cls=Command)
def accuracy(
    model: o.Model = "everyday",
    adapter: o.Adapter = None,
    task: o.Task = "everyday",
    data: o.Data = None,
    split: o.Split = "test",
    limit: o.Limit = None,
    shots: o.Shots = None,
    device: o.Device = "auto",
    batch_size: o.BatchSize = 32,
    out: o.Out = None,
    json: o.Json = False,
) -> None:
    """Compare bf16, int8 and int4 with fp32: the tokens of its texts, and answers.

    Example: [bold]litestage bench accuracy --limit 100[/]
    """
    from litestage.benchmarks.precision import bench_accuracy
    from litestage.jobs import Options
    from litestage.report import bench as records

    if out is not None:
        o.check_out(out)
    with Bars() as bars:
        session = o.open_session(Options(model, adapter, task, data, shots, device, batch_size=batch_size))
        result = bench_accuracy(session, session.questions(split, limit), bars)
    _show(result.model_dump_json(indent=2), records.accuracy(result), out, "accuracy", json)


@app.command("search", cls=Command)
def search(
    model: o.Model = "everyday",
    adapter: o.Adapter = None,
    task: o.Task = "everyday",
    data: o.Data = None,
    split: o.Split = "dev",
    limit: o.Limit = 20,
    shots: o.Shots = None,
    max_drop: o.MaxDrop = 1.0,
    step: o.Step = 4,
    batch_size: o.BatchSize = 32,
    out: o.Out = None,
    json: o.Json = False,
) -> None:
    """Time the same search on the CPU in every form of the model, and show what each chose.

    Example: [bold]litestage bench search --limit 20[/]
    """
    from litestage.benchmarks.search import bench_search
    from litestage.jobs import Options
    from litestage.report import bench as records
    from litestage.search import SearchOptions

    if out is not None:
        o.check_out(out)
    o.quiet_transformers()
    options = Options(model, adapter, task, data, shots, "cpu", batch_size=batch_size)
    with Bars() as bars:
        result = bench_search(options, split, limit, SearchOptions(max_drop=max_drop, step=step), bars)
    _show(result.model_dump_json(indent=2), records.searching(result), out, "search", json)


@app.command("memory", cls=Command)
def memory(
    model: o.Model = "everyday",
    adapter: o.Adapter = None,
    task: o.Task = "everyday",
    data: o.Data = None,
    split: o.Split = "test",
    limit: o.Limit = 100,
    shots: o.Shots = None,
    rounds: int = typer.Option(
        2, metavar="N", min=1, help="Times that the questions are answered.", rich_help_panel=o.HOW
    ),
    at_once: int = typer.Option(
        16, min=1, metavar="N", help="Questions that go through the stages together.", rich_help_panel=o.HOW
    ),
    dtype: o.Dtype = "fp32",
    quantise: o.Quantise = "none",
    batch_size: o.BatchSize = 32,
    out: o.Out = None,
    json: o.Json = False,
) -> None:
    """Say what memory loading and answering take on the CPU (Linux).

    Example: [bold]litestage bench memory --quantise int4 --dtype bf16[/]
    """
    from litestage.benchmarks.memory import bench_memory
    from litestage.jobs import Options
    from litestage.report import bench as records

    if out is not None:
        o.check_out(out)
    o.quiet_transformers()
    options = Options(model, adapter, task, data, shots, "cpu", dtype, batch_size, quantise=quantise)
    with Bars() as bars:
        result = bench_memory(options, split, limit, rounds, at_once, bars)
    _show(result.model_dump_json(indent=2), records.memory(result), out, "memory", json)


def _show(text: str, table: Table, out: Path | None, name: str, json: bool) -> None:
    """Keep the numbers where asked for, and print a table or the numbers."""
    from litestage.core.files import write_text
    from litestage.report import tables

    if out is not None:
        write_text(out / f"{name}.json", text + "\n")
        ERR.print(f"Every number is in {out / f'{name}.json'}.", style="dim", highlight=False)
    typer.echo(text) if json else OUT.print(tables.to_rich(table))
