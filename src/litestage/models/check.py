"""What a folder, file or adapter is, what of it is read, and whether a plan suits it; weights stay where they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import GENERATION_CONFIG_NAME

from litestage.core import ModelError
from litestage.models import catalog
from litestage.models.adapters import adapter_folder, adapter_ledger, stored_in, vocabulary
from litestage.models.convert import longest
from litestage.models.families import FAMILIES
from litestage.models.folder import ADAPTER_CONFIG, check_holds, folder_ledger, read_json, stored_tensors
from litestage.models.gguf import describe, is_gguf
from litestage.models.hub import NO_CODE
from litestage.models.ledger import Ledger
from litestage.models.load import learnt_tokenizer, open_folder, read_config, read_tokenizer
from litestage.models.prompts import PromptEncoder, eos_ids

LEAST_BLOCKS = 3
"""Searched budgets end four sub-layers before the last."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a model is, by its config."""

    family: str
    blocks: int
    sub_layers: int
    width: int
    ffn_width: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    longest_text: int
    """In tokens, prompt and answer together."""
    ends: tuple[str, ...]
    """Tokens that end a text."""
    weights: int
    precision: dict[str, int]
    """Weights by the number format in which they are stored."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One model or adapter: what it is, what of it is read, and why it cannot be used, if it cannot."""

    name: str
    place: str
    kind: str
    """Model folder, GGUF file, or adapter."""
    facts: Facts | None
    ledger: Ledger
    refusal: str | None
    """What whoever loads it is told."""
    searchable: str | None
    """Why a plan can be searched on it, or why not; None of an adapter, which is no model."""


def check_model(name: str) -> Checked:
    """Raises `ModelError` only where there is nothing to look at."""
    place = catalog.resolve(name)
    if is_gguf(place):
        return _check_gguf(name, place)
    folder = open_folder(name, place)
    if (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file():
        return check_adapter(name)
    return _check_folder(name, folder)


def check_adapter(name: str, model: str | None = None) -> Checked:
    """An adapter by itself, or against the model that it is for."""
    folder = adapter_folder(name)
    config, tokenizer = (None, None) if model is None else _described(model)
    ledger, refusal = Ledger(name), None
    try:
        ledger = adapter_ledger(name, folder, config)
        ledger.check()
        if config is not None and tokenizer is not None:
            learnt_tokenizer(name, folder, tokenizer, vocabulary(stored_in(folder), config))
    except ModelError as error:
        refusal = str(error)
    return Checked(name, str(folder), "adapter", None, ledger, refusal, None)


def _described(model: str) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    place = catalog.resolve(model)
    if is_gguf(place):
        ledger, described = describe(place, model)
        ledger.check()
        assert described is not None
        return described.config, described.vocabulary.tokenizer()
    folder = open_folder(model, place)
    return read_config(model, folder), read_tokenizer(model, folder)


def _check_gguf(name: str, place: Path) -> Checked:
    ledger, facts, refusal = Ledger(name), None, None
    try:
        ledger, described = describe(place, name)
        ledger.check()
        assert described is not None
        tensors = described.file.tensors.values()
        precision = Counter({one.kind.name: 0 for one in tensors})
        for one in tensors:
            precision[one.kind.name] += prod(one.shape)
        tokenizer = described.vocabulary.tokenizer()
        facts = _facts(described.config, precision, tokenizer, described.vocabulary.ends)
    except ModelError as error:
        refusal = str(error)
    return Checked(name, str(place), "GGUF file", facts, ledger, refusal, _searchable(facts, refusal))


def _check_folder(name: str, folder: Path) -> Checked:
    ledger, facts, refusal = Ledger(name), None, None
    try:
        check_holds(name, folder, "configuration")
        if read_json(folder / "config.json").get("model_type") in FAMILIES:
            ledger = folder_ledger(name, folder)
        config = read_config(name, folder)
        stored = stored_tensors(folder)
        precision: Counter[str] = Counter()
        for one in stored.values():
            precision[one.type] += prod(one.shape)
        tokenizer = read_tokenizer(name, folder)
        ends = eos_ids(_on_paper(config, folder), tokenizer)
        facts = _facts(config, precision, tokenizer, ends)
        if stored:
            ledger = folder_ledger(name, folder, config)
        elif catalog.resolve(name).is_dir():  # of the hub's, weights are fetched as they are needed
            check_holds(name, folder, "weights")
        ledger.check()
        _enter_end_behind(ledger, PromptEncoder(tokenizer, name, config.vocab_size, ends))
    except ModelError as error:
        refusal = str(error)
    return Checked(name, str(folder), "model folder", facts, ledger, refusal, _searchable(facts, refusal))


def _enter_end_behind(ledger: Ledger, prompts: PromptEncoder) -> None:
    if prompts.end_behind is not None:
        why = "the end that it puts behind a text is taken off: a prompt is to be continued"
        ledger.add("key", "tokenizer.json: post_processor", "harmless", why)


def _on_paper(config: PretrainedConfig, folder: Path) -> PreTrainedModel:
    """The model without its weights, with what its folder says of generation."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, **NO_CODE)
    if (folder / GENERATION_CONFIG_NAME).is_file():
        read_json(folder / GENERATION_CONFIG_NAME)
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def _facts(
    config: PretrainedConfig, precision: Mapping[str, int], tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]
) -> Facts:
    heads = config.num_attention_heads
    return Facts(
        family=config.model_type,
        blocks=config.num_hidden_layers,
        sub_layers=2 * config.num_hidden_layers,
        width=config.hidden_size,
        ffn_width=config.intermediate_size,
        heads=heads,
        kv_heads=config.num_key_value_heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocabulary=config.vocab_size,
        longest_text=longest(config),
        ends=tuple(map(str, tokenizer.convert_ids_to_tokens(list(ends)))),
        weights=sum(precision.values()),
        precision=dict(precision),
    )


def _searchable(facts: Facts | None, refusal: str | None) -> str:
    if facts is None or refusal is not None:
        return "no: it cannot be run"
    if facts.blocks < LEAST_BLOCKS:
        return f"no: of {facts.sub_layers} sub-layers none may be left out, since the last four stay"
    return f"yes: up to {facts.sub_layers - 4} of {facts.sub_layers} sub-layers may be left out"
