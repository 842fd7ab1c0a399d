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
    reads: frozenset[str] = frozenset()
    """Keys of ``config.json`` that transformers' implementation reads, beside those that all families read."""
    attention_norm: str | None = "input_layernorm"
    attention_post_norm: str | None = None
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    """Three maps, or one that holds all."""
    output: str = "self_attn.o_proj"
    query_norm: str | None = None
    """RMS norm over each query head, or over all together, before the rotation."""
    key_norm: str | None = None
    ffn_norm: str | None = "post_attention_layernorm"
    ffn_post_norm: str | None = None
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    """Two maps, or one that holds both."""
    down: str = "mlp.down_proj"
    norm_offset: float = 0.0
    """What is added to every norm's weight."""
    scales_embedding: bool = False
    """Whether embeddings are multiplied by the square root of their width."""
