"""Model folders: every key and tensor is obeyed as transformers does, ignored with a reason, or refused by name."""

from __future__ import annotations

import json
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from published import GENERATION, PUBLISHED
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from litestage.core import ModelError
from litestage.models import LoadedModel, load_model
from litestage.models.families import FAMILIES
from litestage.models.families.keys import GENERATION_REFUSED, POSITIVE, READ_BY_ALL
from litestage.models.folder import folder_ledger
from litestage.models.ledger import Entry

IDS = tiny.prompt(40)
AT = (7, 23, 39)
"""Positions whose logits are compared: within the first window, beyond it, the last."""


def logits(model: LoadedModel) -> Tensor:
    return tiny.logits_of(model, IDS, AT)


def by_transformers(folder: Path) -> Tensor:
    """Of the whole text at once, without a cache."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        found: Tensor = model(torch.tensor([IDS]), use_cache=False).logits[0, list(AT)]
        return found


def config_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return content


def write(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config))


def entries(folder: Path) -> dict[str, Entry]:
    return {entry.name: entry for entry in folder_ledger(str(folder), folder).entries}


def published(place: Path, name: str) -> Path:
    """A folder of random weights with the published config, word by word."""
    config = PUBLISHED[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1 if parameter.dim() == 1 else 0, 0.3)
    model.save_pretrained(place)
    tiny.tokenizer().save_pretrained(place)
    write(place, config)
    (place / "generation_config.json").write_text(json.dumps(GENERATION))
    return place


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_load_as_transformers_runs_them(tmp_path: Path, name: str) -> None:
    folder = published(tmp_path, name)
    with pytest.warns(UserWarning, match=r"repetition_penalty \(it is 1.1; .* command line"):
        model = load_model(str(folder), device="cpu")
    torch.testing.assert_close(logits(model), by_transformers(folder), atol=2e-4, rtol=1e-4)
    assert set(model.eos_ids) == {2, 17}
    known = entries(folder)
    top = {name.split(".")[0] for name in known if ": " not in name} | set(known)
    assert set(config_of(folder)) <= top
    assert {f"generation_config.json: {key}" for key in GENERATION} <= set(known)
    assert all(entry.why for entry in known.values() if entry.verdict == "harmless")
    assert known["generation_config.json: repetition_penalty"].verdict == "unapplied"


def test_a_text_of_long_factors_is_not_begun(tmp_path: Path) -> None:
    """Phi-3.5 turns every token otherwise once a text is longer than the model was first trained on."""
    model = load_model(str(published(tmp_path, "Phi-3.5 mini")), device="cpu")
    assert model.decoder.shape.max_positions == 64


ODD: dict[str, Any] = {
    "sliding_window": 8,
    "use_sliding_window": True,
    "max_window_layers": 1,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "no_rope_layers": [0, 1, 0, 1],
    "no_rope_layer_interval": 2,
    "query_pre_attn_scalar": 3,
    "attn_logit_softcapping": 0.5,
    "final_logit_softcapping": 0.7,
    "embedding_multiplier": 2.5,
    "attention_multiplier": 0.7,
    "residual_multiplier": 0.3,
    "logits_scaling": 3.0,
    "partial_rotary_factor": 0.5,
    "hidden_act": "relu",
    "hidden_activation": "relu",
    "original_max_position_embeddings": 16,
    "sliding_window_pattern": 2,
    "rope_local_base_freq": 77.0,
    "rms_norm_eps": 0.1,
    "rope_theta": 33.0,
    "rope_scaling": {"rope_type": "yarn", "factor": 3.0},
    "pretraining_tp": 2,
    "rope_interleaved": True,
    "chunk_size_feed_forward": 3,
    "attention_dropout": 0.5,
    "tie_last_hidden_states": True,
}
"""Values that would change logits of any family that read them."""


def test_the_odd_values_are_of_all_keys_that_only_some_families_read() -> None:
    read = frozenset().union(*(family.reads for family in FAMILIES.values()))
    assert read - set(ODD) == {"attention_bias", "mlp_bias"}, "theirs are the biases among the weights"


def plain(place: Path, family: str) -> Path:
    """A folder whose rotary settings stand beside each other, as in published ones, so that odd values are seen."""
    folder = tiny.saved(place, family)
    write(folder, {key: value for key, value in config_of(folder).items() if key != "rope_parameters"})
    return folder


def read_by(family: str) -> frozenset[str]:
    return (READ_BY_ALL | FAMILIES[tiny.transformers_model(family).config.model_type].reads) & set(ODD)


ONE_OF_EACH = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "granite", "phi3", "olmo2", "gemma2", "gemma3")


@pytest.mark.parametrize(
    ("family", "key"), [(family, key) for family in ONE_OF_EACH for key in sorted(read_by(family))]
)
def test_what_a_family_reads_is_obeyed_as_transformers_obeys_it(tmp_path: Path, family: str, key: str) -> None:
    folder = plain(tmp_path, family)
    write(folder, config_of(folder) | {key: ODD[key]})
    assert any(entry.verdict == "used" for name, entry in entries(folder).items() if name.split(".")[0] == key)
    try:
        expected = by_transformers(folder)
    except (ValueError, KeyError):  # transformers cannot run it: then nor do we
        with pytest.raises(ModelError, match=r"sliding_window|rope_parameters"):
            load_model(str(folder), device="cpu")
        return
    torch.testing.assert_close(logits(load_model(str(folder), device="cpu")), expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ONE_OF_EACH)
def test_keys_of_other_families_are_ignored_as_transformers_ignores_them(tmp_path: Path, family: str) -> None:
    """All at once: each of them would change the logits of a family that reads it."""
    folder = plain(tmp_path, family)
    before = by_transformers(folder)
    foreign = set(ODD) - read_by(family) - {"sliding_window", "layer_types"}
    write(folder, {key: ODD[key] for key in foreign} | config_of(folder))
    assert {entries(folder)[key].verdict for key in foreign - set(config_of(tiny.saved(tmp_path / "x", family)))} == {
        "harmless"
    }
    torch.testing.assert_close(by_transformers(folder), before)
    torch.testing.assert_close(logits(load_model(str(folder), device="cpu")), before, atol=2e-4, rtol=1e-4)


WINDOWS: tuple[dict[str, Any], ...] = (
    {"sliding_window": None},
    {"sliding_window": tiny.WINDOW},
    {"sliding_window": tiny.WINDOW, "use_sliding_window": False},
    {"sliding_window": 256},
    {"sliding_window": tiny.WINDOW, "layer_types": ["full_attention"] * 4},
    {"sliding_window": tiny.WINDOW, "layer_types": ODD["layer_types"]},
    {"layer_types": ODD["layer_types"]},
    {"sliding_window": 0},
)


def forgets(folder: Path) -> bool:
    """Whether a cache that is made of the config lets go of something within the longest text."""
    config = AutoConfig.from_pretrained(folder)
    try:
        layers = DynamicCache(config=config).layers
    except (AttributeError, TypeError):  # it cannot be made at all
        return True
    return any(getattr(layer, "sliding_window", 1 << 30) < config.max_position_embeddings for layer in layers)


@pytest.mark.parametrize("family", ["llama", "granite", "olmo2"])
@pytest.mark.parametrize("keys", WINDOWS, ids=str)
def test_a_window_that_only_transformers_cache_obeys_is_refused(
    tmp_path: Path, family: str, keys: dict[str, Any]
) -> None:
    folder = tiny.saved(tmp_path, family)
    write(folder, config_of(folder) | keys)
    if forgets(folder):
        refused(folder, "key (sliding_window|layer_types): .*two readings.*Take it out of config.json")
        return
    load_model(str(folder), device="cpu")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([IDS])
    cached, whole = (
        model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6, use_cache=used)
        for used in (True, False)
    )
    assert torch.equal(cached, whole)


@pytest.mark.parametrize("family", ["mistral", "gemma3", "qwen2-window"])
@pytest.mark.parametrize("window", [0, -1, 2.5])
def test_a_window_must_reach_somewhere(tmp_path: Path, family: str, window: Any) -> None:
    folder = tiny.saved(tmp_path, family)
    write(folder, config_of(folder) | {"sliding_window": window})
    refused(folder, f"key sliding_window: it is {window}, and a number above 0")


@pytest.mark.parametrize(
    ("family", "key"),
    [("granite", key) for key in sorted(FAMILIES["granite"].reads & set(POSITIVE))]
    + [("gemma2", key) for key in sorted(FAMILIES["gemma2"].reads & set(POSITIVE))]
    + [("phi3", "partial_rotary_factor"), ("smollm3", "no_rope_layer_interval")],
)
@pytest.mark.parametrize("value", [0.0, -1, "much", float("nan")])
def test_constants_that_no_model_works_with_are_refused(tmp_path: Path, family: str, key: str, value: Any) -> None:
    folder = plain(tmp_path, family)
    write(folder, config_of(folder) | {key: value})
    refused(folder, f"key {key}: it is .*, and a number above 0 belongs there")


GREEDY: dict[str, Any] = {
    "repetition_penalty": 1.5,
    "encoder_repetition_penalty": 1.3,
    "no_repeat_ngram_size": 1,
    "min_new_tokens": 30,
    "min_length": 90,
    "num_beams": 3,
}


def with_generation(folder: Path, **keys: Any) -> Path:
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return folder


@pytest.mark.parametrize("key", GREEDY)
def test_what_would_change_greedy_texts_and_is_not_applied_is_told(tmp_path: Path, key: str) -> None:
    folder = with_generation(tiny.saved(tmp_path), **{key: GREEDY[key]})
    with pytest.warns(UserWarning, match=rf"{key} \(it is {GREEDY[key]}; the task and the command line"):
        load_model(str(folder), device="cpu")
    assert entries(folder)[f"generation_config.json: {key}"].verdict == "unapplied"


def test_rules_at_values_that_are_none_change_nothing(tmp_path: Path) -> None:
    none: dict[str, Any] = dict.fromkeys(GENERATION_REFUSED)
    none |= {"suppress_tokens": [], "sequence_bias": {}, "token_healing": False}
    none |= {"guidance_scale": 1.0, "repetition_penalty": 1.0, "num_beams": 1}
    folder = with_generation(tiny.saved(tmp_path), **none)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("generation", "config", "own"),
    [([5], 0, 0), ([5], 0, 7), (5, 5, 0), ([0, 5], 5, 5), (None, 5, 0), ([9], 5, 0)],
)
def test_a_text_ends_where_transformers_ends_it(tmp_path: Path, generation: Any, config: int, own: int) -> None:
    """At what the settings of generation name; the tokenizer's end counts where they name none."""
    folder = tiny.saved(tmp_path)
    write(folder, config_of(folder) | {"eos_token_id": config})
    if generation is None:
        (folder / "generation_config.json").unlink()
    else:
        with_generation(folder, eos_token_id=generation)
    path = folder / "tokenizer_config.json"
    token = tiny.tokenizer().convert_ids_to_tokens(own)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": token}))
    model = load_model(str(folder), device="cpu")
    said = AutoModelForCausalLM.from_pretrained(folder).generation_config.eos_token_id
    assert set(model.eos_ids) == set(said if isinstance(said, list) else [said])
    assert model.eos_ids[0] == own or own not in model.eos_ids
    (folder / "generation_config.json").write_text("{}")
    assert load_model(str(folder), device="cpu").eos_ids == (own,), "without any it would never end"


