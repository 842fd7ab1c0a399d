"""PlanResult in the terminal: the tables of a report as rich renderables, made for 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from rich.align import Align
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from litestage.core import StagePlan, SubLayer
from litestage.evaluation import StoppedVotes, VoteAccuracy
from litestage.report import tabular, words
from litestage.report.figures import ATTENTION, FFN, first_skip
from litestage.results import Performance, PlanResult, PlanSearch, Provenance

STYLES: dict[tabular.Tone, str] = {"plain": "", "strong": "bold", "dim": "dim"}
SKIPPED_CELL, KEPT_CELL = "■", "·"
KIND_STYLES = {ATTENTION: "green", FFN: "yellow"}


def report(results: PlanResult) -> RenderableType:
    """The whole result: in words, in all, per stage, what is skipped, and the conditions."""
    parts = [
        paragraph(" ".join(words.summary(results))),
        *(paragraph(note, style="yellow") for note in results.notes),
        comparison(results),
        plan_map(results.stage_plans, results.model.num_blocks),
        provenance_line(results.provenance),
    ]
    return Group(*parts)


def comparison(results: PlanResult) -> RenderableType:
    """Full depth against the plan, in all and per stage."""
    return Group(to_rich(tabular.overview(results)), to_rich(tabular.stages(results)))


def search_profiles(search: PlanSearch) -> RenderableType:
    """Every stage's profile in the order of the search, then what became of the exit rule."""
    profiles = [to_rich(tabular.profile(profile, search.target)) for profile in search.profiles]
    return Group(*profiles, *([to_rich(tabular.exit_checks(search))] if search.exit_checks else []))


def evaluation(system: Performance, title: str) -> RenderableType:
    """One system alone."""
    return to_rich(tabular.system(system, title))


def votes(voted: VoteAccuracy | StoppedVotes) -> RenderableType:
    """Several votes a question: a run's mean accuracy, and the majorities'."""
    return to_rich(tabular.votes(voted))


def plan_map(stage_plans: Mapping[str, StagePlan], num_blocks: int) -> RenderableType:
    """What each stage skips: a row of blocks for attention and one for FFN, and the sub-layers by name."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(no_wrap=True, min_width=num_blocks)
    table.add_column(overflow="fold")
    for name, plan in stage_plans.items():
        strips = Text("\n").join(_strip(plan, num_blocks, kind) for kind in (ATTENTION, FFN))
        table.add_row(Text(name, style="bold"), strips, tabular.skipped_names(plan))
    head = Text(f"Skipped while decoding, block 0 to {num_blocks - 1}: ", style="bold")
    head.append(f"{SKIPPED_CELL} attention", style=KIND_STYLES[ATTENTION]).append(" above ", style="dim")
    head.append(f"{SKIPPED_CELL} FFN", style=KIND_STYLES[FFN])
    return _spaced(Group(head, Text(""), table))


def _strip(plan: StagePlan, num_blocks: int, kind: str) -> Text:
    """One character a block."""
    strip = Text()
    for block in range(num_blocks):
        layer = SubLayer(block, "attention" if kind == ATTENTION else "ffn")
        skipped = first_skip(plan.schedule, layer) is not None
        strip.append(SKIPPED_CELL if skipped else KEPT_CELL, style=KIND_STYLES[kind] if skipped else "dim")
    return strip


def provenance_line(came: Provenance) -> RenderableType:
    """The conditions in small print."""
    parts = [
        came.hardware,
        f"{came.device}, {came.threads} threads, {came.precision}, batch {came.batch_size}, seed {came.seed}",
        ", ".join(f"{name} {version}" for name, version in came.versions.items()),
        came.date,
    ]
    return paragraph("; ".join(parts), style="dim")


def to_rich(table: tabular.Table) -> RenderableType:
    """A table as rich draws it: title, quiet rules, and its note below."""
    drawn = Table(
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
    return _spaced(Group(drawn, *note))


def paragraph(text: str, style: str = "") -> RenderableType:
    """Running text, with a line of air below."""
    return _spaced(Text(text, style=style))


def _spaced(content: RenderableType) -> RenderableType:
    return Padding(content, (0, 0, 1, 0))
