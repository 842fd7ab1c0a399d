"""Adapters: which kinds are merged into weights, what of their files is read, and the merging."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.utils import GENERATION_CONFIG_NAME

from litestage.core import ModelError
from litestage.models import catalog
from litestage.models.decoder import LowRank
from litestage.models.folder import (
    ADAPTER_CONFIG,
    NEEDED,
    PLAIN_TYPES,
    TOKENIZER_CONFIG,
    Stored,
    enter_generation,
    enter_tokenizer,
    read_json,
    size,
    tensors_in,
    values_in,
)
from litestage.models.hub import NO_CODE, fetch, first_line
from litestage.models.ledger import Ledger

PLACES = "_topk_indices"
"""How the names of numbers end that count rows and are no weights (VB-LoRA)."""
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
MERGED = frozenset(
    {"LORA", "ADALORA", "IA3", "VERA", "LOHA", "LOKR", "OFT", "BOFT", "HRA", "FOURIERFT", "LN_TUNING", "RANDLORA"}
    | {"TRAINABLE_TOKENS", "C3A", "DELORA", "MISS", "VBLORA"}
)
"""Kinds of adapter, by peft's ``peft_type``, that change weights and nothing else."""
OF_PROMPTS = frozenset(
    {"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT", "CARTRIDGE"}
)
"""Kinds that need more than weights while a text is read."""
_TRAINING = "it concerns training alone"
_NOTE = "it is a note of how the file was made"
HARMLESS = {
    **dict.fromkeys(("lora_dropout", "inference_mode", "eva_config", "velora_config", "runtime_config"), _TRAINING),
    **dict.fromkeys(("revision", "auto_mapping", "peft_version", "megatron_core", "qalora_group_size"), _NOTE),
    "base_model_name_or_path": "it says what the adapter was trained on; sizes and names are compared, not that",
}
"""Keys of ``adapter_config.json`` that change no text, and why."""
REFUSED = {
    "alora_invocation_tokens": "it changes weights from some token of a text on (aLoRA), so it cannot be merged.",
    "layer_replication": "it makes another stack of blocks out of the model's.",
    "use_qalora": "it changes weights that are stored quantised (QA-LoRA).",
    "use_bdlora": "block-diagonal LoRA is not supported.",
    "arrow_config": "it chooses between several adapters token by token (Arrow).",
    "megatron_config": "it is made for layers of Megatron.",
    "monteclora_config": "it draws weights at random (MonteCLoRA).",
    "loftq_config": "it belongs to weights that were rounded for it (LoftQ).",
    "corda_config": "it belongs to weights that were taken apart by what some data showed (CorDA).",
    "lora_ga_config": "it belongs to weights that were changed by a gradient (LoRA-GA).",
}
"""Keys of ``adapter_config.json`` that cannot be followed when they are set, and what they do."""


def _is_pattern(value: Any, of: type | tuple[type, ...]) -> bool:
    return isinstance(value, dict) and all(isinstance(one, of) and not isinstance(one, bool) for one in value.values())


def _are_tokens(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def _are_patterns(value: Any) -> bool:
    try:
        return all(re.compile(one) is not None for one in value)
    except (re.error, TypeError):
        return False


_TOKENS = "numbers of tokens, from 0 on"
FORMS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "r": ("a whole number", lambda value: type(value) is int),
    "lora_alpha": ("a number", lambda value: type(value) in (int, float)),
    "bias": ("a text", lambda value: isinstance(value, str)),
    "rank_pattern": (
        "names or patterns with a rank for each",
        lambda value: _is_pattern(value, (int, list)) and _are_patterns(value),
    ),
    "alpha_pattern": (
        "names or patterns with a number for each",
        lambda value: _is_pattern(value, (int, float)) and _are_patterns(value),
    ),
    "token_indices": (_TOKENS, _are_tokens),
    "trainable_token_indices": (
        f"{_TOKENS}, or such numbers for each of several layers",
        lambda value: (
            value is None or _are_tokens(value) or (isinstance(value, dict) and all(map(_are_tokens, value.values())))
        ),
    ),
}
"""What the values of some keys must be, where peft would go wrong on others without naming the key."""
STARTS = (True, False, None, "gaussian", "eva", "olora", "pissa", "orthogonal", "mica")
"""Ways in which LoRA begins that leave the model's weights alone, or change them in a way that can be repeated."""


