"""Moments of what a sub-layer reads and adds, and the stand-ins that follow from them, shrunk by their own error."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from litestage.models.decoder import Affine

RIDGES = tuple(10.0**power for power in range(-5, 3))
"""Ridge penalties tried, in units of the mean variance of a channel."""
TINY = torch.finfo(torch.float64).tiny


class Moments:
    """Sums over tokens of the residual stream x [N, D] and of what a sub-layer adds to it f [N, D], in double.

    They lie on ``device``, or on the processor for Apple's GPUs, which have no double. Cross products of channels
    ([D, D], for `low_rank`) are kept only when asked for.
    """

    def __init__(self, width: int, device: torch.device, products: bool = False) -> None:
        zeros = torch.zeros(width, dtype=torch.float64, device="cpu" if device.type == "mps" else device)
        self.tokens = 0
        self.x, self.f, self.xx, self.xf, self.ff = (zeros.clone() for _ in range(5))
        self.products = zeros.new_zeros(2, width, width) if products else None
        """Sums of x x' and of x f'."""

    def add(self, x: Float[Tensor, "N D"], f: Float[Tensor, "N D"]) -> None:
        x, f = (part.to(self.x.device).double() for part in (x, f))  # moved first, as what they come from has no double
        self.tokens += len(x)
        for total, term in ((self.x, x), (self.f, f), (self.xx, x * x), (self.xf, x * f), (self.ff, f * f)):
            total += term.sum(0)
        if self.products is not None:
            self.products += torch.stack([x.T @ x, x.T @ f])

    def mean(self) -> Affine:
        """The mean of f."""
        return Affine(shift=self._shift)

    def affine(self) -> Affine:
        """f = a x + b, channel by channel, by least squares."""
        variance = self._variance_x  # of a channel that hardly moved in a few tokens, little is known
        slope = self._covariance / (variance + variance.mean() / self.tokens).clamp(min=TINY)
        explained = slope * self._covariance
        residual = (self._variance_f - explained).clamp(min=0)
        slope = slope * _kept(explained.sum(), self._noise(residual.sum(), 2))
        return Affine(scale=1 + slope, shift=self._shift - slope * self.x / self.tokens)

    def low_rank(self, rank: int) -> Affine:
        """f = U V x + b: ridge regression, its penalty by generalised cross-validation, cut to ``rank``."""
        assert self.products is not None
        n, mean_x, mean_f = self.tokens, self.x / self.tokens, self.f / self.tokens
        xx = self.products[0] / n - torch.outer(mean_x, mean_x)
        xf = self.products[1] / n - torch.outer(mean_x, mean_f)
        values, vectors = torch.linalg.eigh(xx)
        values, turned = values.clamp(min=0), vectors.T @ xf
        penalty = min((ridge * values.mean() for ridge in RIDGES), key=lambda p: self._gcv(values, turned, p))
        weights = vectors @ (turned / (values + penalty).clamp(min=TINY)[:, None])  # f = weights' x
        directions = torch.linalg.eigh(weights.T @ xx @ weights)[1][:, -rank:]
        down = (weights @ directions).T
        return Affine(shift=self._shift - directions @ (down @ mean_x), down=down, up=directions)

    def _gcv(self, values: Float[Tensor, " D"], turned: Float[Tensor, "D D"], penalty: Tensor) -> float:
        """The error that a ridge penalty leaves, as generalised cross-validation estimates it for new tokens."""
        kept = values / (values + penalty).clamp(min=TINY)
        freedom = (1 + kept.sum()) / self.tokens
        if freedom >= 1:
            return float("inf")
        explained = (turned.square().sum(1) / values.clamp(min=TINY) * kept * (2 - kept)).sum()
        return float((self._variance_f.sum() - explained) / (1 - freedom) ** 2)

    def _noise(self, residual: Tensor, fitted: int) -> Tensor:
        """Of an estimate, by degrees of freedom; without one left it is infinite, whatever the residual says."""
        freedom = self.tokens - fitted
        return residual / freedom if freedom > 0 else torch.full_like(residual, float("inf"))

    @property
    def _shift(self) -> Float[Tensor, " D"]:
        mean = self.f / self.tokens
        return mean * _kept(mean.square().sum(), self._noise(self._variance_f.sum(), 1))

    @property
    def _variance_x(self) -> Float[Tensor, " D"]:
        return (self.xx / self.tokens - (self.x / self.tokens).square()).clamp(min=0)

    @property
    def _variance_f(self) -> Float[Tensor, " D"]:
        return (self.ff / self.tokens - (self.f / self.tokens).square()).clamp(min=0)

    @property
    def _covariance(self) -> Float[Tensor, " D"]:
        return self.xf / self.tokens - self.x * self.f / self.tokens**2


def _kept(signal: Tensor, noise: Tensor) -> Tensor:
    """Share of an estimate to keep, over all channels together: positive-part James-Stein."""
    return (1 - noise / signal.clamp(min=TINY)).clamp(min=0)
