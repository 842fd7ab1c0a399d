"""From a transformers model to our decoder: its weights, fused, without holding both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from litestage.core import ModelError
from litestage.core.plan import content_hash
from litestage.models.decoder import (
    Activation,
    Attention,
    Block,
    Decoder,
    Ffn,
    Linear,
    LowRank,
    Projection,
    Rotary,
    Shape,
    Weights,
)
from litestage.models.families import FAMILIES, Family
from litestage.models.families.keys import PARTIAL, ROPE_TYPES
from litestage.models.packed import Packing

PLAIN = Packing()
FULL, SLIDING = "full_attention", "sliding_attention"


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
    if (text := getattr(config, "text_config", None)) is not None:
        raise ModelError(
            f"{kind} reads more than text, and its decoder is one part among others. Use a model of text alone, such "
            f"as this one's text part saved by itself ({text.model_type})."
        )
    if getattr(config, "use_bidirectional_attention", None):
        raise ModelError(
            f"This {kind} lets a token see those after it, as embedding models do; litestage decodes with models "
            "that look back alone."
        )
    check_family(kind)
    if (activation := _activation(FAMILIES[kind], config)) not in ACT2FN:
        raise ModelError(
            f"{kind} with the activation {activation!r} is not supported: transformers knows none like it."
        )
    _check_rotary(config)
    _check_layers(FAMILIES[kind], config)
    return FAMILIES[kind]


def check_family(kind: str) -> None:
    """Raise `ModelError` for a ``model_type`` that no family of ours describes."""
    if kind not in FAMILIES:
        raise ModelError(
            f"The family {kind!r} is not supported. Supported: {', '.join(sorted(FAMILIES))}. "
            "A family is a small file in litestage/models/families."
        )


def _check_layers(family: Family, config: Any) -> None:
    types = set(_read(family, config, "layer_types") or ())
    if others := sorted(types - {FULL, SLIDING}):
        raise ModelError(f"layer_types names {others[0]}; only {FULL} and {SLIDING} are supported.")
    if SLIDING in types and _read(family, config, "sliding_window") is None:
        raise ModelError(f"layer_types names {SLIDING}, but there is no sliding_window that says how far it sees.")


def _check_rotary(config: Any) -> None:
    for one in _ropes(config):
        if (kind := one.get("rope_type", "default")) == "dynamic":
            raise ModelError(
                f"{config.model_type} with {kind} rotary scaling turns a token differently as the text grows; "
                "only tables that depend on the position alone are supported."
            )
        if kind not in ROPE_TYPES:
            raise ModelError(
                f"{config.model_type} has rotary scaling of the kind {kind!r}, which is not supported. "
                f"Supported: {', '.join(ROPE_TYPES)}."
            )
        turned = one.get("partial_rotary_factor") or 1.0
        if kind != "default" and turned != 1.0 and PARTIAL not in FAMILIES[config.model_type].reads:
            raise ModelError(
                f"{config.model_type} with {kind} rotary scaling has partial_rotary_factor {turned}, but its "
                "implementation turns whole heads. Take that key out of config.json."
            )


def _ropes(config: Any) -> list[Mapping[str, Any]]:
    """The rotary parameters of a config: one record, or one for each layer type."""
    rope = getattr(config, "rope_parameters", None) or {}
    return [one for one in rope.values() if isinstance(one, Mapping)] or [rope]


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
CONSTANTS = (
    "hidden_activation",
    "no_rope_layers",
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "embedding_multiplier",
    "attention_multiplier",
    "residual_multiplier",
    "logits_scaling",
    "partial_rotary_factor",
)
"""The same for what only some families have."""


def fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 over layout, names, shapes and all values, rounded to bf16 so that the dtype does not matter."""
    layout = [(name, getattr(model.config, name, None)) for name in LAYOUT]
    more = [(name, value) for name in CONSTANTS if (value := getattr(model.config, name, None)) is not None]
    digest = hashlib.sha256(content_hash(layout + more).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().to(torch.bfloat16).contiguous().view(torch.int16).numpy())
    return digest.hexdigest()


def to_decoder(model: PreTrainedModel, device: torch.device, packing: Packing = PLAIN) -> Decoder:
    """Take a transformers model apart: blocks are moved one at a time, and ``model`` is unusable afterwards.

    Its matrices are packed as they come.
    """
    config = model.config
    family = check_supported(config)
    body = model.model
    shape = _shape(family, config)
    packing = packing.for_heads_of(shape.head_size)
    blocks = tuple(_block(family, config, shape, i, body.layers, device, packing) for i in range(len(body.layers)))
    embedding = packing.pack(Projection(body.embed_tokens.weight.detach().to(device)), packing.head_kind)
    head = model.lm_head
    tied = head.weight is body.embed_tokens.weight and head.bias is None
    activation = _activation(family, config)
    weights = Weights(
        embedding,
        blocks,
        _norm(family, body.norm, device, packing),
        embedding if tied else packing.pack(_fuse([head], device), packing.head_kind),
    )
    return Decoder(
        shape,
        weights,
        _rotary(blocks, body.rotary_emb, shape, packing.dtype or model.dtype, device),
        Activation(activation, ACT2FN[activation]),
        packing.cache_dtype,
        packing.kernels,
    )


