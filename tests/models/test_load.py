"""Loading from folders, with adapters, in both dtypes; and what cannot be loaded."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig

from litestage.core import ModelError, OptionError
from litestage.engine import TorchEngine
from litestage.models import LoadedModel, from_transformers, load_model, load_transformers
from litestage.models.convert import fingerprint
from litestage.models.load import pick_device

PROMPTS = [tiny.prompt(n) for n in (3, 12, 21)]
NEW = 12


def outputs(model: LoadedModel) -> list[tuple[int, ...]]:
    return [c.token_ids for c in TorchEngine(model).generate(tiny.requests(PROMPTS, max_new_tokens=NEW))]


@pytest.mark.parametrize("family", ["llama", "llama-tied", "qwen2-window"])
def test_a_folder_loads_as_the_model_that_was_saved(tmp_path: Path, family: str) -> None:
    tiny.transformers_model(family).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    model = load_model(str(tmp_path), device="cpu")
    assert model.identity.id == str(tmp_path)
    assert model.identity.num_blocks == tiny.BLOCKS
    assert model.eos_ids == (tiny.tokenizer().eos_token_id,)
    assert model.tuned_for == ()
    assert outputs(model) == [tiny.generate_by_transformers(family, ids, NEW) for ids in PROMPTS]
    assert model.identity.fingerprint == tiny.loaded(family).identity.fingerprint


def test_the_fingerprint_is_of_the_weights_and_not_of_their_dtype(folder: Path, tmp_path: Path) -> None:
    whole, half = (load_model(str(folder), dtype=dtype, device="cpu") for dtype in ("fp32", "bf16"))
    assert (whole.decoder.cache_dtype, half.decoder.cache_dtype) == (torch.float32, torch.bfloat16)
    assert whole.identity == half.identity
    tiny.transformers_model("llama").bfloat16().save_pretrained(tmp_path / "half")
    tiny.tokenizer().save_pretrained(tmp_path / "half")
    assert load_model(str(tmp_path / "half"), device="cpu").identity.fingerprint == whole.identity.fingerprint


@pytest.mark.parametrize("name", ["model.embed_tokens", "model.layers.2.mlp.up_proj", "model.norm"])
def test_any_changed_weight_changes_the_fingerprint(name: str) -> None:
    """One value in the middle of a tensor."""
    model = tiny.transformers_model("llama")
    values = model.get_parameter(f"{name}.weight").data.flatten()
    values[len(values) // 2 + 1] += 0.5
    changed = from_transformers(model, tiny.tokenizer(), "changed", device="cpu")
    assert changed.identity.fingerprint != tiny.loaded("llama").identity.fingerprint


@pytest.mark.parametrize("changed", [{"rms_norm_eps": 0.1}, {"num_attention_heads": 8}, {"hidden_act": "gelu"}])
def test_a_changed_layout_changes_the_fingerprint(changed: dict[str, Any]) -> None:
    """The same weights under another config are another model."""
    model = tiny.transformers_model("llama")
    before = fingerprint(model)
    other = deepcopy(model)
    other.config.update(changed)
    assert fingerprint(other) != before


def test_fingerprints_of_families_differ() -> None:
    assert len({tiny.loaded(family).identity.fingerprint for family in tiny.FAMILIES}) == len(tiny.FAMILIES)


def adapter(folder: Path, family: str = "llama", **options: Any) -> tuple[Path, Any]:
    """A LoRA adapter that does something, and the model that peft makes with it."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=16, init_lora_weights=False, target_modules="all-linear", **options)
    model = get_peft_model(tiny.transformers_model(family), config).eval()
    model.save_pretrained(folder)
    return folder, model


