"""Low-rank adapters (LoRA), through peft."""

from __future__ import annotations

import warnings

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from litestage.core.errors import OptionError
from litestage.training.recipe import LoraRecipe


def with_lora(model: PreTrainedModel, recipe: LoraRecipe, seed: int) -> PreTrainedModel:
    """The model with new adapters, which alone will learn; fixed by the seed.

    Raises `OptionError` when the recipe names modules that the model does not have.
    """
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules="all-linear" if recipe.modules == "all-linear" else list(recipe.modules),
        task_type="CAUSAL_LM",
        base_model_name_or_path=model.name_or_path,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            with warnings.catch_warnings():  # peft asks transformers under an old name
                warnings.simplefilter("ignore", FutureWarning)
                adapted: PreTrainedModel = get_peft_model(model, config)
        except ValueError as error:
            raise OptionError(f"The recipe's adapter does not fit {model.name_or_path}: {error}") from None
    return adapted
