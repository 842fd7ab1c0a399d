"""Gemma 3, text: as Gemma 2 without squeezing, with norms on query and key heads; blocks with a window turn positions
by tables of their own. Its sub-layers are Gemma 2's."""

from litestage.models.families.family import Family
from litestage.models.families.gemma2 import READS

FAMILY = Family(
    "gemma3_text",
    reads=READS - {"attn_logit_softcapping"} | {"sliding_window_pattern", "rope_local_base_freq"},
    attention_post_norm="post_attention_layernorm",
    query_norm="self_attn.q_norm",
    key_norm="self_attn.k_norm",
    ffn_norm="pre_feedforward_layernorm",
    ffn_post_norm="post_feedforward_layernorm",
    norm_offset=1.0,
    scales_embedding=True,
)
