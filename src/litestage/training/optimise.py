"""Optimisers and the learning rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from litestage.training.recipe import TrainingRecipe


def make_optimizers(model: nn.Module, recipe: TrainingRecipe) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the hidden matrices and AdamW for the rest; only matrices decay."""
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    by_muon = {n for n, w in weights.items() if recipe.optimizer == "muon" and w.ndim == 2 and ".layers." in n}
    decayed = [w for n, w in weights.items() if n not in by_muon and w.ndim >= 2]
    plain = [w for n, w in weights.items() if n not in by_muon and w.ndim < 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    fused = all(weight.is_floating_point() for weight in weights.values())
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, recipe.beta2), fused=fused)
    ]
    if by_muon:
        kind = torch.optim.Muon if multiplies_bf16(next(model.parameters()).device) else PreciseMuon
        optimizers.append(
            kind(
                [weights[name] for name in weights if name in by_muon],
                lr=recipe.learning_rate,
                weight_decay=recipe.weight_decay,
                adjust_lr_fn="match_rms_adamw",  # one learning rate then suits both
            )
        )
    return optimizers


class PreciseMuon(torch.optim.Muon):
    """torch's Muon with its products in fp32; torch's own are in bf16, ten times as slow where that is emulated."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, momentum = self.state[weight], group["momentum"]
        average = state.setdefault("momentum_buffer", torch.zeros_like(gradient)).lerp_(gradient, 1 - momentum)
        direction = orthogonal(gradient.lerp(average, momentum), group["ns_coefficients"], group["ns_steps"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(direction, alpha=-group["lr"] * 0.2 * math.sqrt(max(weight.shape)))  # as AdamW's updates are large


def orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], steps: int) -> Tensor:
    """Nearly the closest matrix whose singular values are all 1, by Newton and Schulz's iteration (K. Jordan, Muon)."""
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def multiplies_bf16(device: torch.device) -> bool:
    """Whether bf16 products are worth it there: a processor without instructions for them takes 16 times as long."""
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def learning_rate(recipe: TrainingRecipe, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine that would reach 0 right after the last step."""
    warmup = round(recipe.warmup * steps)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
