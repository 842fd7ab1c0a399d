"""The KV cache: preallocated slots, keys and values of a token side by side."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Cache:
    """Keys and values of R rows and S slots in every block.

    ``data`` has the shape [L, R, S, 2, K, E]: blocks, rows, slots, key or value, KV heads, head size. The last slot of
    a row takes what padding writes and is never read.
    """

    def __init__(
        self, blocks: int, rows: int, slots: int, heads: int, head_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.data: Float[Tensor, "L R S 2 K E"] = torch.zeros(
            blocks, rows, slots, 2, heads, head_size, dtype=dtype, device=device
        )

    @property
    def rows(self) -> int:
        return self.data.shape[1]

    @property
    def slots(self) -> int:
        return self.data.shape[2]

    def read(self, row: int, start: int, end: int) -> Float[Tensor, "L T 2 K E"]:
        """A copy of a row's slots ``start`` to ``end``."""
        return self.data[:, row, start:end].clone()

    def write(self, rows: list[int], start: int, content: Float[Tensor, "L T 2 K E"]) -> None:
        """Copy the same content into several rows."""
        side_by_side = rows == list(range(rows[0], rows[-1] + 1))  # which copies twice as fast
        at = slice(rows[0], rows[-1] + 1) if side_by_side else rows
        self.data[:, at, start : start + content.shape[1]] = content[:, None]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's first ``length`` slots over another row."""
        self.data[:, target, :length] = self.data[:, source, :length]

    def slot_index(self, rows: Int[Tensor, " B"], positions: Int[Tensor, "B T"]) -> Int[Tensor, " N"]:
        """Flat slot numbers of [B, T] positions; positions beyond the row go to its last slot."""
        return (rows[:, None] * self.slots + positions.clamp(max=self.slots - 1)).flatten()
