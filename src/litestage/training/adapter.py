"""Low-rank adapters (LoRA), through peft: new ones, and old ones that learn on."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from litestage.core.errors import ModelError, OptionError
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


def with_adapter(model: PreTrainedModel, place: str | Path) -> PreTrainedModel:
    """The model with the adapter in a folder, which alone will learn on.

    Raises `ModelError` when the adapter does not fit the model.
    """
    try:
        with warnings.catch_warnings():  # as above
            warnings.simplefilter("ignore", FutureWarning)
            adapted: PreTrainedModel = PeftModel.from_pretrained(model, str(place), is_trainable=True)
    except (ValueError, RuntimeError, OSError, KeyError) as error:
        raise ModelError(
            f"The adapter in {place} could not be put on {model.name_or_path}: {str(error).splitlines()[0]} "
            "Give the folder of an adapter that was trained on this model."
        ) from None
    return adapted
