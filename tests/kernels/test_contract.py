"""What all kernels promise, in C for each kind of processor and in Triton, beside slow, obvious statements of it.

Without a GPU Triton's interpreter runs its programs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.activations import ACT2FN

from litestage.kernels import CpuKernels, Kernels, build_kernels, round_weight
from litestage.kernels.build import VARIANTS, CannotBuildError, instructions
from litestage.kernels.kernels import GATED, Heads, Matrix, Tokens, Turn
from litestage.models.decoder import Activation, LowRank
from litestage.models.packed import Packed

EPS = 1e-5
BITS = {"bf16": 16, "int8": 8 + 16 / 32, "int4": 4 + 2 * 16 / 32}
kinds = pytest.mark.parametrize("kind", BITS)


@dataclass(frozen=True)
class Family:
    """Kernels, where they run, and in which types the residual stream and the cache are."""

    kernels: Kernels
    device: str
    dtype: torch.dtype
    cache: torch.dtype

    def values(self, *shape: int, seed: int = 0) -> Tensor:
        """Of different sizes, with a zero group."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(shape, generator=generator) * torch.logspace(-1, 0.5, shape[-1])
        x[..., :32] = 0 if seed % 2 else x[..., :32]
        return x.to(self.device, self.dtype)

    def pack(self, weight: Tensor, kind: str, bias: Tensor | None = None, beside: LowRank | None = None) -> Packed:
        shape = (weight.shape[0], weight.shape[1])
        matrix = Matrix(self.kernels.pack(weight.float(), kind), kind, shape, bias, *(beside or ()))
        return Packed(matrix, self.kernels, self.dtype)

    def accuracy(self, kind: str) -> float:
        """bf16 rounds inputs, weights and results; a byte of the input may fall to the other side of a half."""
        if self.dtype == torch.bfloat16:
            return 2e-2
        return 2e-3 if self.kernels.ragged and kind != "bf16" else 2e-4

    def times(self, x: Tensor, weight: Tensor, kind: str) -> Tensor:
        """On a CPU, weights of few bits meet each 32 numbers as whole multiples of a 127th of the largest."""
        x = x.double()
        if self.kernels.ragged and kind != "bf16":
            groups = x.unflatten(-1, (-1, 32))
            scale = groups.abs().amax(-1, keepdim=True) / 127
            x = torch.where(scale > 0, (groups / scale).round() * scale, 0.0).flatten(-2)
        return x @ round_weight(weight.float(), kind).double().T


BUILDERS: dict[str, Callable[[], Family]] = {
    **{
        f"{variant}-{cache}": lambda variant=variant, cache=cache: Family(
            CpuKernels(build_kernels(variant)), "cpu", torch.float32, getattr(torch, cache)
        )
        for variant in VARIANTS
        if variant == "native" or variant != instructions()
        for cache in ("float32", "bfloat16")
    },
    "triton-float32": lambda: Family(tiny.gpu_kernels(), tiny.GPU, torch.float32, torch.float32),
    "triton-bfloat16": lambda: Family(tiny.gpu_kernels(), tiny.GPU, torch.bfloat16, torch.bfloat16),
}
EACH = {
    name: pytest.param(name, marks=[pytest.mark.gpu] if name.startswith("triton") and tiny.GPU == "cuda" else [])
    for name in BUILDERS
}
OF_PRODUCTS = [param for name, param in EACH.items() if name.startswith("triton") or name.endswith("float32")]
"""The cache's type is nothing to them."""


@pytest.fixture(scope="module")
def family(request: pytest.FixtureRequest) -> Family:
    try:
        return BUILDERS[request.param]()
    except CannotBuildError as error:
        pytest.skip(str(error))


products = pytest.mark.parametrize("family", OF_PRODUCTS, indirect=True)
attentions = pytest.mark.parametrize("family", EACH.values(), indirect=True)


def close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    error = (found.double() - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    return bool(error < tolerance)


@kinds
@products
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 32), (21, 96), (50, 192)])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 17, 33, 70])
def test_a_product_is_that_of_the_rounded_weights(
    family: Family, kind: str, rows: int, outputs: int, inputs: int
) -> None:
    x, weight = family.values(rows, inputs, seed=rows), family.values(outputs, inputs, seed=rows + 1)
    bias, onto = family.values(outputs), family.values(rows, outputs, seed=2)
    expected = family.times(x, weight, kind)
    assert close(family.pack(weight, kind)(x), expected, family.accuracy(kind))
    assert close(family.pack(weight, kind, bias)(x, onto), onto + expected + bias, family.accuracy(kind))


