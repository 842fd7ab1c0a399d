"""Weights in fewer bits, in the order that kernels read them, and products with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from litestage.core import OptionError
from litestage.kernels import Kernels, find_gpu_kernels, find_kernels, round_weight
from litestage.kernels.kernels import GATED, NORMED, NOTHING, Before, Matrix
from litestage.kernels.rounding import GROUP
from litestage.models.decoder import Activation, Linear, Projection

EIGHT = 8
QUANTISATIONS = ("none", "int8", "int4")
_GATES = {name: Before(code) for name, code in GATED.items()}
KERNELS: dict[str, Callable[[], Kernels | None]] = {"cpu": find_kernels, "cuda": find_gpu_kernels}
"""Makers of kernels, by the kind of device."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A linear map of packed weights; does what a `Projection` does."""

    matrix: Matrix
    kernels: Kernels
    dtype: torch.dtype = torch.float32
    """Of the residual stream."""

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape

    @property
    def nbytes(self) -> int:
        parts = (self.matrix.packed, self.matrix.down, self.matrix.up)
        return sum(part.nbytes for part in parts if part is not None)

    def __call__(self, x: Float[Tensor, "... I"], onto: Float[Tensor, "... O"] | None = None) -> Float[Tensor, "... O"]:
        return self._times(x, NOTHING, onto)

    def normed(self, x: Float[Tensor, "... I"], norm: Float[Tensor, " I"] | None, eps: float) -> Float[Tensor, "... O"]:
        return self._times(x, NOTHING if norm is None else Before(NORMED, norm, eps))

    def gated(
        self, gate_up: Float[Tensor, "... J"], activation: Activation, onto: Float[Tensor, "... O"] | None = None
    ) -> Float[Tensor, "... O"]:
        if activation.name in GATED:
            return self._times(gate_up, _GATES[activation.name], onto)
        gate, up = gate_up.chunk(2, dim=-1)
        return self(activation.function(gate) * up, onto)

    def rows(self, which: Int[Tensor, "*N"]) -> Float[Tensor, "*N I"]:
        return self.kernels.rows(self.matrix, which, self.dtype)

    def _times(self, x: Tensor, before: Before, onto: Tensor | None = None) -> Tensor:
        return self.kernels.linear(x.contiguous(), self.matrix, before, None if onto is None else onto.contiguous())


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
        weight = weight if kind == "bf16" else weight.float()  # one at a time: a model may be stored in fewer bits
        beside = projection.merged if kind == "int4" else None
        own = weight if beside is None else weight - beside.weight
        if self.kernels is None:
            rounded = round_weight(own, kind)
            return Projection(self.cast(rounded if beside is None else rounded + beside.weight), bias)
        low_rank = () if beside is None else (self.cast(beside.down), self.cast(beside.up))
        matrix = Matrix(self.kernels.pack(own, kind), kind, (weight.shape[0], weight.shape[1]), bias, *low_rank)
        return Packed(matrix, self.kernels, self.dtype or weight.dtype)


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