def adapter_folder(name: str) -> Path:
    """The folder of an adapter: a short name's, a path, or fetched from the hub; it holds what an adapter must."""
    place = catalog.resolve_adapter(name)
    if not place.exists():
        place = fetch(name, ("adapter_*", "*.json", "*.jinja", "*.txt", "tokenizer.model"))
    for names in ((ADAPTER_CONFIG,), WEIGHTS):
        if not any((place / one).is_file() for one in names):
            raise ModelError(f"Adapter {name!r} has no {' or '.join(names)}{_instead(place)}")
    return place


def _instead(place: Path) -> str:
    """What a folder is that is no adapter's."""
    if (place / "adapters.safetensors").is_file():
        return ": it was written by MLX, whose adapters are not read. Give one in PEFT's form."
    if within := sorted(file.parent.name for file in place.glob(f"*/{ADAPTER_CONFIG}")):
        return f", but holds the folder {within[-1]}, which has one. Give that one to --adapter."
    if (place / "config.json").is_file():
        return ": it is a model's folder, which belongs to --model."
    return ". Give a folder in PEFT's form, such as `litestage finetune` writes."


def adapter_ledger(name: str, place: Path, config: PretrainedConfig | None = None) -> Ledger:
    """All keys of an adapter, and what becomes of each; of its tensors too, where the model's ``config`` is given."""
    ledger = Ledger(name)
    _enter_keys(ledger, read_json(place / ADAPTER_CONFIG))
    if (place / GENERATION_CONFIG_NAME).is_file():
        enter_generation(ledger, read_json(place / GENERATION_CONFIG_NAME))
    _enter_prompts(ledger, place)
    if config is not None and not any(ledger.of("refused")):
        _enter_tensors(ledger, place, config)
    return ledger


def brings_tokenizer(place: Path) -> bool:
    return any((place / name).is_file() for name in NEEDED["tokenizer"])


def _enter_prompts(ledger: Ledger, place: Path) -> None:
    """Enter what the folder says of prompts: a whole tokenizer, or parts that are of no use without one."""
    if brings_tokenizer(place):
        enter_tokenizer(ledger, place)
        return
    for name in (TOKENIZER_CONFIG, "chat_template.jinja"):
        if (place / name).is_file():
            ledger.add(
                *("key", name, "refused"),
                "it says how prompts were written in training, but the tokenizer that belongs to it is not there. "
                "Copy the tokenizer's other files beside it, or take it out to use the model's own.",
            )


def _enter_keys(ledger: Ledger, content: Mapping[str, Any]) -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = str(content.get("peft_type"))
    ledger.add("key", "peft_type", *_of_kind(kind))
    known = set(PEFT_TYPE_TO_CONFIG_MAPPING[kind].__dataclass_fields__) if kind in MERGED else set()
    for key, value in content.items():
        if key == "peft_type" or (kind not in MERGED and key != "task_type"):
            continue
        if key == "task_type":
            ledger.add("key", key, *_of_task(value))
        elif key == "init_lora_weights" and value not in STARTS:
            why = f"{value} changes the model's own weights as training begins, in a way that cannot be repeated."
            ledger.add("key", key, "refused", why)
        elif key in REFUSED:
            ledger.add("key", key, *(("refused", REFUSED[key]) if value else ("harmless", "it is not set")))
        elif key in HARMLESS or key.endswith("dropout"):
            ledger.add("key", key, "harmless", HARMLESS.get(key, _TRAINING))
        elif key in known:
            ledger.add("key", key, *_of_form(key, value, kind))
        elif value is None:
            ledger.add("key", key, "harmless", "it has no value")
        else:
            ledger.add("key", key, "refused", f"peft knows no such setting of {kind}, and what it would do is unknown.")


def _of_form(key: str, value: Any, kind: str) -> tuple[Any, str]:
    form, fits = FORMS.get(key, ("", lambda value: True))
    if fits(value) or (value is None and (kind, key) == ("ADALORA", "rank_pattern")):
        return "used", f"read by peft, which merges {kind}"
    return "refused", f"it is {value!r}, and {form} belongs there."


