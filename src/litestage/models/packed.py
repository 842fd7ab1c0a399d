"""Weights in fewer bits, in the order that kernels read them, and products with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from litestage.core import OptionError
from litestage.kernels import Kernels, find_gpu_kernels, find_kernels, round_weight
from litestage.kernels.kernels import GATED, NORMED, PLAIN
from litestage.kernels.rounding import GROUP
from litestage.models.decoder import Activation, Linear, LowRank, Projection

EIGHT = 8
QUANTISATIONS = ("none", "int8", "int4")
KERNELS: dict[str, Callable[[], Kernels | None]] = {"cpu": find_kernels, "cuda": find_gpu_kernels}
"""Makers of kernels, by the kind of device."""


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
    dtype: torch.dtype = torch.float32
    """Of the residual stream."""

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes + sum(part.nbytes for part in self.beside or ())

    def __call__(self, x: Float[Tensor, "... I"], onto: Float[Tensor, "... O"] | None = None) -> Float[Tensor, "... O"]:
        return self._times(x, PLAIN, onto=onto)

    def normed(self, x: Float[Tensor, "... I"], norm: Float[Tensor, " I"] | None, eps: float) -> Float[Tensor, "... O"]:
        return self._times(x, PLAIN if norm is None else NORMED, norm, eps)

    def gated(
        self, gate_up: Float[Tensor, "... J"], activation: Activation, onto: Float[Tensor, "... O"] | None = None
    ) -> Float[Tensor, "... O"]:
        if activation.name in GATED:
            return self._times(gate_up, GATED[activation.name], onto=onto)
        gate, up = gate_up.chunk(2, dim=-1)
        return self(activation.function(gate) * up, onto)

    def rows(self, which: Int[Tensor, "*N"]) -> Float[Tensor, "*N I"]:
        return self.kernels.rows(self.packed, self.kind, self.shape, which, self.dtype)

    def _times(
        self, x: Tensor, before: int, norm: Tensor | None = None, eps: float = 0.0, onto: Tensor | None = None
    ) -> Tensor:
        x, (down, up) = x.contiguous(), self.beside or (None, None)
        onto = None if onto is None else onto.contiguous()
        return self.kernels.linear(x, self.packed, self.kind, self.shape, self.bias, before, norm, eps, down, up, onto)


@dataclass(frozen=True, slots=True)
class Packing:
    """How a decoder keeps its weights. The default leaves them as they come."""

    kind: str = "none"
    """Of the blocks' weights: none, bf16, int8 or int4."""
    dtype: torch.dtype | None = None
    """Of the residual stream, or the weights' own."""
    cache_dtype: torch.dtype | None = None
    kernels: Kernels | None = None
    """They attend, choose tokens and multiply with packed weights. Without them rounded values are kept plain: the
    same numbers, at the speed of unpacked weights."""

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
        packed, shape = self.kernels.pack(own, kind), (weight.shape[0], weight.shape[1])
        return Packed(packed, kind, shape, bias, self.kernels, self._cast_both(beside), self.dtype or weight.dtype)

    def _cast_both(self, beside: LowRank | None) -> LowRank | None:
        return None if beside is None else LowRank(self.cast(beside.down), self.cast(beside.up))


def choose_packing(quantise: str, dtype: torch.dtype, device: torch.device) -> Packing:
    """How weights are kept: fp32 plainly, with kernels beside them on a CPU; bf16 and fewer bits packed for kernels."""
    if quantise not in QUANTISATIONS:
        raise OptionError(f"--quantise {quantise} is not known. Choose one of {', '.join(QUANTISATIONS)}.")
    if device.type not in KERNELS and quantise != "none":
        raise OptionError(f"--quantise {quantise} runs on the CPU and on CUDA. Add --device cpu, or leave it out.")
    on_cpu, whole = device.type == "cpu", quantise == "none" and dtype == torch.float32
    if device.type not in KERNELS or (whole and not on_cpu):
        return Packing()
    kernels = KERNELS[device.type]()
    if kernels is None:
        return Packing() if quantise == "none" and not on_cpu else Packing(quantise, dtype, dtype)
    kind = "none" if whole else "bf16" if quantise == "none" else quantise
    return Packing(kind, torch.float32 if on_cpu else dtype, dtype, kernels)
