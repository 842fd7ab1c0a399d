"""Parts that the pages of several jobs have in common: what a plan leaves out, rankings, and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from litestage.core import ModelIdentity, SkipSchedule, StagePlan, SubLayer, sub_layers
from litestage.report import words
from litestage.report.chart import Cells, Key, Style
from litestage.report.page import Figure, Panel
from litestage.report.table import Column, Table, each, name
from litestage.results import Provenance, RankedLayer

KINDS = {"attention": "attention", "ffn": "FFN"}
"""What charts and tables call the kinds of sub-layers."""
ATTENTION, FFN, KEPT = Style("attention", "circle"), Style("ffn", "square"), Style("kept", "square")
CELLS = (
    Key("attention skipped (upper row of a stage)", Style("attention", "square")),
    Key("FFN skipped (lower row)", FFN),
    Key("kept", KEPT),
)
OPEN = Style("muted", open=True)


@dataclass(frozen=True)
class MapCell:
    """One sub-layer in one stage of a plan."""

    stage: str
    layer: SubLayer
    first_step: int | None
    """The first decode step that skips it."""
    place: int | None
    """In the ranking, from 1."""
    ranked: RankedLayer | None

    @property
    def when(self) -> str:
        if self.first_step is None:
            return "kept"
        return "skipped at every decode step" if self.first_step == 0 else f"skipped from decode step {self.first_step}"


def map_cells(
    stage_plans: Mapping[str, StagePlan], num_blocks: int, ranking: Sequence[RankedLayer] = ()
) -> list[MapCell]:
    """Every sub-layer in every stage."""
    places = {ranked.layer: (place, ranked) for place, ranked in enumerate(ranking, start=1)}
    return [
        MapCell(stage, layer, first_skip(plan.schedule, layer), *places.get(layer, (None, None)))
        for stage, plan in stage_plans.items()
        for layer in sub_layers(num_blocks)
    ]


def first_skip(schedule: SkipSchedule, layer: SubLayer) -> int | None:
    """The first decode step that skips the sub-layer."""
    return next((segment.first_step for segment in schedule.segments if layer in segment.skipped), None)


def plan_map(stage_plans: Mapping[str, StagePlan], num_blocks: int, ranking: Sequence[RankedLayer]) -> Cells:
    """Blocks by stages: attention above FFN, filled where the plan skips."""
    of = len(ranking)
    return Cells(
        records=map_cells(stage_plans, num_blocks, ranking),
        x=lambda cell: cell.layer.block,
        label=lambda cell: cell.stage,
        beside=lambda cell: KINDS[cell.layer.kind],
        style=lambda cell: KEPT if cell.first_step is None else {"attention": ATTENTION, "ffn": FFN}[cell.layer.kind],
        title="block",
        tips={
            "stage": lambda cell: cell.stage,
            "block": lambda cell: cell.layer.block,
            "sub-layer": lambda cell: KINDS[cell.layer.kind],
            "plan": lambda cell: cell.when,
            "redundancy": lambda cell: (
                f"{cell.ranked.redundancy:.4f} (place {cell.place} of {of})" if cell.ranked else "not ranked"
            ),
        },
    )


def map_figure(
    figure: str, described: str, chart: Cells, heading: str = "", note: str = "", explained: bool = True
) -> Figure:
    return Figure(figure, described, (Panel((chart,), heading, note),), CELLS if explained else ())


def skipped_table(stage_plans: Mapping[str, StagePlan]) -> Table:
    """The sub-layers that each stage skips, by name, and its exit rule."""
    return Table(
        title="The plan",
        records=list(stage_plans.items()),
        columns=(
            name("Stage", lambda stage: stage[0]),
            Column("Skips", lambda stage: str(stage[1].schedule.num_skipped)),
            name("Sub-layers", lambda stage: skipped_names(stage[1])),
        ),
    )


def skipped_names(plan: StagePlan) -> str:
    """Names in running order, by kind: ``attention 3-5, 9; FFN 7``; a schedule of several segments step by step."""
    parts = [
        f"from step {segment.first_step}: {_by_kind(segment.skipped)}"
        if segment.first_step
        else _by_kind(segment.skipped)
        for segment in plan.schedule.segments
    ]
    if plan.left_out:
        return "the whole stage"
    exits = f"exit {plan.exit.short}" if plan.exit else ""
    return "; ".join(part for part in (*parts, exits) if part) or "nothing"


def _by_kind(layers: frozenset[SubLayer]) -> str:
    blocks = {kind: sorted(layer.block for layer in layers if layer.kind == kind) for kind in KINDS}
    return "; ".join(f"{KINDS[kind]} {ranges(numbers)}" for kind, numbers in blocks.items() if numbers)


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers with runs of three and more as ranges: 1, 2, 4–7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def ranking_table(ranking: Sequence[RankedLayer], limit: int | None = None) -> Table:
    """Step 1: sub-layers from the most to the least redundant."""
    shown = list(enumerate(ranking[:limit], start=1))
    stages = list(ranking[0].by_stage) if ranking else []
    more = f" The other {len(ranking) - len(shown)} are less redundant." if len(shown) < len(ranking) else ""
    return Table(
        title="Redundancy of sub-layers",
        records=shown,
        columns=(
            Column("Place", lambda entry: str(entry[0])),
            name("Sub-layer", lambda entry: str(entry[1].layer)),
            Column("Redundancy", lambda entry: f"{entry[1].redundancy:.4f}"),
            *each(stages, lambda stage, entry: f"{entry[1].by_stage[stage]:.4f}"),
        ),
        note=f"Mean cosine of what enters and what leaves a sub-layer: high means skip first.{more}",
    )


Facts = tuple[tuple[str, str], ...]


def facts(came: Provenance, model: ModelIdentity, task: str, conditions: Mapping[str, str]) -> Facts:
    """Everything that a reader needs to do it again."""
    fits = [
        f"{part} {words.percent(100 * fit.median)} in the median, {words.percent(100 * fit.max)} at most"
        for part, fit in (("prefill", came.prefill_fit), ("decode", came.decode_fit))
        if fit
    ]
    known = {
        "Command": came.command,
        "Model": f"{model.id}, {model.num_blocks} blocks, weights {model.fingerprint[:12]}",
        "Task": f"{task}, {came.how_asked}",
        **conditions,
        "Hardware": f"{came.hardware} ({came.device}, {came.threads} threads)",
        "Engine": f"{came.precision}, batch {came.batch_size}, seed {came.seed}",
        "Versions": ", ".join(f"{package} {version}" for package, version in came.versions.items()),
        "Latency model's fit": "; ".join(fits),
        "Durations": ", ".join(f"{part} {words.seconds(value)}" for part, value in came.durations.items()),
        "Date": came.date,
    }
    return tuple((what, said) for what, said in known.items() if said)
