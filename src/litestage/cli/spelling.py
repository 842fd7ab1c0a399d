"""Records of options as a command takes them: one parameter of a command becomes all its options."""

from __future__ import annotations

import inspect
import os
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer

from litestage.core.errors import OptionError
from litestage.core.plan import content_hash
from litestage.jobs.options import (
    HOW,
    WHERE,
    ClusterOptions,
    DataOptions,
    DecodingOptions,
    DraftOptions,
    ModelOptions,
    Options,
    flag_of,
    hint_of,
)

if TYPE_CHECKING:
    from litestage.jobs.progress import Progress
    from litestage.jobs.session import Session


@dataclass(frozen=True)
class Taken:
    """What a command takes of a record, where that is not all of it, or not as the record says."""

    without: tuple[str, ...] = ()
    """Fields that keep their defaults."""
    only: tuple[str, ...] = ()
    help: Mapping[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = ()

    def takes(self, one: Field[Any]) -> bool:
        return one.name in self.only if self.only else one.name not in self.without


def spelled_out(command: Callable[..., None]) -> Callable[..., None]:
    """The command with every record among its parameters spelled out, option by option.

    A record given as a parameter's default says the defaults of this command's options.
    """
    parts = [_Part.of(parameter) for parameter in inspect.signature(command, eval_str=True).parameters.values()]

    def run(**values: Any) -> None:
        command(**{part.name: part.value(values) for part in parts})

    parameters = sorted((one for part in parts for one in part.parameters()), key=_place)
    vars(run).update(__signature__=inspect.Signature(parameters))
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = command.__doc__
    return run


def _place(parameter: inspect.Parameter) -> int:
    """Where an option stands in the help: the command's own before what is much the same everywhere."""
    panel = getattr(parameter.default, "rich_help_panel", None)
    always = {_dest(one) for record in (ModelOptions, ClusterOptions) for one in fields(record)}
    return 2 if panel == WHERE else 1 if panel == HOW and parameter.name in always else 0


@dataclass(frozen=True)
class _Part:
    """A parameter of a command: a record, or an option or argument of the command's own."""

    parameter: inspect.Parameter
    record: type[Options] | None
    taken: Taken

    @classmethod
    def of(cls, parameter: inspect.Parameter) -> _Part:
        annotation, taken = parameter.annotation, Taken()
        if get_origin(annotation) is Annotated and isinstance(get_args(annotation)[1], Taken):
            annotation, taken = get_args(annotation)
        is_record = isinstance(annotation, type) and issubclass(annotation, Options)
        return cls(parameter, annotation if is_record else None, taken)

    @property
    def name(self) -> str:
        return self.parameter.name

    def parameters(self) -> Iterator[inspect.Parameter]:
        if self.record is None:
            yield self.parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            return
        types = get_type_hints(self.record)
        for one in self._fields():
            required = one.name in self.taken.required
            default = ... if required else self._typed(one)
            annotation = _typed_as(one, types[one.name], optional=default is None)
            yield inspect.Parameter(
                _dest(one), inspect.Parameter.KEYWORD_ONLY, default=self._option(one, default), annotation=annotation
            )

    def value(self, values: Mapping[str, Any]) -> Any:
        """The record, of what was typed."""
        if self.record is None:
            return values[self.name]
        return self.record(**{**vars(self._default), **{one.name: _read(one, values) for one in self._fields()}})

    @property
    def _default(self) -> Options:
        given = self.parameter.default
        return given if isinstance(given, Options) else (self.record or Options)()

    def _fields(self) -> list[Field[Any]]:
        return [one for one in fields(self.record or Options) if self.taken.takes(one)]

    def _typed(self, one: Field[Any]) -> Any:
        """The default as it is typed."""
        hint, default = hint_of(one), getattr(self._default, one.name)
        return hint.typed if hint.read else None if default == () else default

    def _option(self, one: Field[Any], default: Any) -> Any:
        hint = hint_of(one)
        return typer.Option(
            default,
            flag_of(one),
            metavar=hint.metavar or None,
            min=hint.least,
            max=hint.most,
            help=self.taken.help.get(one.name, hint.help),
            rich_help_panel=hint.panel,
        )


def _dest(one: Field[Any]) -> str:
    return flag_of(one).removeprefix("--").replace("-", "_")


def _typed_as(one: Field[Any], kind: Any, optional: bool) -> Any:
    """The type that typer knows an option by."""
    if hint_of(one).read:
        return str | None if optional else str
    return list[str] | None if get_origin(kind) is tuple else kind


def _read(one: Field[Any], values: Mapping[str, Any]) -> Any:
    """What was typed, as the record holds it."""
    value, read = values[_dest(one)], hint_of(one).read
    if isinstance(one.default, tuple) and not isinstance(value, str):
        return tuple(value or ())
    if read is None or value is None:
        return value
    try:
        return read(value)
    except OptionError as error:
        raise OptionError(f"{flag_of(one)} {error}") from None


def open_session(
    model: ModelOptions,
    data: DataOptions,
    decoding: DecodingOptions,
    out: Path | None,
    progress: Progress,
    drafts: DraftOptions = DraftOptions(),
) -> Session:
    """Load model and task; what transformers would print is kept quiet."""
    from litestage.jobs.session import Session

    quiet_transformers()
    return Session(model, data, decoding, drafts=drafts, out=out, progress=progress)


def quiet_transformers() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.formatwarning = _as_a_sentence


def _as_a_sentence(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Of our own warnings what they say is enough; where they come from is not."""
    return f"{message}\n" if "litestage" in Path(filename).parts else f"{filename}:{lineno}: {message}\n"


def out_folder(out: Path | None, command: str, model: ModelOptions, data: DataOptions, *settings: object) -> Path:
    """The folder given, or one under ``runs/`` that the same settings always get, so that a killed run goes on."""
    if out is not None:
        return check_out(out)
    name = Path(model.name).name + (f"+{Path(model.adapter).name}" if model.adapter else "")
    asked = content_hash([repr(model), repr(data), repr(settings)])[:8]
    return check_out(Path("runs") / f"{command}-{Path(data.task).stem}-{name}-{asked}")


def check_out(folder: Path) -> Path:
    """The folder, when results can be written there; raises `OptionError` before any work is done."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise OptionError(f"--out {folder}: {there} is a file, and results need a folder. Choose another --out.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OptionError(f"--out {folder}: nothing may be written in {there.absolute()}. Choose another --out.")
    return folder


def as_typed(*records: Options, without: tuple[str, ...] = ()) -> str:
    """Options as they are typed: those that are given, and not the default's."""
    words: list[str] = []
    for record in records:
        for one in fields(record):
            value = getattr(record, one.name)
            if value not in (None, one.default) and one.name not in without:
                words += [flag_of(one), str(value)]
    return shlex.join(words)
