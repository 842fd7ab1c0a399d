"""Weights in fewer bits: how they are rounded, and products with them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from litestage.core import OptionError
from litestage.models.decoder import Activation, Linear, LowRank, Projection
from litestage.models.kernels import Kernels, find_kernels
from litestage.models.kernels.kernels import GATED, GROUP, NORMED, PANEL, PLAIN

EIGHT = 8
QUANTISATIONS = ("none", "int8", "int4")


def round_weight(weight: Float[Tensor, "O I"], kind: str) -> Float[Tensor, "O I"]:
    """The values, in fp32, that a packed weight stands for.

    Of each 32 columns, int8 keeps a scale and bytes, int4 a scale, a minimum and 4 bits, as GGUF's Q8_0 and Q4_1 do:
    weights unpacked from such a file are found again.
    """
    if kind == "bf16":
        return weight.bfloat16().float()
    bits, scale, minimum = _quantise(_groups(weight), kind)
    return (bits.float() * scale.float() + (0 if minimum is None else minimum.float())).view(weight.shape)


def _groups(weight: Float[Tensor, "O I"]) -> Float[Tensor, "O G 32"]:
    return weight.float().view(weight.shape[0], -1, GROUP)


def _quantise(groups: Float[Tensor, "O G 32"], kind: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Whole numbers [O, G, 32], scales and, for int4, minima [O, G, 1] in fp16."""
    if kind == "int8":
        scale = (groups.abs().amax(-1, keepdim=True) / 127).half()
        return _whole(groups, scale).clamp(-127, 127).to(torch.int8), scale, None
    minimum = groups.amin(-1, keepdim=True)
    scale = ((groups.amax(-1, keepdim=True) - minimum) / 15).half()
    minimum = minimum.half()
    return _whole(groups - minimum.float(), scale).clamp(0, 15).to(torch.uint8), scale, minimum


def _whole(values: Tensor, scale: Tensor) -> Tensor:
    return torch.where(scale > 0, values / scale.float(), 0.0).round()