def _shape(family: Family, config: Any) -> Shape:
    """Sizes and constants of a config, whichever of them the family reads."""
    get = partial(_read, family, config)
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    before_attention, logits = get("query_pre_attn_scalar"), get("logits_scaling")
    return Shape(
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=head_size,
        norm_eps=config.rms_norm_eps,
        max_positions=longest(config),
        embedding_scale=config.hidden_size**0.5 if family.scales_embedding else get("embedding_multiplier"),
        attention_scale=before_attention**-0.5 if before_attention else get("attention_multiplier"),
        attention_cap=get("attn_logit_softcapping"),
        residual_scale=get("residual_multiplier"),
        logit_scale=1 / logits if logits else None,
        logit_cap=get("final_logit_softcapping"),
    )


def longest(config: Any) -> int:
    """How far texts go: with longrope as far as they turn as short ones, since transformers turns longer ones anew."""
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope" or rope["short_factor"] == rope["long_factor"]:
        return int(config.max_position_embeddings)
    return int(rope["original_max_position_embeddings"])


def longest_seen_whole(config: Any) -> int:
    """How far texts go in which every token sees all before it, whatever sliding windows there are."""
    family = FAMILIES[config.model_type]
    windows = (_window(family, config, block) for block in range(config.num_hidden_layers))
    return min([longest(config), *(window for window in windows if window)])


def _read(family: Family, config: Any, name: str) -> Any:
    """A setting of the config, or None for a family whose implementation does not read it."""
    return getattr(config, name, None) if name in family.reads else None


def _activation(family: Family, config: Any) -> str:
    return str(_read(family, config, "hidden_activation") or config.hidden_act)


def _block(
    family: Family,
    config: Any,
    shape: Shape,
    index: int,
    layers: nn.ModuleList,
    device: torch.device,
    packing: Packing,
) -> Block:
    """Fuse one block's weights and let go of the originals."""
    get: Callable[[str], Any] = layers[index].get_submodule
    layers[index] = nn.Identity()

    def norm(path: str | None) -> Tensor | None:
        return None if path is None else _norm(family, get(path), device, packing)

    def linear(*paths: str) -> Linear:
        return packing.pack(_fuse([get(path) for path in paths], device))

    query_norm, key_norm = norm(family.query_norm), norm(family.key_norm)
    over_all_heads = query_norm is not None and len(query_norm) != shape.head_size
    attention = Attention(
        norm=norm(family.attention_norm),
        qkv=packing.pack(
            _turned_fully(_fuse([get(path) for path in family.qkv], device), _turned_dims(family, config, shape), shape)
        ),
        out=linear(family.output),
        head_norm=None if over_all_heads else _head_norm(shape, query_norm, key_norm),
        window=_window(family, config, index),
        rotary=_rotary_name(family, config, index),
        whole_norm=_both(query_norm, key_norm) if over_all_heads else None,
        post_norm=norm(family.attention_post_norm),
    )
    ffn = Ffn(
        norm=norm(family.ffn_norm),
        gate_up=linear(*family.gate_up),
        down=linear(family.down),
        post_norm=norm(family.ffn_post_norm),
    )
    return Block(attention, ffn)


def _norm(family: Family, module: Any, device: torch.device, packing: Packing) -> Tensor:
    """A norm's weight as it is multiplied with, in the residual stream's type."""
    weight: Tensor = packing.cast(module.weight.detach())
    if family.norm_offset:
        weight = (weight.float() + family.norm_offset).to(weight.dtype)
    return weight.to(device)


def _fuse(parts: list[Any], device: torch.device) -> Projection:
    weight = parts[0].weight if len(parts) == 1 else torch.cat([part.weight for part in parts])
    return Projection(weight.detach().to(device).contiguous(), _bias(parts, device), _merged(parts, device))


def _merged(parts: list[Any], device: torch.device) -> LowRank | None:
    """What adapters added to the parts, as one map."""
    maps: list[LowRank | None] = [getattr(part, "merged", None) for part in parts]
    if all(one is None for one in maps):
        return None
    down, up = LowRank.beside([_nothing(part) if one is None else one for one, part in zip(maps, parts, strict=True)])
    return LowRank(down.to(device), up.to(device))