def test_an_adapter_is_merged_as_peft_applies_it(folder: Path, tmp_path: Path) -> None:
    place, by_peft = adapter(tmp_path / "adapter")
    (place / "training.json").write_text(json.dumps({"task": "everyday"}))
    model = load_model(str(folder), adapter=str(place), device="cpu")
    expected = [
        tuple(
            by_peft.generate(input_ids=torch.tensor([ids]), do_sample=False, max_new_tokens=NEW)[0, len(ids) :].tolist()
        )
        for ids in PROMPTS
    ]
    assert outputs(model) == expected
    assert outputs(model) != outputs(load_model(str(folder), device="cpu"))
    assert model.identity.id == f"{folder} + {place}"
    assert model.identity.fingerprint != tiny.loaded("llama").identity.fingerprint
    assert model.tuned_for == ("everyday",)


def test_texts_also_end_where_an_adapter_learnt_to_end_them(folder: Path, tmp_path: Path) -> None:
    """Versions of transformers differ in the token that ends a GGUF file's texts, and adapters outlive versions."""
    place, _ = adapter(tmp_path / "adapter")
    before = load_model(str(folder), adapter=str(place), device="cpu")
    learnt = outputs(before)[0][2]
    GenerationConfig(eos_token_id=learnt).save_pretrained(place)
    after = load_model(str(folder), adapter=str(place), device="cpu")
    assert after.eos_ids == (*before.eos_ids, learnt)
    assert outputs(after) == [text[: text.index(learnt) + 1] if learnt in text else text for text in outputs(before)]


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("quantise", ["none", "int8"])
def test_a_model_with_an_adapter_is_the_same_in_every_form(
    folder: Path, tmp_path: Path, dtype: str, quantise: str
) -> None:
    """So that a plan searched in one form runs in another."""
    place, _ = adapter(tmp_path / "adapter")
    expected = load_model(str(folder), adapter=str(place), device="cpu").identity
    found = load_model(str(folder), adapter=str(place), device="cpu", dtype=dtype, quantise=quantise).identity
    assert found == expected


