"""A block of a transformers model as two sub-layers: norm, body, second norm, residual add."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from litestage.core import PlanError, SkipSet, SubLayer, sub_layers
from litestage.models.decoder import Affine
from litestage.models.families import FAMILIES, Family

BODIES = {"attention": "self_attn", "ffn": "mlp"}
"""What transformers calls the two bodies in every family that we know."""


@dataclass(frozen=True)
class Blocks:
    """The blocks of a model, and how each adds to the residual stream."""

    layers: Sequence[nn.Module]
    family: Family
    scale: float | None
    """Of what a sub-layer adds (Granite)."""
    known: bool
    """Whether the family is one of ours, or was told from the names of the block's norms: then `check` must hold."""

    def run(self, index: int, kept: Kept, x: Tensor, arguments: Mapping[str, Any]) -> Tensor:
        """The residual stream [B, T, D] after one block of which some sub-layers are left out."""
        for kind in BODIES:
            layer = SubLayer(index, "attention" if kind == "attention" else "ffn")
            if layer not in kept.skipped:
                x = self._after(layer, x, arguments)
            elif (instead := kept.instead.get(layer)) is not None:
                kept.instead[layer] = instead = instead.beside(x)  # the model may have been moved since
                x = instead(x)
        return x

    def _after(self, layer: SubLayer, x: Tensor, arguments: Mapping[str, Any]) -> Tensor:
        block, family = self.layers[layer.block], self.family
        body = getattr(block, BODIES[layer.kind])
        if layer.kind == "attention":
            norm, after = family.attention_norm, family.attention_post_norm
            added = body(hidden_states=_through(block, norm, x), **arguments)
        else:
            norm, after = family.ffn_norm, family.ffn_post_norm
            added = body(_through(block, norm, x))
        added = _through(block, after, added[0] if isinstance(added, tuple) else added)
        return x + (added if self.scale is None else added * self.scale)

    def check(self, index: int, forward: Callable[..., Any], x: Tensor, arguments: Mapping[str, Any]) -> None:
        """Raise `PlanError` unless the block, run by sub-layers, gives what its own code gives, bit for bit."""
        without_cache = {**arguments, "past_key_values": None, "use_cache": False, "attention_mask": None}
        own = forward(x, **without_cache)
        if not isinstance(own, Tensor) or not torch.equal(own, self.run(index, NOTHING_SKIPPED, x, without_cache)):
            raise PlanError(
                f"Block {index} of this model ({type(self.layers[index]).__name__}) does not add its attention and its "
                "FFN to the residual stream as a known family does, so its sub-layers cannot be left out. "
                f"Known families: {', '.join(sorted(FAMILIES))}."
            )


@dataclass(frozen=True)
class Kept:
    """What one forward leaves out, and what stands in for it."""

    skipped: SkipSet
    instead: dict[SubLayer, Affine]
    """For each run of skipped sub-layers one map, at the first of them."""

    @property
    def attentions(self) -> list[int]:
        return sorted(layer.block for layer in self.skipped if layer.kind == "attention")

    @property
    def blocks(self) -> frozenset[int]:
        """Those of which anything is left out."""
        return frozenset(layer.block for layer in self.skipped)


NOTHING_SKIPPED = Kept(frozenset(), {})


def kept(skipped: SkipSet, weights: Mapping[SubLayer, Affine], num_blocks: int) -> Kept:
    """Compensation of sub-layers that follow each other is folded into one map, as the engine folds it."""
    instead: dict[SubLayer, Affine] = {}
    first: SubLayer | None = None
    for layer in sub_layers(num_blocks):
        if layer not in skipped:
            first = None
            continue
        first = first or layer
        if layer in weights:
            instead[first] = instead[first].then(weights[layer]) if first in instead else weights[layer]
    return Kept(skipped, instead)


def find_blocks(model: nn.Module) -> Blocks:
    """The blocks of a causal model of transformers, quantised, under adapters or plain."""
    for module in model.modules():
        layers = getattr(module, "layers", None)
        if isinstance(layers, nn.ModuleList) and len(layers) and all(hasattr(layers[0], b) for b in BODIES.values()):
            config = getattr(module, "config", None)
            family = FAMILIES.get(getattr(config, "model_type", ""))
            scale = getattr(config, "residual_multiplier", None)
            return Blocks(tuple(layers), family or _told_by_names(layers[0]), scale, family is not None)
    raise PlanError(
        f"{type(model).__name__} has no list of blocks with a `self_attn` and an `mlp`, so its sub-layers cannot be "
        f"found. Known families: {', '.join(sorted(FAMILIES))}."
    )


def _told_by_names(block: nn.Module) -> Family:
    """The known pattern whose norms are those of the block."""
    for name in ("gemma2", "olmo2", "llama"):
        family = FAMILIES[name]
        norms = {family.attention_norm, family.attention_post_norm, family.ffn_norm, family.ffn_post_norm} - {None}
        if norms == {name for name, _ in block.named_children() if name.endswith("norm")}:
            return family
    raise PlanError(
        f"The norms of {type(block).__name__} are not where a family that litestage knows has them, so its sub-layers "
        f"cannot be told apart. Known families: {', '.join(sorted(FAMILIES))}."
    )


def _through(block: nn.Module, path: str | None, x: Tensor) -> Tensor:
    return x if path is None else block.get_submodule(path)(x)