def test_a_mistral_with_layer_types_is_the_other_family_that_transformers_takes_it_for(tmp_path: Path) -> None:
    folder = tiny.saved(tmp_path, "mistral")
    write(folder, config_of(folder) | {"layer_types": ODD["layer_types"]})
    refused(folder, "The family 'ministral' is not supported")


UNKNOWN = "no supported family has such a setting"
BEYOND: dict[str, tuple[dict[str, Any], str]] = {
    "a key of its own code": (
        {"auto_map": {"AutoModelForCausalLM": "modeling.Own"}, "drop_attn_list": [1, 2]},
        f"key drop_attn_list: {UNKNOWN}.*auto_map",
    ),
    "a key that nobody knows": ({"kv_latent_dim": 64}, f"key kv_latent_dim: {UNKNOWN}"),
    "an inner key of rotary scaling": (
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4, "warp": 3}},
        "key rope_parameters.warp: .* linear have no such setting",
    ),
    "rotary scaling of another kind": (
        {"rope_parameters": {"rope_type": "mrope", "mrope_section": [1, 1, 2], "rope_theta": 1e4}},
        "key rope_parameters.rope_type: .* the kind mrope .*default, linear",
    ),
    "weights packed by MLX": ({"quantization": {"group_size": 64, "bits": 4}}, "key quantization: .* MLX"),
    "weights packed by others": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config: "),
    "tokens that see all": ({"is_causal": False}, "key is_causal: a token would see those after it"),
    "chunks": ({"attention_chunk_size": 8}, "key attention_chunk_size: "),
    "blocks of their own": ({"per_layer_config": {"1": {"rms_norm_eps": 0.1}}}, "key per_layer_config: "),
    "heads cut out": ({"pruned_heads": {"1": [0]}}, "key pruned_heads: "),
    "layers of another kind": (
        {"layer_types": ["full_attention", "linear_attention"] * 2, "model_type": "qwen2", "architectures": None},
        "layer_types names linear_attention",
    ),
    "a classifier": ({"architectures": ["LlamaForSequenceClassification"]}, "key architectures: .*SequenceClass"),
    "more sizes": ({"vocab_size": 330}, "tensor lm_head.weight: its size is 3[0-9]* x 32, but by .* be 330 x 32"),
    "no number": ({"num_hidden_layers": "four"}, "key num_hidden_layers: it is 'four', and that is no size"),
    "no heads": ({"num_attention_heads": 0}, "key num_attention_heads: it is 0"),
    "fewer than no tokens": ({"vocab_size": -1}, "key vocab_size: it is -1"),
    "turns for too few blocks": (
        {"model_type": "smollm3", "architectures": None, "no_rope_layers": [1, 0]},
        "key no_rope_layers: it has 2 entries for 4 blocks",
    ),
    "types of too many blocks": (
        {"model_type": "qwen2", "architectures": None, "layer_types": ["full_attention"] * 5},
        "key layer_types: it has 5 entries for 4 blocks",
    ),
    "weights of eight bits": ({"dtype": "float8_e4m3fn"}, "key dtype: it is 'float8_e4m3fn'"),
    "no text": ({"max_position_embeddings": 0}, "key max_position_embeddings: it is 0"),
    "a factor that is a text": (
        {"rope_parameters": {"rope_type": "linear", "factor": "8", "rope_theta": 1e4}},
        "key rope_parameters.factor: it is '8', and numbers",
    ),
    "a share that is a text": ({"rms_norm_eps": "small"}, "could not be read: .*rms_norm_eps.* got str"),
    "an activation of the future": ({"hidden_act": "warp"}, "llama with the activation 'warp'"),
    "an odd head": ({"head_dim": 7}, "could not be read: .* even"),
}


