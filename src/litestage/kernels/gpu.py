"""The kernels for a CUDA device: few launches a decode step, weights read once, nothing that a graph cannot record."""

from __future__ import annotations

import warnings
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from litestage.kernels.kernels import (
    FORMATS,
    GATED,
    NORMED,
    NOTHING,
    PLAIN,
    Before,
    Heads,
    Matrix,
    Tokens,
    Turn,
    inverted,
)
from litestage.kernels.rounding import GROUP, quantise

ROWS_ALONE = 1
"""Up to so many rows are multiplied one by one, each reading the weights (behind the first, from a cache)."""
ROWS_TOGETHER = 64
"""Up to so many are multiplied by our kernels; beyond, weights are unpacked and torch multiplies."""
PROGRAMS = 264
"""A kernel is cut in so many parts at least, where it can be: two for each of an H100's processors."""
OUTPUTS_OF_ROW, OUTPUTS_OF_ROWS = (8, 4), (64, 16)
"""Most and fewest outputs of a program that multiplies one row, and several."""
GROUPS_OF_ROW = 32
"""Of columns, that a program loads at a time for one row."""
SLOTS = 64
"""Of the context that an attention reads at a time."""
LOGITS = 4096
"""That one program looks through."""


class Parts(NamedTuple):
    """Where a packed matrix's numbers lie: values, and of few bits scales and minima [O, G] in fp16."""

    values: Tensor
    scales: Tensor | None
    minima: Tensor | None


def parts_of(weight: Matrix) -> Parts:
    """Views of what `GpuKernels.pack` made."""
    packed, kind, shape = weight[:3]
    if kind == "bf16":
        return Parts(packed.view(torch.bfloat16), None, None)
    of_values = shape[0] * shape[1] // (1 if kind == "int8" else 2)
    of_scales = shape[0] * shape[1] // GROUP * 2
    values = packed[:of_values]
    scales = packed[of_values : of_values + of_scales].view(torch.float16)
    if kind == "int8":
        return Parts(values.view(torch.int8), scales, None)
    return Parts(values, scales, packed[of_values + of_scales :].view(torch.float16))


