"""Qwen3: queries and keys are normalised head by head."""

from litestage.models.families.family import Family

FAMILY = Family("qwen3", query_norm="self_attn.q_norm", key_norm="self_attn.k_norm")
