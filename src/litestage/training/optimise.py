"""Optimisers and the learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn

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
        optimizers.append(
            torch.optim.Muon(
                [weights[name] for name in weights if name in by_muon],
                lr=recipe.learning_rate,
                weight_decay=recipe.weight_decay,
                adjust_lr_fn="match_rms_adamw",  # one learning rate then suits both
            )
        )
    return optimizers


def learning_rate(recipe: TrainingRecipe, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine that would reach 0 right after the last step (REFERENCE, section 5)."""
    warmup = round(recipe.warmup * steps)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
