"""From a file's keys to the config of a transformers model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

from litestage.core import ModelError
from litestage.models.gguf.architectures import ARCHITECTURES, NEUTRAL, SIZES, Architecture
from litestage.models.gguf.file import Account
from litestage.models.gguf.rotary import Rotary

TYPES = {
    "adapter": "it is an adapter alone. Convert it to a PEFT folder and give that as --adapter, with its model.",
    "mmproj": "it is the part of a model that reads images or sound. Give the model's own file.",
    "imatrix": "it holds statistics for rounding weights, and no model.",
    "vocab": "it is a vocabulary alone, without weights.",
}
"""What a file is that is no model, by ``general.type``."""
BIASES = {
    "attention_bias": re.compile(r"blk\.\d+\.attn_(q|k|v|output)\.bias"),
    "mlp_bias": re.compile(r"blk\.\d+\.ffn_(gate|up|down)\.bias"),
}
"""Switches of a config, and the tensors that turn them on."""


def architecture_of(account: Account) -> Architecture | None:
    """How the file is read; None, and a refused key, for one that is no model or of no family here."""
    kind = account.use("general.type", "what the file is", "a text")
    if kind is not None and kind != "model":
        account.refuse("general.type", TYPES.get(kind, f"{kind!r} is no model.").rstrip())
        return None
    name = account.use("general.architecture", "how the other keys and the tensors are read", "a text")
    if name is None:
        account.lack("key", "general.architecture", "it says how weights are read. Give a model's file.")
    if name not in ARCHITECTURES:
        account.refuse(
            "general.architecture",
            f"the architecture {name!r} is not supported. Supported in GGUF files: {', '.join(sorted(ARCHITECTURES))}.",
        )
        return None
    if not account.file.tensors:
        raise ModelError(f"{account.file.source} holds no tensors: it is a vocabulary alone, without weights.")
    return ARCHITECTURES[name]


def read_config(account: Account, architecture: Architecture, tokens: dict[str, Any]) -> PretrainedConfig:
    """The config that the file describes; what cannot be taken over is noted as refused."""
    own = account.file.own
    sizes = {name: _scalar(account, own(key), name) for key, name in SIZES.items()}
    if lacking := [key for key, name in SIZES.items() if sizes[name] is None]:
        account.lack("key", own(lacking[0]), "without it the model's sizes are unknown.")
    if wrong := [key for key, name in SIZES.items() if sizes[name] <= 0]:
        account.stop(own(wrong[0]), "it is no size.")
    _check_blocks(account, sizes["num_hidden_layers"])
    heads, width = sizes["num_attention_heads"], sizes["hidden_size"]
    kv_heads = _scalar(account, own("attention.head_count_kv"), "num_key_value_heads")
    if kv_heads is not None and kv_heads <= 0:
        account.stop(own("attention.head_count_kv"), "it is no size.")
    head_size = _head_size(account, width, heads)
    settings = (
        dict(architecture.assumed)
        | sizes
        | {
            "num_key_value_heads": heads if kv_heads is None else kv_heads,
            "head_dim": head_size,
            "vocab_size": embedding_rows(account),
            "rope_parameters": Rotary(account, architecture, head_size, sizes["max_position_embeddings"]).parameters(),
            "tie_word_embeddings": "output.weight" not in account.file.tensors,
        }
    )
    settings |= _constants(account, architecture)
    if architecture.scales_scores:
        wide = sizes["num_hidden_layers"] == architecture.wide_at
        settings["query_pre_attn_scalar"] = width // heads if wide else head_size
    kind, windows = _windows(account, architecture, sizes["num_hidden_layers"])
    _check_neutral(account)
    return _built(account, kind, settings | windows | tokens)


def _check_blocks(account: Account, blocks: int) -> None:
    """A model of blocks that are not there would take long to be found missing."""
    stored = {name.split(".")[1] for name in account.file.tensors if name.startswith("blk.")}
    if blocks > len(stored):
        account.stop(account.file.own("block_count"), f"it is {blocks}, and the file holds {len(stored)} blocks.")


def _built(account: Account, kind: str, settings: dict[str, Any]) -> PretrainedConfig:
    family = CONFIG_MAPPING[kind]
    switches = {
        name: any(pattern.fullmatch(tensor) for tensor in account.file.tensors)
        for name, pattern in BIASES.items()
        if hasattr(family(), name)
    }
    if kind == "phi3":  # which has it beside its rope_parameters, and lets that one count
        original = settings["rope_parameters"].get("original_max_position_embeddings")
        settings = settings | ({"original_max_position_embeddings": original} if original else {})
    try:
        return family(**settings | switches)
    except Exception as error:  # transformers checks the settings, in its own ways
        said = str(error).strip().splitlines()[-1].strip().rstrip(".")
        raise ModelError(f"The sizes that {account.file.source} names make no {kind} model: {said}.") from None


def _scalar(account: Account, key: str, why: str) -> Any:
    """A number; one for each block where all are the same."""
    number = "a number" if key.endswith("epsilon") else "a whole number"
    value = account.use(key, why, f"{number}, or one for each block")
    if isinstance(value, list):
        if len(set(value)) != 1:
            account.refuse(key, "it differs from block to block, and all blocks of the families here are of one size.")
        blocks = account.file.value(account.file.own("block_count"))
        if len(value) != blocks:
            account.stop(key, f"it has {len(value)} numbers for {blocks} blocks.")
        return value[0]
    return value


def _head_size(account: Account, width: int, heads: int) -> int:
    own = account.file.own
    size = _scalar(account, own("attention.key_length"), "head_dim") or width // heads
    of_values = _scalar(account, own("attention.value_length"), "the size of a head's values") or size
    if of_values != size:
        account.refuse(own("attention.value_length"), f"values of {of_values} and keys of {size} numbers do not fit.")
    return int(size)


def embedding_rows(account: Account) -> int:
    """Rows of the embedding; the file may say their number once more."""
    embedding = account.file.tensors.get("token_embd.weight")
    if embedding is None:
        account.lack("tensor", "token_embd.weight", "it is the embedding of tokens.")
    said = account.use(account.file.own("vocab_size"), "vocab_size", "a number")
    if said is not None and said != embedding.shape[0]:
        account.refuse(
            account.file.own("vocab_size"), f"it is {said}, and the embedding has {embedding.shape[0]} rows."
        )
    return embedding.shape[0]


def _constants(account: Account, architecture: Architecture) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for key, name in architecture.constants.items():
        value = account.use(account.file.own(key), name, "a number from 0 on")
        if value or (value is not None and key.endswith("softcapping")):
            found[name] = float(value) or None
        elif key in architecture.required and value is None:
            account.lack("key", account.file.own(key), "it scales what this family makes. Fetch a newer conversion.")
        elif key in architecture.required:
            account.stop(account.file.own(key), "it is 0, and it scales what this family makes.")
    turns = account.use(account.file.own("rope.scaling.finetuned"), "Granite's switch of rotation", "yes or no")
    if architecture.model_type == "granite" and turns is not None and not turns:
        account.refuse(account.file.own("rope.scaling.finetuned"), "it turns no positions, which Granite's models do.")
    return found


def _windows(account: Account, architecture: Architecture, blocks: int) -> tuple[str, dict[str, Any]]:
    """The ``model_type``, and which blocks see how far."""
    own = account.file.own
    if architecture.window_type is None:
        return architecture.model_type, {}
    window = account.use(own("attention.sliding_window"), "sliding_window", "a whole number")
    pattern = account.use(
        own("attention.sliding_window_pattern"), "which blocks have the window", "a number, or yes or no for each block"
    )
    if architecture.window_pattern is None:
        if pattern is not None:
            account.refuse(own("attention.sliding_window_pattern"), "this family has its window in all blocks.")
        return (architecture.window_type, {"sliding_window": int(window)}) if window else (architecture.model_type, {})
    local = _local_blocks(architecture.window_pattern if pattern is None else pattern, blocks)
    if len(local) != blocks:
        account.refuse(own("attention.sliding_window_pattern"), f"it names {len(local)} blocks of {blocks}.")
        local = [False] * blocks
    if window is None and architecture.model_type == "gemma2":
        window = 4096
    types = ["sliding_attention" if window and one else "full_attention" for one in local]
    return architecture.window_type, {"layer_types": types} | ({"sliding_window": int(window)} if window else {})


def _local_blocks(pattern: int | Sequence[Any], blocks: int) -> list[bool]:
    """Every so manyth block sees all (1: each, 0: none), or a list says which do not."""
    if isinstance(pattern, int):
        return [pattern == 0 or (block + 1) % pattern != 0 for block in range(blocks)]
    return [bool(one) for one in pattern]


def _check_neutral(account: Account) -> None:
    """Keys that no family here reads are harmless at the values that change nothing."""
    for key, rule in NEUTRAL.items():
        name = account.file.own(key)
        value = account.file.value(name)
        if value is None or account.knows("key", name):
            continue
        if all(one in rule.values for one in (value if isinstance(value, list) else [value])):
            account.note("key", name, "harmless", "at this value it changes nothing")
        else:
            account.refuse(name, f"at {value!r} {rule.otherwise}")
