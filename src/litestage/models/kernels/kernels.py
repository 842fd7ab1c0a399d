"""The kernels as functions of tensors."""

from __future__ import annotations

import ctypes
import warnings
from ctypes import c_float, c_int, c_long, c_void_p
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from litestage.models.kernels.build import CannotBuildError, build_kernels

GROUP = 32
"""Columns that share a scale; inputs of a packed product are a multiple of it."""
PANEL = 16
"""Output rows are padded to a multiple of it."""
FORMATS = {"bf16": 0, "int8": 1, "int4": 2}
PLAIN, NORMED = 0, 1
GATED = {"silu": 2, "gelu_pytorch_tanh": 3}
"""Activations that a product takes in, by transformers' names."""

_SIGNATURES = {
    "linear": (
        *(c_void_p, c_long, c_int, c_int, c_void_p, c_float),
        *(c_void_p, c_int, c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p),
    ),
    "rows": (c_void_p, c_int, c_int, c_void_p, c_long, c_void_p),
    "attend": (
        *(c_void_p, c_long, c_long, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_float, c_void_p),
        *(c_int, c_int, c_int, c_int, c_float, c_float, c_int, c_long, c_void_p),
    ),
    "most_probable": (c_void_p, c_long, c_long, c_void_p, c_void_p),
}


class Heads(NamedTuple):
    """How an attention splits and scales: counts, tokens seen (0 for all), cap of the scores (0 for none)."""

    heads: int
    kv_heads: int
    size: int
    window: int
    scale: float
    cap: float


class Kernels:
    """All tensors are contiguous, on the CPU; residual streams fp32."""

    def __init__(self, library: ctypes.PyDLL) -> None:
        for name, types in _SIGNATURES.items():
            function = getattr(library, f"litestage_{name}")
            function.argtypes, function.restype = types, None
        self._linear, self._rows = library.litestage_linear, library.litestage_rows
        self._attend, self._most_probable = library.litestage_attend, library.litestage_most_probable

    def linear(
        self,
        x: Float[Tensor, "... J"],
        packed: UInt8[Tensor, " Z"],
        kind: str,
        shape: tuple[int, int],
        bias: Float[Tensor, " O"] | None,
        before: int = PLAIN,
        norm: Float[Tensor, " I"] | None = None,
        eps: float = 0.0,
        down: Float[Tensor, "R I"] | None = None,
        up: Float[Tensor, "R O"] | None = None,
    ) -> Float[Tensor, "... O"]:
        """x times a packed matrix of ``shape`` [O, I], transposed; ``before`` is what happens to x first: nothing, an
        RMS norm, or a gate (then x holds gates and values, J = 2 I). A low-rank map of the same x may be added."""
        outputs, inputs = shape
        y = x.new_empty(*x.shape[:-1], outputs)
        self._linear(
            *(x.data_ptr(), x.numel() // x.shape[-1], inputs, before, _pointer(norm), eps),
            *(packed.data_ptr(), FORMATS[kind], outputs, _pointer(bias)),
            *(_pointer(down), _pointer(up), 0 if down is None else len(down), y.data_ptr()),
        )
        return y

    def rows(
        self, packed: UInt8[Tensor, " Z"], kind: str, inputs: int, which: Int[Tensor, "*N"]
    ) -> Float[Tensor, "*N I"]:
        """Chosen output rows of a packed matrix, unpacked."""
        y = torch.empty(*which.shape, inputs)
        which = which.contiguous()
        self._rows(packed.data_ptr(), FORMATS[kind], inputs, which.data_ptr(), which.numel(), y.data_ptr())
        return y

    def attend(
        self,
        states: Float[Tensor, "B T M"],
        positions: Int[Tensor, "B T"],
        rows: Int[Tensor, " B"],
        rotary: tuple[Float[Tensor, "B T 1 E"], Float[Tensor, "B T 1 E"]] | None,
        norm: Float[Tensor, "N E"] | None,
        eps: float,
        block: Tensor,
        heads: Heads,
    ) -> Float[Tensor, "B T Q"]:
        """Turn queries and keys in place, keep keys and values in the cache's ``block`` [R, S, 2, K, E], attend.

        Each token sees its own row's slots up to its own, however long the others are.
        """
        y = states.new_empty(*states.shape[:2], heads.heads * heads.size)
        cos, sin = rotary if rotary is not None else (None, None)
        self._attend(
            *(states.data_ptr(), positions.numel(), positions.shape[1], positions.data_ptr(), rows.data_ptr()),
            *(_pointer(cos), _pointer(sin), _pointer(norm), eps, block.data_ptr(), heads.heads, heads.kv_heads),
            *(heads.size, heads.window, heads.scale, heads.cap, block.dtype == torch.bfloat16, block.shape[1]),
            y.data_ptr(),
        )
        return y

    def most_probable(self, logits: Float[Tensor, "B V"]) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
        """The first of the largest logits of each row, and its probability."""
        tokens, probabilities = torch.empty(len(logits), dtype=torch.long), torch.empty(len(logits))
        self._most_probable(logits.data_ptr(), *logits.shape, tokens.data_ptr(), probabilities.data_ptr())
        return tokens, probabilities


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


@cache
def find_kernels() -> Kernels | None:
    """The kernels, built for this processor; None, with a warning that says why, where there can be none."""
    try:
        return Kernels(build_kernels())
    except CannotBuildError as error:
        warnings.warn(
            f"litestage's own CPU kernels are not used: {error}. bf16 and quantised weights run on torch's, slower. "
            "Install a C compiler such as gcc.",
            stacklevel=2,
        )
        return None
