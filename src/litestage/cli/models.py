"""``litestage models`` and ``litestage models pull``."""

from __future__ import annotations

import typer
from rich.table import Column, Table

from litestage.cli.command import Group
from litestage.cli.console import ERR, OUT

app = typer.Typer(cls=Group, help="List the models at hand, or pull real weights.", invoke_without_command=True)


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
