"""Model folders as transformers saves them: what their files hold, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import GENERATION_CONFIG_NAME

from litestage.core import ModelError
from litestage.models.families import FAMILIES, Family
from litestage.models.families import keys as known
from litestage.models.families.keys import PARTIAL
from litestage.models.hub import NO_CODE, attempt, first_line
from litestage.models.ledger import Ledger

NEEDED = {
    "configuration": ("config.json",),
    "tokenizer": ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json"),
    "weights": (
        *("model*.safetensors", "pytorch_model*.bin"),
        *("model.safetensors.index.json", "pytorch_model.bin.index.json"),
    ),
}
"""What a model folder must hold, and the files that may be it."""
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Where weights may lie, in the order in which transformers looks."""
ADAPTER_CONFIG = "adapter_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER = "tokenizer.json"
WINDOW = frozenset({"sliding_window", "layer_types"})
"""What transformers makes a cache by, in all families."""
EMBEDDING = "model.embed_tokens.weight"
DERIVED = ("rotary_emb.inv_freq",)
"""Tensors of older files that are computed from the config."""
PLAIN_TYPES = {"F64", "F32", "F16", "BF16"}
"""Number formats whose values are the weights themselves, by safetensors' names."""
_BIN_TYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of a file, without its values."""

    shape: tuple[int, ...]
    type: str
    """Its number format by safetensors' name."""


def check_holds(name: str, folder: Path, what: str) -> None:
    """Name what a model folder lacks, before transformers says it in its own words."""
    if any(any(folder.glob(pattern)) for pattern in NEEDED[what]):
        return
    if what == "configuration" and (folder / ADAPTER_CONFIG).is_file():
        raise ModelError(
            f"{name!r} is the folder of an adapter, which changes another model. "
            f"Give that one to --model, and --adapter {name}."
        )
    raise ModelError(
        f"Model folder {name!r} has no {what} ({' or '.join(NEEDED[what])}), so no model can be read from it. "
        "Copy the whole folder, or give another --model."
    )


