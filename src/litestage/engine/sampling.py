"""Choosing the next token, and how sure the model is of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from litestage.core import Sampling
from litestage.kernels import Kernels, inverted

COLDEST = 1e-30
"""Lower temperatures draw as it does: a float has no room for what they would make of logits."""


def most_probable(
    logits: Float[Tensor, "B V"], kernels: Kernels | None = None
) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    """Each row's most probable token of the raw logits, and how probable: the confidence (the paper, section 4.4)."""
    if kernels is not None:
        return kernels.most_probable(logits)
    return logits.argmax(-1), logits.float().softmax(-1).amax(-1)


def decide(
    logits: Float[Tensor, "B V"],
    sampling: Sampling,
    uniforms: Float[Tensor, " B"] | None = None,
    kernels: Kernels | None = None,
) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    """Each row's next token and its confidence; without ``uniforms`` the most probable one."""
    tokens, confidences = most_probable(logits, kernels)
    return tokens if uniforms is None else drawn(logits, sampling, uniforms, kernels), confidences


def decide_each(
    logits: Float[Tensor, "B V"],
    samplings: Sequence[Sampling],
    uniforms: Float[Tensor, " B"],
    kernels: Kernels | None = None,
) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    """As `decide`, for rows that are sampled in different ways."""
    tokens, confidences = most_probable(logits, kernels)
    for sampling in set(samplings):
        if not sampling.is_greedy:
            at = torch.tensor([i for i, one in enumerate(samplings) if one == sampling], device=logits.device)
            tokens[at] = drawn(logits[at], sampling, uniforms[at], kernels)
    return tokens, confidences


def drawn(
    logits: Float[Tensor, "B V"],
    sampling: Sampling,
    uniforms: Float[Tensor, " B"],
    kernels: Kernels | None = None,
) -> Int[Tensor, " B"]:
    """A draw for each row, at ``uniforms`` in [0, 1)."""
    temperature = max(sampling.temperature, COLDEST)
    if kernels is not None and sampling.keeps_all:
        return kernels.draw(logits, temperature, uniforms)
    below = logits.float() - logits.float().amax(-1, keepdim=True)  # before it is divided: then nothing is infinite
    return inverted(nucleus((below / temperature).softmax(-1), sampling), uniforms)


def nucleus(probabilities: Float[Tensor, "B V"], sampling: Sampling) -> Float[Tensor, "B V"]:
    """Zero what top-k, and then top-p of the rest, leave out."""
    if sampling.keeps_all:
        return probabilities
    vocabulary = probabilities.shape[-1]
    largest, order = probabilities.topk(min(sampling.top_k or vocabulary, vocabulary))
    before = largest.cumsum(-1) - largest
    kept = largest.masked_fill(before >= sampling.top_p * largest.sum(-1, keepdim=True), 0)
    return torch.zeros_like(probabilities).scatter(-1, order, kept)


def uniforms_of(seed: int, count: int) -> Float[Tensor, " N"]:
    """A request's own random numbers, one a token: no other row can shift them."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))