def _of_kind(kind: str) -> tuple[Any, str]:
    if kind in MERGED:
        return "used", "peft merges such an adapter into the weights"
    if kind in OF_PROMPTS:
        return "refused", f"{kind} puts learnt vectors before or beside what is read, which no weight can hold."
    return "refused", f"adapters of the kind {kind} are not supported. These are: {', '.join(sorted(MERGED))}."


def _of_task(task: Any) -> tuple[Any, str]:
    if task in (None, "CAUSAL_LM"):
        return "used", "it was trained on a language model"
    return "refused", f"it was trained for {task}, whose head is no language model's."


def _enter_tensors(ledger: Ledger, place: Path, config: PretrainedConfig) -> None:
    """Enter what the file of weights holds, against what an adapter of that kind has on that model."""
    stored = stored_in(place)
    count = vocabulary(stored, config)
    if (beyond := _last_token(read_json(place / ADAPTER_CONFIG))) >= count:
        ledger.add("key", "trainable_token_indices", "refused", f"it names token {beyond}, and the model has {count}.")
        return
    whole = any(_UNDER[1] in name for name in stored)
    expected, own = _expected(ledger.source, place, _grown(config, count), whole)
    for name, tensor in stored.items():
        if (twin := _TWIN.fullmatch(name)) and f"{twin['layer']}.weight" in stored.keys() & expected.keys():
            ledger.add("tensor", name, *_of_twin(place, twin))
            continue
        if config.tie_word_embeddings and _is_twin_of_tokens(place, name, stored, expected):
            ledger.add("tensor", name, "harmless", "it is the embedding's once more, which the head shares")
            continue
        should = expected.get(name) or own.get(_own_name(name))
        ledger.add("tensor", name, *_of_tensor(name, tensor, should))
    for name in expected:
        if name not in stored:
            ledger.add("tensor", name, "missing", "it would be as before training. Copy or fetch the adapter again.")


def stored_in(place: Path) -> dict[str, Stored]:
    return dict(tensors_in(_weights_file(place)))


def _weights_file(place: Path) -> Path:
    return next(place / name for name in WEIGHTS if (place / name).is_file())


_TWIN = re.compile(
    r"(?P<layer>base_model\.model\.(model\.embed_tokens|lm_head))\.(?P<which>modules_to_save|original_module)\.weight"
)
"""Further names that peft writes beside ``layer.weight`` where it saves an embedding or a head that was resized and
then trained whole (``modules_to_save``)."""


def _last_token(content: Mapping[str, Any]) -> int:
    """The highest number of the tokens that an adapter trains."""
    several = content.get("trainable_token_indices") or content.get("token_indices") or []
    lists = several.values() if isinstance(several, Mapping) else [several]
    return max((token for one in lists for token in one), default=-1)


def _own_name(name: str) -> str:
    """Of the model's own weight, without what an adapter put around it."""
    for under in reversed(_UNDER):
        name = name.replace(under, ".")
    return name


def _is_twin_of_tokens(place: Path, name: str, stored: Mapping[str, Stored], expected: Mapping[str, Any]) -> bool:
    """Whether it says of the head what is said of the embedding: peft writes trained tokens twice where the two share a
    weight that was resized."""
    other = name.replace(".lm_head.token_adapter.", ".model.embed_tokens.token_adapter.")
    if other == name or name in expected or other not in stored:
        return False
    head, embedding = values_in(_weights_file(place), (name, other))
    return torch.equal(head, embedding)


def _of_twin(place: Path, twin: re.Match[str]) -> tuple[Any, str]:
    if twin["which"] == "original_module":
        return "harmless", "it is the model's own weight, which the trained one replaces"
    trained, again = values_in(_weights_file(place), (f"{twin['layer']}.weight", twin.string))
    if torch.equal(trained, again):
        return "harmless", f"it is {twin['layer']}.weight once more"
    return "refused", f"it differs from {twin['layer']}.weight, which ought to be the same weight. Save it again."


_UNDER = (".base_layer.", ".token_adapter.base_layer.")
"""What stands in the name of a model's own weight under an adapter, in place of a point."""
_ENDS = [
    tuple(f"base_model.model.{end}{under}weight" for under in (".", *_UNDER))
    for end in ("model.embed_tokens", "lm_head")
]
"""Names of the embedding and of the head where an adapter's file holds them whole."""