def read_json(path: Path) -> dict[str, Any]:
    """An object of a JSON file; raises `ModelError` where it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{path} is not JSON ({error}). Copy or fetch it again.") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no object of keys and values. Copy or fetch it again.")
    return content


def config_ledger(source: str, content: Mapping[str, Any]) -> Ledger:
    """All keys of the ``config.json`` of a supported family, and what becomes of each."""
    ledger = Ledger(source)
    _enter_config(ledger, FAMILIES[content["model_type"]], content)
    return ledger


def folder_ledger(source: str, folder: Path, config: PretrainedConfig | None = None) -> Ledger:
    """All keys of a model folder of a supported family, and what becomes of each; of its tensors too, where ``config``
    is what transformers made of ``config.json``."""
    ledger = config_ledger(source, read_json(folder / "config.json"))
    if (folder / GENERATION_CONFIG_NAME).is_file():
        enter_generation(ledger, read_json(folder / GENERATION_CONFIG_NAME))
    enter_tokenizer(ledger, folder)
    if (folder / ADAPTER_CONFIG).is_file():
        ledger.add(
            *("key", ADAPTER_CONFIG, "refused"),
            "the folder holds an adapter beside a model, and does not say which of the two is meant. "
            "Move the adapter's files into a folder of their own, and give that one to --adapter.",
        )
    if config is not None:
        _enter_tensors(ledger, config, stored_tensors(folder))
    return ledger


def _enter_config(ledger: Ledger, family: Family, content: Mapping[str, Any]) -> None:
    """Enter the keys of a ``config.json``."""
    others = frozenset().union(*(one.reads for one in FAMILIES.values()))
    unread = f"transformers' implementation of {family.model_type} does not read it"
    for key, value in content.items():
        if key == "architectures":
            _enter_architectures(ledger, family, [value] if isinstance(value, str) else value)
        elif key in known.SIZES and not _is_size(value):
            ledger.add("key", key, "refused", f"it is {value!r}, and that is no size.")
        elif key in known.BY_BLOCK & family.reads and _is_of_others(value, content):
            ledger.add("key", key, "refused", f"it has {len(value)} entries for {content['num_hidden_layers']} blocks.")
        elif key in known.DTYPES and str(value).removeprefix("torch.") not in known.PLAIN_DTYPES:
            ledger.add("key", key, "refused", f"it is {value!r}, and weights of that type are not read.")
        elif not _has_form(family, key, value, content):
            ledger.add("key", key, "refused", f"it is {value!r}, and a number above 0 belongs there.")
        elif key in WINDOW - family.reads and "sliding_window" not in family.reads and known.is_cut_by_cache(content):
            why = (
                f"transformers' attention of {family.model_type} sees all, but its cache lets go of what this key does "
                "not reach, so longer texts have two readings. Take it out of config.json to let all be seen."
            )
            ledger.add("key", key, "refused", why)
        elif key in ("rope_parameters", "rope_scaling") and isinstance(value, Mapping):
            _enter_rope(ledger, family, key, value)
        elif key in known.READ_BY_ALL or key in family.reads:
            ledger.add("key", key, "used", f"read by {family.model_type}")
        elif key in known.REFUSED:
            applies, why_not, why = known.REFUSED[key]
            ledger.add("key", key, *(("refused", why_not) if applies(value) else ("harmless", why)))
        elif key in known.HARMLESS:
            ledger.add("key", key, "harmless", known.HARMLESS[key])
        elif key in others:
            ledger.add("key", key, "harmless", unread)
        elif value is None:
            ledger.add("key", key, "harmless", "it has no value")
        else:
            ledger.add("key", key, "refused", _unknown(content))


def _is_size(value: Any) -> bool:
    """Of some keys also where it is None: transformers has a rule for those."""
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0)


def _is_of_others(value: Any, content: Mapping[str, Any]) -> bool:
    """Whether a list is no list of one entry for each block."""
    return isinstance(value, list) and len(value) != content.get("num_hidden_layers", len(value))


def _has_form(family: Family, key: str, value: Any, content: Mapping[str, Any]) -> bool:
    """Of constants and windows that the family reads."""
    if key == "sliding_window":
        off = "use_sliding_window" in family.reads and not content.get("use_sliding_window")
        return key not in family.reads or off or _is_size(value)
    if key not in family.reads or key not in known.POSITIVE:
        return True
    return known.is_positive(value) or (value is None and known.POSITIVE[key])


def _unknown(content: Mapping[str, Any]) -> str:
    own = "The folder brings code of its own (auto_map), which is not run. " if content.get("auto_map") else ""
    return f"no supported family has such a setting, and what it would do is unknown. {own}".rstrip()


def _enter_architectures(ledger: Ledger, family: Family, value: Any) -> None:
    expected = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family.model_type]
    if not value or value == [expected]:
        ledger.add("key", "architectures", "used", "it says that the weights are a language model's")
    else:
        ledger.add(
            *("key", "architectures", "refused"),
            f"the weights are those of {', '.join(map(str, value))}, but would be run as {expected}.",
        )


def _enter_rope(ledger: Ledger, family: Family, name: str, rope: Mapping[str, Any]) -> None:
    """Enter the settings of rotary embeddings, each by the name of the key that holds it."""
    if any(isinstance(one, Mapping) for one in rope.values()):
        for key, one in rope.items():
            if isinstance(one, Mapping):
                _enter_rope(ledger, family, f"{name}.{key}", one)
        return
    kind = str(rope.get("rope_type") or rope.get("type") or "default")
    if kind not in known.ROPE_TYPES:
        ledger.add(
            *("key", f"{name}.{'rope_type' if 'rope_type' in rope else 'type'}", "refused"),
            f"rotary embeddings of the kind {kind} are not supported; these are: {', '.join(known.ROPE_TYPES)}.",
        )
        return
    settings = frozenset({PARTIAL}).union(*known.ROPE_TYPES.values())
    read = known.ROPE_TYPES[kind] | known.ROPE_READ_BY_ALL | (family.reads & {PARTIAL})
    for key, value in rope.items():
        path = f"{name}.{key}"
        if key in read - known.ROPE_NO_NUMBERS and value is not None and not _is_numbers(value):
            ledger.add("key", path, "refused", f"it is {value!r}, and numbers belong there.")
        elif key in read:
            ledger.add("key", path, "used", f"read by rotary embeddings of the kind {kind}")
        elif key in known.ROPE_HARMLESS:
            ledger.add("key", path, "harmless", known.ROPE_HARMLESS[key])
        elif key in settings or value is None:
            ledger.add("key", path, "harmless", f"rotary embeddings of the kind {kind} do not read it")
        else:
            ledger.add("key", path, "refused", f"rotary embeddings of the kind {kind} have no such setting.")


def _is_numbers(value: Any) -> bool:
    several = value if isinstance(value, list) else [value]
    return all(isinstance(one, int | float) and not isinstance(one, bool) for one in several)


def _is_tokens(value: Any) -> bool:
    several = value if isinstance(value, list) else [value]
    return all(isinstance(one, int) and not isinstance(one, bool) for one in several)


def enter_generation(ledger: Ledger, content: Mapping[str, Any]) -> None:
    """Enter the keys of a ``generation_config.json``."""
    rules = known.GENERATION_UNAPPLIED | set(known.GENERATION_REFUSED)
    for key, value in content.items():
        name = f"{GENERATION_CONFIG_NAME}: {key}"
        if value is None:
            ledger.add("key", name, "harmless", "it has no value")
        elif key == "eos_token_id" and not _is_tokens(value):
            ledger.add("key", name, "refused", f"it is {value!r}, and numbers of tokens belong there.")
        elif key == "eos_token_id":
            ledger.add("key", name, "used", "these tokens end a text")
        elif key in rules and (not value or value == known.GENERATION_NEUTRAL.get(key)):
            ledger.add("key", name, "harmless", "at this value it is no rule")
        elif key in known.GENERATION_UNAPPLIED:
            ledger.add("key", name, "unapplied", known.UNAPPLIED.format(value))
        elif key in known.GENERATION_REFUSED:
            ledger.add("key", name, "refused", known.GENERATION_REFUSED[key])
        elif key in known.GENERATION_HARMLESS:
            ledger.add("key", name, "harmless", known.GENERATION_HARMLESS[key])
        else:
            ledger.add("key", name, "refused", "what it would do to a text is unknown.")


def enter_tokenizer(ledger: Ledger, folder: Path) -> None:
    """Enter the keys of a ``tokenizer_config.json``: transformers' tokenizer gets them all, but runs no code of it. Of
    a ``tokenizer.json`` enter what its library would go wrong with."""
    content = read_json(folder / TOKENIZER_CONFIG) if (folder / TOKENIZER_CONFIG).is_file() else {}
    model = read_json(folder / TOKENIZER).get("model") if (folder / TOKENIZER).is_file() else None
    for key, (kinds, why) in known.TOKENIZER_REFUSED.items():
        if isinstance(model, Mapping) and model.get(key) and model.get("type", "BPE") in kinds:
            ledger.add("key", f"{TOKENIZER}: model.{key}", "refused", f"it is {model[key]!r}, and {why}")
    for key, value in content.items():
        name = f"{TOKENIZER_CONFIG}: {key}"
        if key == "auto_map" and value:
            ledger.add(
                *("key", name, "refused"),
                "code of the folder's own makes the tokens, and it is not run: prompts would get other tokens.",
            )
        else:
            ledger.add("key", name, "used", "read by transformers' tokenizer")


def _enter_tensors(ledger: Ledger, config: PretrainedConfig, stored: Mapping[str, Stored]) -> None:
    """Enter what the files of weights hold, against what the config has a place for."""
    expected = _expected(ledger.source, config)
    tied = "lm_head.weight" if config.tie_word_embeddings else None
    found = set()
    for name, tensor in stored.items():
        at = name if name in expected else f"model.{name}"  # files of a model without its head
        if at in expected and tensor.type not in PLAIN_TYPES:
            found.add(at)
            ledger.add(
                *("tensor", name, "refused"),
                f"its numbers are {tensor.type}, and packed or scaled numbers would be taken for weights.",
            )
        elif at in expected and tensor.shape != expected[at]:
            found.add(at)
            ledger.add(
                *("tensor", name, "refused"),
                f"its size is {size(tensor.shape)}, but by config.json it should be {size(expected[at])}.",
            )
        elif at in expected:
            found.add(at)
            ledger.add("tensor", name, "used")
        elif name.endswith(DERIVED):
            ledger.add("tensor", name, "harmless", "it is computed from config.json")
        else:
            ledger.add(
                "tensor", name, "refused", "config.json has no place for it. Check that the two belong together."
            )
    for name in expected:
        if name not in found and name != tied and not (tied in found and name == EMBEDDING):
            ledger.add(
                *("tensor", name, "missing"),
                "it would be random numbers. Check that the model's files are complete and belong to its config.json.",
            )


def _expected(source: str, config: PretrainedConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's weights."""
    with torch.device("meta"):
        model = attempt("config", source, AutoModelForCausalLM.from_config, config, **NO_CODE)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def size(shape: tuple[int, ...]) -> str:
    """Of a tensor, as a person writes it."""
    return " x ".join(map(str, shape)) or "one number"


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """The tensors in a folder's files of weights, without their values; raises `ModelError` for a damaged file."""
    place = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if place is None:
        return {}
    files = [place]
    if place.suffix == ".json":
        index = read_json(place).get("weight_map")
        if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
            raise ModelError(f"{place} does not say which file holds which weight. Copy or fetch it again.")
        files = [folder / name for name in dict.fromkeys(index.values())]
        for file in files:
            if not file.is_file():
                raise ModelError(f"{file} is named by {place.name}, but is not there. Copy or fetch it.")
    return dict(entry for file in files for entry in tensors_in(file))


def values_in(file: Path, names: Iterable[str]) -> list[torch.Tensor]:
    """Some tensors of one file."""
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as content:
            return [content.get_tensor(name) for name in names]
    whole = torch.load(file, map_location="cpu", weights_only=True)
    return [whole[name] for name in names]


def tensors_in(file: Path) -> Iterator[tuple[str, Stored]]:
    """Names and shapes of the tensors of one file."""
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as content:
                for name in content.keys():  # noqa: SIM118, it is no mapping
                    part = content.get_slice(name)
                    yield name, Stored(tuple(part.get_shape()), part.get_dtype())
        else:
            for name, tensor in torch.load(file, map_location="meta", weights_only=True).items():
                yield name, Stored(tuple(tensor.shape), _BIN_TYPES.get(tensor.dtype, str(tensor.dtype)))
    except Exception as error:  # torch raises whatever a file that is none of its own leads to
        said = first_line(error).rstrip(".")
        raise ModelError(f"{file} is cut short or damaged ({said}). Copy or fetch it again.") from None
