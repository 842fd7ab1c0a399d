"""Small GGUF files, written from transformers models as llama.cpp's converter writes them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tiny
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import TokenType
from transformers import PreTrainedModel

ARCHITECTURES = {"mistral": "llama", "gemma3_text": "gemma3"}
"""Of families whose files are called otherwise."""
PAIRED = ("llama", "smollm3", "granite")
"""Architectures whose query and key rows the converter puts side by side in pairs."""
DESCRIPTION = {
    "general.type": "model",
    "general.name": "Tiny Random 1M",
    "general.basename": "Tiny-Random",
    "general.size_label": "1M",
    "general.license": "apache-2.0",
    "general.base_model.count": 1,
    "general.base_model.0.name": "Tiny",
    "general.base_model.0.repo_url": "https://example.org/tiny",
    "general.languages": ["en"],
    "general.tags": ["text-generation"],
    "general.quantization_version": 2,
    "quantize.imatrix.file": "tiny.dat",
    "quantize.imatrix.chunks_count": 128,
}
"""What files on the hub say beside what is needed."""


ORIGINAL = 32
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": ORIGINAL}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": ORIGINAL,
}
SHORT, LONG = [1.1, 1.4], [2.0, 5.0]
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "partial_rotary_factor": 0.5,
    "short_factor": SHORT,
    "long_factor": LONG,
    "original_max_position_embeddings": 128,
}
GEMMA3 = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
}
SIX = {"query_pre_attn_scalar": 16, "num_hidden_layers": 7, "layer_types": None}
"""Gemma 3's own pattern of windows: five blocks, then one without."""

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, tied, with biases": ("llama-tied", {}),
    "llama, as many key heads as heads": ("llama", {"num_key_value_heads": 4}),
    "llama, heads wider than the stream": ("llama", {"head_dim": 16}),
    "llama, scaled as llama3": ("llama", {"rope_parameters": LLAMA3}),
    "llama, linear": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    "llama, yarn": ("llama", {"rope_parameters": YARN}),
    "llama, yarn with all its factors": (
        "llama",
        {"rope_parameters": YARN | {"beta_fast": 0.2, "beta_slow": 0.05, "attention_factor": 0.1 * np.log(4.0) + 1}},
    ),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral, with a window": ("mistral", {}),
    "qwen2": ("qwen2", {}),
    "qwen2, tied, yarn": ("qwen2", {"tie_word_embeddings": True, "rope_parameters": YARN}),
    "qwen3": ("qwen3", {}),
    "qwen3, with biases": ("qwen3", {"attention_bias": True}),
    "smollm3": ("smollm3", {"no_rope_layers": None}),
    "smollm3, yarn": ("smollm3", {"no_rope_layers": None, "rope_parameters": YARN}),
    "granite": ("granite", {}),
    "granite, with biases": ("granite", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "olmo2": ("olmo2", {}),
    "olmo2, linear": ("olmo2", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
    "phi3": ("phi3", {}),
    "phi3, with a window": ("phi3", {"sliding_window": tiny.WINDOW}),
    "phi3, half of each head": ("phi3-partial", {}),
    "phi3, longrope": ("phi3-partial", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 128}),
    "gemma2": ("gemma2", {"query_pre_attn_scalar": 16}),
    "gemma3": ("gemma3", SIX),
    "gemma3, linear in blocks that see all": ("gemma3", SIX | {"rope_parameters": GEMMA3}),
}


@cache
def source(case: str) -> PreTrainedModel:
    family, options = CASES[case]
    return tiny.new_model(family, **deepcopy(options))


@dataclass
class Contents:
    """Keys and tensors of a file, to be changed before it is written."""

    architecture: str
    keys: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, tuple[np.ndarray, Kind]] = field(default_factory=dict)

    def set(self, key: str, value: Any) -> None:
        """A key of the architecture; None takes it out."""
        self.put(f"{self.architecture}.{key}", value)

    def put(self, key: str, value: Any) -> None:
        if value is None:
            self.keys.pop(key)
        else:
            self.keys[key] = value

    def put_tensor(self, name: str, values: Any) -> None:
        self.tensors[name] = (np.asarray(values, dtype=np.float32), Kind.F32)

    def write(self, path: Path, **options: Any) -> Path:
        writer = gguf.GGUFWriter(path, self.architecture, **options)
        for key, value in self.keys.items():
            add(writer, key, value)
            if key == "general.alignment":
                writer.add_custom_alignment(value)
        for name, (values, kind) in self.tensors.items():
            plain = {Kind.F32: np.float32, Kind.F16: np.float16, Kind.I8: np.int8}.get(kind)
            if values.dtype == np.uint8:
                data = values  # packed already
            else:
                data = gguf.quantize(values, kind) if plain is None else values.astype(plain)
            writer.add_tensor(name, data, raw_dtype=kind if plain is None else None)
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path


