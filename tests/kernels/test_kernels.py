"""Our CPU kernels against slow, obvious statements of what they compute."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from litestage.kernels import CpuKernels, build_kernels, find_kernels, round_weight
from litestage.kernels.build import VARIANTS, CannotBuildError, instructions
from litestage.kernels.kernels import Heads, Matrix, SharedPrefixes, Tokens, Turn
from litestage.kernels.rounding import GROUP
from litestage.models.decoder import LowRank, Projection
from litestage.models.packed import Packed, Packing

KINDS = ("bf16", "int8", "int4")
DISTINCT = [name for name in VARIANTS if name == "native" or name != instructions()]
"""Without the one that is this processor's own."""
PLAINLY = Turn()
"""Neither normed nor rotated."""
kinds = pytest.mark.parametrize("kind", KINDS)


def built(variant: str) -> CpuKernels:
    try:
        return CpuKernels(build_kernels(variant))
    except CannotBuildError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=DISTINCT)
def kernels(request: pytest.FixtureRequest) -> CpuKernels:
    return built(request.param)


def values(*shape: int, seed: int = 0) -> Tensor:
    """Of very different sizes, with a zero group."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator) * torch.logspace(-2, 1, shape[-1])
    x[..., :32] = 0 if seed % 2 else x[..., :32]
    return x


def as_bytes(x: Tensor) -> Tensor:
    """What is left of an input when each 32 numbers become whole multiples of a 127th of the largest."""
    groups = x.double().unflatten(-1, (-1, 32))
    scale = groups.abs().amax(-1, keepdim=True) / 127
    return torch.where(scale > 0, (groups / scale).round() * scale, 0.0).flatten(-2)


def seen(x: Tensor, kind: str) -> Tensor:
    return x.double() if kind == "bf16" else as_bytes(x)


def packed(kernels: CpuKernels, weight: Tensor, kind: str, bias: Tensor | None = None) -> Packed:
    return Packed(Matrix(kernels.pack(weight, kind), kind, (weight.shape[0], weight.shape[1]), bias), kernels)


def close(found: Tensor, expected: Tensor) -> bool:
    """To fp32's accuracy; a byte of the input may fall to the other side of a half."""
    error = (found.double() - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    return bool(error < 2e-3)


def test_4_bits_keep_what_an_adapter_added(kernels: CpuKernels) -> None:
    """A weight on a grid of 4 bits, and far less than a step of it from an adapter, with kernels and without."""
    base = round_weight(torch.randn(40, 64), "int4")
    low_rank = LowRank(torch.randn(3, 64) / 60, torch.randn(3, 40) / 60)
    merged = Projection(base + low_rank.weight, merged=low_rank)
    x = torch.randn(5, 64)
    for found, read in ((Packing("int4", kernels=kernels), as_bytes(x)), (Packing("int4"), x.double())):
        expected = read @ base.double().T + x.double() @ low_rank.weight.double().T
        assert (found.pack(merged)(x) - expected).abs().max() < 1e-5


@kinds
def test_products_are_exact_to_fp32_or_to_their_rounding(kernels: CpuKernels, kind: str) -> None:
    """Of sums of about 25; where tile registers multiply, bf16 weights meet 16 of an input's 24 bits."""
    x, weight = torch.randn(9, 576), torch.randn(40, 576)
    error = (packed(kernels, weight, kind)(x) - seen(x, kind) @ round_weight(weight, kind).double().T).abs().max()
    assert error < (5e-4 if kind == "bf16" else 1e-4)


@kinds
@pytest.mark.parametrize("rows", [1, 7, 37])
def test_vectors_and_tile_registers_add_to_the_same_bits(kind: str, rows: int) -> None:
    """How wide they are changes nothing; tile registers change what bf16 weights give, and bytes nothing."""
    x, weight = torch.randn(rows, 576), torch.randn(72, 576)
    variants = ["avx512", "avx2"] if kind == "bf16" else ["native", "avx512", "avx2"]
    found = [packed(built(variant), weight, kind)(x) for variant in variants]
    assert all(torch.equal(found[0], other) for other in found)


@kinds
@given(rows=st.one_of(st.integers(2, 80), st.integers(190, 300)), seed=st.integers(0, 99))
def test_a_row_does_not_depend_on_the_others(kernels: CpuKernels, kind: str, rows: int, seed: int) -> None:
    """To the last bit: what a text becomes cannot depend on what else is in the batch."""
    x, linear = values(rows, 96, seed=seed), packed(kernels, values(24, 96, seed=seed + 1), kind)
    assert torch.equal(linear(x), torch.cat([linear(row[None]) for row in x]))


def test_threads_share_the_work_and_change_nothing(kernels: CpuKernels) -> None:
    """More of them than there are processors too, fewer again, and none but the caller's."""
    x, linear = values(40, 96), packed(kernels, values(300, 96, seed=1), "int8")
    states, block = torch.randn(40, 1, 15 * 16), torch.randn(1, 40, 2, 3, 16)
    positions, rows, heads = torch.arange(40)[:, None], torch.zeros(40, dtype=torch.long), Heads(9, 3, 16, 0, 0.2, 0.0)
    before = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 7, 3):
            torch.set_num_threads(count)
            attended = kernels.attend(states.clone(), Tokens(positions, rows, 40), PLAINLY, heads, block.clone())
            found.append((linear(x), attended))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for some in found[1:] for a, b in zip(some, found[0], strict=True))


