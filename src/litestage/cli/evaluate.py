"""``litestage evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import typer

from litestage.cli import options as o
from litestage.cli.console import ERR, OUT, Bars
from litestage.core.errors import OptionError
from litestage.core.wording import did_you_mean

if TYPE_CHECKING:
    from litestage.evaluation import VoteStop


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
        None, metavar="N", min=1, help="Sampled runs of each question; greedy without.", rich_help_panel=o.HOW
    ),
    votes_stop: str | None = typer.Option(
        None,
        metavar="decided|likely",
        help="Stop a question's votes when the majority cannot change, or most likely will not.",
        rich_help_panel=o.HOW,
    ),
    votes_confidence: float | None = typer.Option(
        None, metavar="P", help="How likely that must be for likely. Default: 0.95.", rich_help_panel=o.HOW
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
    """Measure accuracy, tokens and latency of a model on a task, at full depth or with a plan.

    A killed evaluation goes on when you give the same command again.

    Example: [bold]litestage evaluate --model smollm2-135m --task obqa --data DIR --split dev --limit 20[/]
    """
    from litestage.core.files import write_text
    from litestage.jobs import Options, evaluate
    from litestage.jobs.evaluate import NO_ROOM_NOTE
    from litestage.jobs.session import plan_by_hand
    from litestage.report import tables

    stop = _vote_stop(votes, votes_stop, votes_confidence)
    options = Options(model, adapter, task, data, shots, device, dtype, batch_size, seed, quantise, workers)
    with Bars() as bars:
        session = o.open_session(options)
        questions = session.questions(split, limit)
        base = session.load_plan(plan) if plan else session.full_plan()
        used = plan_by_hand(base, session.task, skip or [], exit_rule, no_exit)
        chosen = (split, limit, plan, skip, exit_rule, no_exit, votes, *([stop] if stop else []))
        folder = o.out_folder(out, "evaluate", options, *chosen)
        result = evaluate(session, questions, used, folder, votes=votes, stop=stop, latency=latency, progress=bars)
    text = result.model_dump_json(indent=2)
    write_text(folder / "evaluation.json", text + "\n")
    if json:
        typer.echo(text)
    else:
        of_a_run = "; latency and tokens of a run" if result.votes else ""
        OUT.print(
            tables.evaluation(
                result.performance, f"{session.engine.identity.id} on {session.task.name}, {split}{of_a_run}"
            )
        )
        if cramped := sum(trace.no_room for trace in result.questions):
            OUT.print(
                f"With {cramped} of {len(result.questions)} answers {NO_ROOM_NOTE} Fewer worked examples (--shots) or "
                "a model that reads more tokens make room.",
                highlight=False,
            )
        if result.votes:
            OUT.print(tables.votes(result.votes))
        ERR.print(f"Every prompt, text and count is in {folder / 'evaluation.json'}.", style="dim", highlight=False)


def _vote_stop(votes: int | None, kind: str | None, confidence: float | None) -> VoteStop | None:
    from litestage.evaluation import VoteStop

    if kind is None:
        if confidence is not None:
            raise OptionError("--votes-confidence is for --votes-stop likely. Add that, or leave it out.")
        return None
    if kind not in ("decided", "likely"):
        near = did_you_mean(kind, ("decided", "likely"))
        raise OptionError(f"--votes-stop {kind} is not known.{near} Choose decided or likely.")
    if votes is None or votes < 2:
        raise OptionError(f"--votes-stop {kind} needs several votes to stop. Give --votes, for example --votes 10.")
    if confidence is not None and kind == "decided":
        raise OptionError("--votes-stop decided is certain, so --votes-confidence has no part in it. Leave one out.")
    if confidence is not None and not 0.5 < confidence < 1:
        raise OptionError(f"--votes-confidence {confidence:g} is not a probability above 0.5 and below 1. Try 0.95.")
    return VoteStop(kind=cast(Literal["decided", "likely"], kind), votes=votes, confidence=confidence or 0.95)
