"""Keys of a model folder's files, beside those that single families read: used, harmless with a reason, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf, isfinite
from typing import Any, TypeVar

POSITIONS = "max_position_embeddings"
PARTIAL = "partial_rotary_factor"
"""The share of a head's dimensions that is turned."""
SIZES = frozenset(
    {
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        POSITIONS,
    }
)
"""Keys of ``config.json`` that count something."""
READ_BY_ALL = SIZES | {
    "model_type",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "eos_token_id",
}
"""Keys of ``config.json`` that every family's implementation reads."""

POSITIVE = {
    **dict.fromkeys(("query_pre_attn_scalar", "embedding_multiplier", "attention_multiplier"), False),
    **dict.fromkeys(("residual_multiplier", "logits_scaling"), False),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping", PARTIAL), True),
    "no_rope_layer_interval": True,
}
"""Constants of some families, and whether each may have no value: none of them works at 0 or below."""


BY_BLOCK = frozenset({"layer_types", "no_rope_layers"})
"""Lists with an entry for each block."""
DTYPES = ("dtype", "torch_dtype")
PLAIN_DTYPES = ("float32", "float16", "bfloat16", "float64", "auto", "None")


def is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value > 0


def is_cut_by_cache(content: Mapping[str, Any]) -> bool:
    """Whether transformers' cache lets go of what lies further back than ``sliding_window``: it goes by
    ``config.json`` alone, also in families whose attention looks at no window."""
    types, window = content.get("layer_types"), content.get("sliding_window")
    whole = window is None if types is None else set(types) <= {"full_attention"}
    longest: float = content.get(POSITIONS) or inf
    return not whole and not (is_positive(window) and (window or 0) >= longest)


_TRAINING = "it concerns training alone"
_SPEED = "it concerns speed or memory, not what is computed"
_NOTE = "it is a note of who wrote the file"
_PROMPTS = "the tokenizer says which tokens a prompt gets"
_LABELS = "it describes a classifier's labels, and language models have none"
_SHAPE_OF_OUTPUT = "it says what a call returns, not what is computed"
_UNREAD = "transformers reads it in none of the supported families"
_EXPERTS = "there are no experts to choose from"

Reason = TypeVar("Reason")


def _named(names: str, reason: Reason) -> dict[str, Reason]:
    return dict.fromkeys(names.split(), reason)


HARMLESS: dict[str, str] = {
    **_named("initializer_range attention_dropout hidden_dropout mlp_dropout", _TRAINING),
    **_named("resid_pdrop embd_pdrop attn_pdrop classifier_dropout", _TRAINING),
    **_named("gradient_checkpointing router_aux_loss_coef output_router_logits", _TRAINING),
    **_named("use_cache pretraining_tp chunk_size_feed_forward torchscript use_bfloat16", _SPEED),
    **_named("cache_implementation attn_implementation _attn_implementation use_flash_attn", _SPEED),
    **_named("_attn_implementation_autoset _attn_implementation_internal", _SPEED),
    **_named("_flash_attn_2_enabled experts_implementation _experts_implementation_internal", _SPEED),
    **_named("torch_dtype dtype", "weights are kept in the precision that is asked for"),
    **_named("transformers_version _name_or_path name_or_path _commit_hash tokenizer_class", _NOTE),
    **_named("transformers.js_config unsloth_version unsloth_fixed is_llama_config", _NOTE),
    **_named("bos_token_id pad_token_id sep_token_id decoder_start_token_id prefix", _PROMPTS),
    **_named("id2label label2id num_labels _num_labels problem_type finetuning_task", _LABELS),
    **_named("task_specific_params", _LABELS),
    **_named("output_hidden_states output_attentions return_dict tie_last_hidden_states", _SHAPE_OF_OUTPUT),
    **_named("rope_interleaved full_attn_mod interpolate_factor lm_head_bias", _UNREAD),
    **_named("sliding_window_size _sliding_window_pattern tie_encoder_decoder is_decoder", _UNREAD),
    **_named("cross_attention_hidden_size add_cross_attention", _UNREAD),
    "auto_map": "the folder's own code is not run: transformers' implementation of the family is",
}
"""Keys of ``config.json`` that change no text, and why."""


def _is_set(value: Any) -> bool:
    return bool(value)


def _is_there(value: Any) -> bool:
    """Also if it is empty, which transformers cannot read either."""
    return value is not None


def _is_false(value: Any) -> bool:
    return value is False


