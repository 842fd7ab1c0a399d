"""A plan's sub-layers left out of a transformers model as it learns, at generated tokens alone, as at inference."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from litestage.core import SubLayer
from litestage.models import Skips
from litestage.models.convert import check_supported


@dataclass(frozen=True)
class Healing:
    """What each stage leaves out, by the stage's index, and a name for it that changes with it."""

    stages: Mapping[int, Skips]
    content: str

    @property
    def layers(self) -> Collection[SubLayer]:
        """Sub-layers that some stage leaves out."""
        return frozenset[SubLayer]().union(*(skips.everywhere for skips in self.stages.values()))


@contextmanager
def leaving_out(model: PreTrainedModel, healing: Healing, decoded_by: Tensor) -> Iterator[None]:
    """While open, forwards of ``model`` run as decode steps of the plan do.

    ``decoded_by`` [B, T] says of each node which stage generates it, or -1 for one of a prompt, which stays at full
    depth. A sub-layer that is left out adds nothing there, or what stands in for it adds; gradients flow as usual.
    """
    with ExitStack() as hooks:
        for layer in healing.layers:
            for handle in _replaced(model, layer, healing, decoded_by):
                hooks.callback(handle.remove)
        yield


def _replaced(model: PreTrainedModel, layer: SubLayer, healing: Healing, decoded_by: Tensor) -> tuple[Any, Any]:
    """Hooks on the module that sees the residual stream first and on the one whose output is added to it."""
    first, last = _ends(model, layer)
    scale = getattr(model.config, "residual_multiplier", 1.0)  # Granite multiplies what comes out of the last one
    stream: list[Tensor] = []

    def before(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        stream[:] = [args[0] if args else named["hidden_states"]]

    def after(module: nn.Module, args: Any, output: Any) -> Any:
        added: Tensor = output[0] if isinstance(output, tuple) else output
        x = stream[0]
        for stage, skips in healing.stages.items():
            if layer in skips.everywhere:
                instead = (skips.instead(layer, x) - x) / scale
                added = torch.where((decoded_by == stage)[..., None], instead.to(added.dtype), added)
        return (added, *output[1:]) if isinstance(output, tuple) else added

    return first.register_forward_pre_hook(before, with_kwargs=True), last.register_forward_hook(after)


def _ends(model: PreTrainedModel, layer: SubLayer) -> tuple[nn.Module, nn.Module]:
    family, block = check_supported(model.config), model.model.layers[layer.block]
    attention = layer.kind == "attention"
    body = "self_attn" if attention else "mlp"
    norm = family.attention_norm if attention else family.ffn_norm
    post_norm = family.attention_post_norm if attention else family.ffn_post_norm
    return block.get_submodule(norm or body), block.get_submodule(post_norm or body)
