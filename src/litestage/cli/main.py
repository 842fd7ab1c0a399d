"""The commands together, and how errors reach a person."""

from __future__ import annotations

import os
import sys

import typer
from rich.text import Text

from litestage import __version__
from litestage.cli import (
    bench,
    certify,
    compare,
    diagnose,
    evaluate,
    export,
    finetune,
    models,
    price,
    quickstart,
    rank,
    report,
    run,
    search,
    serve,
    tasks,
)
from litestage.cli.command import Command, Group, where_help_is
from litestage.cli.console import ERR
from litestage.cli.spelling import spelled_out
from litestage.core.errors import LitestageError

OUT_OF_MEMORY = ("out of memory", "can't allocate memory")
"""What torch says when a device, or this machine, has no more."""

STOPPED = 130
"""What typer makes of Ctrl-C, as other programs do."""

app = typer.Typer(
    name="litestage",
    cls=Group,
    help="Find, for each stage of a reasoning task, the sub-layers a small language model can leave out while "
    "decoding, and run the task faster at the accuracy you set.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
for module in (
    *(quickstart, search, certify, price, evaluate, compare, diagnose, run),
    *(rank, report, finetune, export, serve),
):
    app.command(module.__name__.rpartition(".")[2], cls=Command)(spelled_out(module.command))
app.add_typer(models.app, name="models")
app.add_typer(bench.app, name="bench")
app.command("tasks", cls=Command)(tasks.command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"litestage {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Say the version."),
) -> None:
    """What holds for all commands."""


def main() -> None:
    """Run a command; exit code 0 when it worked, 2 for a user's mistake, 1 for a failure, 130 on Ctrl-C.

    As other programs, 141 when whoever reads the output goes away.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    # A thread that waits for another spins for milliseconds by default, many times a step: on a machine with other work
    # that makes decoding tens of times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="litestage", standalone_mode=False)
        if code == STOPPED:
            _fail("stopped.", STOPPED)
        sys.exit(code)
    except typer.Abort:
        _fail("stopped.", STOPPED)
    except typer.TyperException as error:
        if not error.format_message():  # a command that needs another word has shown its help
            sys.exit(error.exit_code)
        _fail(_usage(error), error.exit_code)
    except LitestageError as error:
        _fail(str(error), error.exit_code)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        _fail("there is too little memory for this. Choose fewer rows at a time, or a narrower --dtype.", 1)
    except BrokenPipeError:
        # Whoever reads the output has seen enough; what is still to be written must not raise at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        what = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        _fail(f"{what}. What was done before is kept: mend this and run the same command again.", 1)


def _usage(error: typer.TyperException) -> str:
    """A command line that cannot be read, in one sentence."""
    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".")
    return message + ("" if message.endswith("?") else ".") + (f" {where_help_is(context)}" if context else "")


def _fail(sentence: str, code: int) -> None:
    ERR.print(Text.assemble(("litestage: ", "bold red"), sentence), soft_wrap=True)
    sys.exit(code)