REFUSED: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "quantization_config": (
        _is_there,
        "the weights are stored quantised, and packed numbers would be taken for weights. "
        "Use the unquantised model or a GGUF file, which is unpacked as it is read.",
        "the weights are not quantised",
    ),
    "quantization": (
        _is_set,
        "the weights are stored quantised as MLX does it, and packed numbers would be taken for weights. "
        "Use the model that it was made from.",
        "the weights are not quantised",
    ),
    "use_bidirectional_attention": (
        _is_set,
        "a token would see those after it, as in embedding models, and decoding looks back alone.",
        "tokens look back alone",
    ),
    "is_causal": (
        _is_false,
        "a token would see those after it, as in embedding models, and decoding looks back alone.",
        "tokens look back alone",
    ),
    "attention_chunk_size": (
        _is_set,
        "attention within chunks is in none of the supported families.",
        "attention has no chunks",
    ),
    "per_layer_config": (
        _is_set,
        "blocks that differ in their settings are not supported.",
        "blocks are alike",
    ),
    "pruned_heads": (_is_set, "attention heads were cut out of some blocks.", "no heads were cut out"),
    "use_mrope": (_is_set, "positions have several axes, as of images.", "positions have one axis"),
    "is_encoder_decoder": (_is_set, "it has an encoder.", "it has no encoder"),
    **_named(
        "num_local_experts num_experts n_routed_experts num_experts_per_tok",
        (_is_set, "it is a mixture of experts.", _EXPERTS),
    ),
    "num_kv_shared_layers": (_is_set, "blocks share keys and values.", "blocks keep their own keys and values"),
}
"""Keys of ``config.json`` with values that would make another model: when, what that would break, and why any other
value changes nothing."""

ROPE_TYPES: dict[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
    "yarn": frozenset(
        {
            "factor",
            "original_max_position_embeddings",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
        }
    ),
    "longrope": frozenset(
        {"factor", "short_factor", "long_factor", "original_max_position_embeddings", "attention_factor"}
    ),
}
"""Kinds of rotary scaling, and the settings that each one reads."""
ROPE_READ_BY_ALL = frozenset({"rope_type", "type", "rope_theta"})
ROPE_NO_NUMBERS = frozenset({"rope_type", "type", "truncate"})
ROPE_HARMLESS = {
    "finetuned": "it tells how the model was trained",
    "short_mscale": "transformers reads it in none of the supported families",
    "long_mscale": "transformers reads it in none of the supported families",
}

TOKENIZER_REFUSED = {
    "dropout": (("BPE", "Unigram"), "merges that are left out at random make other prompts in each run."),
    "continuing_subword_prefix": (("BPE",), "pieces with a sign in front of them are not merged here."),
}
"""Settings of a ``tokenizer.json``'s model that cannot be followed when they are set, the kinds of model that have
them, and why."""

_CALLER = "the task and the command line say how texts are drawn, not the model's folder"

GENERATION_HARMLESS: dict[str, str] = {
    **_named("do_sample temperature top_k top_p min_p top_h typical_p", _CALLER),
    **_named("epsilon_cutoff eta_cutoff max_length max_new_tokens max_time", _CALLER),
    **_named("num_return_sequences renormalize_logits remove_invalid_values", _CALLER),
    **_named("output_scores output_logits return_dict_in_generate", _SHAPE_OF_OUTPUT),
    **_named("output_attentions output_hidden_states", _SHAPE_OF_OUTPUT),
    **_named("use_cache cache_implementation cache_config max_cache_len", _SPEED),
    **_named("compile_config disable_compile low_memory prefill_chunk_size", _SPEED),
    **_named("num_assistant_tokens num_assistant_tokens_schedule is_assistant use_mtp", _SPEED),
    **_named("assistant_confidence_threshold assistant_lookbehind target_lookbehind", _SPEED),
    **_named("assistant_early_exit assistant_ensemble_weight speculation_type", _SPEED),
    **_named("prompt_lookup_num_tokens max_matching_ngram_size continuous_batching_config", _SPEED),
    **_named("bos_token_id pad_token_id decoder_start_token_id", _PROMPTS),
    **_named("transformers_version _from_model_config trust_remote_code", _NOTE),
    "chat_format": _NOTE,
}
"""Keys of ``generation_config.json`` that change no greedy text, and why."""
GENERATION_UNAPPLIED = frozenset(
    {
        *("repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"),
        *("min_length", "min_new_tokens", "num_beams", "num_beam_groups", "diversity_penalty", "length_penalty"),
        *("early_stopping", "penalty_alpha"),
    }
)
"""Keys that change greedy texts too, and are left to whoever asks for a text. They stand in the folders of many models
that are known without them, so they are told, and not refused."""
UNAPPLIED = "it is {}; the task and the command line say how texts are decoded"

_RULE = (
    "transformers would change every text by this rule, and litestage has none like it. "
    "Take the key out of generation_config.json to decode without it."
)
GENERATION_REFUSED: dict[str, str] = _named(
    "suppress_tokens begin_suppress_tokens bad_words_ids forced_bos_token_id forced_eos_token_id forced_decoder_ids "
    "force_words_ids constraints sequence_bias exponential_decay_length_penalty token_healing guidance_scale "
    "watermarking_config stop_strings dola_layers",
    _RULE,
)
"""Keys of ``generation_config.json`` that are rules about tokens when they are set, and no defaults of a draw."""
GENERATION_NEUTRAL: dict[str, int] = {
    **_named("num_beams num_beam_groups length_penalty guidance_scale", 1),
    **_named("repetition_penalty encoder_repetition_penalty", 1),
}
"""Values at which a rule is none, beside those that are nothing: 0, false, or an empty list."""
