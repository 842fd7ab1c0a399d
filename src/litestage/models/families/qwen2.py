"""Qwen2: the plain pre-norm decoder, with biases on query, key and value."""

from litestage.models.families.family import Family

WINDOW = frozenset({"use_sliding_window", "sliding_window", "max_window_layers", "layer_types"})

FAMILY = Family("qwen2", reads=WINDOW | {"hidden_act"})
