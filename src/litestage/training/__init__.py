"""Fine-tuning and training from scratch: one loop, the same renderers as inference."""

from litestage.training.adapter import with_lora
from litestage.training.healing import Healing
from litestage.training.initialise import initialise
from litestage.training.loop import Progress, Training, TrainingReport, finetune
from litestage.training.recipe import LoraRecipe, Recipe, TrainingRecipe, load_recipe, recipe_names

__all__ = [
    "Healing",
    "LoraRecipe",
    "Progress",
    "Recipe",
    "Training",
    "TrainingRecipe",
    "TrainingReport",
    "finetune",
    "initialise",
    "load_recipe",
    "recipe_names",
    "with_lora",
]
