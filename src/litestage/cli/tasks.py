"""``litestage tasks``."""

from __future__ import annotations

from rich.table import Table

from litestage.cli.console import OUT


def command() -> None:
    """List the built-in tasks and their stages. Your own is a TOML or YAML file: see docs/own-task.md."""
    from litestage.tasks import list_tasks

    table = Table("name", "stages", "questions", "what it is", box=None, header_style="bold", pad_edge=False)
    for task in list_tasks():
        stages = ", ".join(s.name + (" x choices" if s.fan_out == "choices" else "") for s in task.stages)
        table.add_row(task.name, stages, task.questions or "--data DIR", task.description)
    OUT.print(table)
