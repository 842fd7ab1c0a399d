"""Models: loading, families as data, and the one decoder."""

from litestage.models.cache import Cache
from litestage.models.decoder import FULL, Affine, Decoder, Skips
from litestage.models.load import LoadedModel, from_transformers, load_model, load_transformers, pick_device

__all__ = [
    "FULL",
    "Affine",
    "Cache",
    "Decoder",
    "LoadedModel",
    "Skips",
    "from_transformers",
    "load_model",
    "load_transformers",
    "pick_device",
]
