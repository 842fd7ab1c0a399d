"""Plans for models that live in transformers: `apply_plan` around `generate`, and folders for the hub."""

from litestage.hf.apply import apply_plan
from litestage.hf.decoding import PlanDecoding
from litestage.hf.folder import PlanFolder, load_plan

__all__ = ["PlanDecoding", "PlanFolder", "apply_plan", "load_plan"]
