"""Llama: the plain pre-norm decoder."""

from litestage.models.families.family import Family

FAMILY = Family("llama", reads=frozenset({"hidden_act", "attention_bias", "mlp_bias"}))
