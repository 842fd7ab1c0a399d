"""``litestage certify``."""

from __future__ import annotations

import json as json_format
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from litestage.cli import spelling as o
from litestage.cli.console import ERR, OUT, Bars
from litestage.core.errors import OptionError
from litestage.jobs.options import (
    CertifyOptions,
    ChangeOptions,
    ClusterOptions,
    DataOptions,
    ModelOptions,
    OutputOptions,
)

if TYPE_CHECKING:
    from litestage.core import Certificate


def command(
    answers: list[str] | None = typer.Argument(
        None,
        metavar="[BEFORE AFTER]",
        help="Two folders of `litestage evaluate`, or DIR and DIR#NAME for a method of a comparison.",
    ),
    *,
    options: CertifyOptions,
    change: ChangeOptions,
    model: Annotated[ModelOptions, o.Taken(without=("quantise",))],
    data: DataOptions = DataOptions(split="test"),
    decoding: ClusterOptions,
    output: OutputOptions,
) -> None:
    """Say what a change of the system costs at most, with 95 % confidence: granted or refused.

    Full depth and the changed system answer the same questions, which must have chosen neither. The test looks at each
    third of them and stops when it knows. What is asked for is a loss below --max-drop points.

    Example: [bold]litestage certify --plan plans/everyday --split test --max-drop 3[/]
    """
    from litestage.evaluation import Outcomes, certify
    from litestage.jobs.certify import certify_change, certify_folders

    folders, max_drop = answers or [], options.max_drop
    _one_way(folders, options, change)
    what = questions = ""
    if options.counts is not None:
        found = certify(Outcomes(*options.counts), max_drop)
    elif folders:
        found, what = certify_folders(folders[0], folders[1], max_drop), f"{folders[0]} to {folders[1]}"
    else:
        folder = o.out_folder(output.out, "certify", model, data, decoding, change, max_drop)
        with Bars() as bars:
            session = o.open_session(model, data, decoding, folder, bars)
            asked = session.questions()
            found = certify_change(session, change, asked, max_drop=max_drop)
        what, questions = str(change), f"{found.n} of {len(asked)} {data.split} questions"
        place = change.plan if change.is_plan_alone else folder
        ERR.print(f"The certificate is in {place}.", style="dim", highlight=False)
    _show(found, what, questions, output.json)


def _one_way(folders: list[str], options: CertifyOptions, change: ChangeOptions) -> None:
    """Refuse two ways of saying what to certify, and half a way."""
    from litestage.jobs.certify import check_change

    if len(folders) not in (0, 2):
        raise OptionError(
            f"{len(folders)} folder{'s' * (len(folders) > 1)} given: a certificate compares two. "
            "Write litestage certify BEFORE AFTER."
        )
    ways = {
        "two folders": bool(folders),
        "--counts": options.counts is not None,
        f"a change ({change})": change != ChangeOptions(),
    }
    given = [name for name, is_given in ways.items() if is_given]
    if len(given) > 1:
        raise OptionError(f"{' and '.join(given)} each say what to certify. Give one of them.")
    if not given:
        check_change(change)


def _show(found: Certificate, what: str, questions: str, json: bool) -> None:
    from litestage.evaluation import would_do
    from litestage.report import certificate as words

    if json:
        verdict = {"granted": found.granted, "change": found.change, "would_do": would_do(found)}
        typer.echo(json_format.dumps(found.model_dump() | verdict, indent=2))
        return
    sentence = words.verdict(found)
    head, _, rest = sentence.partition(":")
    OUT.print(Text.assemble((head, "bold green" if found.granted else "bold yellow"), f":{rest}"), highlight=False)
    OUT.print()
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, value in words.facts(found, what, questions or f"{found.n}").items():
        table.add_row(Text(name, style="dim"), Text(value))
    OUT.print(table)
