"""From a transformers model to our decoder: its weights, fused, without holding both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from litestage.core import ModelError
from litestage.core.plan import content_hash
from litestage.models.decoder import Attention, Block, Decoder, Ffn, Projection, Shape
from litestage.models.families import FAMILIES, Family


def check_supported(config: Any) -> Family:
    """The family of a transformers config; `ModelError` says why a model cannot be used."""
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{kind} is an encoder-decoder; litestage skips sub-layers of decoder-only models.")
    if any(getattr(config, name, 0) for name in ("num_local_experts", "num_experts", "n_routed_experts")):
        raise ModelError(
            f"{kind} is a mixture of experts: its FFNs differ from token to token, so skipping one has no "
            "fixed meaning. Use a dense model."
        )
    if getattr(config, "num_kv_shared_layers", 0):
        raise ModelError(
            f"{kind} shares keys and values between layers: skipping one attention would break others. "
            "Use a model whose layers keep their own."
        )
    if kind not in FAMILIES:
        raise ModelError(
            f"The family {kind!r} is not supported. Supported: {', '.join(sorted(FAMILIES))}. "
            "A family is a small file in litestage/models/families."
        )
    _check_rotary(config)
    return FAMILIES[kind]


def _check_rotary(config: Any) -> None:
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    if kind in ("dynamic", "longrope"):
        raise ModelError(
            f"{config.model_type} with {kind} rotary scaling turns a token differently as the text grows; "
            "only tables that depend on the position alone are supported."
        )


LAYOUT = (
    "model_type",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "rms_norm_eps",
    "rope_parameters",
    "sliding_window",
    "layer_types",
    "max_position_embeddings",
)
"""What shapes a model's tokens beside its weights, by the names of its config."""


def fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 over layout, names, shapes and all values, rounded to bf16 so that the dtype does not matter."""
    digest = hashlib.sha256(content_hash([(name, getattr(model.config, name, None)) for name in LAYOUT]).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().to(torch.bfloat16).contiguous().view(torch.int16).numpy())
    return digest.hexdigest()


def to_decoder(model: PreTrainedModel, device: torch.device) -> Decoder:
    """Take a transformers model apart: blocks are moved one at a time, and ``model`` is unusable afterwards."""
    config = model.config
    family = check_supported(config)
    body = model.model
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shape = Shape(
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=head_size,
        norm_eps=config.rms_norm_eps,
        max_positions=config.max_position_embeddings,
    )
    rotary = _rotary(body.rotary_emb, model.dtype, device)
    blocks = tuple(_block(family, config, shape, i, body.layers, device) for i in range(len(body.layers)))
    embedding = body.embed_tokens.weight.detach().to(device)
    head = model.lm_head
    tied = head.weight is body.embed_tokens.weight
    return Decoder(
        shape,
        embedding,
        blocks,
        body.norm.weight.detach().to(device),
        Projection(embedding if tied else head.weight.detach().to(device), _bias([head], device)),
        rotary,
        ACT2FN[config.hidden_act],
    )


def _block(family: Family, config: Any, shape: Shape, index: int, layers: nn.ModuleList, device: torch.device) -> Block:
    """Fuse one block's weights and let go of the originals."""
    get: Callable[[str], Any] = layers[index].get_submodule
    layers[index] = nn.Identity()
    attention = Attention(
        norm=get(family.attention_norm).weight.detach().to(device),
        qkv=_fuse([get(family.query), get(family.key), get(family.value)], device),
        out=_fuse([get(family.output)], device),
        head_norm=_head_norm(family, shape, get, device),
        window=_window(config, index),
    )
    ffn = Ffn(
        norm=get(family.ffn_norm).weight.detach().to(device),
        gate_up=_fuse([get(family.gate), get(family.up)], device),
        down=_fuse([get(family.down)], device),
    )
    return Block(attention, ffn)


def _fuse(parts: list[Any], device: torch.device) -> Projection:
    weight = parts[0].weight if len(parts) == 1 else torch.cat([part.weight for part in parts])
    return Projection(weight.detach().to(device).contiguous(), _bias(parts, device))


def _bias(parts: list[Any], device: torch.device) -> Tensor | None:
    if all(part.bias is None for part in parts):
        return None
    filled = [part.weight.new_zeros(part.weight.shape[0]) if part.bias is None else part.bias for part in parts]
    return torch.cat(filled).detach().to(device)


def _head_norm(family: Family, shape: Shape, get: Callable[[str], Any], device: torch.device) -> Tensor | None:
    if family.query_norm is None or family.key_norm is None:
        return None
    q, k = get(family.query_norm).weight, get(family.key_norm).weight
    return torch.cat([q.expand(shape.heads, -1), k.expand(shape.kv_heads, -1)]).detach().to(device)


def _window(config: Any, block: int) -> int | None:
    """The block's sliding window: some families name a type for each layer, others one window for all."""
    window: int | None = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    return window if types is None or types[block] == "sliding_attention" else None


def _rotary(module: Any, dtype: torch.dtype, device: torch.device) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Cosine and sine tables [P, E] from the model's own rotary embedding, whatever its scaling."""

    def tables(positions: int) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            at = torch.arange(positions)[None]
            cos, sin = module(torch.zeros(1, dtype=dtype), at)
        return cos[0].to(device), sin[0].to(device)

    return tables
