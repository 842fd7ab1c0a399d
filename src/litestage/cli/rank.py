"""``litestage rank``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from litestage.cli import options as o
from litestage.cli.console import ERR, OUT, Bars
from litestage.jobs.options import DataOptions, DecodingOptions, ModelOptions, OutputOptions, RankOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litestage.evaluation import Accuracy, Paired
    from litestage.results import PolicyAnswers, PolicyEffects, Rankings, StageRankings


def command(
    model: ModelOptions,
    data: DataOptions = DataOptions(limit=50),
    *,
    options: RankOptions,
    decoding: DecodingOptions,
    output: OutputOptions,
) -> None:
    """Rank sub-layers, in several ways side by side: the first in a list are skipped first (Step 1 of the paper).

    Example: [bold]litestage rank --task everyday --limit 50 --compensation none,affine[/]
    """
    from litestage.jobs.rankings import rank
    from litestage.report.rankings import write_rankings_figure

    folder = o.out_folder(output.out, "rank", model, data, decoding, options)
    with Bars() as bars:
        session = o.open_session(model, data, decoding, folder, bars)
        found = rank(session, options)
    write_rankings_figure({stage.stage: _curves(stage) for stage in found.stages}, folder, _answers(found))
    if output.json:
        typer.echo(found.model_dump_json(indent=2))
        return
    _show(found)
    ERR.print(f"rankings.json, rankings.svg and rankings.png are in {folder}.", style="dim", highlight=False)


def _show(found: Rankings) -> None:
    from litestage.report import rankings, tables

    for stage in found.stages:
        orders = {
            name: [(str(score.layer), score.agreement) for score in ranked.scores]
            for name, ranked in stage.rankings.items()
        }
        for table in (*rankings.places(stage.stage, orders), *rankings.effects(stage.stage, _curves(stage))):
            OUT.print(tables.to_rich(table))
        if stage.indispensable:
            OUT.print(
                f"Must stay: {', '.join(map(str, stage.indispensable))}. Without one of them every second token "
                "changes.",
                highlight=False,
            )

    if found.answers:
        OUT.print(tables.to_rich(rankings.right_answers(_answers(found))))


def _curves(stage: StageRankings) -> dict[str, list[tuple[int, float]]]:
    """Share of tokens that stay the same, by policy."""
    return {
        name: [(point.budget, point.agreement) for point in curve.points]
        for name, curve in zip(_names(stage.curves), stage.curves, strict=True)
    }


def _answers(found: Rankings) -> dict[str, list[tuple[int, Accuracy, Paired]]]:
    return {
        name: [(point.budget, point.accuracy, point.against_full) for point in policy.points]
        for name, policy in zip(_names(found.answers), found.answers, strict=True)
    }


def _names(policies: Sequence[PolicyEffects | PolicyAnswers]) -> list[str]:
    """Short where all policies share a compensation."""
    kinds = {policy.compensation for policy in policies}
    return [policy.ranking if len(kinds) == 1 else f"{policy.ranking} + {policy.compensation}" for policy in policies]
