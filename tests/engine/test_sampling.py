"""Drawing a token: against transformers' own filters, and against the distribution itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from litestage.core import Sampling
from litestage.engine.sampling import drawn, most_probable, nucleus, uniforms_of
from litestage.kernels import Kernels, find_kernels

VOCABULARY = 40


def logits(rows: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def by_transformers(raw: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Probabilities after temperature, top-k and top-p as transformers' `generate` applies them."""
    warpers = [TemperatureLogitsWarper(sampling.temperature)]
    warpers += [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    warpers += [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    for warper in warpers:
        raw = warper(None, raw)
    return raw.softmax(-1)


samplings = st.builds(
    Sampling,
    temperature=st.floats(0.1, 3),
    top_k=st.sampled_from([0, 1, 2, 7, VOCABULARY, 10 * VOCABULARY]),
    top_p=st.sampled_from([1.0, 0.99, 0.8, 0.3, 0.001]),
)


@given(sampling=samplings, seed=st.integers(0, 99))
def test_the_nucleus_is_that_of_transformers(sampling: Sampling, seed: int) -> None:
    raw = logits(4, seed)
    kept = nucleus((raw / sampling.temperature).softmax(-1), sampling)
    assert torch.allclose(kept / kept.sum(-1, keepdim=True), by_transformers(raw, sampling), atol=1e-5)


@pytest.mark.parametrize("kernels", [None, find_kernels()], ids=["torch", "kernels"])
@pytest.mark.parametrize("sampling", [Sampling(temperature=0.7), Sampling(temperature=1.3, top_k=6, top_p=0.8)])
def test_evenly_spread_numbers_draw_each_token_as_often_as_is_probable(
    sampling: Sampling, kernels: Kernels | None
) -> None:
    """Exact up to one draw a token: no chance is involved."""
    draws = 20_000
    raw = logits(1)
    uniforms = (torch.arange(draws) + 0.5) / draws
    tokens = drawn(raw.repeat(draws, 1), sampling, uniforms, kernels)
    expected = by_transformers(raw, sampling)[0] * draws
    assert torch.allclose(torch.bincount(tokens, minlength=VOCABULARY).float(), expected, atol=2)


@given(sampling=samplings, seed=st.integers(0, 99), uniform=st.sampled_from([0.0, 0.5, 1 - 2**-24]))
def test_a_token_outside_the_nucleus_is_never_drawn(sampling: Sampling, seed: int, uniform: float) -> None:
    """Not even by the smallest and the largest number that the generator gives."""
    raw = logits(8, seed)
    for kernels in (None, find_kernels()):
        tokens = drawn(raw, sampling, torch.full((8,), uniform), kernels)
        assert (by_transformers(raw, sampling).gather(-1, tokens[:, None]) > 0).all()


@given(total=st.floats(2**-7, 2, width=32))
def test_the_largest_uniform_number_stays_below_any_total(total: float) -> None:
    """The draw computes total - (1 - u) * total because u * total may round up to the total."""
    u, total_ = torch.tensor(1 - 2**-24), torch.tensor(total)
    assert total_ - (1 - u) * total_ < total_


def test_greedy_takes_the_largest_and_the_first_of_equals() -> None:
    raw = logits(5)
    for kernels in (None, find_kernels()):
        assert torch.equal(most_probable(raw, kernels)[0], raw.argmax(-1))
        assert most_probable(torch.tensor([[0.0, 2.0, 2.0]]), kernels)[0].tolist() == [1]


def test_confidence_is_the_largest_softmax_probability() -> None:
    raw = torch.cat([logits(5), 100 * logits(5), torch.zeros(1, VOCABULARY)])
    for kernels in (None, find_kernels()):
        assert torch.allclose(most_probable(raw, kernels)[1], raw.softmax(-1).amax(-1), rtol=1e-5)
    assert torch.allclose(most_probable(raw.bfloat16())[1], raw.bfloat16().float().softmax(-1).amax(-1))


def test_a_requests_numbers_depend_on_its_seed_alone() -> None:
    assert torch.equal(uniforms_of(5, 30)[:7], uniforms_of(5, 7))
    assert not torch.equal(uniforms_of(5, 7), uniforms_of(6, 7))
    assert not torch.equal(uniforms_of(0, 7), uniforms_of(1, 7))
    torch.rand(3)
    assert torch.equal(uniforms_of(5, 7), uniforms_of(5, 7))
    assert uniforms_of(2**56 - 1, 100).max() < 1


@pytest.mark.parametrize("kernels", [None, find_kernels()], ids=["torch", "kernels"])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize("temperature", [1e-5, 1e-40, 1e-300])
def test_next_to_no_temperature_is_greedy(temperature: float, top_p: float, kernels: Kernels | None) -> None:
    logits = torch.tensor([[30.0, -8.0, 29.0, 0.0], [-1e4, 1.0, 2e3, 1.999e3]])
    sampling = Sampling(temperature=temperature, top_p=top_p)
    assert drawn(logits, sampling, torch.tensor([0.999, 0.0]), kernels).tolist() == [0, 2]
