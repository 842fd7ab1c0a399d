"""``litestage models``, ``litestage models pull`` and ``litestage models check``."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer
from rich.table import Column, Table

from litestage.cli.command import Command, Group
from litestage.cli.console import ERR, OUT

if TYPE_CHECKING:
    from litestage.models.check import Checked, Facts
    from litestage.models.ledger import Entry

app = typer.Typer(
    cls=Group, help="List the models at hand, pull real weights, or look into a model.", invoke_without_command=True
)
LISTED = 12
"""Names that a line of ignored or refused ones shows."""


@app.callback()
def command(context: typer.Context) -> None:
    """List the models that have a short name, and where each one lies.

    Example: [bold]litestage models pull smollm2-135m[/]
    """
    from litestage.models.catalog import embedded_adapters, list_models

    if context.invoked_subcommand is not None:
        return
    where = Column("where", overflow="fold")
    table = Table("name", "what it is", where, box=None, header_style="bold", pad_edge=False)
    for model in list_models():
        place = str(model.place) if model.place else f"litestage models pull {model.name}"
        table.add_row(model.name, model.description, place)
    for name, folder in embedded_adapters().items():
        table.add_row(name, "adapter", str(folder))
    OUT.print(table)
    OUT.print("Any folder, .gguf file or hub id of a supported family works as --model too.", style="dim")


@app.command("pull")
def pull(name: str = typer.Argument(help="A short name from the list.")) -> None:
    """Fetch a model's weights into your cache folder, checked by hash."""
    from litestage.models.catalog import pull

    with ERR.status(f"pulling {name}"):
        place = pull(name)
    OUT.print(f"{name} lies at {place}", highlight=False, soft_wrap=True)


@app.command("check", cls=Command)
def check(
    path: str = typer.Argument(help="A folder, .gguf file, adapter, hub id or short name."),
    adapter: str | None = typer.Option(None, metavar="NAME", help="An adapter for that model, to be looked into too."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document instead of tables."),
) -> None:
    """Say what a model or adapter is, what of its files is read, ignored and refused, and whether plans suit it.

    No weight is read but its name and size. The exit code is 0 where all can be run, and 2 otherwise.

    Example: [bold]litestage models check ./my-model --adapter ./my-adapter[/]
    """
    from litestage.cli.spelling import quiet_transformers
    from litestage.models.check import check_adapter, check_model

    quiet_transformers()
    with ERR.status(f"looking into {path}"):
        found = [check_model(path)]
        if adapter is not None and found[0].refusal is None:
            found.append(check_adapter(adapter, path))
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
    for one in () if as_json else found:
        _show(one)
    if any(one.refusal for one in found):
        raise typer.Exit(2)


def _show(found: Checked) -> None:
    OUT.print(f"{found.name}: {'an' if found.kind == 'adapter' else 'a'} {found.kind}", style="bold", highlight=False)
    if found.place != found.name:
        OUT.print(found.place, style="dim", highlight=False, overflow="fold")
    if found.facts:
        OUT.print(_facts(found.facts))
    ledger = found.ledger
    keys, tensors = (sum(entry.kind == kind for entry in ledger.of("used")) for kind in ("key", "tensor"))
    if keys:
        OUT.print(f"\nUsed: {_number(keys, 'key')} and {_number(tensors, 'tensor')}.", highlight=False)
    wrong = {"Refused": list(ledger.of("refused")), "Missing": list(ledger.of("missing"))}
    let_be = {"Ignored": list(ledger.of("harmless")), "Not applied": list(ledger.of("unapplied"))}
    for title, entries in (let_be | wrong).items():
        if entries:
            OUT.print(_reasons(title, entries))
    what = "merged" if found.kind == "adapter" else "run"
    if any(wrong.values()):
        OUT.print(f"\n✗ It cannot be {what} as its authors run it.", style="red", highlight=False)
    elif found.refusal:
        OUT.print(f"\n✗ {found.refusal}", style="red", highlight=False)
    elif found.searchable:
        OUT.print("\n✓ It can be run.", style="green", highlight=False)
        OUT.print(f"Can a plan be searched on it? {found.searchable.capitalize()}.", highlight=False)
        OUT.print("Names and sizes were looked at. Values are when the model is loaded.", style="dim", highlight=False)
    elif tensors:
        OUT.print("\n✓ It fits the model, and is merged into it.\n", style="green", highlight=False)
    else:
        OUT.print(f"\nWhether it fits a model: litestage models check MODEL --adapter {found.name}", highlight=False)


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _facts(facts: Facts) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    shared = f", {facts.kv_heads} of keys and values" if facts.kv_heads != facts.heads else ""
    stored = ", ".join(f"{name} {count / facts.weights:.0%}" for name, count in facts.precision.items() if count)
    for name, value in (
        ("family", facts.family),
        ("blocks", f"{facts.blocks}, so {facts.sub_layers} sub-layers"),
        ("width", f"{facts.width:,}, in the FFN {facts.ffn_width:,}"),
        ("heads", f"{facts.heads} of {facts.head_size}{shared}"),
        ("tokens", f"{facts.vocabulary:,} known, {facts.longest_text:,} in the longest text"),
        ("ends", f"a text ends at {' or '.join(facts.ends)}"),
        ("weights", f"{facts.weights:,}, stored as {stored}" if facts.weights else "not fetched yet"),
    ):
        table.add_row(name, value)
    return table


def _reasons(title: str, entries: Iterable[Entry]) -> Table:
    """Names by the reason that they share and the file that holds them, if that is not the first one."""
    shared: dict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in entries:
        file, _, name = entry.name.rpartition(": ")
        shared[file, entry.why].append(name)
    names, because = Column(f"\n{title}", overflow="fold", ratio=2), Column("\nbecause", style="dim", ratio=3)
    table = Table(names, because, box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    for (file, why), same in shared.items():
        more = f" and {len(same) - LISTED} more" if len(same) > LISTED else ""
        where = f" (in {file})" if file else ""
        table.add_row(", ".join(same[:LISTED]) + more + where, why)
    return table