@pytest.mark.parametrize("what", BEYOND)
def test_what_a_config_says_and_nobody_understands_is_refused_by_name(tmp_path: Path, what: str) -> None:
    changes, sentence = BEYOND[what]
    folder = tiny.saved(tmp_path)
    write(folder, config_of(folder) | changes)
    refused(folder, sentence)


def refused(folder: Path, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence) as error:
        load_model(str(folder), device="cpu")
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("generation_config.json", {"suppress_tokens": [5]}, "generation_config.json: suppress_tokens: "),
        ("generation_config.json", {"forced_eos_token_id": 2}, "forced_eos_token_id: "),
        ("generation_config.json", {"bad_words_ids": [[5]]}, "bad_words_ids: "),
        ("generation_config.json", {"eos_token_id": "</s>"}, "eos_token_id: it is '</s>', and numbers of tokens"),
        ("generation_config.json", {"eos_token_id": [1, [2]]}, "eos_token_id: it is "),
        ("generation_config.json", {"eos_token_id": True}, "eos_token_id: it is True"),
        ("generation_config.json", {"thinking_budget": 5}, "thinking_budget: what it would do .* unknown"),
        (
            "tokenizer_config.json",
            {"auto_map": {"AutoTokenizer": ["tok.Own", None]}},
            "tokenizer_config.json: auto_map",
        ),
        ("adapter_config.json", {"peft_type": "LORA"}, "adapter_config.json: .* beside a model.*--adapter"),
    ],
)
def test_what_other_files_say_is_refused_by_name(tmp_path: Path, file: str, content: Any, sentence: str) -> None:
    folder = tiny.saved(tmp_path)
    path = folder / file
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | content))
    refused(folder, sentence)


