"""The description of a model family."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """Where a family's weights lie inside transformers' block, and what its sub-layers do with them.

    Paths are attribute paths from the block. Biases, activation, head sizes, rotary tables and sliding windows are
    read from the weights and the config.
    """

    model_type: str
    attention_norm: str = "input_layernorm"
    query: str = "self_attn.q_proj"
    key: str = "self_attn.k_proj"
    value: str = "self_attn.v_proj"
    output: str = "self_attn.o_proj"
    query_norm: str | None = None
    """RMS norm over each query head, before the rotation."""
    key_norm: str | None = None
    ffn_norm: str = "post_attention_layernorm"
    gate: str = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    down: str = "mlp.down_proj"
