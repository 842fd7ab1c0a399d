"""From a GGUF file to a transformers model and its tokenizer, with nothing of the file left out unsaid."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import gguf
import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from litestage.core import ModelError
from litestage.models.families.keys import UNAPPLIED
from litestage.models.gguf.architectures import HARMLESS, Architecture
from litestage.models.gguf.config import architecture_of, embedding_rows, read_config
from litestage.models.gguf.file import Account, GgufFile, open_gguf
from litestage.models.gguf.vocabulary import SPECIAL, Vocabulary, read_vocabulary
from litestage.models.gguf.weights import places, state_dict
from litestage.models.ledger import Ledger

FORMAT = {
    "general.alignment": "where tensors begin",
    "split.no": "which part it is",
    "split.count": "how many parts there are",
    "split.tensors.count": "how many tensors all parts hold",
}
"""Keys that are used as the file is opened."""

REPETITION = "general.sampling.penalty_repeat"
"""The one suggestion for sampling that would change greedy texts too."""
ROOMS = frozenset(
    value.split(".")[0]
    for group in vars(gguf.Keys).values()
    if isinstance(group, type)
    for value in vars(group).values()
    if isinstance(value, str)
) | frozenset(gguf.MODEL_ARCH_NAMES.values())
"""Beginnings of keys to which the format gives a meaning."""


@dataclass(frozen=True, slots=True)
class Description:
    """All that a file says about its model but for the weights."""

    file: GgufFile
    architecture: Architecture
    config: PretrainedConfig
    vocabulary: Vocabulary
    places: dict[str, str]
    """Of its tensors in the model's state dict."""


def gguf_ledger(path: Path, source: str) -> Ledger:
    """What became of each key and tensor, without reading weights.

    Raises `ModelError` where the file cannot be opened.
    """
    return describe(path, source)[0]


def load_gguf(path: Path, source: str, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and its tokenizer; `ModelError` names what in the file cannot be run as its authors run it."""
    ledger, one = describe(path, source)
    ledger.check()
    ledger.tell()
    assert one is not None
    tokenizer = one.vocabulary.tokenizer()
    state = state_dict(one.file, one.architecture, one.config, one.places, dtype)
    family = MODEL_FOR_CAUSAL_LM_MAPPING[type(one.config)]
    model: PreTrainedModel = family.from_pretrained(None, config=one.config, state_dict=state, dtype=dtype)
    if model.generation_config is not None:
        model.generation_config.eos_token_id = list(one.vocabulary.ends) or None
    return model.eval(), tokenizer


def describe(path: Path, source: str) -> tuple[Ledger, Description | None]:
    """No description for a file that is refused."""
    file = open_gguf(path, source)
    account = Account(file)
    if (architecture := architecture_of(account)) is None:
        return account.ledger(), None
    try:
        vocabulary = read_vocabulary(account, embedding_rows(account), architecture.strips_right)
        special = {f"{name}_token_id": vocabulary.ids.get(name) for name in SPECIAL if name != "unk"}
        config = read_config(account, architecture, special)
        by_name = places(account, config)
    except ModelError:
        if account.is_wrong:  # the ledger says more than what follows from it
            return account.ledger(), None
        raise
    _note_rest(account)
    return account.ledger(), Description(file, architecture, config, vocabulary, by_name)


def _note_rest(account: Account) -> None:
    """Keys that nobody has asked for: known to be harmless, of other programs, or refused."""
    if account.file.value("general.quantization_version") not in (None, gguf.GGML_QUANT_VERSION):
        account.refuse("general.quantization_version", "its numbers are packed by another version of the format.")
    if account.file.value(REPETITION) not in (None, 1.0):
        account.note("key", REPETITION, "unapplied", UNAPPLIED.format(round(account.file.value(REPETITION), 4)))
    for kind, name in account.names():
        if kind == "tensor" or account.knows("key", name):
            continue
        why = next((why for pattern, why in HARMLESS if re.fullmatch(pattern, name)), None)
        room = name.split(".")[0]
        if name in FORMAT:
            account.note("key", name, "used", FORMAT[name])
        elif why is not None:
            account.note("key", name, "harmless", why)
        elif room not in ROOMS:
            account.note("key", name, "harmless", "a note of another program: the format gives it no meaning")
        else:
            account.refuse(name, "what it changes is not known here.")