def test_nothing_of_a_folder_is_run_and_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with code of its own gets a sentence or none of its code run, and no question on the terminal."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    folder = tiny.saved(tmp_path)
    (folder / "own.py").write_text("raise SystemExit('it ran')")
    write(folder, config_of(folder) | {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}})
    refused(folder, "The family 'own' is not supported")
    write(folder, config_of(folder) | {"model_type": "llama"})
    load_model(str(folder), device="cpu")


def as_bytes(weights: dict[str, Tensor]) -> None:
    weights["model.layers.1.mlp.up_proj.weight"] = torch.ones(48, 32, dtype=torch.int8)


def with_head(weights: dict[str, Tensor]) -> None:
    weights["score.weight"] = torch.ones(2, 32)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [(as_bytes, "up_proj.weight: its numbers are I8"), (with_head, "score.weight: config.json has no place for it")],
)
def test_tensors_without_a_meaning_are_refused_by_name(tmp_path: Path, change: Any, sentence: str) -> None:
    folder = tiny.saved(tmp_path)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, sentence)


@pytest.mark.parametrize("size", ["10GB", "20KB"])
def test_weights_in_the_old_format_and_in_several_files_are_the_same_model(tmp_path: Path, size: str) -> None:
    expected = tiny.loaded("llama").identity.fingerprint
    shards = tmp_path / "shards"
    tiny.transformers_model("llama").save_pretrained(shards, max_shard_size=size)
    tiny.tokenizer().save_pretrained(shards)
    assert load_model(str(shards), device="cpu").identity.fingerprint == expected
    old = tiny.saved(tmp_path / "old")
    torch.save(load_file(old / "model.safetensors"), old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    assert load_model(str(old), device="cpu").identity.fingerprint == expected


def test_shards_may_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    tiny.transformers_model("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    tiny.tokenizer().save_pretrained(tmp_path)
    (tmp_path / "weights").mkdir()
    for shard in tmp_path.glob("model-*"):
        shard.rename(tmp_path / "weights" / shard.name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(index.read_text().replace('"model-', '"weights/model-'))
    assert load_model(str(tmp_path), device="cpu").identity.fingerprint == tiny.loaded("llama").identity.fingerprint


def test_a_tied_folder_may_hold_the_head_alone(tmp_path: Path) -> None:
    folder = tiny.saved(tmp_path, "llama-tied")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights.pop("model.embed_tokens.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    found = load_model(str(folder), device="cpu")
    assert found.identity.fingerprint == tiny.loaded("llama-tied").identity.fingerprint


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_way_of_attending_that_is_not_installed_is_not_needed(tmp_path: Path, key: str) -> None:
    folder = tiny.saved(tmp_path)
    write(folder, config_of(folder) | {key: "flash_attention_2"})
    torch.testing.assert_close(
        logits(load_model(str(folder), device="cpu")), logits(tiny.loaded("llama")), atol=2e-4, rtol=1e-4
    )


@pytest.mark.parametrize(("key", "value"), [("dropout", 0.1), ("continuing_subword_prefix", "##")])
def test_a_tokenizer_that_cannot_be_followed_is_refused_by_name(tmp_path: Path, key: str, value: Any) -> None:
    folder = tiny.saved(tmp_path)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"][key] = value
    path.write_text(json.dumps(content))
    refused(folder, rf"tokenizer.json: model.{key}: it is {value!r}")


def test_an_end_beyond_the_embedding_is_named(tmp_path: Path) -> None:
    model = tiny.transformers_model("llama")
    model.resize_token_embeddings(200)
    model.generation_config.eos_token_id = model.config.eos_token_id = 257
    model.save_pretrained(tmp_path)
    made = deepcopy(tiny.tokenizer())
    made.eos_token = made.convert_ids_to_tokens(257)
    made.save_pretrained(tmp_path)
    refused(tmp_path, "ends a text, 257, is beyond the model's embedding of 200 tokens")


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    tiny.transformers_model("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    tiny.tokenizer().save_pretrained(tmp_path)
    next(tmp_path.glob("model-00002-*")).unlink()
    refused(tmp_path, "model-00002-of-.*is named by model.safetensors.index.json, but is not there")


def test_an_end_that_the_model_cannot_write_ends_nothing(tmp_path: Path) -> None:
    """Such as minus one for none, or a token beyond the embedding: nothing is learnt to end with it."""
    folder = tiny.saved(tmp_path)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [-1, 5, 99999]}))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": "<new>"}))
    assert load_model(str(folder), device="cpu").eos_ids == (5,)


@pytest.mark.parametrize("index", ['{"weight_map": 5}', '{"weight_map": {"model.norm.weight": 3}}', "{}"])
def test_an_index_that_names_no_files_is_refused(tmp_path: Path, index: str) -> None:
    tiny.transformers_model("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    tiny.tokenizer().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    refused(tmp_path, "model.safetensors.index.json does not say which file holds which weight")


def test_weights_that_torch_cannot_take_apart_are_refused(tmp_path: Path) -> None:
    folder = tiny.saved(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"abc")
    refused(folder, "pytorch_model.bin is cut short or damaged")


def test_a_model_of_the_hub_that_was_fetched_once_loads_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the hub's own cache has it; the same checks hold."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--some--llama"
    folder = tiny.saved(repository / "snapshots" / "abc123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    found = load_model("some/llama", device="cpu").identity
    assert (found.id, found.fingerprint) == ("some/llama", tiny.loaded("llama").identity.fingerprint)
    write(folder, config_of(folder) | {"kv_latent_dim": 64})
    with pytest.raises(ModelError, match=r"some/llama holds the key kv_latent_dim"):
        load_model("some/llama", device="cpu")