class GpuKernels:
    """Residual streams in bf16 or fp32; products of few rows in kernels of our own, of many in torch's."""

    ragged = False

    def __init__(self, programs: ModuleType) -> None:
        self._programs = programs

    def pack(self, weight: Float[Tensor, "O I"], kind: str) -> UInt8[Tensor, " Z"]:
        """Row by row; all values, then all scales, then all minima."""
        if kind == "bf16":
            return weight.bfloat16().contiguous().view(torch.uint8).flatten()
        values, scale, minimum = quantise(weight, kind)
        if kind == "int4":
            values = values[..., : GROUP // 2] | values[..., GROUP // 2 :] << 4
        found = [values, scale] if minimum is None else [values, scale, minimum]
        return torch.cat([part.contiguous().view(torch.uint8).flatten() for part in found])

    def linear(
        self,
        x: Float[Tensor, "... J"],
        weight: Matrix,
        before: Before = NOTHING,
        onto: Float[Tensor, "... O"] | None = None,
    ) -> Float[Tensor, "... O"]:
        rows, down, up = x.numel() // x.shape[-1], weight.down, weight.up
        if down is not None or _comes_first(before.what, rows):
            x, before = _prepared(x, before), NOTHING
        if rows > ROWS_TOGETHER:
            y = F.linear(x, self._unpacked(weight, x.dtype), weight.bias)
            y = y if onto is None else y.add_(onto)
        else:
            y = self._multiply(x, weight, before, onto)
        if down is not None and up is not None:
            y += F.linear(x, down) @ up
        return y

    def _multiply(self, x: Tensor, weight: Matrix, before: Before, onto: Tensor | None) -> Tensor:
        (outputs, inputs), rows = weight.shape, x.numel() // x.shape[-1]
        y = x.new_empty(*x.shape[:-1], outputs)
        onto = None if onto is None else onto.contiguous()
        given = (x, *parts_of(weight), weight.bias, before.norm, onto, y, before.eps)
        groups, format_ = inputs // GROUP, FORMATS[weight.kind]
        if rows <= ROWS_ALONE:
            count = _fewer(outputs, *OUTPUTS_OF_ROW)
            self._programs.multiply_row[(rows, -(-outputs // count))](
                *(*given, outputs, inputs, format_, before.what, count, min(_power(groups), GROUPS_OF_ROW)),
            )
            return y
        padded = _padded(rows)
        count = _fewer(outputs, *OUTPUTS_OF_ROWS)
        self._programs.multiply_rows[(-(-outputs // count),)](
            *(*given, rows, outputs, inputs, format_, before.what, _of_dots(x), padded, count),
            BG=min(_power(groups), 8 if padded == 16 else 4),
        )
        return y

    def _unpacked(self, weight: Matrix, dtype: torch.dtype) -> Tensor:
        """The whole matrix."""
        if weight.kind == "bf16":
            return weight.packed.view(torch.bfloat16).view(weight.shape).to(dtype)
        return self._unpack(weight, None, weight.packed.new_empty(weight.shape, dtype=dtype))

    def _unpack(self, weight: Matrix, which: Tensor | None, y: Tensor) -> Tensor:
        inputs = weight.shape[1]
        groups = inputs // GROUP
        at_once = min(_power(groups), 32)
        grid = (y.numel() // inputs, -(-groups // at_once))
        self._programs.unpack[grid](*parts_of(weight), which, y, inputs, FORMATS[weight.kind], at_once)
        return y

    def rows(self, weight: Matrix, which: Int[Tensor, "*N"], dtype: torch.dtype) -> Float[Tensor, "*N I"]:
        if weight.kind == "bf16":
            return F.embedding(which, weight.packed.view(torch.bfloat16).view(weight.shape)).to(dtype)
        y = torch.empty(*which.shape, weight.shape[1], dtype=dtype, device=weight.packed.device)
        return self._unpack(weight, which.contiguous(), y)

    def attend(
        self, states: Float[Tensor, "B T M"], tokens: Tokens, turn: Turn, heads: Heads, block: Tensor
    ) -> Float[Tensor, "B T Q"]:
        H, K, E = heads.heads, heads.kv_heads, heads.size
        count = len(states)
        y = states.new_empty(count, 1, H * E)
        pieces = -(-tokens.context // SLOTS)
        splits = min(pieces, max(1, PROGRAMS // (count * K)))
        chunk = -(-pieces // splits) * SLOTS
        splits = -(-tokens.context // chunk)
        wide = _power(E)
        parts = None if splits == 1 else states.new_empty(count * H * splits * (E + 2), dtype=torch.float32)
        self._programs.attend[(count, K, splits)](
            *(states, tokens.positions, tokens.rows, *(turn.rotary or (None, None)), turn.norm, block, parts, y),
            *(turn.eps, heads.scale, block.shape[1], chunk, H, K, E, heads.window, heads.cap),
            *(_of_dots(states), max(16, _power(H // K)), wide),
            BS=SLOTS if wide <= 128 else SLOTS // 2,
            SPLITS=splits,
        )
        if parts is not None:
            self._programs.join[(count * H,)](parts, y, E, wide, splits, _power(splits))
        return y

    def most_probable(self, logits: Float[Tensor, "B V"]) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
        count, vocabulary = logits.shape
        chunks = -(-vocabulary // LOGITS)
        new: Any = logits.new_empty
        most, total = new((2, count, chunks), dtype=torch.float32)
        token = new((count, chunks), dtype=torch.int32)
        tokens, probabilities = new(count, dtype=torch.long), new(count, dtype=torch.float32)
        self._programs.largest_of_chunk[(count, chunks)](
            logits.contiguous(), most, token, total, vocabulary, chunks, LOGITS
        )
        self._programs.largest_of_all[(count,)](
            most, token, total, tokens, probabilities, vocabulary, chunks, max(16, _power(chunks))
        )
        return tokens, probabilities

    def draw(
        self, logits: Float[Tensor, "B V"], temperature: float, uniforms: Float[Tensor, " B"]
    ) -> Int[Tensor, " B"]:
        below = logits.float() - logits.float().amax(-1, keepdim=True)
        return inverted((below / temperature).softmax(-1), uniforms)


def _comes_first(before: int, rows: int) -> bool:
    """Whether it takes longer to do what comes before a product in each program of it than once, by torch.

    (On an H100 an FFN of two to five rows took 39 us with gates worked out by every program, one of a single row 6.5.)
    """
    return rows > (ROWS_TOGETHER if before <= NORMED else ROWS_ALONE)


def _prepared(x: Tensor, before: Before) -> Tensor:
    """What a product multiplies, by torch."""
    if before.norm is not None:
        return F.rms_norm(x, before.norm.shape, before.norm, before.eps)
    if before.what == PLAIN:
        return x
    gate, up = x.chunk(2, dim=-1)
    return (F.silu(gate) if before.what == GATED["silu"] else F.gelu(gate, approximate="tanh")) * up


def _of_dots(x: Tensor) -> Any:
    """What small matrices are multiplied in. Triton's interpreter, on the CPU, multiplies no bf16."""
    import triton.language as tl

    return tl.float32 if x.dtype == torch.float32 or x.device.type == "cpu" else tl.bfloat16


def _power(number: int) -> int:
    """The power of two that is no smaller."""
    return 1 << max(0, number - 1).bit_length()


def _padded(rows: int) -> int:
    return max(16, _power(rows))


def _fewer(outputs: int, most: int, least: int) -> int:
    """Outputs of a program: so few that there are `PROGRAMS` of them."""
    count = most
    while count > least and -(-outputs // count) < PROGRAMS:
        count //= 2
    return count


@cache
def find_gpu_kernels() -> GpuKernels | None:
    """The kernels, after a try; None, with a warning that says why, where they do not run."""
    try:
        from litestage.kernels import programs

        kernels = GpuKernels(programs)
        _try_out(kernels)
    except Exception as error:  # Triton raises whatever its compiler, the C compiler or the driver can go wrong with
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(
            f"litestage's own GPU kernels are not used: {reason}. Models run on torch's, slower. "
            "They need triton, which torch's CUDA builds bring along, and a C compiler such as gcc.",
            stacklevel=2,
        )
        return None
    return kernels


def _try_out(kernels: GpuKernels) -> None:
    """Compile and run one kernel: Triton builds a part of itself when the first one starts."""
    logits = torch.zeros(1, 2, dtype=torch.bfloat16, device="cuda")
    kernels.most_probable(logits)
    small = Matrix(kernels.pack(torch.zeros(16, GROUP, device="cuda"), "int8"), "int8", (16, GROUP))
    kernels.linear(torch.zeros(2, GROUP, dtype=torch.bfloat16, device="cuda"), small)
