"""What kernels do, as functions of tensors; `cpu` and `gpu` hold them for a processor and for a CUDA device."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

FORMATS = {"bf16": 0, "int8": 1, "int4": 2}
PLAIN, NORMED = 0, 1
GATED = {"silu": 2, "gelu_pytorch_tanh": 3}
"""Activations that a product takes in, by transformers' names."""


class Heads(NamedTuple):
    """How an attention splits and scales: counts, tokens seen (0 for all), cap of the scores (0 for none)."""

    heads: int
    kv_heads: int
    size: int
    window: int
    scale: float
    cap: float


class SharedPrefixes(NamedTuple):
    """Which rows of a batch begin alike: slots that are equal may be read once for all of them."""

    leaders: Int[Tensor, " B"]
    """The cache row of one of those that a row begins like; its own where there is none."""
    slots: Int[Tensor, " B"]
    """How many of the leader's first slots a row has as well."""


class Tokens(NamedTuple):
    """Where the tokens of an attention stand.

    Each sees its own row's slots up to its own, however long the others are; none is at ``context`` or beyond.
    """

    positions: Int[Tensor, "B T"]
    rows: Int[Tensor, " B"]
    context: int
    shared: SharedPrefixes | None = None
    """Changes no result, at most the time."""


class Turn(NamedTuple):
    """What is done to queries and keys first: a norm over each head, then a rotation; None leaves one out."""

    rotary: tuple[Float[Tensor, "P E"], Float[Tensor, "P E"]] | None = None
    """Tables of all positions."""
    norm: Float[Tensor, "N E"] | None = None
    eps: float = 0.0


class Matrix(NamedTuple):
    """A packed matrix, and what is added to each product of it: a bias, and a low-rank map of the same input."""

    packed: UInt8[Tensor, " Z"]
    kind: str
    shape: tuple[int, int]
    """Outputs and inputs, O and I."""
    bias: Float[Tensor, " O"] | None = None
    down: Float[Tensor, "R I"] | None = None
    up: Float[Tensor, "R O"] | None = None


class Before(NamedTuple):
    """What happens to the input of a product first: nothing, an RMS norm, or a gate."""

    what: int = PLAIN
    norm: Float[Tensor, " I"] | None = None
    eps: float = 0.0


NOTHING = Before()


@runtime_checkable
class Kernels(Protocol):
    """All tensors are contiguous, on one device."""

    @property
    def ragged(self) -> bool:
        """Whether `attend` takes any tokens of any rows; else it takes one token of each row, as a decode step does."""
        ...

    def pack(self, weight: Float[Tensor, "O I"], kind: str) -> UInt8[Tensor, " Z"]:
        """Bytes in the order that these kernels read."""
        ...

    def linear(
        self,
        x: Float[Tensor, "... J"],
        weight: Matrix,
        before: Before = NOTHING,
        onto: Float[Tensor, "... O"] | None = None,
    ) -> Float[Tensor, "... O"]:
        """x times a matrix, transposed, added to ``onto``; x holds gates and values (J = 2 I) before a gate."""
        ...

    def rows(self, weight: Matrix, which: Int[Tensor, "*N"], dtype: torch.dtype) -> Float[Tensor, "*N I"]:
        """Chosen output rows of a matrix, unpacked."""
        ...

    def attend(
        self, states: Float[Tensor, "B T M"], tokens: Tokens, turn: Turn, heads: Heads, block: Tensor
    ) -> Float[Tensor, "B T Q"]:
        """Turn queries and keys, keep keys and values in the cache's ``block`` [R, S, 2, K, E], attend; ``states``
        are used up."""
        ...

    def most_probable(self, logits: Float[Tensor, "B V"]) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
        """The first of the largest logits of each row, and its probability."""
        ...

    def draw(
        self, logits: Float[Tensor, "B V"], temperature: float, uniforms: Float[Tensor, " B"]
    ) -> Int[Tensor, " B"]:
        """A draw from each row's distribution at a temperature, as `inverted` makes it."""
        ...


def inverted(probabilities: Float[Tensor, "B V"], uniforms: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """A draw for each row, by inverting its distribution, which need not sum to 1, at ``uniforms`` in [0, 1).

    Tokens keep their order, so that two of nearly equal probability cannot change places from one batch to another.
    """
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1:]
    below_total = total - (1 - uniforms[:, None]) * total  # uniforms * total may round up to the total itself
    tokens: Tensor = torch.searchsorted(cumulative, below_total, right=True)
    return tokens[:, 0]
