"""Qwen2: the plain pre-norm decoder, with biases on query, key and value."""

from litestage.models.families.family import Family

FAMILY = Family("qwen2")
