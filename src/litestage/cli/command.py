"""How a command reads its arguments: a mistake becomes a sentence that names the option and what came."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from litestage.core.complaints import expectation
from litestage.core.errors import OptionError


class Group(TyperGroup):
    """Commands under one name."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _flags_untyped(super().get_params(ctx))


class Command(TyperCommand):
    """A typer command in the project's own words."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _flags_untyped(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = list(self._given(args))
        for option, value in given:
            if not value:
                raise OptionError(f"{option} is empty; give it a value (is a shell variable unset?), or leave it out.")
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            names = error.param.opts if error.param else []
            wrong = [f"{option} {value}" for option, value in given if option in names]
            if not wrong:  # the option is missing
                raise
            raise OptionError(f"{wrong[-1]}: it {expectation(error.message)}. {where_help_is(ctx)}") from None

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise BrokenPipeError from None  # one with a number would end in typer as a failure

    def _given(self, args: list[str]) -> Iterator[tuple[str, str]]:
        """Options with the values that follow them."""
        takes_value = {name for p in self.params if isinstance(p, TyperOption) and not p.is_flag for name in p.opts}
        for argument, following in zip_longest(args, args[1:]):
            option, equals, behind = argument.partition("=")
            value = behind if equals else following
            if option in takes_value and value is not None:
                yield option, value


def _flags_untyped(params: list[Any]) -> list[Any]:
    """Parameters whose flags have no type in the help: they take no value."""
    for param in params:
        if getattr(param, "is_flag", False) and param.metavar is None:
            param.metavar = ""
    return params


def where_help_is(ctx: Any) -> str:
    return f"See `{ctx.command_path} --help`."
