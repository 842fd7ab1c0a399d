from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from litestage.core import OptionError
from litestage.training import load_recipe, recipe_names
from litestage.training.initialise import new_model
from litestage.training.optimise import learning_rate, make_optimizers
from litestage.training.recipe import ModelRecipe, TrainingRecipe

RECIPE = """
[tokenizer]
vocab_size = 300
[model]
hidden_size = 32
num_hidden_layers = 2
intermediate_size = 48
num_attention_heads = 4
num_key_value_heads = 2
max_position_embeddings = 128
[training]
steps = 5
"""


def test_the_embedded_recipe_makes_a_small_deep_model(tokenizer) -> None:
    assert "everyday" in recipe_names()
    recipe = load_recipe("everyday")
    assert 12 <= recipe.model.num_hidden_layers <= 24
    model = new_model(recipe.model, tokenizer, seed=0)
    grown = recipe.model.hidden_size * (recipe.tokenizer.vocab_size - len(tokenizer))
    assert 2 * (sum(weight.numel() for weight in model.parameters()) + grown) < 15e6


def test_a_recipe_of_ones_own_is_read_by_path(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "mine.toml")
    assert (recipe.tokenizer.vocab_size, recipe.model.model_type, recipe.training.steps) == (300, "llama", 5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            ("steps = 5", "steps = 5\nlearning_rat = 1"),
            r"training.learning_rat is not a field there. Did you mean learning_rate",
        ),
        (("steps = 5", "steps = 5\nepochs = 2"), r"training: give either epochs or steps"),
        (("steps = 5", ""), r"training: give either epochs or steps"),
        (
            ("num_key_value_heads = 2", "num_key_value_heads = 3"),
            r"model: num_attention_heads must divide hidden_size, and num_key_value_heads must divide",
        ),
        (("hidden_size = 32", 'hidden_size = "wide"'), r"model.hidden_size should be a whole number, but is 'wide'"),
        (
            ("vocab_size = 300", "vocab_size = 12"),
            r"tokenizer.vocab_size should be greater than or equal to 257, but is 12",
        ),
        (("vocab_size = 300", 'vocab_size = "300"'), r"tokenizer.vocab_size should be a whole number, but is '300'"),
        (("[model]", "lora = 3\n[model]"), r"tokenizer.lora is not a field there"),
        (
            ("steps = 5", "steps = 5\nlearning_rate = inf"),
            r"training.learning_rate should be a finite number, but is inf",
        ),
        (("steps = 5", "epochs = inf"), r"training.epochs should be a finite number, but is inf"),
        (("steps = 5", f"steps = 5\nseed = {10**20}"), r"training.seed should be less than 9223372036854775808"),
        (("[model]", "[model"), r"is not TOML: .* line \d+"),
        (("steps = 5", "steps = ["), r"is not TOML: Invalid value \(at line \d+, the end of the file\)"),
    ],
)
def test_a_recipe_that_cannot_be_used_names_file_and_field(change, says, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE.replace(*change))
    with pytest.raises(OptionError, match=says) as error:
        load_recipe(path)
    assert str(path) in str(error.value)


def test_a_recipe_whose_parts_do_not_go_together_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for content, says in (
        ('[lora]\n[training]\nsteps = 5\noptimizer = "muon"', "is for whole matrices, and .lora. has none"),
        ("lora = 3\n[training]\nsteps = 5", "lora should be a table of fields, but is 3"),
    ):
        path.write_text(content)
        with pytest.raises(OptionError, match=says):
            load_recipe(path)


def test_a_missing_recipe_names_those_at_hand(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"No recipe at .*nowhere.toml .*everyday"):
        load_recipe(tmp_path / "nowhere.toml")


def test_learning_rate_rises_for_a_tenth_and_falls_along_a_cosine() -> None:
    recipe = TrainingRecipe(steps=100, learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(recipe, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))


@given(st.integers(1, 300), st.floats(0, 1))
def test_learning_rate_stays_within_its_peak(steps: int, warmup: float) -> None:
    recipe = TrainingRecipe(steps=steps, learning_rate=2.0, warmup=warmup)
    assert all(0 < learning_rate(recipe, step, steps) <= 2.0 for step in range(steps))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_weight_that_learns_has_one_optimizer(optimizer, tiny: ModelRecipe, tokenizer) -> None:
    model = new_model(tiny, tokenizer, seed=0)
    frozen = model.get_input_embeddings().weight.requires_grad_(False)
    optimizers = make_optimizers(model, TrainingRecipe(steps=1, optimizer=optimizer))
    held = [weight for o in optimizers for group in o.param_groups for weight in group["params"]]
    assert {id(w) for w in held} == {id(w) for w in model.parameters()} - {id(frozen)}
    assert len(held) == len({id(w) for w in held})
    muon = [w for o in optimizers if isinstance(o, torch.optim.Muon) for g in o.param_groups for w in g["params"]]
    assert len(muon) == (14 if optimizer == "muon" else 0)  # seven matrices a block


def test_the_recipe_for_fragility_changes_the_architecture_alone() -> None:
    llama, qwen2 = load_recipe("everyday"), load_recipe("everyday-qwen2")
    assert qwen2.model == llama.model.model_copy(update={"model_type": "qwen2"})
    assert (qwen2.tokenizer, qwen2.training) == (llama.tokenizer, llama.training)
