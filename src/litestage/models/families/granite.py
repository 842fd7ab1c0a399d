"""Granite: the plain pre-norm decoder with constants on embeddings, scores, logits and on what sub-layers add.

A sub-layer is norm, body and ``residual_multiplier``: skipping it adds nothing.
"""

from litestage.models.families.family import Family

FAMILY = Family(
    "granite",
    reads=frozenset(
        {
            "hidden_act",
            "attention_bias",
            "mlp_bias",
            "embedding_multiplier",
            "attention_multiplier",
            "residual_multiplier",
            "logits_scaling",
        }
    ),
)
