"""Phi-3: queries, keys and values are one map, and so are gate and up; part of each head may go unturned."""

from litestage.models.families.family import Family

FAMILY = Family("phi3", qkv=("self_attn.qkv_proj",), gate_up=("mlp.gate_up_proj",))
