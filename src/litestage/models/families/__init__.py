"""What the one decoder must know about a model family, as data: one more family is one more small file."""

from litestage.models.families import gemma2, gemma3, granite, llama, mistral, olmo2, phi3, qwen2, qwen3, smollm3
from litestage.models.families.family import Family

FAMILIES: dict[str, Family] = {
    module.FAMILY.model_type: module.FAMILY
    for module in (gemma2, gemma3, granite, llama, mistral, olmo2, phi3, qwen2, qwen3, smollm3)
}
"""By transformers' ``model_type``."""

__all__ = ["FAMILIES", "Family"]
