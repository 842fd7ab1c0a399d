"""``litestage bench``."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from litestage.benchmarks.options import (
    AllBenchOptions,
    DecodeBenchOptions,
    DraftBenchOptions,
    DropInBenchOptions,
    LadderOptions,
    MemoryBenchOptions,
    PipelineBenchOptions,
)
from litestage.cli import spelling as o
from litestage.cli.command import Command, Group
from litestage.cli.console import ERR, OUT, Bars
from litestage.core.errors import LitestageError
from litestage.jobs.options import (
    DataOptions,
    DecodingOptions,
    ModelOptions,
    OutputOptions,
    PlanOptions,
    SearchSettings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from litestage.report.table import Table

app = typer.Typer(
    cls=Group,
    help="Measure the engine's speed, beside others on the same weights.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
BATCHED = o.Taken(only=("batch_size",))


def _command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command of ``litestage bench``, its records spelled out."""
    return lambda command: app.command(name, cls=Command)(o.spelled_out(command))


@_command("decode")
def decode(
    model: Annotated[ModelOptions, o.Taken(only=("name", "device"))] = ModelOptions(name="smollm2-135m"),
    *,
    options: DecodeBenchOptions,
    output: OutputOptions,
) -> None:
    """Time decode steps: rows, number formats and what is skipped, beside other engines on the same weights.

    Example: [bold]litestage bench decode --model smollm2-135m --rows 1,32[/]
    """
    from litestage.benchmarks.decode import bench_decode
    from litestage.benchmarks.peers import usable_peers
    from litestage.models import pick_device
    from litestage.report import benchmarks as report
    from litestage.report.page import write_figure

    place = pick_device(model.device)
    wanted = usable_peers(options.peers, model.name, place)
    with _bench(output) as bars:
        result = bench_decode(model.name, options, wanted, place, bars)
    if output.out is not None:
        write_figure(report.decode_figure(result), output.out)
    _show(result.model_dump_json(indent=2), report.decode(result), output, "decode")


@_command("pipeline")
def pipeline(
    model: ModelOptions,
    data: DataOptions = DataOptions(split="test", limit=16),
    *,
    plan: Annotated[PlanOptions, o.Taken(only=("plan",))],
    options: PipelineBenchOptions,
    decoding: Annotated[DecodingOptions, BATCHED] = DecodingOptions(workers=1),
    output: OutputOptions,
) -> None:
    """Time whole questions: transformers' generate, and what the step, shared prefixes and refilled rows each gain.

    Example: [bold]litestage bench pipeline --votes 10 --dtype bf16[/]
    """
    from litestage.benchmarks.pipeline import bench_pipeline
    from litestage.report import benchmarks as report

    with _bench(output) as bars:
        session = o.open_session(model, data, decoding, None, bars)
        used = session.load_plan(plan.plan) if plan.plan else None
        result = bench_pipeline(session, session.questions(), used, options)
    _show(result.model_dump_json(indent=2), [report.pipeline(result)], output, "pipeline")


@_command("drop-in")
def drop_in(
    model: Annotated[ModelOptions, o.Taken(only=("name",))] = ModelOptions(name="smollm2-135m"),
    *,
    options: DropInBenchOptions,
    output: OutputOptions,
) -> None:
    """Time a plan inside transformers' generate on the CPU, beside plain generate and the engine; and their memory.

    Example: [bold]litestage bench drop-in --model everyday --repeats 3[/]
    """
    from litestage.benchmarks.drop_in import bench_drop_in
    from litestage.report import benchmarks as report

    with _bench(output) as bars:
        result = bench_drop_in(model.name, options, bars)
    _show(result.model_dump_json(indent=2), [report.drop_in(result)], output, "drop-in")


@_command("drafts")
def drafts(
    model: ModelOptions,
    data: DataOptions = DataOptions(split="test", limit=60),
    *,
    options: DraftBenchOptions,
    decoding: Annotated[DecodingOptions, BATCHED] = DecodingOptions(workers=1),
    output: OutputOptions,
) -> None:
    """Time whole questions one at a time, without drafts and with them in turn.

    Example: [bold]litestage bench drafts --quantise int8[/]
    """
    from litestage.benchmarks.drafts import bench_drafts
    from litestage.report import benchmarks as report

    with _bench(output) as bars:
        session = o.open_session(model, data, decoding, None, bars, options)
        result = bench_drafts(session, session.questions(), options.votes, options.warm)
    _show(result.model_dump_json(indent=2), [report.drafts(result)], output, "drafts")


