"""A plan as a smaller plain model: whole blocks taken out, for engines that know no plans."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from litestage.core import OptionError, Plan, PlanError, names, whole_blocks
from litestage.hf.blocks import BODIES


def blocks_of(plan: Plan) -> tuple[int, ...]:
    """The whole blocks that every stage of a plan leaves out at every step.

    Raises `PlanError` for a plan that no plain model can follow: sets that differ by stage or step, single sub-layers,
    or something that stands in for them.
    """
    if gone := [name for name, stage in plan.stages.items() if stage.left_out]:
        raise PlanError(
            f"The plan goes without stage {gone[0]}, which a plain model cannot say. Leave the stage out of your task, "
            "and name blocks with --blocks."
        )
    sets = {name: {segment.skipped for segment in stage.schedule.segments} for name, stage in plan.stages.items()}
    different = {skipped for of_stage in sets.values() for skipped in of_stage}
    if len(different) != 1:
        sizes = ", ".join(f"{name} {max(map(len, of_stage))}" for name, of_stage in sets.items())
        raise PlanError(
            f"A plain model leaves out the same blocks everywhere, but the plan's sets differ (sub-layers: {sizes}). "
            "Export a plan with one set in all stages, or name blocks with --blocks."
        )
    (skipped,) = different
    blocks = sorted({layer.block for layer in skipped})
    if single := whole_blocks(blocks) - skipped:
        raise PlanError(
            f"A plain model has whole blocks, but the plan keeps {names(single)[0]} and leaves out the other half of "
            "that block. Name whole blocks with --blocks."
        )
    for name, stage in plan.stages.items():
        if stage.compensation.kind != "none":
            raise PlanError(
                f"Stage {name} puts {stage.compensation.kind} in the place of skipped blocks, and a plain model has "
                "no place for that. Export a plan without compensation, or name blocks with --blocks."
            )
    return tuple(blocks)


def without_blocks(model: PreTrainedModel, blocks: Collection[int]) -> PreTrainedModel:
    """The model with some blocks taken out, config and all; it is changed in place.

    Raises `OptionError` for a block that the model has not, and where none would be left.
    """
    body = next(m for m in model.modules() if isinstance(getattr(m, "layers", None), nn.ModuleList))
    count = len(body.layers)
    if beyond := [block for block in blocks if not 0 <= block < count]:
        raise OptionError(f"Block {beyond[0]} cannot be taken out: the model has {count} blocks, 0 to {count - 1}.")
    kept = [index for index in range(count) if index not in blocks]
    if not kept:
        raise OptionError(f"All {count} blocks would be taken out, and no model would be left. Name fewer.")
    _renumber(body, kept)
    _shorten(model.config, kept, count)
    return model


def _renumber(body: Any, kept: list[int]) -> None:
    body.layers = nn.ModuleList(body.layers[index] for index in kept)
    for number, block in enumerate(body.layers):
        for module in (block, getattr(block, BODIES["attention"])):
            if hasattr(module, "layer_idx"):
                module.layer_idx = number


def _shorten(config: Any, kept: list[int], count: int) -> None:
    """The number of blocks, and every list of the config that says something of each."""
    config.num_hidden_layers = len(kept)
    for key, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == count:
            setattr(config, key, [value[index] for index in kept])
    if getattr(config, "max_window_layers", None) is not None:  # Qwen2's: full attention below, by its own numbers
        config.max_window_layers = sum(index < config.max_window_layers for index in kept)
