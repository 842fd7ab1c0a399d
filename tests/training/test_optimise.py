"""Muon in fp32 goes where torch's goes, as far as torch's bf16 lets it be seen."""

from __future__ import annotations

import pytest
import torch

from litestage.training.optimise import PreciseMuon, orthogonal

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16)])
def test_muon_in_fp32_takes_torchs_steps(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), [torch.randn(shape) for _ in range(5)]
    ends = []
    for kind in (torch.optim.Muon, PreciseMuon):
        weight = torch.nn.Parameter(start.clone())
        optimizer = kind([weight], lr=0.1, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        ends.append(weight.detach() - start)
    assert torch.nn.functional.cosine_similarity(ends[0].flatten(), ends[1].flatten(), dim=0) > 0.999
    assert (ends[0] - ends[1]).norm() < 0.02 * ends[0].norm()


@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16)])
def test_what_is_orthogonal_keeps_its_directions_and_loses_its_lengths(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(matrix := torch.randn(shape), full_matrices=False)
    lengths = left.T @ orthogonal(matrix, COEFFICIENTS, 5) @ right.T
    assert (lengths - torch.diag(lengths.diag())).abs().max() < 1e-4
    assert lengths.diag().min() > 0
    assert lengths.diag().max() < 1.5
