"""Random weights in the shapes of known models: how fast a forward is does not depend on their values."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
)

from litestage.core import ModelError
from litestage.core.complaints import did_you_mean
from litestage.models import catalog

PREFIX = "random:"
SHAPES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "tinyllama-1.1b": (
        LlamaConfig,
        {
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 22,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "vocab_size": 32000,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": False,
        },
    ),
    "qwen2.5-0.5b": (
        Qwen2Config,
        {
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": True,
        },
    ),
    "smollm2-135m": (
        LlamaConfig,
        {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "vocab_size": 49152,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
    ),
}
"""Configs, without what does not change a forward's time."""


def random_model(name: str, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model ``random:NAME``, the same in every process, with the embedded model's tokenizer.

    Raises `ModelError` for a shape that is not known.
    """
    shape = name.removeprefix(PREFIX)
    if shape not in SHAPES:
        raise ModelError(
            f"No shape is called {shape!r}.{did_you_mean(shape, SHAPES)} Random weights come in the shapes of "
            f"{', '.join(SHAPES)}."
        )
    kind, sizes = SHAPES[shape]
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(catalog.resolve(catalog.EMBEDDED))
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = kind(**sizes, **ends, dtype=dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval(), tokenizer