def add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


def contents(model: PreTrainedModel, kind: Kind = Kind.F32) -> Contents:
    """A whole file: description, sizes, vocabulary and tensors of a model."""
    config = model.config
    architecture = ARCHITECTURES.get(config.model_type, config.model_type)
    file = Contents(architecture, dict(DESCRIPTION))
    file.keys |= {f"{architecture}.{key}": value for key, value in sizes(config).items()}
    file.keys |= byte_level(tiny.tokenizer(), config)
    for name, values in tensors(model, architecture).items():
        whole = values.ndim > 1 and values.shape[-1] % 32 == 0  # llama.cpp falls back where blocks do not fit
        file.tensors[name] = (values, kind if whole else Kind.F32)
    return file


def sizes(config: Any) -> dict[str, Any]:
    """Keys of the architecture, as its class in the converter sets them."""
    keys = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
    }
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if getattr(config, "head_dim", None) and config.model_type not in ("granite", "phi3"):
        keys |= {"attention.key_length": head_size, "attention.value_length": head_size}
    if config.model_type in ("llama", "mistral", "smollm3", "granite"):
        keys |= {"vocab_size": config.vocab_size, "rope.dimension_count": head_size}
    return keys | rotation(config, head_size) | FAMILY_KEYS.get(config.model_type, lambda config: {})(config)


