"""SmolLM3: the plain pre-norm decoder; every fourth block turns no positions (``no_rope_layers``)."""

from litestage.models.families.family import Family

FAMILY = Family(
    "smollm3",
    reads=frozenset(
        {
            "hidden_act",
            "attention_bias",
            "mlp_bias",
            "no_rope_layers",
            "no_rope_layer_interval",
            "use_sliding_window",
            "sliding_window",
            "layer_types",
        }
    ),
)