def _nothing(part: Any) -> LowRank:
    outputs, inputs = part.weight.shape
    return LowRank(torch.empty(0, inputs), torch.empty(0, outputs))


def _bias(parts: list[Any], device: torch.device) -> Tensor | None:
    if all(part.bias is None for part in parts):
        return None
    filled = [part.weight.new_zeros(part.weight.shape[0]) if part.bias is None else part.bias for part in parts]
    return torch.cat(filled).detach().to(device)


def _both(query: Tensor | None, key: Tensor | None) -> tuple[Tensor, Tensor] | None:
    return None if query is None or key is None else (query, key)


def _head_norm(shape: Shape, query: Tensor | None, key: Tensor | None) -> Tensor | None:
    if query is None or key is None:
        return None
    return torch.cat([query.expand(shape.heads, -1), key.expand(shape.kv_heads, -1)])


def _rotary_name(family: Family, config: Any, block: int) -> str | None:
    """Which rotary tables a block uses: one for all, one a layer type, or none where ``no_rope_layers`` has a 0."""
    turns = _read(family, config, "no_rope_layers")
    if turns is not None and not turns[block]:
        return None
    return str(config.layer_types[block]) if _is_by_layer_type(config) else ""


def _is_by_layer_type(config: Any) -> bool:
    """Whether rotary parameters are given for each layer type apart."""
    return bool(set(getattr(config, "rope_parameters", None) or ()) & set(getattr(config, "layer_types", None) or ()))


def _turned_dims(family: Family, config: Any, shape: Shape) -> int:
    """Dimensions of a head that are turned; the rest of it carries no position."""
    share = _ropes(config)[0].get(PARTIAL) or 1.0 if PARTIAL in family.reads else 1.0
    turned = int(shape.head_size * share)
    return turned + turned % 2  # in pairs: as in transformers, the last of an odd number has a partner all the same


def _turned_fully(qkv: Projection, turned: int, shape: Shape) -> Projection:
    """Queries and keys with each head's dimensions in another order, the same for both, where a part of it is turned.

    A dimension and its partner then lie half a head apart, as in a head that is turned as a whole. Scores stay the
    same.
    """
    if turned == shape.head_size:
        return qkv
    order = _head_order(turned, shape.head_size)
    heads = shape.heads + 2 * shape.kv_heads
    rows = torch.arange(heads * shape.head_size).view(heads, shape.head_size)
    rows[: shape.heads + shape.kv_heads] = rows[: shape.heads + shape.kv_heads, order]
    at = rows.flatten()
    return Projection(
        qkv.weight[at].contiguous(),
        None if qkv.bias is None else qkv.bias[at],
        None if qkv.merged is None else LowRank(qkv.merged.down, qkv.merged.up[:, at].contiguous()),
    )


def _head_order(turned: int, head_size: int) -> list[int]:
    """Which old dimension stands where: first halves of pairs, some that are not turned, second halves, the rest."""
    rest = list(range(turned, head_size))
    half, some = turned // 2, (head_size - turned) // 2
    return [*range(half), *rest[:some], *range(half, turned), *rest[some:]]


def _window(family: Family, config: Any, block: int) -> int | None:
    """The block's sliding window: some families name a type for each layer, others one window for all."""
    window: int | None = _read(family, config, "sliding_window")
    types = _read(family, config, "layer_types")
    return window if types is None or types[block] == SLIDING else None


def _rotary(blocks: Sequence[Block], module: Any, shape: Shape, dtype: torch.dtype, device: torch.device) -> Rotary:
    """Cosine and sine tables [P, E] that the blocks use, as the model's own rotary embedding makes them.

    Beyond the last position there is only padding, which must not make longrope turn all others as in a long text.
    """

    def maker(*layer_type: str) -> Callable[[int], tuple[Tensor, Tensor]]:
        def tables(positions: int) -> tuple[Tensor, Tensor]:
            at = torch.arange(positions).clamp(max=shape.max_positions - 1)
            with torch.inference_mode():
                cos, sin = module(torch.zeros(1, dtype=dtype), at[None], *layer_type)
            size = shape.head_size
            return _whole_head(cos[0], 1.0, size).to(device), _whole_head(sin[0], 0.0, size).to(device)

        return tables

    names = {block.attention.rotary for block in blocks} - {None}
    return {name: maker(name) if name else maker() for name in names if name is not None}


def _whole_head(table: Tensor, still: float, head_size: int) -> Tensor:
    """A table for whole heads: ``still`` where a dimension is not turned, in the order of `_head_order`."""
    turned = table.shape[-1]
    if turned == head_size:
        return table
    whole = torch.cat([table, table.new_full((len(table), head_size - turned), still)], dim=-1)
    return whole[:, _head_order(turned, head_size)]