def test_an_adapter_of_another_model_is_refused(tmp_path: Path, folder: Path) -> None:
    other, _ = adapter(tmp_path / "other", "qwen3")
    with pytest.raises(ModelError, match=r"/other holds the tensor .*k_proj.lora_B.weight: its size is 32 x 4"):
        load_model(str(folder), adapter=str(other), device="cpu")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("./nowhere/at/all", "No adapter is called './nowhere/at/all'"),
        ("nowhere", r"No adapter is called 'nowhere'.*litestage finetune"),
        ("nowhere/at-all", "no folder 'nowhere/at-all' here, and the Hugging Face hub could not be reached"),
    ],
)
def test_a_missing_adapter_is_refused(folder: Path, name: str, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        load_model(str(folder), adapter=name, device="cpu")


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_folder_that_lacks_a_file_is_refused_without_asking_the_hub(
    folder: Path, tmp_path: Path, missing: str
) -> None:
    place, _ = adapter(tmp_path / "adapter")
    (place / missing).unlink()
    with pytest.raises(ModelError, match=rf"has no {missing}.*Give a folder"):
        load_model(str(folder), adapter=str(place), device="cpu")


def test_options_that_do_not_exist_are_refused(folder: Path) -> None:
    with pytest.raises(OptionError, match=r"--dtype fp8 is not known. Choose one of fp32, bf16"):
        load_transformers(str(folder), dtype="fp8")
    for device in ("abacus", "cuda:99"):
        with pytest.raises(OptionError, match=rf"--device {device} is not usable here"):
            pick_device(device)
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda", "mps")


def without_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"], weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def with_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def with_old_buffer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


GPTQ = {"quant_method": "gptq", "bits": 4}
TOKENIZER = "tokenizer.json is not JSON"
BROKEN = {
    "no config": (lambda f: (f / "config.json").unlink(), r"folder '.*' has no configuration \(config.json\)"),
    "fewer layers": (
        lambda f: with_config(f, num_hidden_layers=3),
        r"holds the tensor model.layers.3.*config.json has no place for it.*8 more",
    ),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
    "unheard-of family": (
        lambda f: with_config(f, model_type="octopus"),
        "family 'octopus' is not supported. Supported: gemma2,",
    ),
    "other family": (lambda f: with_config(f, model_type="gpt2"), "family 'gpt2' is not supported. Supported: gemma2,"),
    "quantised": (
        lambda f: with_config(f, quantization_config=GPTQ),
        "key quantization_config: the weights are stored quantised",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"has no tokenizer \(tokenizer.json or"),
    "broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), TOKENIZER),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"has no weights \(model\*.safetensors or"),
    "half the weights": (lambda f: cut_short(f / "model.safetensors"), "/model.safetensors is cut short or damaged"),
    "a missing weight": (
        without_weight,
        r"lacks the tensor model.layers.1.mlp.up_proj.weight: it would be random.* 1 more",
    ),
    "another size": (
        lambda f: with_config(f, intermediate_size=64),
        "its size is 32 x 48, but by config.json it should be 32 x 64",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_folder_is_refused_with_a_sentence(folder: Path, what: str) -> None:
    breaking, sentence = BROKEN[what]
    breaking(folder)
    with pytest.raises(ModelError, match=sentence) as error:
        load_model(str(folder), device="cpu")
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


def test_weights_that_need_no_place_in_the_config_are_let_be(folder: Path, tmp_path: Path) -> None:
    with_old_buffer(folder)
    assert load_model(str(folder), device="cpu").identity == tiny.loaded("llama").identity.model_copy(
        update={"id": str(folder)}
    )
    tied = tmp_path / "tied"
    tiny.transformers_model("llama-tied").save_pretrained(tied)
    tiny.tokenizer().save_pretrained(tied)
    weights = load_file(tied / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tied / "model.safetensors", metadata={"format": "pt"})
    assert load_model(str(tied), device="cpu").identity.fingerprint == tiny.loaded("llama-tied").identity.fingerprint


def test_a_single_file_of_a_model_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(ModelError, match=r"empty.gguf' is an empty file.*Fetch it again"):
        load_model(str(tmp_path / "empty.gguf"), device="cpu")
    with pytest.raises(ModelError, match=r"model.safetensors' is one file of a model. Give the folder that holds it"):
        load_model(str(folder / "model.safetensors"), device="cpu")


def test_a_hub_that_cannot_be_reached_is_said_to_be_that() -> None:
    with pytest.raises(ModelError, match=r"no folder 'org/name' here, and the Hugging Face hub could not be reached"):
        load_model("org/name", device="cpu")


def test_a_broken_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError, match=r"model.gguf is no GGUF file, is cut short"):
        load_model(str(tmp_path / "model.gguf"), device="cpu")


def test_all_tokens_that_end_a_text_are_known_the_tokenizers_own_first() -> None:
    model = tiny.transformers_model("llama")
    own = tiny.tokenizer().eos_token_id
    model.generation_config.eos_token_id = [17, own, 23]
    assert from_transformers(model, tiny.tokenizer(), "x", device="cpu").eos_ids == (own, 17, 23)


def test_a_model_without_an_end_is_refused() -> None:
    model, endless = tiny.transformers_model("llama"), tiny.tokenizer_with_chat()
    endless.eos_token = None
    model.generation_config.eos_token_id = None
    with pytest.raises(ModelError, match="names no end-of-sequence token"):
        from_transformers(model, endless, "x", device="cpu")


def test_a_stored_head_must_be_the_embedding_it_is_tied_to(tmp_path: Path) -> None:
    """Libraries differ in which of two they run; one that is stored twice is no harm."""
    folder = tiny.saved(tmp_path, "llama-tied")
    weights = load_file(folder / "model.safetensors")
    for change, fits in ((0.0, True), (1.0, False)):
        head = weights["model.embed_tokens.weight"] + change
        save_file(weights | {"lm_head.weight": head}, folder / "model.safetensors", metadata={"format": "pt"})
        if fits:
            assert load_model(str(folder), device="cpu").identity.num_blocks == tiny.BLOCKS
        else:
            with pytest.raises(ModelError, match=r"tie_word_embeddings.*lm_head\.weight"):
                load_model(str(folder), device="cpu")
