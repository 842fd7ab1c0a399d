"""The kernels for a processor, in C."""

from __future__ import annotations

import ctypes
import warnings
from ctypes import c_float, c_int, c_long, c_void_p
from functools import cache

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from litestage.kernels.build import CannotBuildError, build_kernels
from litestage.kernels.kernels import FORMATS, NOTHING, Before, Heads, Matrix, Tokens, Turn
from litestage.kernels.rounding import GROUP, quantise

PANEL = 16
"""Output rows that lie together; their number is padded to a multiple of it."""
_SIGNATURES = {
    "linear": (
        *(c_void_p, c_long, c_int, c_int, c_void_p, c_float),
        *(c_void_p, c_int, c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p, c_void_p),
    ),
    "rows": (c_void_p, c_int, c_int, c_void_p, c_long, c_void_p),
    "attend": (
        *(c_void_p, c_long, c_long, c_void_p, c_void_p, c_void_p, c_void_p),
        *(c_void_p, c_void_p, c_void_p, c_float, c_void_p),
        *(c_int, c_int, c_int, c_int, c_float, c_float, c_int, c_long, c_void_p),
    ),
    "most_probable": (c_void_p, c_long, c_long, c_void_p, c_void_p),
    "draw": (c_void_p, c_long, c_long, c_float, c_void_p, c_void_p),
}


class CpuKernels:
    """Residual streams in fp32."""

    ragged = True

    def __init__(self, library: ctypes.PyDLL) -> None:
        for name, types in _SIGNATURES.items():
            function = getattr(library, f"litestage_{name}")
            function.argtypes, function.restype = types, None
        self._linear, self._rows = library.litestage_linear, library.litestage_rows
        self._attend, self._most_probable = library.litestage_attend, library.litestage_most_probable
        self._draw = library.litestage_draw

    def pack(self, weight: Float[Tensor, "O I"], kind: str) -> UInt8[Tensor, " Z"]:
        return pack(weight, kind)

    def linear(
        self,
        x: Float[Tensor, "... J"],
        weight: Matrix,
        before: Before = NOTHING,
        onto: Float[Tensor, "... O"] | None = None,
    ) -> Float[Tensor, "... O"]:
        outputs, inputs = weight.shape
        down, y = weight.down, x.new_empty(*x.shape[:-1], outputs)
        self._linear(
            *(x.data_ptr(), x.numel() // x.shape[-1], inputs, before.what, _pointer(before.norm), before.eps),
            *(weight.packed.data_ptr(), FORMATS[weight.kind], outputs, _pointer(weight.bias)),
            *(_pointer(down), _pointer(weight.up), 0 if down is None else len(down), _pointer(onto), y.data_ptr()),
        )
        return y

    def rows(self, weight: Matrix, which: Int[Tensor, "*N"], dtype: torch.dtype) -> Float[Tensor, "*N I"]:
        inputs, which = weight.shape[1], which.contiguous()
        y = torch.empty(*which.shape, inputs)
        self._rows(
            weight.packed.data_ptr(), FORMATS[weight.kind], inputs, which.data_ptr(), which.numel(), y.data_ptr()
        )
        return y.to(dtype)

    def attend(
        self, states: Float[Tensor, "B T M"], tokens: Tokens, turn: Turn, heads: Heads, block: Tensor
    ) -> Float[Tensor, "B T Q"]:
        y = states.new_empty(*states.shape[:2], heads.heads * heads.size)
        cos, sin = turn.rotary or (None, None)
        leaders, slots = tokens.shared or (None, None)
        positions, rows = tokens.positions, tokens.rows
        self._attend(
            *(states.data_ptr(), positions.numel(), positions.shape[1], positions.data_ptr(), rows.data_ptr()),
            *(_pointer(leaders), _pointer(slots)),
            *(_pointer(cos), _pointer(sin), _pointer(turn.norm), turn.eps),
            *(block.data_ptr(), heads.heads, heads.kv_heads),
            *(heads.size, heads.window, heads.scale, heads.cap, block.dtype == torch.bfloat16, block.shape[1]),
            y.data_ptr(),
        )
        return y

    def most_probable(self, logits: Float[Tensor, "B V"]) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
        tokens, probabilities = torch.empty(len(logits), dtype=torch.long), torch.empty(len(logits))
        self._most_probable(logits.data_ptr(), *logits.shape, tokens.data_ptr(), probabilities.data_ptr())
        return tokens, probabilities

    def draw(
        self, logits: Float[Tensor, "B V"], temperature: float, uniforms: Float[Tensor, " B"]
    ) -> Int[Tensor, " B"]:
        tokens = torch.empty(len(logits), dtype=torch.long)
        self._draw(logits.data_ptr(), *logits.shape, temperature, uniforms.data_ptr(), tokens.data_ptr())
        return tokens


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


@cache
def find_kernels() -> CpuKernels | None:
    """The kernels, built for this processor; None, with a warning that says why, where there can be none."""
    try:
        return CpuKernels(build_kernels())
    except CannotBuildError as error:
        warnings.warn(
            f"litestage's own CPU kernels are not used: {error}. torch's do the same, slower. "
            "Install a C compiler such as gcc.",
            stacklevel=2,
        )
        return None


def pack(weight: Float[Tensor, "O I"], kind: str) -> UInt8[Tensor, " Z"]:
    """Bytes in the order that products.h reads."""
    missing = -weight.shape[0] % PANEL
    padded = torch.nn.functional.pad(weight, (0, 0, 0, missing))
    if kind == "bf16":
        pairs = padded.bfloat16().view(-1, PANEL, padded.shape[1] // 2, 2)
        return pairs.transpose(1, 2).contiguous().view(torch.uint8).flatten()
    values, scale, minimum = quantise(padded, kind)
    # panels, groups, fours, rows, 4
    fours = values.view(-1, PANEL, values.shape[1], GROUP // 4, 4).permute(0, 2, 3, 1, 4)
    if minimum is None:
        return _records(fours.reshape(*fours.shape[:2], -1), [scale])
    both = fours[:, :, ::2] | fours[:, :, 1::2] << 4
    return _records(both.reshape(*both.shape[:2], -1), [scale, minimum])


def _records(content: Tensor, halves: list[Tensor]) -> UInt8[Tensor, " Z"]:
    """Each group's halves in front of its content [P, G, bytes]."""
    heads = [half[..., 0].view(-1, PANEL, half.shape[1]).mT.contiguous().view(torch.uint8) for half in halves]
    return torch.cat([*heads, content.view(torch.uint8)], dim=-1).flatten()
