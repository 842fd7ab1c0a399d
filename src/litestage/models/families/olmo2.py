"""OLMo 2: norms come after each body, and queries and keys are normalised over all heads together.

A sub-layer is body and norm: its input is the residual stream as it is, and what the norm makes of the body's output is
added. Skipping it leaves out both.
"""

from litestage.models.families.family import Family

FAMILY = Family(
    "olmo2",
    reads=frozenset({"hidden_act", "attention_bias"}),
    attention_norm=None,
    attention_post_norm="post_attention_layernorm",
    query_norm="self_attn.q_norm",
    key_norm="self_attn.k_norm",
    ffn_norm=None,
    ffn_post_norm="post_feedforward_layernorm",
)
