"""The options that commands share: one name, one meaning, everywhere."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from litestage.core.errors import OptionError
from litestage.core.plan import content_hash
from litestage.core.wording import did_you_mean

if TYPE_CHECKING:
    from litestage.jobs import Options, Session
    from litestage.jobs.policies import Policy

Number = TypeVar("Number", int, float)

WHAT, HOW, WHERE = "What to run", "How to run it", "What comes out"


def listed(param: typer.CallbackParam, value: str) -> str:
    """Refuse what the option's metavar does not list, before a model is loaded."""
    known = (param.metavar or "").split("|")
    if value not in known:
        near = did_you_mean(value, known)
        raise OptionError(f"{param.opts[0]} {value} is not known.{near} Choose {', '.join(known[:-1])} or {known[-1]}.")
    return value


Model = Annotated[
    str, typer.Option(metavar="NAME", help="Short name, folder, .gguf file or hub id.", rich_help_panel=WHAT)
]
Adapter = Annotated[
    str | None, typer.Option(metavar="NAME", help="LoRA adapter: short name or folder.", rich_help_panel=WHAT)
]
Task = Annotated[
    str, typer.Option(metavar="NAME", help="Built-in task, or a .toml or .yaml file.", rich_help_panel=WHAT)
]
Data = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Folder with dev.jsonl and test.jsonl, or one .jsonl file.", rich_help_panel=WHAT),
]
Split = Annotated[
    str,
    typer.Option(
        metavar="dev|test|train",
        callback=listed,
        help="Which questions.",
        rich_help_panel=WHAT,
    ),
]
Limit = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Only the first so many questions.", rich_help_panel=WHAT)
]
Shots = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Worked examples in each prompt. Default: 3, none for a model trained on the task.",
        rich_help_panel=WHAT,
    ),
]
PlanFolder = Annotated[
    str | None, typer.Option("--plan", metavar="DIR", help="A plan folder; full depth without.", rich_help_panel=WHAT)
]
Skip = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STAGE=LAYERS",
        help="Skip a set by hand: recall=7.attention,9.ffn. Once a stage; replaces the plan's own set there.",
        rich_help_panel=HOW,
    ),
]
UNSURE = "End a text when its last tokens are unsure: 5,0.5."
Exit = Annotated[
    str | None,
    typer.Option(
        "--exit",
        metavar="WINDOW,THRESHOLD",
        help=f"{UNSURE} Replaces the plan's own rule in all stages. Default: as in the plan; off without one.",
        rich_help_panel=HOW,
    ),
]
TriedExit = Annotated[
    str | None,
    typer.Option("--exit", metavar="WINDOW,THRESHOLD", help=f"{UNSURE} Default: 5,0.5 is tried.", rich_help_panel=HOW),
]
NoExit = Annotated[bool, typer.Option("--no-exit", help="Never end a text early.", rich_help_panel=HOW)]
MaxDrop = Annotated[
    float, typer.Option(metavar="POINTS", help="Accuracy points the plan may lose (epsilon).", rich_help_panel=HOW)
]
Step = Annotated[
    int, typer.Option(metavar="N", min=1, help="Sub-layers between two budgets tried.", rich_help_panel=HOW)
]
Preset = Annotated[
    str,
    typer.Option(
        metavar="paper|probed",
        callback=listed,
        help="How sub-layers are left out: as in the paper, or by the best of several rankings and stand-ins.",
        rich_help_panel=HOW,
    ),
]
Rankings = Annotated[
    str | None,
    typer.Option(
        "--ranking",
        metavar="NAME,...",
        help="Rankings to try: cosine, cosine_by_stage, cosine_decoded, probe, probe_pooled, greedy, greedy_pooled.",
        rich_help_panel=HOW,
    ),
]
Compensations = Annotated[
    str | None,
    typer.Option(
        "--compensation",
        metavar="KIND,...",
        help="What to try in place of a skipped sub-layer: none, norm_ratio, mean, affine, lowrank:16.",
        rich_help_panel=HOW,
    ),
]
Latency = Annotated[
    str,
    typer.Option(
        metavar="priced|wall",
        callback=listed,
        help="Price counted work, or time every run.",
        rich_help_panel=HOW,
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.", rich_help_panel=HOW)]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="fp32|bf16",
        callback=listed,
        help="Number format of weights and cache.",
        rich_help_panel=HOW,
    ),
]
Quantise = Annotated[
    str,
    typer.Option(
        metavar="none|int8|int4",
        callback=listed,
        help="Round weights to 8 or 4 bits (CPU, CUDA).",
        rich_help_panel=HOW,
    ),
]
BatchSize = Annotated[int, typer.Option(metavar="N", min=1, help="Rows that decode together.", rich_help_panel=HOW)]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Processes that answer side by side on a processor. Default: two for a small model.",
        rich_help_panel=HOW,
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="For all that is drawn at random.", rich_help_panel=HOW)]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where results go. Default: under runs/.", rich_help_panel=WHERE)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.", rich_help_panel=WHERE)]


def open_session(options: Options) -> Session:
    """Load model and task; what transformers would print is kept quiet."""
    from litestage.jobs import Session

    quiet_transformers()
    return Session(options)


def quiet_transformers() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def out_folder(out: Path | None, command: str, options: Options, *settings: object) -> Path:
    """The folder given, or one under ``runs/`` that the same settings always get, so that a killed run goes on."""
    if out is not None:
        return check_out(out)
    name = Path(options.model).name + (f"+{Path(options.adapter).name}" if options.adapter else "")
    task = Path(options.task).stem
    return check_out(Path("runs") / f"{command}-{task}-{name}-{content_hash([repr(options), repr(settings)])[:8]}")


def spelled(options: Options) -> str:
    """Options as they are typed: those that are given, and not the default's."""
    default = type(options)()
    changed = {name: value for name, value in vars(options).items() if value not in (None, getattr(default, name))}
    return shlex.join(word for name, value in changed.items() for word in (f"--{name.replace('_', '-')}", str(value)))


def check_out(folder: Path) -> Path:
    """The folder, when results can be written there; raises `OptionError` before any work is done."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise OptionError(f"--out {folder}: {there} is a file, and results need a folder. Choose another --out.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OptionError(f"--out {folder}: nothing may be written in {there.absolute()}. Choose another --out.")
    return folder


def policies(preset: str, rankings: str | None, compensations: str | None) -> tuple[Policy, ...]:
    """The preset's policies, with rankings or compensations of the user's own in their place."""
    from litestage.jobs.policies import PRESETS, policies_of

    if preset not in PRESETS:
        raise OptionError(f"--preset {preset} is not known. Choose {' or '.join(PRESETS)}.")
    own = [[name.strip() for name in text.split(",")] if text else None for text in (rankings, compensations)]
    return policies_of(*(mine or default for mine, default in zip(own, PRESETS[preset], strict=True)))


def numbers(option: str, text: str, kind: Callable[[str], Number], least: float = 1e-9) -> tuple[Number, ...]:
    """Read ``1,2,3``: numbers from ``least`` to a million, above 0 unless it is that; ascending and none twice."""
    try:
        found = tuple(sorted({kind(part) for part in text.split(",")}))
    except ValueError:
        found = ()
    if not found or not all(least <= number <= 1e6 for number in found):
        kinds = "numbers above 0" if least else "0 or numbers above it"
        raise OptionError(f"{option} {text}: write {kinds}, up to a million, with commas between them: {option} 1,2,3.")
    return found