def vocabulary(stored: Mapping[str, Stored], config: PretrainedConfig) -> int:
    """How many tokens the model has under an adapter: the model's own, unless the adapter's file holds embedding and
    head whole."""
    others = reversed(_ENDS)
    embedding, head = (
        next((stored[name].shape[0] for name in (*names, *shared) if name in stored), None)
        for names, shared in zip(_ENDS, [one[1:] if config.tie_word_embeddings else () for one in others], strict=True)
    )
    return config.vocab_size if embedding is None or embedding != head else embedding


def _grown(config: PretrainedConfig, count: int) -> PretrainedConfig:
    grown = copy.deepcopy(config)
    grown.vocab_size = count
    return grown


def _of_tensor(name: str, tensor: Stored, should: tuple[int, ...] | None) -> tuple[Any, str]:
    if should is None and (named := _NAMED.fullmatch(name)):
        return "refused", f"peft writes it without {named['adapter']!r}, and does not read it so. Rename the tensors."
    if should is None:
        return "refused", "the model has no place for it: the adapter was trained on another one."
    if tensor.type not in PLAIN_TYPES and not name.endswith(PLACES):
        return "refused", f"its numbers are {tensor.type}, which are no weights."
    if tensor.shape == should:
        return "used", "merged into the weights"
    of_tokens = ("embed_tokens" in name or "lm_head" in name) and tensor.shape[0] > should[0]
    return "refused", (
        f"its size is {size(tensor.shape)}, but for this model it should be {size(should)}: "
        + (
            f"it was trained with {tensor.shape[0] - should[0]} more tokens. Merge it into its own model, save that "
            "with the tokenizer that has those tokens, and give the folder to --model."
            if of_tokens and len(should) > 1
            else "it was trained on another one."
        )
    )


_NAMED = re.compile(r".*\.lora_[AB]\.(?P<adapter>[^.]+)\.weight")
"""A tensor with the adapter's own name in its name, as an unsaved model has it."""
Shapes = dict[str, tuple[int, ...]]


