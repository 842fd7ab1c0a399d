"""``litestage bench``."""

from __future__ import annotations

import typer

from litestage.cli import options as o
from litestage.cli.command import Command
from litestage.cli.console import ERR, OUT, Bars

app = typer.Typer(
    help="Measure the engine's speed, beside others on the same weights.", no_args_is_help=True, rich_markup_mode="rich"
)


@app.command("decode", cls=Command)
def decode(
    model: o.Model = "smollm2-135m",
    rows: str = typer.Option("1,8,32", metavar="N,...", help="Rows that decode together.", rich_help_panel=o.WHAT),
    context: int = typer.Option(128, min=1, help="Tokens of each row's prompt.", rich_help_panel=o.WHAT),
    peers: str = typer.Option(
        "all",
        metavar="NAME,...",
        help="transformers, llama.cpp (needs llama-cpp-python and a GGUF file), all that run here, or none.",
        rich_help_panel=o.WHAT,
    ),
    repeats: int = typer.Option(9, min=1, help="Samples of each setting, taken in turn.", rich_help_panel=o.HOW),
    out: o.Out = None,
    json: o.Json = False,
) -> None:
    """Time decode steps: rows, number formats and what is skipped, beside other engines on the same weights.

    Example: [bold]litestage bench decode --model smollm2-135m --rows 1,32[/]
    """
    from litestage.core.files import write_text
    from litestage.report import bench as records
    from litestage.report import tables
    from litestage.workflows.bench import bench_decode
    from litestage.workflows.peers import usable_peers

    if out is not None:
        o.check_out(out)
    counts = o.numbers("--rows", rows, int)
    o.quiet_transformers()
    with Bars() as bars:
        result = bench_decode(model, counts, context, repeats, usable_peers(peers, model), bars)
    if out is not None:
        write_text(out / "decode.json", result.model_dump_json(indent=2) + "\n")
        records.write_decode_figure(result, out)
    if json:
        typer.echo(result.model_dump_json(indent=2))
    else:
        OUT.print(tables.to_rich(records.full_depth(result)))
        OUT.print(tables.to_rich(records.skipping(result)))
    if out is not None:
        ERR.print(f"Every number is in {out / 'decode.json'}, a chart beside it.", style="dim", highlight=False)


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
        None, min=1, help="Sampled runs of each question; greedy without.", rich_help_panel=o.HOW
    ),
    at_once: int = typer.Option(4, min=1, help="Questions that go through the stages together.", rich_help_panel=o.HOW),
    peer_questions: int = typer.Option(
        4, min=0, help="Questions that transformers answers too; 0 leaves it out.", rich_help_panel=o.HOW
    ),
    device: o.Device = "auto",
    dtype: o.Dtype = "fp32",
    quantise: o.Quantise = "none",
    batch_size: o.BatchSize = 32,
    out: o.Out = None,
    json: o.Json = False,
) -> None:
    """Time whole questions: transformers' generate, and what the step, shared prefixes and refilled rows each gain.

    Example: [bold]litestage bench pipeline --votes 10 --dtype bf16[/]
    """
    from litestage.core.files import write_text
    from litestage.report import bench as records
    from litestage.report import tables
    from litestage.workflows import Options
    from litestage.workflows.pipeline import bench_pipeline

    if out is not None:
        o.check_out(out)
    with Bars() as bars:
        bench = o.open_workbench(
            Options(model, adapter, task, data, shots, device, dtype, batch_size, quantise=quantise)
        )
        questions = bench.questions(split, limit)
        used = bench.load_plan(plan) if plan else None
        result = bench_pipeline(bench, questions, used, votes, at_once, peer_questions, bars)
    text = result.model_dump_json(indent=2)
    if out is not None:
        write_text(out / "pipeline.json", text + "\n")
        ERR.print(f"Every number is in {out / 'pipeline.json'}.", style="dim", highlight=False)
    typer.echo(text) if json else OUT.print(tables.to_rich(records.pipeline(result)))
