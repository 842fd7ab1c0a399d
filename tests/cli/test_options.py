"""Options are declared once, as fields of records, and every command takes them from there."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Annotated, Any

import pytest
from typer.main import get_command

from litestage.benchmarks import options as of_benchmarks
from litestage.cli import app
from litestage.cli.spelling import Taken, as_typed, spelled_out
from litestage.core import MeanConfidence, OptionError
from litestage.jobs import options as of_jobs
from litestage.jobs.options import DataOptions, DecodingOptions, ModelOptions, Options, flag_of, hint_of

Run = Callable[..., tuple[int, str, str]]
RECORDS = [
    kind
    for room in (of_jobs, of_benchmarks)
    for kind in vars(room).values()
    if isinstance(kind, type) and issubclass(kind, Options) and kind is not Options
]
OWN_DEFAULTS = {
    "certify": {"--split": "test"},
    "evaluate": {"--split": "test"},
    "quickstart": {"--limit": 300, "--batch-size": 64, "--out": "quickstart"},
    "compare": {"--split": "test", "--limit": 200, "--batch-size": 64, "--out": "comparison"},
    "diagnose": {"--limit": 100, "--batch-size": 64},
    "rank": {"--limit": 50},
    "bench decode": {"--model": "smollm2-135m"},
    "bench drop-in": {"--model": "smollm2-135m"},
    "bench pipeline": {"--split": "test", "--limit": 16},
    "bench drafts": {"--split": "test", "--limit": 60},
    "bench accuracy": {"--split": "test"},
    "bench ladder": {"--split": "test", "--limit": 30},
    "bench all": {"--split": "test"},
    "bench search": {"--limit": 20, "--step": 4, "--max-drop": 1},
    "bench memory": {"--split": "test", "--limit": 100},
}
"""Where a command's default is not the record's."""


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    for word, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {word}".strip())
    if not hasattr(command, "commands"):
        yield name, command


COMMANDS = dict(commands(get_command(app)))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name.split()[0] not in ("models", "tasks", "report")])
def test_every_option_is_a_field_of_a_record_with_its_help_and_default(name: str) -> None:
    known: dict[str, list[tuple[str, Any]]] = {}
    for record in RECORDS:
        for one in fields(record):
            hint = hint_of(one)
            default = hint.typed if hint.read else None if one.default == () else one.default
            known.setdefault(flag_of(one), []).append((hint.help, default))
    for parameter in COMMANDS[name].params:
        flag = parameter.opts[0]
        if flag in ("question", "answers", "--choice", "--help"):
            continue
        defaults = [default for _, default in known[flag]]
        expected = OWN_DEFAULTS.get(name, {}).get(flag, parameter.default)
        assert parameter.default == expected or str(parameter.default) == expected, flag
        if flag not in OWN_DEFAULTS.get(name, {}):
            assert parameter.default in defaults or parameter.required, flag
        assert parameter.help, flag


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_80_columns(name: str, litestage: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = litestage(*name.split(), "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out


def test_a_command_of_records_gets_what_was_typed() -> None:
    got: list[Any] = []

    def command(
        model: ModelOptions = ModelOptions(dtype="bf16"),
        *,
        plan: of_jobs.PlanOptions,
        sizes: Annotated[of_jobs.CompareOptions, Taken(without=("exit",))],
    ) -> None:
        got.extend((model, plan, sizes))

    spelled = spelled_out(command)
    values = {
        name: getattr(parameter.default, "default", None)
        for name, parameter in inspect.signature(spelled).parameters.items()
    }
    spelled(**values)
    assert got == [ModelOptions(dtype="bf16"), of_jobs.PlanOptions(), of_jobs.CompareOptions()]
    got.clear()
    typed = {"model": "x", "skip": ["recall=1.ffn"], "exit": "3,0.25", "max_drops": "5,1", "methods": "a, b,a"}
    with pytest.raises(OptionError, match=r"--blocks 0: write numbers above 0"):
        spelled(**values | {"blocks": "0"})
    del values["exit"], values["skip"]
    spelled(**values | typed)
    model, plan, sizes = got
    assert (model.name, model.dtype) == ("x", "bf16")
    assert (plan.skip, plan.exit) == (("recall=1.ffn",), MeanConfidence(window=3, threshold=0.25))
    assert (sizes.max_drops, sizes.methods) == ((1.0, 5.0), ("a", "b"))


def test_what_a_command_leaves_out_keeps_its_default() -> None:
    taken = Taken(only=("name",))
    assert [one.name for one in fields(ModelOptions) if taken.takes(one)] == ["name"]
    assert not any(Taken(without=("split",)).takes(one) for one in fields(DataOptions) if one.name == "split")


def test_records_are_typed_again_as_they_were() -> None:
    records = ModelOptions(name="a b", dtype="bf16"), DataOptions(shots=1, split="test"), DecodingOptions(seed=3)
    assert as_typed(*records, without=("split",)) == "--model 'a b' --dtype bf16 --shots 1 --seed 3"
    assert re.fullmatch("", as_typed(ModelOptions(), DataOptions(), DecodingOptions()))