def _expected(name: str, place: Path, config: PretrainedConfig, whole: bool) -> tuple[Shapes, Shapes]:
    """Names and shapes of an adapter's tensors on a model, and of the model's own under the names they would have.

    ``whole`` is whether the file holds some of the model's own weights under trained tokens.
    """
    from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict

    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, **NO_CODE)
    own = {f"base_model.model.{key}": tuple(tensor.shape) for key, tensor in base.state_dict().items()}
    with _sentence(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is missing or of another size is told below
        settings: Any = PeftConfig.from_pretrained(str(place))
        kept = settings.rank_pattern or {} if settings.peft_type == "ADALORA" else {}
        if kept:
            settings.rank_pattern = None  # of weights without values, peft cannot take a part
        if whole:  # peft would put the model's own weights beside an adapter without values
            settings.init_lora_weights = True
            adapted = get_peft_model(base, settings, low_cpu_mem_usage=True)
        else:
            adapted = PeftModel.from_pretrained(
                base, str(place), config=settings, low_cpu_mem_usage=True, ignore_mismatched_sizes=True
            )
        found = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return _cut({key: tuple(tensor.shape) for key, tensor in found.items()}, kept), own


def _cut(shapes: Shapes, kept: Mapping[str, Sequence[bool]]) -> Shapes:
    """What AdaLoRA leaves of each layer's matrices once it has chosen its ranks."""
    cut = dict(shapes)
    for layer, ranks in kept.items():
        stem, count = f"base_model.model.{layer.removesuffix('.lora_E')}", sum(map(bool, ranks))
        for name, at in (("lora_A", 0), ("lora_E", 0), ("lora_B", 1)):
            if shape := cut.get(f"{stem}.{name}"):
                cut[f"{stem}.{name}"] = (*shape[:at], count, *shape[at + 1 :])
    return cut


@contextmanager
def _sentence(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # peft raises whatever can go wrong with other people's files
        raise ModelError(
            f"The adapter {name!r} could not be put on this model: {first_line(error)} "
            "Give the folder of an adapter that was trained on this model."
        ) from error


def with_adapter(model: PreTrainedModel, adapter: str, learning: bool = False) -> Any:
    """The model under an adapter, which is ``learning`` or not; raises `ModelError` when the two do not fit.

    It ``keeps_embedding`` where the adapter brings the model's own embedding and head, and must do so when saved again.
    """
    from peft import PeftModel
    from peft.utils.other import ModulesToSaveWrapper

    place = adapter_folder(adapter)
    ledger = adapter_ledger(adapter, place, model.config)
    ledger.check()
    ledger.tell()
    stored = stored_in(place)
    _check_finite(_weights_file(place), stored)
    if (count := vocabulary(stored, model.config)) != model.config.vocab_size:
        model.resize_token_embeddings(count, mean_resizing=False)  # its rows come from the adapter
    with _sentence(adapter), warnings.catch_warnings():  # peft asks transformers under an old name
        warnings.simplefilter("ignore", FutureWarning)
        adapted: Any = PeftModel.from_pretrained(model, str(place), is_trainable=learning)
    adapted.keeps_embedding = any(
        any(name in stored for name in names) and not isinstance(layer, ModulesToSaveWrapper)
        for names, layer in zip(_ENDS, (model.get_input_embeddings(), model.lm_head), strict=True)
    )
    return adapted


def _check_finite(file: Path, names: Iterable[str]) -> None:
    for name in names:
        (values,) = values_in(file, (name,))
        if values.is_floating_point() and not values.isfinite().all():
            raise ModelError(
                f"{file} holds the tensor {name} with what is not a finite number (NaN or infinity), so every answer "
                "would be made of nothing. Fetch it again, or train the adapter again with a lower learning rate."
            )


def merge(adapted: Any) -> PreTrainedModel:
    """The model with its adapter in its weights. Each layer remembers what came from there, for whoever rounds it."""
    from peft.utils.other import AuxiliaryTrainingWrapper

    base = adapted.get_base_model()
    _untie(base)
    _make_room_for_biases(base)
    maps = {name: _low_rank(layer) for name, layer in base.named_modules() if _is_plain_lora(layer)}
    model: PreTrainedModel = adapted.merge_and_unload()
    if left := next(
        (name for name, layer in model.named_modules() if isinstance(layer, AuxiliaryTrainingWrapper)), None
    ):
        raise ModelError(
            f"The adapter changes {left} in two ways at once, such as by LoRA and by trainable_token_indices, and peft "
            "cannot merge both. Use the adapter by peft itself, or train it in one of these ways."
        )
    for name, low_rank in maps.items():
        model.get_submodule(name).merged = low_rank
    return model


def _untie(base: Any) -> None:
    """Give embedding and head a weight each where an adapter changes one of them: merged into a shared weight, it would
    change both."""
    ends = (base.model.embed_tokens, base.lm_head)
    embedding, head = map(_bare, ends)
    if (embedding, head) != ends and head.weight is embedding.weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        base.config.tie_word_embeddings = False


def _bare(layer: Any) -> Any:
    """The model's own layer under what an adapter put around it."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import TrainableTokensWrapper

    while isinstance(layer, BaseTunerLayer | TrainableTokensWrapper):
        layer = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer.original_module
    return layer


def _make_room_for_biases(base: Any) -> None:
    """Biases that an adapter learnt (``lora_bias``) are added to the layer's own, so there must be one."""
    for layer in base.modules():
        if any(getattr(layer, "lora_bias", {}).values()) and layer.get_base_layer().bias is None:
            weight = layer.get_base_layer().weight
            layer.get_base_layer().bias = nn.Parameter(weight.new_zeros(len(weight)), requires_grad=False)


def _is_plain_lora(layer: Any) -> bool:
    """Of a linear layer, and with nothing but the two matrices of one adapter (its variants scale or turn them)."""
    from peft.tuners import lora

    return type(layer) is lora.Linear and len(layer.lora_A) == 1 and not layer.lora_variant


def _low_rank(layer: Any) -> LowRank:
    (name,) = layer.active_adapters
    up = layer.lora_B[name].weight * layer.scaling[name]
    return LowRank(layer.lora_A[name].weight.detach().float(), up.detach().float().T.contiguous())