def pack(weight: Float[Tensor, "O I"], kind: str) -> UInt8[Tensor, " Z"]:
    """Bytes in the order that the kernels read (see kernels.c)."""
    missing = -weight.shape[0] % PANEL
    padded = torch.nn.functional.pad(weight, (0, 0, 0, missing))
    if kind == "bf16":
        pairs = padded.bfloat16().view(-1, 8, padded.shape[1] // 2, 2)
        return pairs.transpose(1, 2).contiguous().view(torch.uint8).flatten()
    bits, scale, minimum = _quantise(_groups(padded), kind)
    fours = bits.view(-1, 8, bits.shape[1], GROUP // 4, 4).permute(0, 2, 3, 1, 4)  # panels, groups, fours, rows, 4
    if minimum is None:
        return _records(fours.reshape(*fours.shape[:2], -1), [scale])
    both = fours[:, :, ::2] | fours[:, :, 1::2] << 4
    return _records(both.reshape(*both.shape[:2], -1), [scale, minimum])


def _records(content: Tensor, halves: list[Tensor]) -> UInt8[Tensor, " Z"]:
    """Each group's halves in front of its content [P, G, bytes]."""
    heads = [half[..., 0].view(-1, 8, half.shape[1]).transpose(1, 2).contiguous().view(torch.uint8) for half in halves]
    return torch.cat([*heads, content.view(torch.uint8)], dim=-1).flatten()


@dataclass(frozen=True, slots=True)
class Packed:
    """A linear map of packed weights; does what a `Projection` does."""

    packed: UInt8[Tensor, " Z"]
    kind: str
    shape: tuple[int, int]
    bias: Float[Tensor, " O"] | None
    kernels: Kernels
    beside: LowRank | None = None
    """Added to the product."""

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes + sum(part.nbytes for part in self.beside or ())

    def __call__(self, x: Float[Tensor, "... I"]) -> Float[Tensor, "... O"]:
        return self._times(x, PLAIN)

    def normed(self, x: Float[Tensor, "... I"], norm: Float[Tensor, " I"] | None, eps: float) -> Float[Tensor, "... O"]:
        return self._times(x, PLAIN if norm is None else NORMED, norm, eps)

    def gated(self, gate_up: Float[Tensor, "... J"], activation: Activation) -> Float[Tensor, "... O"]:
        if activation.name in GATED:
            return self._times(gate_up, GATED[activation.name])
        gate, up = gate_up.chunk(2, dim=-1)
        return self(activation.function(gate) * up)

    def rows(self, which: Int[Tensor, "*N"]) -> Float[Tensor, "*N I"]:
        return self.kernels.rows(self.packed, self.kind, self.shape[1], which)

    def _times(self, x: Tensor, before: int, norm: Tensor | None = None, eps: float = 0.0) -> Tensor:
        x = x.contiguous()
        low_rank = self.beside or (None, None)
        return self.kernels.linear(x, self.packed, self.kind, self.shape, self.bias, before, norm, eps, *low_rank)


@dataclass(frozen=True, slots=True)
class Packing:
    """How a decoder keeps its weights. The default leaves them as they come."""

    kind: str = "none"
    """Of the blocks' weights: none, bf16, int8 or int4."""
    dtype: torch.dtype | None = None
    """Of the residual stream, or the weights' own."""
    cache_dtype: torch.dtype | None = None
    kernels: Kernels | None = None
    """Without them rounded values are kept plain: the same numbers, at the speed of unpacked weights."""

    @property
    def head_kind(self) -> str:
        """Of embedding and head, which bear fewer bits less well, as in 4-bit GGUF files."""
        return "int8" if self.kind == "int4" else self.kind

    def for_heads_of(self, size: int) -> Packing:
        """Kernels attend eight numbers at a time; without them the cache is of the residual stream's type."""
        return self if size % EIGHT == 0 else replace(self, kernels=None, cache_dtype=self.dtype)

    def cast(self, tensor: Tensor) -> Tensor:
        """A norm or bias in the residual stream's type."""
        return tensor if self.dtype is None else tensor.to(self.dtype)

    def pack(self, projection: Projection, kind: str | None = None) -> Linear:
        """Matrices whose columns are no multiple of 32 are not rounded.

        What an adapter adds is smaller than a step of 4 bits, so it stays beside them as it is.
        """
        kind = self.kind if kind is None else kind
        weight, bias = projection.weight, None if projection.bias is None else self.cast(projection.bias)
        if kind == "none" or weight.shape[1] % GROUP:
            return Projection(self.cast(weight), bias)
        beside = projection.merged if kind == "int4" else None
        own = weight if beside is None else weight - beside.weight
        if self.kernels is None:
            rounded = round_weight(own, kind)
            return Projection(self.cast(rounded if beside is None else rounded + beside.weight), bias)
        return Packed(pack(own, kind), kind, (weight.shape[0], weight.shape[1]), bias, self.kernels, beside)


def choose_packing(quantise: str, dtype: torch.dtype, device: torch.device) -> Packing:
    """How weights are kept: fp32 plainly, as the reference; bf16 and fewer bits packed where kernels run them."""
    if quantise not in QUANTISATIONS:
        raise OptionError(f"--quantise {quantise} is not known. Choose one of {', '.join(QUANTISATIONS)}.")
    if device.type != "cpu":
        if quantise != "none":
            raise OptionError(f"--quantise {quantise} runs on the CPU alone. Add --device cpu, or leave it out.")
        return Packing()
    if quantise == "none" and dtype == torch.float32:
        return Packing()
    kernels = find_kernels()
    if kernels is None:
        return Packing(quantise, dtype, dtype)
    return Packing("bf16" if quantise == "none" else quantise, torch.float32, dtype, kernels)
