"""Fine-tuning and training from scratch: one loop, the same renderers as inference."""

from litestage.training.initialise import initialise
from litestage.training.loop import Progress, TrainingReport, finetune
from litestage.training.recipe import Recipe, TrainingRecipe, load_recipe, recipe_names

__all__ = [
    "Progress",
    "Recipe",
    "TrainingRecipe",
    "TrainingReport",
    "finetune",
    "initialise",
    "load_recipe",
    "recipe_names",
]