def rotation(config: Any, head_size: int) -> dict[str, Any]:
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    keys: dict[str, Any] = {} if config.model_type == "gemma2" else {"rope.freq_base": float(rope["rope_theta"])}
    kind = rope.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        keys |= {"rope.scaling.type": kind, "rope.scaling.factor": float(rope["factor"])}
    if kind == "yarn":
        keys["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
        for name, key in {"beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow"}.items():
            if name in rope:
                keys[f"rope.scaling.{key}"] = float(rope[name])
        if "attention_factor" in rope:
            keys["rope.scaling.yarn_attn_factor"] = float(rope["attention_factor"])
    return keys


def phi3_keys(config: Any) -> dict[str, Any]:
    rope = config.rope_parameters
    keys = {
        "rope.dimension_count": int(config.hidden_size // config.num_attention_heads * rope["partial_rotary_factor"]),
        "rope.scaling.original_context_length": config.original_max_position_embeddings,
        "attention.sliding_window": config.sliding_window or 0,
    }
    if "long_factor" in rope:
        original = rope["original_max_position_embeddings"]
        stretch = math.sqrt(1 + math.log(config.max_position_embeddings / original) / math.log(original))
        keys |= {"rope.scaling.attn_factor": stretch, "rope.scaling.original_context_length": original}
    return keys


FAMILY_KEYS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "mistral": lambda config: {"attention.sliding_window": config.sliding_window} if config.sliding_window else {},
    "granite": lambda config: {
        "attention.scale": config.attention_multiplier,
        "embedding_scale": config.embedding_multiplier,
        "residual_scale": config.residual_multiplier,
        "logit_scale": config.logits_scaling,
    },
    "phi3": phi3_keys,
    "gemma2": lambda config: {
        "attn_logit_softcapping": config.attn_logit_softcapping,
        "final_logit_softcapping": config.final_logit_softcapping,
        "attention.sliding_window": config.sliding_window,
    },
    "gemma3_text": lambda config: {
        "attention.sliding_window": config.sliding_window,
        "rope.freq_base_swa": float(config.rope_parameters["sliding_attention"]["rope_theta"]),
    },
}


def tensors(model: PreTrainedModel, architecture: str) -> dict[str, np.ndarray]:
    """The model's weights under the file's names, as the file has them."""
    config = model.config
    key = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    table = gguf.get_tensor_name_map(key, config.num_hidden_layers)
    made = {}
    for place, values in model.state_dict().items():
        if place == "lm_head.weight" and config.tie_word_embeddings:
            continue
        name = table.get_name(place, try_suffixes=(".weight", ".bias"))
        values = values.float()
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1
        if architecture in PAIRED and (".attn_q." in name or ".attn_k." in name):
            heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
            values = values.view(heads, 2, -1, *values.shape[1:]).transpose(1, 2).reshape(values.shape)
        made[name] = values.numpy()
    return made | rope_tensors(config)


def rope_tensors(config: Any) -> dict[str, np.ndarray]:
    rope = config.rope_parameters
    if rope.get("rope_type") == "llama3":
        return {"rope_freqs.weight": np.array(llama3_factors(rope, config.head_dim), dtype=np.float32)}
    if "long_factor" in rope:
        kinds = ("long", "short")
        return {f"rope_factors_{kind}.weight": np.array(rope[f"{kind}_factor"], dtype=np.float32) for kind in kinds}
    return {}


def llama3_factors(rope: Mapping[str, Any], size: int) -> list[float]:
    """By how much each frequency is divided, by Llama 3's rule: long waves by ``factor``, short ones not."""
    low, high, original = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    factors = []
    for i in range(0, size, 2):
        turns = original / (2 * math.pi * rope["rope_theta"] ** (i / size))
        share = min(max((turns - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - share) / rope["factor"] + share))
    return factors


def byte_level(tokenizer: Any, config: Any, pre: str = "gpt-2") -> dict[str, Any]:
    """The keys of a byte-level BPE vocabulary."""
    layout = json.loads(tokenizer.backend_tokenizer.to_str())
    numbers = tokenizer.get_vocab()
    tokens = sorted(numbers, key=numbers.__getitem__)
    tokens += [f"[PAD{i}]" for i in range(len(tokens), config.vocab_size)]
    added = {one["content"]: one["special"] for one in layout["added_tokens"]}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [token_type(token, i, numbers, added) for i, token in enumerate(tokens)],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in layout["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.padding_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
    }


HALF = np.float16(0.002).tobytes()


def token_type(token: str, number: int, numbers: Mapping[str, int], added: Mapping[str, bool]) -> int:
    if number >= len(numbers):
        return int(TokenType.UNUSED)
    if token not in added:
        return int(TokenType.NORMAL)
    return int(TokenType.CONTROL if added[token] else TokenType.USER_DEFINED)


SCALES: dict[Kind, dict[int, bytes]] = {
    Kind.Q2_K: {80: HALF, 82: HALF},
    Kind.Q3_K: {108: HALF},
    Kind.Q4_K: {0: HALF, 2: HALF},
    Kind.Q5_K: {0: HALF, 2: HALF},
    Kind.Q6_K: {208: HALF},
    **{kind: {0: HALF} for kind in (Kind.IQ2_XXS, Kind.IQ2_XS, Kind.IQ2_S, Kind.IQ3_XXS, Kind.IQ3_S, Kind.IQ1_S)},
    **{kind: {0: HALF} for kind in (Kind.IQ4_NL, Kind.IQ4_XS)},
    Kind.IQ1_M: {49: b"\x40", 51: b"\x10", 53: b"\x00", 55: b"\x20"},  # a number in four parts
    Kind.TQ1_0: {52: HALF},
    Kind.TQ2_0: {64: HALF},
    Kind.MXFP4: {0: b"\x78"},
    Kind.NVFP4: {0: b"\x10\x11\x12\x13"},
}
"""Types that the gguf package unpacks and does not pack: where in a block its scales lie, and small ones."""


def at_random(kind: Kind, rows: int, columns: int, seed: int) -> np.ndarray:
    """Any numbers of a packed type, with scales as small as those of weights."""
    size, length = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.random.default_rng(seed).integers(0, 256, (rows * columns // size, length), dtype=np.uint8)
    for at, scale in SCALES[kind].items():
        blocks[:, at : at + len(scale)] = np.frombuffer(scale, dtype=np.uint8)
    return blocks.reshape(rows, -1)


def rounded(model: PreTrainedModel, kind: Kind) -> PreTrainedModel:
    """The model with the weights that a file of a packed type holds."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and parameter.shape[-1] % 32 == 0:
                packed = gguf.quantize(parameter.numpy(), kind)
                parameter.copy_(torch.from_numpy(gguf.dequantize(packed, kind)))
    return model
