"""Gemma 2: a norm before and one after each body; scores and logits are squeezed; every other block has a window.

A sub-layer is norm, body and second norm: what the second norm makes of the body's output is added to the residual
stream. Skipping it leaves out all three.
"""

from litestage.models.families.family import Family

READS = frozenset(
    {
        "hidden_activation",
        "attention_bias",
        "query_pre_attn_scalar",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "sliding_window",
        "layer_types",
    }
)

FAMILY = Family(
    "gemma2",
    reads=READS,
    attention_post_norm="post_attention_layernorm",
    ffn_norm="pre_feedforward_layernorm",
    ffn_post_norm="post_feedforward_layernorm",
    norm_offset=1.0,
    scales_embedding=True,
)
