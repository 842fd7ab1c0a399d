"""How files of each architecture are read, as data: one more architecture or key is a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a file of one ``general.architecture`` leaves unsaid, and what it says beyond `SIZES`.

    Names of tensors are those of the gguf package for the architecture; where a family has its norms and constants is
    in `families`.
    """

    model_type: str
    """Of the transformers model that is built."""
    interleaved: bool = False
    """Rows of query and key heads stand in pairs that are turned together, not half a head apart."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """Keys of numbers that the family multiplies with or squeezes by, and their names in the config."""
    assumed: Mapping[str, Any] = field(default_factory=dict)
    """Of the config, where the file does not say otherwise."""
    required: tuple[str, ...] = ()
    """Constants that must be in the file: programs disagree on what stands in for them."""
    window_type: str | None = None
    """The ``model_type`` of a file with ``attention.sliding_window``; None refuses such a file."""
    window_pattern: int | None = None
    """Every so manyth block sees all, the others through the window; None is a window for all."""
    local_base: float | None = None
    """The base of rotation in blocks with a window, which are not scaled."""
    wide_at: int | None = None
    """With so many blocks scores are divided by the width per head, not by the head's size (Gemma's largest)."""
    scales_scores: bool = False
    """Whether ``query_pre_attn_scalar`` stands in the config, and not in the file."""
    rope_factors: tuple[str, ...] = ()
    """Tensors by which single frequencies are divided."""
    partial_rotary: bool = False
    """Whether a part of each head may go unturned."""
    strips_right: bool = False
    """Special tokens of a SentencePiece vocabulary take in the white space behind them (Phi-3)."""


FREQUENCIES, SHORT, LONG = "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"

ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture("llama", interleaved=True, window_type="mistral", rope_factors=(FREQUENCIES, SHORT, LONG)),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "smollm3": Architecture("smollm3", interleaved=True, rope_factors=(FREQUENCIES,)),
    "granite": Architecture(
        "granite",
        interleaved=True,
        constants={
            "embedding_scale": "embedding_multiplier",
            "residual_scale": "residual_multiplier",
            "attention.scale": "attention_multiplier",
            "logit_scale": "logits_scaling",
        },
        required=("attention.scale", "logit_scale"),
        rope_factors=(FREQUENCIES, SHORT, LONG),
    ),
    "phi3": Architecture(
        "phi3", window_type="phi3", rope_factors=(SHORT, LONG), partial_rotary=True, strips_right=True
    ),
    "olmo2": Architecture("olmo2"),
    "gemma2": Architecture(
        "gemma2",
        constants={
            "attn_logit_softcapping": "attn_logit_softcapping",
            "final_logit_softcapping": "final_logit_softcapping",
        },
        window_type="gemma2",
        window_pattern=2,
        scales_scores=True,
        wide_at=46,
    ),
    "gemma3": Architecture(
        "gemma3_text",
        constants={"final_logit_softcapping": "final_logit_softcapping"},
        window_type="gemma3_text",
        window_pattern=6,
        local_base=10000.0,
        scales_scores=True,
        wide_at=62,
    ),
}
"""By ``general.architecture``. Mistral's files are ``llama``; with a window they are read as Mistral's."""

SIZES = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
"""Keys that every architecture needs, and their names in the config."""


@dataclass(frozen=True, slots=True)
class Neutral:
    """A key that is read by no family here, and the values at which it changes nothing."""

    values: tuple[Any, ...]
    otherwise: str
    """What a file with another value is."""


NONE = (0, 0.0, None)
NEUTRAL: dict[str, Neutral] = {
    "attention.causal": Neutral((True,), "its tokens see those after them, as in an embedding model."),
    "attention.clamp_kqv": Neutral(NONE, "queries, keys and values are cut off at a bound."),
    "attention.max_alibi_bias": Neutral(NONE, "scores fall with distance (ALiBi)."),
    "attention.shared_kv_layers": Neutral(NONE, "layers share keys and values."),
    "attention.sliding_window": Neutral(NONE, "which of its blocks have a sliding window is not known."),
    "attn_logit_softcapping": Neutral(NONE, "its scores are squeezed."),
    "embedding_scale": Neutral((*NONE, 1.0), "its embeddings are scaled."),
    "expert_count": Neutral(NONE, "it is a mixture of experts, whose FFNs differ from token to token."),
    "expert_used_count": Neutral(NONE, "it is a mixture of experts, whose FFNs differ from token to token."),
    "final_logit_softcapping": Neutral(NONE, "its logits are squeezed."),
    "logit_scale": Neutral((*NONE, 1.0), "its logits are scaled."),
    "nextn_predict_layers": Neutral(NONE, "it has layers that guess later tokens."),
    "pooling_type": Neutral(NONE, "it makes one embedding of a text, and no next token."),
    "residual_scale": Neutral((*NONE, 1.0), "what its sub-layers add is scaled."),
    "rope.dimension_sections": Neutral(NONE, "positions have several coordinates (mrope), for images."),
    "rope.scaling.yarn_log_multiplier": Neutral(NONE, "its attention is scaled in DeepSeek's way."),
    "tensor_data_layout": Neutral(("Meta AI original pth",), "its weights lie in an order that is not known."),
    "use_parallel_residual": Neutral((False,), "attention and FFN of a block see the same input."),
}
"""Keys of an architecture; a list counts as its elements."""

DESCRIPTIVE = (
    r"general\.(name|author|version|organization|finetune|basename|description|quantized_by|size_label|tags|languages"
    r"|license|license\.(name|link)|url|doi|uuid|repo_url|datasets|parameter_count|source\..+|dataset\..+"
    r"|base_model\..+)",
    "says where the model comes from",
)
HARMLESS: tuple[tuple[str, str], ...] = (
    DESCRIPTIVE,
    (r"general\.file_type", "each tensor says its own type"),
    (r"general\.quantization_version", "the version of the packing, which the gguf package unpacks"),
    (r"general\.sampling\..+", "a suggestion for sampling; tasks and commands say their own"),
    (r"quantize\.imatrix\..+", "says how the weights were rounded"),
)
"""Patterns of keys of any file that change no text, and why."""
HARMLESS_TENSORS: tuple[tuple[str, str], ...] = (
    (r"blk\.\d+\.attn_rot_embd(\.weight)?", "frequencies, which follow from rope.freq_base"),
)
MEANINGS: tuple[tuple[str, str], ...] = (
    (r".*_exps?\..*|.*_shexp\..*|.*ffn_gate_inp.*|.*exp_probs_b.*", "belongs to a mixture of experts."),
    (r"blk\.\d+\.attn_qkv\..*", "is queries, keys and values in one, which this family's files keep apart."),
    (r"blk\.\d+\.(attn_[qkv]|ffn_gate)\.weight", "is kept in one tensor with others by this family's files."),
    (r".*\.lora_[ab]", "is half of an adapter's map; convert the adapter to a PEFT folder and give it as --adapter."),
    (r".*[._](scale|input_scale)(\.weight)?", "multiplies a weight that is stored in a way that is not supported."),
    (r".*_norm\.(weight|bias)", "is a norm that this family does not have."),
    (r".*\.bias", "is a bias that this family does not have."),
    (r"(v|mm|a)\..*", "belongs to an encoder of images or sound."),
    (r"cls.*", "makes labels of texts."),
    (r"rope_.*", "changes how positions are turned, in a way that this family does not know."),
    (r".*attn_sinks.*", "takes part of each attention away."),
)
"""What tensors are that no family here has a place for."""
