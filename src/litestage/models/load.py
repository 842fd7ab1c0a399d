"""Loading by hub id, folder, GGUF file or short name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import GENERATION_CONFIG_NAME

from litestage.core import ModelError, ModelIdentity, OptionError
from litestage.core.plan import content_hash
from litestage.models import catalog
from litestage.models.adapters import adapter_folder, brings_tokenizer, merge, with_adapter
from litestage.models.convert import PLAIN, check_family, check_supported, fingerprint, to_decoder
from litestage.models.decoder import Decoder
from litestage.models.families import FAMILIES
from litestage.models.folder import DERIVED, NEEDED, check_holds, config_ledger, folder_ledger, read_json
from litestage.models.gguf import is_gguf, load_gguf
from litestage.models.hub import NO_CODE, attempt, fetch
from litestage.models.packed import Packing, choose_packing
from litestage.models.prompts import PromptEncoder, eos_ids
from litestage.models.random import PREFIX, random_model

DESCRIBING = ("*.json", "*.txt", "*.jinja", "tokenizer.model")
"""Files of a hub's repository that say what the model is."""
DEVICES = ("cpu", "cuda", "mps")
STORED = "stored"
"""As the weights lie in their files."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class LoadedModel:
    """A decoder with its tokenizer and its name."""

    decoder: Decoder
    tokenizer: PreTrainedTokenizerBase
    identity: ModelIdentity
    eos_ids: tuple[int, ...]
    tuned_for: tuple[str, ...] = ()
    """Tasks that the model or its adapter was trained on: they need no worked examples in their prompts."""

    @cached_property
    def prompts(self) -> PromptEncoder:
        return PromptEncoder(self.tokenizer, self.identity.id, self.decoder.embedding.shape[0], self.eos_ids)

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        """SHA-256 of what makes token ids of a text, and of what ends one."""
        chat = self.tokenizer.chat_template
        return content_hash([self.tokenizer.get_vocab(), repr(self.tokenizer.backend_tokenizer), chat, self.eos_ids])


def load_model(
    name: str, *, adapter: str | None = None, dtype: str = "fp32", device: str = "auto", quantise: str = "none"
) -> LoadedModel:
    """Load a model for inference; raises `ModelError` with a sentence when it cannot be used.

    ``dtype`` is of the cache and of weights that are not quantised. Our own kernels run bf16 and quantised weights: on
    a CPU with an fp32 residual stream, on CUDA with one of ``dtype``; on a CPU they also attend in fp32.
    """
    packing = choose_packing(quantise, _dtype(dtype), pick_device(device))
    stored = STORED if adapter is None else "fp32"
    source, tokenizer = load_transformers(name, adapter=adapter, dtype=dtype if quantise == "none" else stored)
    label = name if adapter is None else f"{name} + {adapter}"
    tuned_for = (*catalog.tuned_for(name), *(catalog.tuned_for(adapter) if adapter else ()))
    return from_transformers(source, tokenizer, label, device=device, tuned_for=tuned_for, packing=packing)


def from_transformers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    label: str,
    *,
    device: str = "auto",
    tuned_for: tuple[str, ...] = (),
    packing: Packing = PLAIN,
) -> LoadedModel:
    """Take a transformers model over; it is unusable afterwards, because its weights move into the decoder."""
    check_supported(model.config)
    _check_finite(model, label)
    identity = ModelIdentity(id=label, fingerprint=fingerprint(model), num_blocks=model.config.num_hidden_layers)
    eos = eos_ids(model, tokenizer)
    return LoadedModel(to_decoder(model, pick_device(device), packing), tokenizer, identity, eos, tuned_for)


def _check_finite(model: PreTrainedModel, label: str) -> None:
    """Refuse weights that are not numbers. Rows of the embedding that no text reaches may be anything."""
    for name, weight in model.named_parameters():
        # A sum of numbers may overflow; one that is finite has none in it that is not.
        unsound = not weight.sum(dtype=torch.float32).isfinite() and not weight.isfinite().all()
        if unsound and weight is not model.get_input_embeddings().weight:
            raise ModelError(
                f"The weight {name} of {label} holds what is not a finite number (NaN or infinity), so every answer "
                "would be made of nothing. Fetch the file again, or give another --model."
            )


def load_transformers(
    name: str, *, adapter: str | None = None, dtype: str = "fp32"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The transformers model and tokenizer behind a name, its adapter merged; checked before weights are read.

    ``stored`` is the dtype that a folder's weights are stored in: who rounds them needs no copy in fp32.
    """
    if name.startswith(PREFIX) and adapter is None:
        return random_model(name, torch.bfloat16 if dtype == STORED else _dtype(dtype))
    if dtype == STORED and not is_gguf(place := catalog.resolve(name)):
        model, tokenizer = _load_folder(place, name, "auto")
        return model.eval(), tokenizer
    wanted, place = _dtype("fp32" if dtype == STORED else dtype), catalog.resolve(name)
    # An adapter is merged in fp32: rounded before and after, it would make other weights, and plans would not fit them.
    unmerged = wanted if adapter is None else torch.float32
    model, tokenizer = load_gguf(place, name, unmerged) if is_gguf(place) else _load_folder(place, name, unmerged)
    if adapter is not None:
        model = merge(with_adapter(model, adapter)).to(wanted)
        folder = adapter_folder(adapter)
        tokenizer = learnt_tokenizer(adapter, folder, tokenizer, model.get_input_embeddings().weight.shape[0])
        _end_as_learnt(model, folder)
    return model.eval(), tokenizer


