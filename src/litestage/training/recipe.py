"""Recipes: what training needs to know, as data that a person writes in TOML."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from litestage.core.complaints import problem, toml_problem
from litestage.core.errors import OptionError
from litestage.core.layers import Record

RECIPES = resources.files("litestage.training") / "recipes"


class _Part(Record):
    model_config = ConfigDict(allow_inf_nan=False)


class TokenizerRecipe(_Part):
    """A byte-level BPE, learnt from the task's own prompts and targets."""

    vocab_size: int = Field(ge=257)
    """Tokens in all: 256 bytes, the end of text, and merges."""


class ModelRecipe(_Part):
    """The shape of a new model, in the words of its transformers configuration."""

    model_type: Literal["llama", "mistral", "qwen2", "qwen3"] = "llama"
    hidden_size: int = Field(ge=1)
    num_hidden_layers: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    num_attention_heads: int = Field(ge=1)
    num_key_value_heads: int = Field(ge=1)
    max_position_embeddings: int = Field(ge=1)
    tie_word_embeddings: bool = True
    initializer_range: float = Field(default=0.02, gt=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelRecipe:
        if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                "num_attention_heads must divide hidden_size, and num_key_value_heads must divide num_attention_heads"
            )
        return self


class LoraRecipe(_Part):
    """An adapter: what peft puts beside which linear maps."""

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    """The adapter's output is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the linear maps; all but the output head without."""


class TrainingRecipe(_Part):
    """How long, how fast and in which order to learn (docs/finetune.md)."""

    epochs: Annotated[float, Field(gt=0, le=1e6)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps; give this or ``epochs``."""
    stop_after: Annotated[int, Field(ge=1)] | None = None
    """Stop at this step, on the learning rate of a longer run; None goes to the end."""
    batch_size: int = Field(default=16, ge=1)
    """Questions a step (packed), or prompts a step (cycles)."""
    order: Literal["packed", "cycles"] = "packed"
    interval: int = Field(default=100, ge=1)
    """Steps a stage gets before the next stage's turn (cycles)."""
    every: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Stages, by name, that only each Nth step teaches (packed): time for those that are harder to learn."""
    branches: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Stages, by name, of whose branches each step draws so many a question (packed): they teach much the same."""
    learning_rate: float = Field(default=5e-5, gt=0)
    optimizer: Literal["adamw", "muon"] = "adamw"
    """``muon`` orthogonalises the update of every hidden matrix and leaves the rest to AdamW."""
    warmup: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps in which the learning rate rises; afterwards it falls along a cosine to 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    beta2: float = Field(default=0.99, gt=0, lt=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Autocast type of the forward pass, where the device multiplies in it; the weights that learn stay float32."""
    save_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    seed: int = Field(default=0, ge=0, lt=2**63)
    validate_every: Annotated[int, Field(ge=1)] | None = None
    """Steps between generated validations; None validates at the end alone."""

    @model_validator(mode="after")
    def _one_length(self) -> TrainingRecipe:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        return self


class Recipe(Record):
    """A training, and what it trains: a model from scratch (tokenizer, shape), an adapter, or all weights."""

    tokenizer: TokenizerRecipe | None = None
    model: ModelRecipe | None = None
    lora: LoraRecipe | None = None
    training: TrainingRecipe

    @model_validator(mode="after")
    def _one_thing(self) -> Recipe:
        if (self.tokenizer is None) != (self.model is None):
            raise ValueError("a model from scratch needs both [tokenizer] and [model]")
        if self.lora is not None and self.training.optimizer == "muon":
            raise ValueError('optimizer = "muon" is for whole matrices, and [lora] has none: take "adamw"')
        if self.model is not None and self.lora is not None:
            raise ValueError("[lora] trains an adapter for a model that exists: leave out [tokenizer] and [model]")
        return self

    @property
    def from_scratch(self) -> bool:
        return self.model is not None


FIELDS = {
    "": tuple(Recipe.model_fields),
    "tokenizer": tuple(TokenizerRecipe.model_fields),
    "model": tuple(ModelRecipe.model_fields),
    "lora": tuple(LoraRecipe.model_fields),
    "training": tuple(TrainingRecipe.model_fields),
}


def load_recipe(name: str | Path) -> Recipe:
    """Read a recipe by short name (``everyday``) or path; raises `OptionError` that names file and field."""
    path = Path(name)
    try:
        named = RECIPES / f"{name}.toml"
        text = (named if named.is_file() else path).read_text("utf-8-sig")
        content = tomllib.loads(text)
        lora = content.get("lora")
        if isinstance(lora, dict) and isinstance(lora.get("modules"), list):  # strict: no list for a tuple
            lora["modules"] = tuple(lora["modules"])
        return Recipe.model_validate(content, strict=True)
    except OSError as error:
        raise OptionError(
            f"No recipe at {path} ({error.strerror}). Give a TOML file or one of: {', '.join(recipe_names())}."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise OptionError(
            f"{path} is not TOML: {toml_problem(error, text)}, so no recipe can be read from it."
        ) from None
    except ValidationError as error:
        raise OptionError(f"{path} cannot be used as a recipe: {problem(error, content, FIELDS)}.") from None


def recipe_names() -> list[str]:
    return sorted(file.name.removesuffix(".toml") for file in RECIPES.iterdir() if file.name.endswith(".toml"))
