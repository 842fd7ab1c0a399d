"""How weights are rounded to few bits, in groups of columns."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

GROUP = 32
"""Columns that share a scale; inputs of a packed product are a multiple of it."""


class Bits(NamedTuple):
    """A matrix in few bits: whole numbers [O, G, 32], scales and, of int4, minima [O, G, 1] in fp16."""

    values: Tensor
    scale: Tensor
    minimum: Tensor | None


def quantise(weight: Float[Tensor, "O I"], kind: str) -> Bits:
    """Round to int8 or int4."""
    groups = weight.float().view(weight.shape[0], -1, GROUP)
    if kind == "int8":
        scale = (groups.abs().amax(-1, keepdim=True) / 127).half()
        return Bits(_whole(groups, scale).clamp(-127, 127).to(torch.int8), scale, None)
    minimum = groups.amin(-1, keepdim=True)
    scale = ((groups.amax(-1, keepdim=True) - minimum) / 15).half()
    minimum = minimum.half()
    return Bits(_whole(groups - minimum.float(), scale).clamp(0, 15).to(torch.uint8), scale, minimum)


def _whole(values: Tensor, scale: Tensor) -> Tensor:
    return torch.where(scale > 0, values / scale.float(), 0.0).round()


def round_weight(weight: Float[Tensor, "O I"], kind: str) -> Float[Tensor, "O I"]:
    """The values, in fp32, that a packed weight stands for.

    Of each 32 columns, int8 keeps a scale and bytes, int4 a scale, a minimum and 4 bits, as GGUF's Q8_0 and Q4_1 do:
    weights unpacked from such a file are found again.
    """
    if kind == "bf16":
        return weight.bfloat16().float()
    values, scale, minimum = quantise(weight, kind)
    return (values.float() * scale.float() + (0 if minimum is None else minimum.float())).view(weight.shape)