@_command("ladder")
def ladder(
    model: ModelOptions,
    data: DataOptions = DataOptions(split="test", limit=30),
    *,
    options: LadderOptions,
    decoding: Annotated[DecodingOptions, BATCHED] = DecodingOptions(workers=1),
    output: OutputOptions,
) -> None:
    """Time one question at a time, from transformers up: what each part gains, and what it costs in points.

    Example: [bold]litestage bench ladder --limit 20[/]
    """
    from litestage.benchmarks.ladder import bench_ladder
    from litestage.report import benchmarks as report
    from litestage.report.page import write_figure

    with _bench(output) as bars:
        session = o.open_session(model, data, decoding, None, bars)
        result = bench_ladder(session, session.questions(), options)
    if output.out is not None:
        write_figure(report.ladder_figure(result), output.out)
    _show(result.model_dump_json(indent=2), [report.ladder(result)], output, "ladder")


@_command("all")
def everything(
    model: Annotated[ModelOptions, o.Taken(only=("name", "adapter", "device"))],
    data: Annotated[DataOptions, o.Taken(only=("task", "data", "split"))] = DataOptions(split="test"),
    *,
    options: AllBenchOptions,
    output: OutputOptions,
) -> None:
    """Check a machine's tokens, then time everything in under ten minutes: one command settles a GPU.

    Example: [bold]litestage bench all --device cuda --out runs/gpu[/]
    """
    from litestage.benchmarks.everything import bench_all
    from litestage.models import pick_device
    from litestage.report import benchmarks as report

    pick_device(model.device)
    with _bench(output) as bars:
        result = bench_all(model, data, options, output.out, bars)
    _show(result.model_dump_json(indent=2), report.everything(result), output, "all")
    if not result.right:
        raise LitestageError("Some tokens are not what they should be: see the first table.")


@_command("accuracy")
def accuracy(
    model: Annotated[ModelOptions, o.Taken(only=("name", "adapter", "device"))],
    data: DataOptions = DataOptions(split="test"),
    *,
    decoding: Annotated[DecodingOptions, BATCHED] = DecodingOptions(workers=1),
    output: OutputOptions,
) -> None:
    """Compare bf16, int8 and int4 with fp32: the tokens of its texts, and answers.

    Example: [bold]litestage bench accuracy --limit 100[/]
    """
    from litestage.benchmarks.precision import bench_accuracy
    from litestage.report import benchmarks as report

    with _bench(output) as bars:
        session = o.open_session(model, data, decoding, None, bars)
        result = bench_accuracy(session, session.questions())
    _show(result.model_dump_json(indent=2), [report.precisions(result)], output, "accuracy")


@_command("search")
def search(
    model: Annotated[ModelOptions, o.Taken(only=("name", "adapter"))] = ModelOptions(device="cpu"),
    data: DataOptions = DataOptions(limit=20),
    *,
    settings: Annotated[SearchSettings, o.Taken(only=("max_drop", "step"))] = SearchSettings(
        preset="paper", max_drop=1, step=4
    ),
    decoding: Annotated[DecodingOptions, BATCHED] = DecodingOptions(workers=1),
    output: OutputOptions,
) -> None:
    """Time the same search on the CPU in every form of the model, and show what each chose.

    Example: [bold]litestage bench search --limit 20[/]
    """
    from litestage.benchmarks.search import bench_search
    from litestage.report import benchmarks as report

    with _bench(output) as bars:
        result = bench_search(model, data, decoding, settings, bars)
    _show(result.model_dump_json(indent=2), [report.searches(result)], output, "search")


@_command("memory")
def memory(
    model: Annotated[ModelOptions, o.Taken(without=("device",))] = ModelOptions(device="cpu"),
    data: DataOptions = DataOptions(split="test", limit=100),
    *,
    options: MemoryBenchOptions,
    decoding: Annotated[DecodingOptions, BATCHED] = DecodingOptions(workers=1),
    output: OutputOptions,
) -> None:
    """Say what memory loading and answering take on the CPU (Linux).

    Example: [bold]litestage bench memory --quantise int4 --dtype bf16[/]
    """
    from litestage.benchmarks.memory import bench_memory
    from litestage.report import benchmarks as report

    with _bench(output) as bars:
        result = bench_memory(model, data, decoding, options, bars)
    _show(result.model_dump_json(indent=2), [report.memory(result)], output, "memory")


@contextmanager
def _bench(output: OutputOptions) -> Iterator[Bars]:
    """What a bench tells its progress to; a folder that cannot be written to is refused before anything is timed."""
    if output.out is not None:
        o.check_out(output.out)
    o.quiet_transformers()
    with Bars() as bars:
        yield bars


def _show(text: str, tables: Sequence[Table], output: OutputOptions, name: str) -> None:
    """Keep the numbers where asked for, and print tables or the numbers."""
    from litestage.core.files import write_text
    from litestage.report import terminal

    if output.out is not None:
        write_text(output.out / f"{name}.json", text + "\n")
        ERR.print(f"Every number is in {output.out / f'{name}.json'}.", style="dim", highlight=False)
    typer.echo(text) if output.json else OUT.print(terminal.shown(tables))
