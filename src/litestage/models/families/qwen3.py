"""Qwen3: queries and keys are normalised head by head."""

from litestage.models.families.family import Family
from litestage.models.families.qwen2 import WINDOW

FAMILY = Family(
    "qwen3",
    reads=WINDOW | {"hidden_act", "attention_bias"},
    query_norm="self_attn.q_norm",
    key_norm="self_attn.k_norm",
)
