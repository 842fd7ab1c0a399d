"""``litestage evaluate``."""

from __future__ import annotations

import typer

from litestage.cli import spelling as o
from litestage.cli.console import ERR, OUT, Bars
from litestage.jobs.options import (
    ClusterOptions,
    DataOptions,
    EvaluateOptions,
    ModelOptions,
    OutputOptions,
    PlanOptions,
)


def command(
    model: ModelOptions,
    data: DataOptions = DataOptions(split="test"),
    *,
    plan: PlanOptions,
    options: EvaluateOptions,
    decoding: ClusterOptions,
    output: OutputOptions,
) -> None:
    """Measure accuracy, tokens and latency of a model on a task, at full depth or with a plan.

    A killed evaluation goes on when you give the same command again.

    Example: [bold]litestage evaluate --model smollm2-135m --task obqa --data DIR --split dev --limit 20[/]
    """
    from litestage.core.files import write_text
    from litestage.jobs.evaluate import NO_ROOM_NOTE, evaluate
    from litestage.report import evaluation, terminal

    folder = o.out_folder(output.out, "evaluate", model, data, decoding, plan, options)
    with Bars() as bars:
        session = o.open_session(model, data, decoding, folder, bars)
        result = evaluate(session, session.chosen_plan(plan), session.questions(), options)
    text = result.model_dump_json(indent=2)
    write_text(folder / "evaluation.json", text + "\n")
    if output.json:
        typer.echo(text)
        return
    of_a_run = "; latency and tokens of a run" if result.votes else ""
    title = f"{session.engine.identity.id} on {session.task.name}, {data.split}{of_a_run}"
    OUT.print(terminal.shown([evaluation.performance(result.performance, title)]))
    if cramped := sum(trace.no_room for trace in result.questions):
        OUT.print(
            f"With {cramped} of {len(result.questions)} answers {NO_ROOM_NOTE} Fewer worked examples (--shots) or "
            "a model that reads more tokens make room.",
            highlight=False,
        )
    if result.votes:
        OUT.print(terminal.shown([evaluation.votes(result.votes)]))
    ERR.print(f"Every prompt, text and count is in {folder / 'evaluation.json'}.", style="dim", highlight=False)