@kinds
@products
@pytest.mark.parametrize("rows", [1, 3, 70])
def test_norm_and_gate_come_before_the_product(family: Family, kind: str, rows: int) -> None:
    weight, norm = family.values(24, 96, seed=4), (torch.rand(96) + 0.5).to(family.device, family.dtype)
    linear = family.pack(weight, kind)
    x = family.values(rows, 1, 96, seed=6)
    normed = F.rms_norm(x.double(), (96,), norm.double(), EPS)
    assert close(linear.normed(x, norm, EPS), family.times(normed, weight, kind), family.accuracy(kind))
    assert close(linear.normed(x, None, EPS), family.times(x, weight, kind), family.accuracy(kind))
    gate_up = family.values(rows, 1, 192, seed=8) * 4
    gate_up[0, 0, :3] = torch.tensor([-200.0, 200.0, 0.0])
    onto = family.values(rows, 1, 24)
    for name in (*GATED, "relu"):
        function = ACT2FN[name]
        gated = function(gate_up[..., :96].double()) * gate_up[..., 96:].double()
        found = linear.gated(gate_up, Activation(name, function), onto)
        assert close(found, onto + family.times(gated, weight, kind), family.accuracy(kind))


@kinds
@products
@pytest.mark.parametrize(("rows", "rank"), [(1, 0), (1, 3), (5, 1), (70, 7)])
def test_a_low_rank_map_is_added_to_the_product(family: Family, kind: str, rows: int, rank: int) -> None:
    """Of the input as it is, not of its bytes; after the norm or gate as well."""
    weight, norm, onto = family.values(20, 64, seed=2), family.values(64).abs() + 0.5, family.values(rows, 20, seed=5)
    low_rank = LowRank(family.values(rank, 64, seed=3), family.values(rank, 20, seed=4))
    both = family.pack(weight, kind, beside=low_rank)
    gate_up = family.values(rows, 128, seed=rows)
    x = gate_up[:, :64].contiguous()
    gated = F.silu(x.double()) * gate_up[:, 64:].double()
    for found, seen, start in (
        (both(x, onto), x.double(), onto),
        (both.normed(x, norm, EPS), F.rms_norm(x.double(), (64,), norm.double(), EPS), 0),
        (both.gated(gate_up, Activation("silu", F.silu), onto), gated, onto),
    ):
        expected = start + family.times(seen, weight, kind) + seen @ low_rank.weight.double().T
        assert close(found, expected, family.accuracy(kind))


@kinds
@products
def test_rows_are_those_of_the_rounded_weights(family: Family, kind: str) -> None:
    weight, which = family.values(40, 96, seed=3), torch.tensor([[0, 39], [7, 8]], device=family.device)
    found = family.pack(weight, kind).rows(which)
    expected = round_weight(weight.float(), kind)[which].to(family.dtype)
    assert found.dtype == family.dtype
    assert torch.allclose(found, expected, rtol=1e-2 if family.dtype == torch.bfloat16 else 1e-6)


@kinds
@products
def test_a_packed_matrix_is_as_small_as_its_bits(family: Family, kind: str) -> None:
    assert family.pack(family.values(16, 64), kind).nbytes == BITS[kind] / 8 * 16 * 64


CASES: dict[str, dict[str, Any]] = {
    "one head": {"kv_heads": 1, "group": 1, "size": 8},
    "grouped, normed, turned": {"kv_heads": 2, "group": 3, "size": 64, "normed": True, "turned": True},
    "of no power of two, capped": {"kv_heads": 3, "group": 1, "size": 40, "cap": 3.0, "turned": True},
    "through a window": {"kv_heads": 2, "group": 2, "size": 16, "window": 5, "normed": True},
    "through a long window": {"kv_heads": 2, "group": 2, "size": 32, "window": 130, "turned": True},
    "of itself alone": {"kv_heads": 1, "group": 2, "size": 16, "window": 1},
    "many heads of one": {"kv_heads": 1, "group": 20, "size": 16, "turned": True},
}
SLOTS = 300
LENGTHS = {
    "each a token": [[0], [1], [63], [64], [200], [255], [400]],  # the last is beyond its row
    "some tokens each": [[0, 1, 2], [61, 62, 63], [200, 201, 202]],
    "a prompt": [list(range(90))],
    "a prompt's end": [list(range(100, 140))],
}


