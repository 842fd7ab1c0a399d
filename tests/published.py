"""The keys of ``config.json`` that published models of the supported families have, at sizes of a few thousand weights.

Numbers that say how large a model is are small here; all else is as published.
"""

from __future__ import annotations

from typing import Any

_SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_SHARED: dict[str, Any] = _SIZES | {
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.0",
    "use_cache": True,
}
_LLAMA = _SHARED | {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "pretraining_tp": 1,
    "max_position_embeddings": 2048,
}
_MISTRAL = _SHARED | {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "max_position_embeddings": 32768,
}
_QWEN = _SHARED | {
    "max_position_embeddings": 32768,
    "max_window_layers": 24,
    "sliding_window": 32768,
    "use_sliding_window": False,
    "tie_word_embeddings": True,
}
_GEMMA = _SIZES | {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "head_dim": 16,
    "hidden_activation": "gelu_pytorch_tanh",
    "initializer_range": 0.02,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.4",
    "use_cache": True,
}
_PHI = _SHARED | {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "attention_bias": False,
    "auto_map": {
        "AutoConfig": "configuration_phi3.Phi3Config",
        "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
    },
    "embd_pdrop": 0.0,
    "original_max_position_embeddings": 64,
    "pad_token_id": 3,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05,
}
LONG = {"long_factor": [1.5, 2.0, 3.0, 9.0], "short_factor": [1.0, 1.1, 1.2, 1.4], "type": "longrope"}

PUBLISHED: dict[str, dict[str, Any]] = {
    "TinyLlama 1.1B": _LLAMA | {"_name_or_path": "meta-llama/Llama-2-7b-hf", "rope_scaling": None},
    "Llama 3.2 1B": _LLAMA
    | {
        "eos_token_id": [2, 3, 4],
        "head_dim": 8,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
    },
    "SmolLM2 135M": _LLAMA
    | {
        "is_llama_config": True,
        "mlp_bias": False,
        "pad_token_id": 2,
        "rope_interleaved": False,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
    },
    "Mistral 7B v0.1": _MISTRAL | {"sliding_window": 8},
    "Mistral 7B v0.3": _MISTRAL | {"sliding_window": None, "rope_theta": 1000000.0},
    "Qwen2.5 0.5B": _QWEN | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "use_mrope": False},
    "Qwen3 0.6B": _QWEN
    | {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "head_dim": 16,
        "rope_scaling": None,
        "sliding_window": None,
    },
    "SmolLM3 3B": _QWEN
    | {
        "architectures": ["SmolLM3ForCausalLM"],
        "model_type": "smollm3",
        "attention_bias": False,
        "layer_types": ["full_attention"] * 4,
        "max_window_layers": 28,
        "mlp_bias": False,
        "no_rope_layer_interval": 4,
        "no_rope_layers": [1, 1, 1, 0],
        "pad_token_id": 4,
        "pretraining_tp": 2,
        "rope_scaling": None,
        "sliding_window": None,
    },
    "Gemma 2 2B": _GEMMA
    | {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "attn_logit_softcapping": 50.0,
        "eos_token_id": [1, 107],
        "final_logit_softcapping": 30.0,
        "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 8192,
        "query_pre_attn_scalar": 12,
        "sliding_window": 8,
        "sliding_window_size": 4096,
    },
    "Gemma 3 1B": _GEMMA
    | {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "attn_logit_softcapping": None,
        "eos_token_id": [1, 106],
        "final_logit_softcapping": None,
        "max_position_embeddings": 32768,
        "query_pre_attn_scalar": 16,
        "rope_local_base_freq": 10000,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": 8,
        "sliding_window_pattern": 3,
    },
    "OLMo 2 1B": _SHARED
    | {
        "architectures": ["Olmo2ForCausalLM"],
        "model_type": "olmo2",
        "attention_bias": False,
        "max_position_embeddings": 4096,
        "pad_token_id": 3,
        "rope_scaling": None,
    },
    "Phi-3 mini 4k": _PHI | {"max_position_embeddings": 64, "rope_scaling": None, "sliding_window": 8},
    "Phi-3.5 mini": _PHI | {"max_position_embeddings": 2048, "rope_scaling": LONG, "sliding_window": 262144},
    "Phi-4 mini": _PHI
    | {
        "full_attn_mod": 1,
        "head_dim": 8,
        "hidden_size": 32,
        "interpolate_factor": 1,
        "lm_head_bias": False,
        "max_position_embeddings": 2048,
        "mlp_bias": False,
        "partial_rotary_factor": 0.75,
        "rope_scaling": LONG | {"long_factor": [1.5, 2.0, 3.0], "short_factor": [1.0, 1.1, 1.2]},
        "sliding_window": 262144,
        "tie_word_embeddings": True,
    },
    "Granite 3.1 2B": _SHARED
    | {
        "architectures": ["GraniteForCausalLM"],
        "model_type": "granite",
        "attention_bias": False,
        "attention_dropout": 0.1,
        "attention_multiplier": 0.2,
        "embedding_multiplier": 12.0,
        "logits_scaling": 8.0,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "residual_multiplier": 0.22,
        "rope_scaling": None,
    },
}

GENERATION: dict[str, Any] = {
    "bos_token_id": 1,
    "do_sample": True,
    "eos_token_id": [2, 17],
    "pad_token_id": 2,
    "repetition_penalty": 1.1,
    "temperature": 0.7,
    "top_k": 20,
    "top_p": 0.8,
    "transformers_version": "4.37.0",
}
"""What Qwen2.5's folders say of generation."""