def test_a_process_that_is_split_off_works_on(kernels: CpuKernels) -> None:
    """It has none of the threads that its parent had started."""
    x, linear = values(40, 96), packed(kernels, values(300, 96, seed=1), "int4")
    expected = linear(x)
    child = os.fork()
    if not child:
        os._exit(0 if torch.equal(linear(x), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


@kinds
def test_many_long_rows_go_by_parts(kernels: CpuKernels, kind: str) -> None:
    """More of them than a core's cache holds; to the last bit as well."""
    x, linear = values(280, 4096), packed(kernels, values(24, 4096, seed=1), kind)
    assert torch.equal(linear(x)[::31], torch.cat([linear(row[None]) for row in x[::31]]))


@kinds
def test_rows_are_those_of_the_rounded_weights(kernels: CpuKernels, kind: str) -> None:
    weight, which = values(40, 64, seed=3), torch.tensor([[0, 39], [7, 8]])
    assert torch.equal(packed(kernels, weight, kind).rows(which), round_weight(weight, kind)[which])


@pytest.mark.parametrize("kind", ["int8", "int4"])
@given(seed=st.integers(0, 999))
def test_rounding_again_changes_nothing(kind: str, seed: int) -> None:
    """So weights that a GGUF file holds in 4 or 8 bits are packed as they lie there."""
    once = round_weight(values(7, 96, seed=seed), kind)
    assert torch.allclose(round_weight(once, kind), once, rtol=1e-6, atol=0)


def test_rounding_is_as_fine_as_its_bits() -> None:
    weight = torch.randn(16, 320)
    steps = {"int8": 2 * weight.abs().max() / 254, "int4": (weight.max() - weight.min()) / 15}
    for kind, step in steps.items():
        assert (round_weight(weight, kind) - weight).abs().max() <= 0.51 * step


def test_columns_that_make_no_whole_groups_stay_as_they_are(kernels: CpuKernels) -> None:
    projection = Projection(torch.randn(4, 40))
    kept = Packing("int4", torch.float32, torch.float32, kernels).pack(projection)
    assert isinstance(kept, Projection)
    assert torch.equal(kept.weight, projection.weight)


forms = pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 16), (torch.bfloat16, 64)], ids=["fp32", "bf16"])


@forms
def test_attention_does_not_depend_on_the_other_rows(kernels: CpuKernels, dtype: torch.dtype, size: int) -> None:
    """Not on how heads are shared out over cores either, which depends on how many rows there are."""
    block, states = torch.randn(9, 40, 2, 3, size).to(dtype), torch.randn(9, 1, 15 * size)
    positions, rows, heads = torch.randint(0, 40, (9, 1)), torch.arange(9), Heads(9, 3, size, 0, 0.2, 0.0)
    together = kernels.attend(states.clone(), Tokens(positions, rows, 40), PLAINLY, heads, block)
    for n in (1, 2, 4):
        parts = [slice(i, i + n) for i in range(0, 9, n)]
        apart = [
            kernels.attend(states[at].clone(), Tokens(positions[at], rows[at], 40), PLAINLY, heads, block)
            for at in parts
        ]
        assert torch.equal(torch.cat(apart), together)