@attentions
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("case", CASES)
def test_attention_is_that_of_torch(family: Family, case: str, lengths: str) -> None:
    """Row by row, on just the slots that a token sees."""
    if not family.kernels.ragged and lengths != "each a token":
        pytest.skip("one token of each row is all they take")
    torch.manual_seed(len(case))
    options = {"window": 0, "cap": 0.0, "normed": False, "turned": False} | CASES[case]
    K, E = options["kv_heads"], options["size"]
    heads = Heads(K * options["group"], K, E, options["window"], 0.2, options["cap"])
    positions = torch.tensor(LENGTHS[lengths], device=family.device)
    B, T = positions.shape
    block = torch.randn(B + 1, SLOTS, 2, K, E).to(family.device, family.cache)
    states = torch.randn(B, T, (heads.heads + 2 * K) * E).to(family.device, family.dtype)
    rows = torch.randperm(B + 1)[:B].to(family.device)
    table = torch.randn(2, SLOTS, E).to(family.device, family.dtype)
    rotary = (table[0], table[1]) if options["turned"] else None
    norm = (torch.rand(heads.heads + K, E) + 0.5).to(family.device, family.dtype) if options["normed"] else None
    kept = block.clone()
    expected = attended(states.clone(), positions, rows, rotary, norm, kept, heads)
    found = family.kernels.attend(states, Tokens(positions, rows, SLOTS), Turn(rotary, norm, EPS), heads, block)
    assert close(found, expected.double(), 3e-2 if family.cache == torch.bfloat16 else 2e-4)
    assert close(block, kept.double(), 3e-2 if family.cache == torch.bfloat16 else 2e-4)


def attended(
    states: Tensor,
    positions: Tensor,
    rows: Tensor,
    rotary: tuple[Tensor, Tensor] | None,
    norm: Tensor | None,
    block: Tensor,
    heads: Heads,
) -> Tensor:
    H, K, E = heads[:3]
    B, T = positions.shape
    state = states.view(B, T, H + 2 * K, E).float()
    at = positions.clamp(max=block.shape[1] - 1)
    turned = state[:, :, : H + K]
    if norm is not None:
        turned.copy_(F.rms_norm(turned, (E,), eps=EPS) * norm)
    if rotary is not None:
        cos, sin = (part[at][:, :, None].float() for part in rotary)
        turned.copy_(turned * cos + turned.roll(E // 2, -1) * sin)
    block[rows[:, None], at] = state[:, :, H:].view(B, T, 2, K, E).to(block.dtype)
    out = torch.zeros(B, T, H, E, device=states.device)
    for b, row in enumerate(rows.tolist()):
        for t in range(T):
            to = int(at[b, t]) + 1
            seen = block[row, max(0, to - heads.window) if heads.window else 0 : to].float()
            for h in range(H):
                scores = seen[:, 0, h // (H // K)] @ state[b, t, h] * heads.scale
                scores = torch.tanh(scores / heads.cap) * heads.cap if heads.cap else scores
                out[b, t, h] = scores.softmax(0) @ seen[:, 1, h // (H // K)]
    return out.view(B, T, -1)


@products
@pytest.mark.parametrize("vocabulary", [1, 16, 70, 600])
def test_the_most_probable_token_is_the_first_of_the_largest(family: Family, vocabulary: int) -> None:
    """Whole numbers: of the largest there are several."""
    logits = torch.randint(-3, 3, (6, vocabulary), generator=torch.Generator().manual_seed(vocabulary))
    logits = logits.to(family.device, family.dtype)
    logits[0] = -60
    tokens, probabilities = family.kernels.most_probable(logits)
    assert tokens.tolist() == [row.index(max(row)) for row in logits.tolist()]
    assert torch.allclose(probabilities, logits.float().softmax(-1).amax(-1), rtol=1e-5)
