"""Phi-3: queries, keys and values are one map, and so are gate and up; part of each head may go unturned."""

from litestage.models.families.family import Family

FAMILY = Family(
    "phi3",
    reads=frozenset({"hidden_act", "sliding_window", "partial_rotary_factor", "original_max_position_embeddings"}),
    qkv=("self_attn.qkv_proj",),
    gate_up=("mlp.gate_up_proj",),
)
