"""The KV cache: preallocated slots, keys and values of a token side by side."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Cache:
    """Keys and values of R rows and S slots in every block.

    ``data`` has the shape [L, R, S, 2, K, E]: blocks, rows, slots, key or value, KV heads, head size. The last slot of
    a row takes what padding writes and is never read. The memory stays what it was when rows are made longer.
    """

    def __init__(
        self, blocks: int, rows: int, slots: int, heads: int, head_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._memory = _zeros((blocks, rows * slots, 2, heads, head_size), dtype, device)
        self.data: Float[Tensor, "L R S 2 K E"] = self._memory.view(blocks, rows, slots, 2, heads, head_size)

    @property
    def rows(self) -> int:
        return self.data.shape[1]

    @property
    def slots(self) -> int:
        return self.data.shape[2]

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes

    def rows_of(self, slots: int) -> int:
        """How many rows of so many slots the memory holds."""
        return self._memory.shape[1] // slots

    def lengthen(self, slots: int, kept: Sequence[int]) -> None:
        """Make fewer and longer rows of the same memory; the first of them get what the ``kept`` rows hold."""
        rows, before = self.rows_of(slots), self.data
        self.data = self._memory[:, : rows * slots].view(len(before), rows, slots, *before.shape[3:])
        for old, new in zip(before, self.data, strict=True):  # a block at a time needs little room besides
            content = old[list(kept)]
            new[: len(kept), : before.shape[2]] = content

    def copy(self, source: int, targets: Sequence[int], length: int) -> None:
        """Copy a row's first slots over those of other rows."""
        side_by_side = list(targets) == list(range(targets[0], targets[-1] + 1))  # which copies twice as fast
        at = slice(targets[0], targets[-1] + 1) if side_by_side else list(targets)
        self.data[:, at, :length] = self.data[:, source, None, :length]

    def slot_index(self, rows: Int[Tensor, " B"], positions: Int[Tensor, "B T"]) -> Int[Tensor, " N"]:
        """Flat slot numbers of [B, T] positions; positions beyond the row go to its last slot."""
        return (rows[:, None] * self.slots + positions.clamp(max=self.slots - 1)).flatten()


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; a processor's memory is taken where it is first written to, so that slots nobody uses cost nothing.

    It comes in small pages. In huge ones, which numpy asks for, a row's first tokens take five times the memory, and
    clearing that takes longer than computing them.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    memory = mmap.mmap(-1, dtype.itemsize * prod(shape))
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)
