"""Results in the terminal, made for 80 columns: text, tables and plans as rich renderables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from rich.align import Align
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from litestage.core import StagePlan, SubLayer
from litestage.core.layers import KINDS, Kind
from litestage.report import parts
from litestage.report.table import Table, Tone
from litestage.results import Provenance

STYLES: Mapping[Tone, str] = {"plain": "", "strong": "bold", "dim": "dim"}
SKIPPED_CELL, KEPT_CELL = "■", "·"
KIND_STYLES: Mapping[Kind, str] = {"attention": "green", "ffn": "yellow"}


@dataclass(frozen=True)
class Sentence:
    """Running text."""

    text: str
    style: str = ""


@dataclass(frozen=True)
class PlanStrips:
    """What each stage skips: a row of blocks for attention and one for FFN, and the sub-layers by name."""

    stage_plans: Mapping[str, StagePlan]
    num_blocks: int


Part = Table | Sentence | PlanStrips


def shown(content: Iterable[Part]) -> RenderableType:
    """Parts below each other, with a line of air after each."""
    return Group(*(Padding(_drawn(part), (0, 0, 1, 0)) for part in content))


def conditions(came: Provenance) -> Sentence:
    """The conditions in small print."""
    told = [
        came.hardware,
        f"{came.device}, {came.threads} threads, {came.precision}, batch {came.batch_size}, seed {came.seed}",
        ", ".join(f"{name} {version}" for name, version in came.versions.items()),
        came.date,
    ]
    return Sentence("; ".join(told), "dim")


def _drawn(part: Part) -> RenderableType:
    if isinstance(part, Sentence):
        return Text(part.text, style=part.style)
    return _table(part.for_terminal()) if isinstance(part, Table) else _strips(part)


def _table(table: Table) -> RenderableType:
    """Title, quiet rules, and the note below."""
    drawn = Grid(
        title=Text(table.title, style="bold"),
        title_justify="left",
        box=SIMPLE_HEAD,
        header_style="",
        show_edge=False,
        pad_edge=False,
        padding=(0, 1),
        collapse_padding=True,
    )
    for column in table.columns:
        heading = f"{column.title}\n{column.under}" if column.under else column.title
        side: Literal["left", "right"] = "right" if column.right else "left"
        drawn.add_column(Align(Text(heading), side, vertical="bottom"), justify=side, overflow="fold")
    for line in table.lines:
        drawn.add_row(*(Text(cell) for cell in line.cells), style=STYLES[line.tone])
    note = [Text(table.note, style="dim")] if table.note else []
    return Group(drawn, *note)


def _strips(plan: PlanStrips) -> RenderableType:
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column()
    grid.add_column(no_wrap=True, min_width=plan.num_blocks)
    grid.add_column(overflow="fold")
    for name, stage in plan.stage_plans.items():
        strips = Text("\n").join(_strip(stage, plan.num_blocks, kind) for kind in KINDS)
        grid.add_row(Text(name, style="bold"), strips, parts.skipped_names(stage))
    head = Text(f"Skipped while decoding, block 0 to {plan.num_blocks - 1}: ", style="bold")
    head.append(f"{SKIPPED_CELL} attention", style=KIND_STYLES["attention"]).append(" above ", style="dim")
    head.append(f"{SKIPPED_CELL} FFN", style=KIND_STYLES["ffn"])
    return Group(head, Text(""), grid)


def _strip(stage: StagePlan, num_blocks: int, kind: Kind) -> Text:
    """One character a block."""
    strip = Text()
    for block in range(num_blocks):
        skipped = parts.first_skip(stage.schedule, SubLayer(block, kind)) is not None
        strip.append(SKIPPED_CELL if skipped else KEPT_CELL, style=KIND_STYLES[kind] if skipped else "dim")
    return strip
