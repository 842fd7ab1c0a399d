"""Our GPU kernels against slow, obvious statements of what they compute; without a GPU in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from torch.nn import functional as F

from litestage.kernels import GpuKernels, round_weight
from litestage.kernels import gpu as gpu_module
from litestage.kernels.kernels import Heads, Matrix, Tokens, Turn
from litestage.models.packed import Packed

KINDS = ("bf16", "int8", "int4")
EPS = 1e-5
HERE = tiny.GPU
kinds = pytest.mark.parametrize("kind", KINDS)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
pytestmark = [pytest.mark.gpu] if HERE == "cuda" else []


@pytest.fixture(scope="module")
def kernels() -> GpuKernels:
    return tiny.gpu_kernels()


def values(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Of different sizes, with a zero group."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator) * torch.logspace(-1, 0.5, shape[-1])
    x[..., :32] = 0 if seed % 2 else x[..., :32]
    return x.to(HERE, dtype)


def packed(kernels: GpuKernels, weight: Tensor, kind: str, dtype: torch.dtype, bias: Tensor | None = None) -> Packed:
    return Packed(Matrix(kernels.pack(weight, kind), kind, tuple(weight.shape), bias), kernels, dtype)


def close(found: Tensor, expected: Tensor, slack: float = 1.0) -> bool:
    """To the accuracy of the type: bf16 rounds inputs of dots, weights and results."""
    tolerance = slack * (2e-2 if found.dtype == torch.bfloat16 else 2e-4)
    error = (found.double() - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    return bool(error < tolerance)


def times(x: Tensor, weight: Tensor, kind: str) -> Tensor:
    return x.double() @ round_weight(weight, kind).double().T


@kinds
def test_rows_may_be_multiplied_one_by_one(kernels: GpuKernels, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_module, "ROWS_ALONE", 4)
    x, weight, norm = values(3, 96, seed=2), values(21, 96, seed=3), torch.rand(96, device=HERE)
    found = packed(kernels, weight, kind, torch.float32).normed(x, norm, EPS)
    assert close(found, times(F.rms_norm(x.double(), (96,), norm.double(), EPS), weight, kind))


CASES: dict[str, dict[str, Any]] = {
    "one head": {"kv_heads": 1, "group": 1, "size": 8},
    "grouped, normed, turned": {"kv_heads": 2, "group": 3, "size": 16, "normed": True, "turned": True},
    "of no power of two, capped": {"kv_heads": 3, "group": 1, "size": 40, "cap": 3.0, "turned": True},
    "through a window": {"kv_heads": 2, "group": 2, "size": 16, "window": 5, "normed": True},
    "through a long window": {"kv_heads": 2, "group": 2, "size": 16, "window": 130, "turned": True},
    "of itself alone": {"kv_heads": 1, "group": 2, "size": 16, "window": 1},
    "many heads of one": {"kv_heads": 1, "group": 20, "size": 16, "turned": True},
}
SLOTS = 300


@dtypes
@pytest.mark.parametrize("programs", [1, 264])
@pytest.mark.parametrize("case", CASES)
def test_attention_is_that_of_torch(
    kernels: GpuKernels, case: str, programs: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row by row, on just the slots that a token sees; in one part, and in several."""
    monkeypatch.setattr(gpu_module, "PROGRAMS", programs)
    torch.manual_seed(len(case))
    options = {"window": 0, "cap": 0.0, "normed": False, "turned": False} | CASES[case]
    K, E = options["kv_heads"], options["size"]
    heads = Heads(K * options["group"], K, E, options["window"], 0.2, options["cap"])
    positions = torch.tensor([[0], [1], [63], [64], [200], [255], [400]], device=HERE)  # the last is beyond its row
    B = len(positions)
    block = torch.randn(B + 1, SLOTS, 2, K, E).to(HERE, dtype)
    states = torch.randn(B, 1, (heads.heads + 2 * K) * E).to(HERE, dtype)
    rows = torch.randperm(B + 1)[:B].to(HERE)
    table = torch.randn(2, SLOTS, E).to(HERE, dtype)
    rotary = (table[0], table[1]) if options["turned"] else None
    norm = (torch.rand(heads.heads + K, E) + 0.5).to(HERE, dtype) if options["normed"] else None
    kept = block.clone()
    expected = _attended(states.clone(), positions, rows, rotary, norm, kept, heads)
    found = kernels.attend(states, Tokens(positions, rows, SLOTS), Turn(rotary, norm, EPS), heads, block)
    assert close(found, expected.double(), slack=1.5)
    assert close(block, kept.double(), slack=1.5)


def _attended(
    states: Tensor,
    positions: Tensor,
    rows: Tensor,
    rotary: tuple[Tensor, Tensor] | None,
    norm: Tensor | None,
    block: Tensor,
    heads: Heads,
) -> Tensor:
    H, K, E = heads[:3]
    state = states[:, 0].view(len(states), H + 2 * K, E).float()
    at = positions[:, 0].clamp(max=block.shape[1] - 1)
    turned = state[:, : H + K]
    if norm is not None:
        turned.copy_(F.rms_norm(turned, (E,), eps=EPS) * norm)
    if rotary is not None:
        cos, sin = (part[at][:, None].float() for part in rotary)
        turned.copy_(turned * cos + turned.roll(E // 2, -1) * sin)
    out = torch.zeros(len(states), H, E, device=states.device)
    for b, row in enumerate(rows.tolist()):
        to = int(at[b]) + 1
        block[row, to - 1] = state[b, H:].view(2, K, E).to(block.dtype)
        seen = block[row, max(0, to - heads.window) if heads.window else 0 : to].float()
        for h in range(H):
            scores = seen[:, 0, h // (H // K)] @ state[b, h] * heads.scale
            scores = torch.tanh(scores / heads.cap) * heads.cap if heads.cap else scores
            out[b, h] = scores.softmax(0) @ seen[:, 1, h // (H // K)]
    return out.view(len(states), 1, -1)


@dtypes
@pytest.mark.parametrize("chunk", [16, 4096])
@pytest.mark.parametrize("vocabulary", [1, 16, 70])
def test_the_most_probable_token_is_the_first_of_the_largest(
    kernels: GpuKernels, vocabulary: int, chunk: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole numbers: of the largest there are several, in several chunks."""
    monkeypatch.setattr(gpu_module, "LOGITS", chunk)
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randint(-3, 3, (6, vocabulary), generator=generator).to(HERE, dtype)
    logits[0], logits[1] = -60, float("-inf")
    logits[1, -1] = 2
    for value in ("nan", "inf"):
        broken = logits.clone()
        broken[3, vocabulary // 2] = float(value)
        assert kernels.most_probable(broken)[1].isnan().tolist() == [False] * 3 + [True] + [False] * 2
    tokens, probabilities = kernels.most_probable(logits)
    first = [row.index(max(row)) for row in logits.tolist()]
    assert tokens.tolist() == first
    assert torch.allclose(probabilities, logits.float().softmax(-1).amax(-1), rtol=1e-5)