def _load_folder(place: Path, name: str, dtype: torch.dtype | str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """From a folder, or from the hub where there is none; checked before weights are read."""
    folder = open_folder(name, place)
    config = read_config(name, folder)
    check_holds(name, folder, "tokenizer")
    if not place.is_dir():
        _fetch_weights(name)
    check_holds(name, folder, "weights")
    ledger = folder_ledger(name, folder, config)
    ledger.check()
    ledger.tell()
    tokenizer = read_tokenizer(name, folder)
    return _read_weights(name, folder, config=config, dtype=dtype, **NO_CODE), tokenizer


def open_folder(name: str, place: Path) -> Path:
    """The folder at ``place``; of a hub's repository one with all files but the weights."""
    if place.is_file():
        raise ModelError(f"Model {name!r} is one file of a model. Give the folder that holds it and its config.json.")
    return place if place.is_dir() else fetch(name, DESCRIBING)


def read_tokenizer(name: str, folder: Path) -> PreTrainedTokenizerBase:
    check_holds(name, folder, "tokenizer")
    tokenizer: PreTrainedTokenizerBase = attempt("tokenizer", name, AutoTokenizer.from_pretrained, folder, **NO_CODE)
    return tokenizer


def _fetch_weights(name: str) -> None:
    for kind in NEEDED["weights"]:
        if any(fetch(name, [kind]).glob(kind)):
            return


def learnt_tokenizer(adapter: str, folder: Path, own: PreTrainedTokenizerBase, rows: int) -> PreTrainedTokenizerBase:
    """The tokenizer that an adapter was trained with: the model's, unless its folder holds one.

    ``rows`` are the embedding's.
    """
    if not brings_tokenizer(folder):
        return own
    learnt = read_tokenizer(adapter, folder)
    ids, known = learnt.get_vocab(), own.get_vocab()
    if other := next((token for token, at in known.items() if ids.get(token) != at), None):
        raise ModelError(
            f"The adapter {adapter!r} brings a tokenizer of its own, in which {other!r} is another token than in the "
            "model's. Give the model that the adapter was trained on."
        )
    more = {token: at for token, at in ids.items() if at >= rows and token not in known}
    if beyond := min(more, key=more.__getitem__, default=None):
        raise ModelError(
            f"The adapter {adapter!r} was trained with the token {beyond!r}, for which the model has no embedding. "
            "Merge the adapter into its own model, save that with its tokenizer, and give the folder to --model."
        )
    return learnt


def _end_as_learnt(model: PreTrainedModel, adapter: Path) -> None:
    """Let texts also end at the token that the adapter learnt to end them with: versions of transformers differ in
    which one a GGUF file's tokenizer has for that."""
    if (adapter / GENERATION_CONFIG_NAME).is_file() and model.generation_config is not None:
        learnt, own = GenerationConfig.from_pretrained(adapter).eos_token_id, model.generation_config.eos_token_id
        model.generation_config.eos_token_id = [
            i for ids in (own, learnt) if ids is not None for i in (ids if isinstance(ids, list) else [ids])
        ]


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise OptionError(f"--dtype {name} is not known. Choose one of {', '.join(DTYPES)}.")
    return DTYPES[name]


def pick_device(name: str) -> torch.device:
    """``auto`` takes CUDA, then MPS, then the CPU."""
    if name == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
        if device.type not in DEVICES:
            raise RuntimeError(device.type)
        torch.empty(0, device=device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # graphs and kernels run on the current one
    except (RuntimeError, AssertionError):
        raise OptionError(f"--device {name} is not usable here. Try auto or cpu.") from None
    return device


def read_config(name: str, place: Path) -> PretrainedConfig:
    """A model's config, of a supported family. What transformers would say of an unknown one in its own words, or
    obey unseen, is named before it reads it."""
    check_holds(name, place, "configuration")
    content = read_json(place / "config.json")
    kind = content.get("model_type")
    if kind is not None and kind not in CONFIG_MAPPING:
        check_family(kind)
    if kind in FAMILIES:
        config_ledger(name, content).check()
    config: PretrainedConfig = attempt("config", name, AutoConfig.from_pretrained, place, **NO_CODE)
    check_supported(config)
    if config._attn_implementation not in (None, "eager", "sdpa"):
        config._attn_implementation = None  # others need not be installed here, and are not used
    return config


def _read_weights(name: str, place: Path, **options: Any) -> PreTrainedModel:
    """transformers fills weights that a file lacks with random numbers, and drops those that the config has no place
    for; here both are errors."""
    model: PreTrainedModel
    model, info = attempt(
        "weights", name, AutoModelForCausalLM.from_pretrained, place, output_loading_info=True, **options
    )
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"The weights of model {name!r} lack {missing[0]} ({len(missing)} missing in all), which would be random "
            "numbers. Check that the model's files are complete and belong to its config.json."
        )
    if unused := sorted(key for key in info["unexpected_keys"] if not key.endswith(DERIVED)):
        raise ModelError(
            f"The weights of model {name!r} hold {unused[0]} ({len(unused)} such in all), for which its config.json "
            "has no place: another model than the trained one would run. Check that the two belong together."
        )
    _check_tied(name, model)
    return model


def _check_tied(name: str, model: PreTrainedModel) -> None:
    """A head that is stored beside an embedding it is tied to must be that embedding: libraries differ in which of two
    they run."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if not model.config.tie_word_embeddings or head is None or head.weight is embedding.weight:
        return
    if not torch.equal(head.weight, embedding.weight):
        raise ModelError(
            f"The config.json of model {name!r} says that its head is its embedding (tie_word_embeddings), but its "
            "weights hold an lm_head.weight that is another: the file has two meanings. Set tie_word_embeddings to "
            "false to run the stored head, or take the tensor out."
        )


__all__ = [
    "DTYPES",
    "LoadedModel",
    "from_transformers",
    "load_model",
    "load_transformers",
    "pick_device",
]
