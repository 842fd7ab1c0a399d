"""``litestage run``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from litestage.cli import options as o
from litestage.cli.console import ERR, OUT

if TYPE_CHECKING:
    from litestage.core import Plan, StageTrace
    from litestage.jobs import Session
    from litestage.tasks import Question


def command(
    question: str | None = typer.Argument(None, help='With its choices: "Which floats? (A) a cork (B) a stone".'),
    choice: list[str] | None = typer.Option(
        None, help="A choice, if not in the question. Once each.", rich_help_panel=o.WHAT
    ),
    model: o.Model = "everyday",
    adapter: o.Adapter = None,
    task: o.Task = "everyday",
    shots: o.Shots = None,
    plan: o.PlanFolder = None,
    skip: o.Skip = None,
    exit_rule: o.Exit = None,
    no_exit: o.NoExit = False,
    explain: bool = typer.Option(
        False, "--explain", help="Say what was skipped and where texts ended.", rich_help_panel=o.WHERE
    ),
    device: o.Device = "auto",
    dtype: o.Dtype = "fp32",
    quantise: o.Quantise = "none",
    json: o.Json = False,
) -> None:
    """Answer one question that you type; the stages appear as they are written.

    Example: [bold]litestage run "Which of these can float on water? (A) a cork (B) a stone (C) a key (D) a fork"[/]
    """
    from litestage.jobs import Options
    from litestage.jobs.answer import ask, read_question
    from litestage.jobs.session import plan_by_hand

    asked = read_question(*_typed(question, choice or []))
    with ERR.status("loading the model"):
        session = o.open_session(Options(model, adapter, task, None, shots, device, dtype, quantise=quantise))
        base = session.load_plan(plan) if plan else session.full_plan()
        used = plan_by_hand(base, session.task, skip or [], exit_rule, no_exit)
    if json:
        typer.echo(ask(session, asked, used).model_dump_json(indent=2))
        return
    _show(session, asked, used, explain)


def _typed(question: str | None, choices: list[str]) -> tuple[str, list[str]]:
    """The question from the command line, or asked for."""
    if question is not None or not sys.stdin.isatty():
        return question if question is not None else sys.stdin.read(), choices
    question = typer.prompt("Question")
    if "(A)" in question:
        return question, choices
    OUT.print("Its choices, one a line; an empty line ends them.", style="dim")
    while answer := typer.prompt(f"({chr(65 + len(choices))})", default="", show_default=False):
        choices.append(answer)
    return question, choices


def _show(session: Session, question: Question, plan: Plan, explain: bool) -> None:
    from litestage.jobs.answer import ask

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

        trace = ask(session, question, plan, on_text=on_text, on_stage=on_stage)
    chosen = (
        "no answer that could be read"
        if trace.answer is None
        else f"({chr(65 + trace.answer)}) {question.choices[trace.answer]}"
    )
    OUT.print(Text.assemble(("Answer: ", "bold green"), chosen))


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
        f"{f'({chr(65 + i)}) ' if len(stage.completions) > 1 else ''}unsure at token {len(c.token_ids)}"
        f" (confidence {c.confidences[-1]:.2f})"
        for i, c in enumerate(stage.completions)
        if c.finish_reason == "low_confidence"
    ]
    rule = (
        f"exit {used.exit.window},{used.exit.threshold:g}: {'; '.join(exits) or 'no text cut'}"
        if used.exit
        else "exit off"
    )
    steps = sum(c.counts.decoded for c in stage.completions)
    return f"{skipped}\n{rule}\n{steps} decode steps"