@pytest.mark.parametrize("window", [0, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("kv_heads", "group", "size"), [(3, 3, 64), (2, 4, 16), (4, 1, 40)])
def test_tokens_of_one_row_may_come_together(
    kernels: CpuKernels, window: int, dtype: torch.dtype, kv_heads: int, group: int, size: int
) -> None:
    """Bit for bit what they give one after another: what several see is read once, a chunk of 64 slots at a time."""
    heads = Heads(kv_heads * group, kv_heads, size, window, 0.2, 0.0)
    start, count = 130, 40
    states = torch.randn(count, 1, (heads.heads + 2 * kv_heads) * size)
    blocks = [torch.randn(2, 200, 2, kv_heads, size).to(dtype)] * 2
    one, other = (block.clone() for block in blocks)
    positions, rows = torch.arange(start, start + count)[:, None], torch.ones(count, dtype=torch.long)
    together = kernels.attend(states.clone(), Tokens(positions, rows, 200), PLAINLY, heads, one)
    apart = [
        kernels.attend(states[t : t + 1].clone(), Tokens(positions[t : t + 1], rows[:1], 200), PLAINLY, heads, other)
        for t in range(count)
    ]
    assert torch.equal(torch.cat(apart), together)
    assert torch.equal(one, other)


@forms
@given(
    leaders=st.lists(st.integers(0, 3), min_size=9, max_size=40),
    shared=st.integers(1, 150),
    window=st.sampled_from([0, 9, 120]),
    seed=st.integers(0, 99),
)
def test_rows_that_begin_alike_are_read_once(
    kernels: CpuKernels, dtype: torch.dtype, size: int, leaders: list[int], shared: int, window: int, seed: int
) -> None:
    """Bit for bit what each gives by itself."""
    torch.manual_seed(seed)
    count, heads = len(leaders), Heads(9, 3, size, window, 0.2, 0.0)
    first = torch.tensor([leaders.index(one) for one in leaders])
    block = torch.randn(count, 200, 2, 3, size).to(dtype)
    block[:, :shared] = block[first, :shared]
    states, positions = torch.randn(count, 1, 15 * size), torch.randint(shared, 200, (count, 1))
    tokens = Tokens(positions, torch.arange(count), 200)
    alone = kernels.attend(states.clone(), tokens, PLAINLY, heads, block.clone())
    shared_prefix = SharedPrefixes(first, torch.full((count,), shared))
    assert torch.equal(
        kernels.attend(states.clone(), tokens._replace(shared=shared_prefix), PLAINLY, heads, block), alone
    )


@forms
def test_the_leader_alone_is_read(kernels: CpuKernels, dtype: torch.dtype, size: int) -> None:
    """By tile registers, up to the last whole block of slots."""
    count, shared, heads = 32, 70, Heads(9, 3, size, 0, 0.2, 0.0)
    block = torch.randn(count, 100, 2, 3, size).to(dtype)
    block[:, :shared] = block[:1, :shared]
    states, positions = torch.randn(count, 1, 15 * size), torch.full((count, 1), 90)
    tokens = Tokens(positions, torch.arange(count), 100)
    alone = kernels.attend(states.clone(), tokens, PLAINLY, heads, block.clone())
    block[1:, : shared if dtype == torch.float32 else shared // GROUP * GROUP] = float("nan")
    shared_prefix = SharedPrefixes(torch.zeros(count, dtype=torch.long), torch.full((count,), shared))
    assert torch.equal(
        kernels.attend(states.clone(), tokens._replace(shared=shared_prefix), PLAINLY, heads, block), alone
    )


@forms
def test_a_token_that_overflows_harms_none_that_does_not_see_it(
    kernels: CpuKernels, dtype: torch.dtype, size: int
) -> None:
    """Tokens of one row, the last of which has become NaN; rows that begin alike, one with NaN of its own."""
    count, heads = 8, Heads(9, 3, size, 0, 0.2, 0.0)
    block, states = torch.randn(count, 100, 2, 3, size).to(dtype), torch.randn(count, 1, 15 * size)
    positions, one_row = torch.arange(20, 20 + count)[:, None], torch.zeros(count, dtype=torch.long)
    found = kernels.attend(states.clone(), Tokens(positions, one_row, 100), PLAINLY, heads, block.clone())
    states[-1] = float("nan")
    harmed = kernels.attend(states.clone(), Tokens(positions, one_row, 100), PLAINLY, heads, block.clone())
    assert torch.equal(harmed[:-1], found[:-1])
    assert harmed[-1].isnan().all()
    block[:, :40], states = block[:1, :40], torch.randn(count, 1, 15 * size)
    shared_prefix = SharedPrefixes(torch.zeros(count, dtype=torch.long), torch.full((count,), 40))
    last, rows = torch.full((count, 1), 60), torch.arange(count)
    found = kernels.attend(states.clone(), Tokens(last, rows, 100, shared_prefix), PLAINLY, heads, block.clone())
    block[-1, 50] = float("nan")
    harmed = kernels.attend(states.clone(), Tokens(last, rows, 100, shared_prefix), PLAINLY, heads, block.clone())
    assert torch.equal(harmed[:-1], found[:-1])
    assert harmed[-1].isnan().all()


def test_no_rows_give_no_rows(kernels: CpuKernels) -> None:
    for kind in KINDS:
        assert packed(kernels, values(16, 32), kind)(torch.empty(0, 32)).shape == (0, 16)


@given(vocabulary=st.integers(1, 70), rows=st.integers(1, 5), seed=st.integers(0, 99), spread=st.sampled_from([1, 60]))
def test_the_most_probable_token_is_the_argmax(
    kernels: CpuKernels, vocabulary: int, rows: int, seed: int, spread: int
) -> None:
    logits = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread
    tokens, probabilities = kernels.most_probable(logits)
    assert torch.equal(tokens, logits.argmax(-1))
    assert torch.allclose(probabilities, logits.softmax(-1).amax(-1), rtol=1e-5)


@given(vocabulary=st.integers(1, 70), at=st.integers(0, 69), seed=st.integers(0, 9))
def test_a_logit_that_is_no_number_leaves_no_probability(
    kernels: CpuKernels, vocabulary: int, at: int, seed: int
) -> None:
    """As torch's softmax has it; minus infinity is a token that cannot be, and all of them are no distribution."""
    logits = torch.randn(4, vocabulary, generator=torch.Generator().manual_seed(seed))
    for row, value in enumerate([float("nan"), float("inf"), float("-inf")]):
        logits[row, at % vocabulary] = value
    probabilities = kernels.most_probable(logits)[1]
    assert torch.allclose(probabilities, logits.softmax(-1).amax(-1), rtol=1e-5, equal_nan=True)
    assert kernels.most_probable(torch.full((1, vocabulary), float("-inf")))[1].isnan().all()


@given(
    vocabulary=st.integers(1, 2000),
    seed=st.integers(0, 99),
    spread=st.sampled_from([0, 1, 60]),
    uniform=st.sampled_from([0.0, 0.3, 0.9, 1 - 2**-24]),
)
def test_a_draw_is_where_the_sum_of_probabilities_passes_its_number(
    kernels: CpuKernels, vocabulary: int, seed: int, spread: int, uniform: float
) -> None:
    """Up to a millionth of the sum; each row by itself."""
    logits = torch.randn(4, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread
    uniforms = torch.tensor([uniform, 0.5, uniform, 0.1])
    tokens = kernels.draw(logits, 0.7, uniforms)
    after = (logits.double() / 0.7).softmax(-1).cumsum(-1)
    before = torch.cat([torch.zeros(4, 1), after[:, :-1]], dim=1)
    assert (before.gather(-1, tokens[:, None])[:, 0] <= uniforms + 1e-6).all()
    assert (after.gather(-1, tokens[:, None])[:, 0] >= uniforms - 1e-6).all()
    assert torch.equal(tokens[2:], kernels.draw(logits[2:], 0.7, uniforms[2:]))


def test_without_a_compiler_there_are_no_kernels_and_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITESTAGE_CC", "none")
    with pytest.raises(CannotBuildError, match="no C compiler"):
        build_kernels()
    find_kernels.cache_clear()
    with pytest.warns(UserWarning, match="Install a C compiler"):
        assert find_kernels() is None
    find_kernels.cache_clear()


def test_a_variant_that_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITESTAGE_KERNELS", "avx9")
    with pytest.raises(CannotBuildError, match=r"avx9.*avx2"):
        build_kernels()


def test_a_compiler_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "broken-cc"
    fake.write_text("#!/bin/sh\necho 'error: out of luck' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("LITESTAGE_CC", str(fake))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(CannotBuildError, match="broken-cc could not compile them: error: out of luck"):
        build_kernels()
    assert not list(tmp_path.glob("litestage/kernels/*"))
