"""The commands together, and how errors reach a person."""

from __future__ import annotations

import os
import sys

import typer
from rich.text import Text

from litestage.cli import evaluate, finetune, models, quickstart, rank, run, search, tasks
from litestage.cli.console import ERR
from litestage.core.errors import LitestageError

app = typer.Typer(
    name="litestage",
    help="Find, for each stage of a reasoning task, the sub-layers a small language model can leave out while "
    "decoding, and run the task faster at the accuracy you set.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
for module in (quickstart, search, evaluate, run, rank, finetune):
    app.command(module.__name__.rpartition(".")[2])(module.command)
app.add_typer(models.app, name="models")
app.command("tasks")(tasks.command)


def main() -> None:
    """Run a command; exit code 0 when it worked, 2 for a user's mistake, 1 for a failure, 130 on Ctrl-C."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        app()
    except LitestageError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        what = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        _fail(f"{what}. What was done before is kept: mend this and run the same command again.", 1)


def _fail(sentence: str, code: int) -> None:
    ERR.print(Text.assemble(("litestage: ", "bold red"), sentence), soft_wrap=True)
    sys.exit(code)
