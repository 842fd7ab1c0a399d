"""From a file's tensors to the state dict of a transformers model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from litestage.core import ModelError
from litestage.models.families import FAMILIES
from litestage.models.gguf.architectures import HARMLESS_TENSORS, MEANINGS, Architecture
from litestage.models.gguf.file import Account, GgufFile, Stored, can_unpack

BLOCK = re.compile(r"^blk\.\d+\.")
BIASES = ("attention_bias", "mlp_bias")
PAIRED = re.compile(r"blk\.\d+\.attn_(q|k)\.(weight|bias)")
"""Tensors whose rows are turned in pairs."""


def empty_model(config: PretrainedConfig) -> PreTrainedModel:
    """The model without memory for its weights: for their names and shapes."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def places(account: Account, config: PretrainedConfig) -> dict[str, str]:
    """Which tensor of the file goes where in the model's state dict; notes what became of each.

    The names are the gguf package's. Every tensor must be in the file, but for biases that no block has.
    """
    model = empty_model(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    by_name = _names(account.file, shapes, config.num_hidden_layers)
    for name, tensor in account.file.tensors.items():
        if name in by_name:
            _note_used(account, tensor, by_name[name], shapes[by_name[name]])
        elif not account.knows("tensor", name):
            _note_other(account, name, config.num_hidden_layers)
    for name in by_name:
        if name not in account.file.tensors and not _no_block_has(account.file, config, name):
            account.note("tensor", name, "missing", "it would be random numbers. Fetch the file again.")
    return by_name


def _no_block_has(file: GgufFile, config: PretrainedConfig, name: str) -> bool:
    """A bias of a map that has none in any block, where a setting of the config gives biases to several maps at once:
    zeros change nothing then."""
    if not name.endswith(".bias") or not any(getattr(config, setting, False) for setting in BIASES):
        return False
    kind = BLOCK.sub("", name)
    return not any(BLOCK.sub("", other) == kind for other in file.tensors)


def _names(file: GgufFile, shapes: Mapping[str, Any], blocks: int) -> dict[str, str]:
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == file.architecture)
    table = gguf.get_tensor_name_map(architecture, blocks)
    by_name = {}
    for place in shapes:
        stem, _, ending = place.rpartition(".")
        name = table.get_name(stem)
        if name is None:
            raise ModelError(
                f"{file.source} asks for {place}, and {file.architecture} files have no tensor of that kind. Convert "
                "the model anew, or use its folder."
            )
        by_name[f"{name}.{ending}"] = place
    return by_name


def _note_used(account: Account, tensor: Stored, place: str, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        why = f"has the shape {list(tensor.shape)}, and its place in the model {list(shape)}."
        account.note("tensor", tensor.name, "refused", why)
    elif not can_unpack(tensor.kind):
        why = f"is packed as {tensor.kind.name}, which the gguf package does not unpack."
        account.note("tensor", tensor.name, "refused", why)
    else:
        account.note("tensor", tensor.name, "used", place)


def _note_other(account: Account, name: str, blocks: int) -> None:
    for pattern, why in HARMLESS_TENSORS:
        if re.fullmatch(pattern, name):
            return account.note("tensor", name, "harmless", why)
    block = re.match(r"blk\.(\d+)\.", name)
    if block is not None and int(block[1]) >= blocks:
        return account.note("tensor", name, "refused", f"belongs to a block beyond the {blocks} that the file names.")
    why = next(
        (why for pattern, why in MEANINGS if re.fullmatch(pattern, name)), "has no place in this family's model."
    )
    return account.note("tensor", name, "refused", why)


def state_dict(
    file: GgufFile, architecture: Architecture, config: PretrainedConfig, by_name: Mapping[str, str], dtype: torch.dtype
) -> dict[str, Tensor]:
    """The model's weights; `ModelError` names a tensor with a value that is no number."""
    heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
    offset = FAMILIES[config.model_type].norm_offset
    state: dict[str, Tensor] = {}
    for name, place in by_name.items():
        if name not in file.tensors:  # a bias that no block has, by `places`
            rows = state[place.replace(".bias", ".weight")].shape[0]
            state[place] = torch.zeros(rows, dtype=dtype)
            continue
        unpacked = file.tensors[name].values()
        if not np.isfinite(unpacked.sum(dtype=np.float64)):  # one pass; fp64 holds the sum of any fp32 numbers
            raise ModelError(
                f"{file.source} holds the tensor {name} with values that are no numbers (NaN or infinity): texts would "
                "be noise. Fetch the file again, or one that was rounded otherwise."
            )
        values = torch.from_numpy(unpacked)
        if offset and name.endswith("norm.weight"):
            values = values - offset
        if architecture.interleaved and (which := PAIRED.fullmatch(name)) is not None:
            values = _half_a_head_apart(values, heads[which[1]])
        state[place] = values.to(dtype)
    return state


def _half_a_head_apart(rows: Tensor, heads: int) -> Tensor:
    """Rows whose partners in rotation stand side by side, with partners half a head apart, as transformers has them."""
    pairs = rows.view(heads, -1, 2, *rows.shape[1:])
    return pairs.transpose(1, 2).reshape(rows.shape)
