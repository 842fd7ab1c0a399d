"""``litestage run``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from litestage.cli import spelling as o
from litestage.cli.console import ERR, OUT
from litestage.core.errors import OptionError
from litestage.jobs.options import (
    WHAT,
    DataOptions,
    DecodingOptions,
    ModelOptions,
    OutputOptions,
    PlanOptions,
    RunOptions,
)
from litestage.jobs.progress import SILENT

if TYPE_CHECKING:
    from litestage.core import Plan, StageTrace
    from litestage.jobs.session import Session
    from litestage.tasks import Question


def command(
    question: Annotated[
        str | None,
        typer.Argument(help="With its choices, (A) the first (B) the second. Without: one of the embedded set."),
    ] = None,
    choice: Annotated[
        list[str] | None, typer.Option(help="A choice, if not in the question. Once each.", rich_help_panel=WHAT)
    ] = None,
    *,
    options: RunOptions,
    model: ModelOptions,
    data: Annotated[DataOptions, o.Taken(only=("task", "shots"))],
    plan: PlanOptions,
    output: Annotated[OutputOptions, o.Taken(only=("json",))],
) -> None:
    """Answer one question that you type, or one of the embedded set; the stages appear as they are written.

    Example: [bold]litestage run "Grace is lost in the dark and sees a glow far away. Which of these could it be?
    (A) a sleeping bag (B) a glove (C) an ice cream (D) a lantern"[/]
    """
    from litestage.jobs.answer import answer, caution, read_question, sample

    text = question if question is not None else _piped()
    if text and options.sample is not None:
        raise OptionError("--sample takes a question of the embedded set, and one was typed. Leave one out.")
    asked = read_question(text, choice or []) if text or choice else None
    with ERR.status("loading the model"):
        session = o.open_session(model, data, DecodingOptions(workers=1), None, SILENT, options)
        used = session.chosen_plan(plan)
        asked = asked or sample(session, options.sample or 1)
    if asked.answer is not None:
        ERR.print(_sampled(asked, options.sample or 1), highlight=False)
    if words := caution(session, asked):
        ERR.print(words, style="yellow", highlight=False)
    if output.json:
        typer.echo(answer(session, asked, used).model_dump_json(indent=2))
        return
    _show(session, asked, used, options.explain)


def _piped() -> str:
    """What another program writes to this one."""
    return "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read().strip()


def _sampled(question: Question, number: int) -> Text:
    """A question of the embedded set, as it would be typed."""
    choices = " ".join(f"({chr(65 + i)}) {choice}" for i, choice in enumerate(question.choices))
    said = f"Question {number} of the embedded test set (--sample N takes another, or type your own):"
    return Text.assemble((said, "dim"), f"\n{question.question} {choices}")


def _show(session: Session, question: Question, plan: Plan, explain: bool) -> None:
    from litestage.jobs.answer import answer

    texts: dict[int, str] = {}
    with Live(console=OUT, refresh_per_second=12, transient=True) as live:

        def on_text(stage: str, branch: int, text: str) -> None:
            texts[branch] = text
            live.update(_stage_view(stage, list(texts.values()), question, live=True))

        def on_stage(stage: StageTrace) -> None:
            live.update(Text())
            texts.clear()
            OUT.print(_stage_view(stage.name, [c.text for c in stage.completions], question))
            if explain:
                OUT.print(Padding(_explanation(stage, plan), (0, 0, 0, 2)), style="dim")

        trace = answer(session, question, plan, on_text=on_text, on_stage=on_stage)
    chosen = (
        "no answer that could be read"
        if trace.answer is None
        else f"({chr(65 + trace.answer)}) {question.choices[trace.answer]}"
    )
    if trace.answer is not None and trace.choices:
        chosen += f", {trace.choices[trace.answer]:.0%} among the choices"
    right = "" if question.answer is None else f"  ({'right' if trace.correct else 'wrong'})"
    OUT.print(Text.assemble(("Answer: ", "bold green"), chosen, (right, "dim")))


def _stage_view(stage: str, texts: list[str], question: Question, live: bool = False) -> Text:
    """A stage's texts, each branch behind its letter."""
    view = Text(stage + "\n", style="bold")
    for branch, text in enumerate(texts):
        letter = f"({chr(65 + branch)}) " if len(texts) > 1 else ""
        view.append(f"  {letter}{text.strip()}\n", style="not bold")
    return view


def _explanation(stage: StageTrace, plan: Plan) -> str:
    """What the stage left out, and how its texts ended."""
    used = plan.stage(stage.name)
    count = used.schedule.num_skipped
    layers = ", ".join(str(layer) for layer in sorted(used.schedule.at(1 << 30)))
    skipped = f"skipped {count} of {2 * plan.model.num_blocks} sub-layers: {layers}" if count else "full depth"
    exits = [
        f"{f'({chr(65 + i)}) ' if len(stage.completions) > 1 else ''}"
        f"{'settled' if c.finish_reason == 'settled' else 'unsure'} at token {len(c.token_ids)}"
        f" (confidence {c.confidences[-1]:.2f})"
        for i, c in enumerate(stage.completions)
        if c.exited
    ]
    rule = f"exit {used.exit}: {'; '.join(exits) or 'no text cut'}" if used.exit else "exit off"
    steps = sum(c.counts.decoded for c in stage.completions)
    return f"{skipped}\n{rule}\n{steps} decode steps"
