"""What the one decoder must know about a model family, as data: one more family is one more small file."""

from litestage.models.families import llama, mistral, qwen2, qwen3
from litestage.models.families.family import Family

FAMILIES: dict[str, Family] = {
    family.model_type: family for family in (llama.FAMILY, mistral.FAMILY, qwen2.FAMILY, qwen3.FAMILY)
}
"""By transformers' ``model_type``."""

__all__ = ["FAMILIES", "Family"]
