"""Stand-ins against direct regressions, and what shrinkage does when there are few tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from litestage.models.decoder import Affine
from litestage.skipping.moments import Moments

D = 12


def data(tokens: int, noise: float, seed: int = 0, rank: int = 2) -> tuple[Tensor, Tensor]:
    """x, and f = a map of low rank, a slope a channel, a constant, and noise."""
    g = torch.Generator().manual_seed(seed)
    maps = torch.Generator().manual_seed(99)
    x = torch.randn(tokens, D, generator=g, dtype=torch.float64) * torch.linspace(0.5, 2, D) + 1
    low = torch.randn(D, rank, generator=maps, dtype=torch.float64) @ torch.randn(rank, D, generator=maps).double()
    slope = torch.randn(D, generator=maps, dtype=torch.float64)
    f = 0.2 * x @ low + 0.3 * slope * x + 0.7 + noise * torch.randn(tokens, D, generator=g, dtype=torch.float64)
    return x, f


def seen(x: Tensor, f: Tensor, products: bool = True) -> Moments:
    moments = Moments(D, x.device, products)
    for start in range(0, len(x), 7):
        moments.add(x[start : start + 7], f[start : start + 7])
    return moments


def error(stand: Affine, x: Tensor, f: Tensor) -> float:
    return float((stand(x) - (x + f)).square().mean())


def test_sums_for_a_device_without_double_are_taken_on_the_processor() -> None:
    x, f = (part.float() for part in data(20, noise=1.0))
    here, apple = seen(x, f), Moments(D, torch.device("mps"), products=True)
    for start in range(0, len(x), 7):
        apple.add(x[start : start + 7], f[start : start + 7])
    assert apple.x.device.type == "cpu"
    for part in ("x", "f", "xx", "xf", "ff", "products"):
        assert torch.equal(getattr(apple, part), getattr(here, part))


def test_many_tokens_give_the_plain_regressions() -> None:
    x, f = data(4000, noise=0.05)
    moments = seen(x, f)
    assert moments.mean().shift == pytest.approx(f.mean(0), rel=1e-3)
    affine = moments.affine()
    for channel in range(D):
        columns = torch.stack([x[:, channel], torch.ones(len(x)).double()], 1)
        slope, shift = torch.linalg.lstsq(columns, f[:, channel]).solution
        assert affine.scale is not None
        assert affine.shift is not None
        assert float(affine.scale[channel]) - 1 == pytest.approx(float(slope), abs=5e-3)
        assert float(affine.shift[channel]) == pytest.approx(float(shift), abs=1e-2)


def test_full_rank_is_the_ridge_regression_and_less_rank_its_best_part() -> None:
    x, f = data(4000, noise=0.05)
    moments = seen(x, f)
    columns = torch.cat([x, torch.ones(len(x), 1).double()], 1)
    best = float((columns @ torch.linalg.lstsq(columns, f).solution - f).square().mean())
    errors = [error(moments.low_rank(rank), x, f) for rank in (1, 4, 8, D)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == pytest.approx(best, rel=0.02)
    fitted = (moments.low_rank(D)(x) - x).detach()
    centred = fitted - fitted.mean(0)
    left = torch.linalg.svdvals(centred)[4:].square().sum() / centred.numel()
    assert errors[1] == pytest.approx(best + float(left), rel=0.02), "the rest of the singular values is what is lost"


@pytest.mark.parametrize("solve", [Moments.mean, Moments.affine, lambda moments: moments.low_rank(4)])
@pytest.mark.parametrize("tokens", [1, 2, 3, 6, 20])
def test_few_tokens_of_pure_noise_do_no_harm(solve, tokens: int) -> None:
    """Where there is nothing to learn, a stand-in must not be much worse than nothing."""
    harm = []
    for seed in range(40):
        g = torch.Generator().manual_seed(seed)
        x, f = (torch.randn(tokens, D, generator=g, dtype=torch.float64) for _ in range(2))
        new, added = (torch.randn(500, D, generator=g, dtype=torch.float64) for _ in range(2))
        harm.append(error(solve(seen(x, f)), new, added) / error(Affine(), new, added))
    assert sum(harm) / len(harm) < 1.12


def test_shrinkage_beats_plain_least_squares_on_few_tokens() -> None:
    gains = []
    for seed in range(30):
        x, f = data(6, noise=3.0, seed=seed)
        new, added = data(500, noise=0, seed=seed + 1000)
        mean = f.mean(0)
        slope = ((x - x.mean(0)) * (f - mean)).mean(0) / (x - x.mean(0)).square().mean(0)
        plain = Affine(scale=1 + slope, shift=mean - slope * x.mean(0))
        gains.append(error(seen(x, f).affine(), new, added) / error(plain, new, added))
    assert sum(gains) / len(gains) < 0.9


@pytest.mark.parametrize("first", ["scale", "shift", "both", "rank", "all"])
@pytest.mark.parametrize("second", ["scale", "shift", "both", "rank", "all"])
def test_a_run_of_stand_ins_folds_into_one(first: str, second: str) -> None:
    g = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def make(kind: str, rank: int) -> Affine:
        return Affine(
            scale=draw(D) if kind in ("scale", "both", "all") else None,
            shift=draw(D) if kind in ("shift", "both", "all") else None,
            down=draw(rank, D) if kind in ("rank", "all") else None,
            up=draw(D, rank) if kind in ("rank", "all") else None,
        )

    a, b, x = make(first, 2), make(second, 3), torch.randn(2, 5, D, generator=g, dtype=torch.float64)
    folded = a.then(b)
    torch.testing.assert_close(folded(x), b(a(x)))
    assert folded.down is None or len(folded.down) <= 5
    assert (folded.scale is None) == (a.scale is None and b.scale is None)
