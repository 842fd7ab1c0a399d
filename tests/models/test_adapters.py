"""Adapters: each kind is merged as peft applies it unmerged, or refused by name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import (
    AdaLoraConfig,
    BOFTConfig,
    C3AConfig,
    DeloraConfig,
    FourierFTConfig,
    HRAConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    MissConfig,
    OFTConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    RandLoraConfig,
    ShiraConfig,
    TrainableTokensConfig,
    VBLoRAConfig,
    VeraConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from litestage.core import ModelError
from litestage.models import load_model, load_transformers
from litestage.models.adapters import merge, with_adapter
from litestage.models.check import check_adapter

pytestmark = pytest.mark.filterwarnings("ignore")
IDS = tiny.prompt(20)
AT = (7, 19)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def lora(*more: str, **options: Any) -> LoraConfig:
    return LoraConfig(target_modules=[*ALL, *more], **options)


KINDS: dict[str, Any] = {
    "LoRA": lora(task_type="CAUSAL_LM"),
    "rank-stabilised": lora(use_rslora=True),
    "DoRA": lora(use_dora=True),
    "DoRA of the embedding": LoraConfig(target_modules=["embed_tokens"], use_dora=True),
    "ranks and scales of their own": lora(rank_pattern={"q_proj": 4}, alpha_pattern={"k_proj": 3}),
    "biases": lora(bias="all"),
    "biases of its layers": lora(bias="lora_only"),
    "LoRA with biases of its own": lora(lora_bias=True),
    "head replaced": lora(modules_to_save=["lm_head"]),
    "embedding replaced": lora(modules_to_save=["embed_tokens"]),
    "both replaced": lora(modules_to_save=["embed_tokens", "lm_head"]),
    "both replaced by one": lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    "norms replaced": lora(modules_to_save=["norm", "input_layernorm"]),
    "embedding": lora("embed_tokens"),
    "head": lora("lm_head"),
    "embedding and head": lora("embed_tokens", "lm_head"),
    "embedding and head as one": lora("embed_tokens", ensure_weight_tying=True),
    "tokens": lora(trainable_token_indices=[IDS[3], IDS[5], IDS[7]]),
    "tokens of the embedding and of the head": lora(
        trainable_token_indices={"embed_tokens": [IDS[3], IDS[5]], "lm_head": [IDS[7], IDS[9]]}
    ),
    "tokens of the head": lora(trainable_token_indices={"lm_head": [IDS[7], IDS[9]]}),
    "some blocks": lora(layers_to_transform=[1, 2]),
    "some blocks by name": LoraConfig(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="layers"),
    "by a pattern": LoraConfig(target_modules=r".*\.(0|2)\.mlp\..*_proj"),
    "all but some": LoraConfig(target_modules="all-linear", exclude_modules=["q_proj"]),
    "parameters": LoraConfig(target_modules=[], target_parameters=["q_proj.weight"]),
    "PiSSA": lora(init_lora_weights="pissa"),
    "OLoRA": lora(init_lora_weights="olora"),
    "MiCA": lora(init_lora_weights="mica"),
    "AdaLoRA": AdaLoraConfig(target_modules=ALL, total_step=10),
    "IA3": IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "VeRA": VeraConfig(target_modules=["o_proj"]),
    "VeRA from a seed": VeraConfig(target_modules=["o_proj"], save_projection=False),
    "LoHa": LoHaConfig(target_modules=ALL),
    "LoKr": LoKrConfig(target_modules=ALL),
    "OFT": OFTConfig(target_modules=ALL, oft_block_size=8, r=0),
    "BOFT": BOFTConfig(target_modules=["q_proj"], boft_block_size=8),
    "HRA": HRAConfig(target_modules=ALL),
    "FourierFT": FourierFTConfig(target_modules=ALL, n_frequency=30),
    "norms": LNTuningConfig(target_modules=["input_layernorm"]),
    "RandLoRA": RandLoraConfig(target_modules=ALL, r=4),
    "tokens of the head alone": TrainableTokensConfig(target_modules=["lm_head"], token_indices=[IDS[1], IDS[4]]),
    "tokens alone": TrainableTokensConfig(token_indices=[IDS[1], IDS[2], IDS[9]]),
    "C3A": C3AConfig(target_modules=["q_proj"], block_size=8),
    "DeLoRA": DeloraConfig(target_modules=ALL),
    "MiSS": MissConfig(target_modules=ALL, r=4),
    "VB-LoRA of few bits": VBLoRAConfig(
        target_modules=ALL, num_vectors=8, vector_length=8, save_only_topk_weights=True
    ),
    "VB-LoRA": VBLoRAConfig(target_modules=ALL, num_vectors=8, vector_length=8),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return lambda family: tiny.saved(tmp_path_factory.getbasetemp() / family, family)


def trained(place: Path, family: str, config: Any) -> Path:
    """An adapter whose weights are all moved, saved as peft saves it."""
    torch.manual_seed(1)
    model = get_peft_model(tiny.transformers_model(family), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(str(place))
    return place


def by_peft(place: Path, family: str) -> Tensor:
    """Unmerged."""
    model = PeftModel.from_pretrained(tiny.transformers_model(family), str(place)).eval()
    with torch.inference_mode():
        found: Tensor = model(torch.tensor([IDS]), use_cache=False).logits[0, list(AT)]
        return found


UNTIED = ("LoRA", "LoRA with biases of its own", "head", "embedding", "embedding and head", "both replaced", "tokens")


@pytest.mark.parametrize(("family", "kind"), [("llama-tied", k) for k in KINDS] + [("llama", k) for k in UNTIED])
def test_an_adapter_is_merged_as_peft_applies_it_unmerged(models: Any, tmp_path: Path, family: str, kind: str) -> None:
    place = trained(tmp_path, family, KINDS[kind])
    expected = by_peft(place, family)
    model = load_model(str(models(family)), adapter=str(place), device="cpu")
    torch.testing.assert_close(tiny.logits_of(model, IDS, AT), expected, atol=5e-4, rtol=1e-3)
    base = tiny.logits_of(tiny.loaded(family), IDS, AT)
    assert (base - expected).abs().max() > 0.1, "it changes something"


@pytest.mark.parametrize("family", ["gemma2", "qwen3", "smollm3", "granite", "olmo2", "phi3-partial"])
@pytest.mark.parametrize("config", [{"target_modules": "all-linear"}, {"target_modules": ["embed_tokens"]}])
def test_adapters_go_into_every_family(models: Any, tmp_path: Path, family: str, config: dict[str, Any]) -> None:
    place = trained(tmp_path, family, LoraConfig(**config))
    model = load_model(str(models(family)), adapter=str(place), device="cpu")
    torch.testing.assert_close(tiny.logits_of(model, IDS, AT), by_peft(place, family), atol=5e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "kind", ["LoRA", "DoRA", "AdaLoRA", "head", "embedding", "parameters", "LoRA with biases of its own"]
)
def test_weights_of_few_bits_keep_what_an_adapter_added(models: Any, tmp_path: Path, kind: str) -> None:
    """As close as eight bits come; what the adapter added is far above that."""
    place = trained(tmp_path, "llama-tied", KINDS[kind])
    model = load_model(str(models("llama-tied")), adapter=str(place), device="cpu", quantise="int8")
    expected = by_peft(place, "llama-tied")
    off = (tiny.logits_of(model, IDS, AT) - expected).abs().mean()
    change = (tiny.logits_of(tiny.loaded("llama-tied"), IDS, AT) - expected).abs().mean()
    assert off < max(0.1, 0.2 * change)
    load_model(str(models("llama-tied")), adapter=str(place), device="cpu", quantise="int4")


def test_adalora_that_has_chosen_its_ranks_is_merged(models: Any, tmp_path: Path) -> None:
    """As training leaves it: each layer has its own rank."""
    torch.manual_seed(1)
    config = AdaLoraConfig(
        target_modules=ALL, init_r=6, target_r=3, total_step=6, tinit=1, tfinal=1, task_type="CAUSAL_LM"
    )
    learning = get_peft_model(tiny.transformers_model("llama-tied"), config)
    for step in range(6):
        learning(torch.tensor([IDS]), labels=torch.tensor([IDS])).loss.backward()
        with torch.no_grad():
            for parameter in learning.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.3)
        learning.base_model.update_and_allocate(step)
        learning.zero_grad()
    learning.save_pretrained(str(tmp_path))
    ranks = json.loads((tmp_path / "adapter_config.json").read_text())["rank_pattern"]
    assert len({sum(kept) for kept in ranks.values()}) > 1
    expected = by_peft(tmp_path, "llama-tied")
    model = load_model(str(models("llama-tied")), adapter=str(tmp_path), device="cpu")
    torch.testing.assert_close(tiny.logits_of(model, IDS, AT), expected, atol=5e-4, rtol=1e-3)
    assert (tiny.logits_of(tiny.loaded("llama-tied"), IDS, AT) - expected).abs().max() > 0.1
    assert check_adapter(str(tmp_path), str(models("llama-tied"))).refusal is None


def test_an_adapter_of_a_tied_embedding_learns_on_and_is_judged_as_it_will_run(models: Any, tmp_path: Path) -> None:
    """As `finetune --adapter` puts it on, and as it is saved again."""
    place = trained(tmp_path / "first", "llama-tied", lora("embed_tokens"))
    model, _ = load_transformers(str(models("llama-tied")))
    learning = with_adapter(model, str(place), learning=True)
    assert any(p.requires_grad for name, p in learning.named_parameters() if "lora_embedding" in name)
    learning.save_pretrained(str(tmp_path / "second"))
    torch.testing.assert_close(by_peft(tmp_path / "second", "llama-tied"), by_peft(place, "llama-tied"))
    merged = merge(learning.eval())
    with torch.inference_mode():
        found = merged(torch.tensor([IDS]), use_cache=False).logits[0, list(AT)]
    torch.testing.assert_close(found, by_peft(place, "llama-tied"), atol=5e-4, rtol=1e-3)


NOT_MERGED: dict[str, tuple[Any, str]] = {
    "prompt tuning": (PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"), "peft_type: PROMPT_TUNING puts"),
    "prefix tuning": (PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"), "peft_type: PREFIX_TUNING puts"),
    "p-tuning": (PromptEncoderConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"), "peft_type: P_TUNING puts"),
    "SHiRA": (ShiraConfig(target_modules=ALL, r=2), "peft_type: adapters of the kind SHIRA are not supported"),
    "aLoRA": (lora(alora_invocation_tokens=[5, 6]), "alora_invocation_tokens: .*cannot be merged"),
    "another stack": (lora(layer_replication=[[0, 3], [1, 4]]), "layer_replication: it makes another stack"),
    "QA-LoRA": (lora(use_qalora=True), "use_qalora: .*stored quantised"),
}


@pytest.mark.parametrize("kind", NOT_MERGED)
def test_what_cannot_be_merged_is_refused_by_name(models: Any, tmp_path: Path, kind: str) -> None:
    config, sentence = NOT_MERGED[kind]
    refused(models("llama"), trained(tmp_path, "llama", config), sentence)


def test_a_layer_that_is_changed_in_two_ways_is_refused_by_name(models: Any, tmp_path: Path) -> None:
    place = trained(tmp_path, "llama-tied", lora("lm_head", trainable_token_indices=[3, 5, 7]))
    refused(models("llama-tied"), place, "changes lm_head in two ways at once")


def refused(model: Path, adapter: Path, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence) as error:
        load_model(str(model), adapter=str(adapter), device="cpu")
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"init_lora_weights": "loftq"}, "init_lora_weights: loftq changes the model's own weights"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights: pissa_niter_4"),
        ({"loftq_config": {"loftq_bits": 4}}, "loftq_config: "),
        ({"corda_config": {"x": 1}}, "corda_config: "),
        ({"arrow_config": {"x": 1}}, "arrow_config: "),
        ({"task_type": "SEQ_CLS"}, "task_type: it was trained for SEQ_CLS"),
        ({"peft_type": "FUTURE"}, "peft_type: adapters of the kind FUTURE are not supported. These are: ADALORA"),
        ({"lora_gain": 3}, "lora_gain: peft knows no such setting of LORA"),
        ({"r": "4"}, "r: it is '4', and a whole number"),
        ({"lora_alpha": None}, "lora_alpha: it is None, and a number"),
        ({"bias": True}, "bias: it is True, and a text"),
        ({"rank_pattern": None}, "rank_pattern: it is None, and names or patterns with a rank for each"),
        ({"rank_pattern": {"q_proj": "x"}}, "rank_pattern: it is .*'q_proj': 'x'"),
        ({"alpha_pattern": [1]}, r"alpha_pattern: it is \[1\], and names or patterns with a number for each"),
        ({"alpha_pattern": {"(q_proj": 3}}, r"alpha_pattern: it is .*\(q_proj.*patterns"),
        ({"trainable_token_indices": [-1]}, r"trainable_token_indices: it is \[-1\], and numbers of tokens"),
        ({"trainable_token_indices": [999]}, r"trainable_token_indices: it names token 999, and the model has 320"),
        ({"trainable_token_indices": {"lm_head": ["a"]}}, r"trainable_token_indices: it is .*numbers of tokens"),
        ({"target_modules": ["nowhere"]}, "could not be put on this model: .*nowhere"),
    ],
)
def test_what_an_adapters_config_says_and_nobody_understands_is_refused_by_name(
    models: Any, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    place = trained(tmp_path, "llama", lora())
    path = place / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    refused(models("llama"), place, sentence)


def without_one(weights: dict[str, Tensor]) -> None:
    weights.pop("base_model.model.model.layers.1.mlp.up_proj.lora_B.weight")


def with_more(weights: dict[str, Tensor]) -> None:
    weights["base_model.model.model.layers.4.mlp.up_proj.lora_B.weight"] = torch.ones(48, 8)


def wider(weights: dict[str, Tensor]) -> None:
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    weights[name] = torch.ones(64, 8)


def more_tokens(weights: dict[str, Tensor]) -> None:
    weights["base_model.model.model.embed_tokens.weight"] = torch.ones(330, 32)


def endless(weights: dict[str, Tensor]) -> None:
    weights["base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"][3, 2] = float("nan")


def named(weights: dict[str, Tensor]) -> None:
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    weights[name.replace("lora_B.", "lora_B.default.")] = weights.pop(name)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without_one, r"lacks the tensor .*layers.1.mlp.up_proj.lora_B.weight"),
        (with_more, r"layers.4.mlp.up_proj.lora_B.weight: the model has no place for it"),
        (wider, r"layers.1.mlp.up_proj.lora_B.weight: its size is 64 x 8, but for this model it should be 48 x 8"),
        (more_tokens, r"embed_tokens.weight: .* 330 x 32, .* 3\d\d x 32: it was trained with \d+ more tokens"),
        (endless, r"adapter_model.safetensors holds the tensor .*layers.1.mlp.up_proj.lora_B.weight with .*NaN"),
        (named, r"layers.1.mlp.up_proj.lora_B.default.weight: peft writes it without 'default'"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(models: Any, tmp_path: Path, change: Any, sentence: str) -> None:
    place = trained(tmp_path, "llama", lora())
    weights = load_file(place / "adapter_model.safetensors")
    change(weights)
    save_file(weights, place / "adapter_model.safetensors", metadata={"format": "pt"})
    refused(models("llama"), place, sentence)


MORE: list[tuple[str, Any, bool]] = [
    ("llama", lora(modules_to_save=["embed_tokens", "lm_head"]), False),
    ("llama", lora(modules_to_save=["embed_tokens", "lm_head"]), True),
    ("llama", lora(), True),
    ("llama", lora("embed_tokens", "lm_head"), True),
    ("llama-tied", lora(modules_to_save=["embed_tokens", "lm_head"]), False),
    ("llama-tied", lora(modules_to_save=["embed_tokens", "lm_head"]), True),
    ("llama-tied", lora(modules_to_save=["embed_tokens"]), True),
    ("llama-tied", lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True), True),
    ("llama-tied", lora(), True),
    ("llama-tied", lora("embed_tokens"), True),
]


@pytest.mark.parametrize("count", [300, 330])
@pytest.mark.parametrize(("family", "config", "stored"), MORE)
def test_an_adapter_that_brings_its_embedding_and_head_brings_its_tokens(
    models: Any, tmp_path: Path, family: str, config: Any, stored: bool, count: int
) -> None:
    """As peft has it on a model whose embedding was made larger or smaller before."""
    torch.manual_seed(1)
    grown = tiny.transformers_model(family)
    grown.resize_token_embeddings(count)
    adapted = get_peft_model(grown, config).eval()
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1 * parameter.requires_grad)
        expected = adapted(torch.tensor([[one % 300 for one in IDS]]), use_cache=False).logits[0, list(AT)]
    adapted.save_pretrained(str(tmp_path), save_embedding_layers=stored)
    model = load_model(str(models(family)), adapter=str(tmp_path), device="cpu")
    got = tiny.logits_of(model, [one % 300 for one in IDS], AT)
    assert got.shape[-1] == count
    torch.testing.assert_close(got, expected, atol=5e-4, rtol=1e-3)


def test_an_embedding_that_is_stored_twice_is_stored_alike(models: Any, tmp_path: Path) -> None:
    grown = tiny.transformers_model("llama")
    grown.resize_token_embeddings(330)
    adapted = get_peft_model(grown, lora(modules_to_save=["embed_tokens", "lm_head"]))
    adapted.save_pretrained(str(tmp_path), save_embedding_layers=True)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    weights["base_model.model.lm_head.modules_to_save.weight"][3, 2] += 1
    save_file(weights, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    refused(models("llama"), tmp_path, r"lm_head.modules_to_save.weight: it differs from .*lm_head.weight")


GROWN: dict[str, Any] = {
    "tokens": lora(trainable_token_indices=[322, 325]),
    "tokens of the embedding": lora(trainable_token_indices={"embed_tokens": [322, 325]}),
    "tokens of both": lora(trainable_token_indices={"embed_tokens": [322], "lm_head": [325]}),
    "tokens, and the head": lora(trainable_token_indices=[322], modules_to_save=["lm_head"]),
    "LoRA of the head": lora("lm_head"),
    "DoRA of the head": lora("lm_head", use_dora=True),
    "LoRA of the embedding": lora("embed_tokens"),
}


@pytest.mark.parametrize("family", ["llama", "llama-tied"])
@pytest.mark.parametrize("what", GROWN)
def test_a_model_that_was_resized_takes_its_tokens_from_the_adapter(
    models: Any, tmp_path: Path, family: str, what: str
) -> None:
    torch.manual_seed(3)
    bigger = tiny.transformers_model(family)
    bigger.resize_token_embeddings(330, mean_resizing=False)
    adapted = get_peft_model(bigger, GROWN[what])
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    adapted.save_pretrained(str(tmp_path), save_embedding_layers=True)
    if (family, what) == ("llama-tied", "tokens, and the head"):
        refused(models(family), tmp_path, "lm_head.token_adapter")
        return
    if family == "llama" and "of the" in what and "A" in what:
        refused(models(family), tmp_path, "10 more tokens")  # of the other one, the rows are nowhere
        return
    ids = [*IDS[:10], 322, 325, *IDS[10:]]
    with torch.inference_mode():
        expected = adapted.eval()(torch.tensor([ids]), use_cache=False).logits[0, [9, 11, 21]]
    assert expected.shape[1] == 330
    model = load_model(str(models(family)), adapter=str(tmp_path), device="cpu")
    torch.testing.assert_close(tiny.logits_of(model, ids, (9, 11, 21)), expected, atol=5e-4, rtol=1e-3)


def test_the_tokenizer_of_an_adapter_is_the_one_it_learnt_with(models: Any, tmp_path: Path) -> None:
    place = trained(tmp_path, "llama", lora())
    chatty = tiny.tokenizer_with_chat()
    chatty.save_pretrained(place)
    model = load_model(str(models("llama")), adapter=str(place), device="cpu")
    assert model.tokenizer.chat_template == chatty.chat_template
    more: PreTrainedTokenizerFast = tiny.tokenizer_with_chat()
    more.add_tokens(["<|more|>"])
    more.save_pretrained(place)
    sentence = r"with the token '<\|more\|>', for which the model has no embedding"
    refused(models("llama"), place, sentence)
    assert re.search(sentence, str(check_adapter(str(place), str(models("llama"))).refusal))


FILES: dict[str, tuple[str, str, str]] = {
    "rules about tokens": ("generation_config.json", '{"suppress_tokens": [3]}', "suppress_tokens: .*rule"),
    "an end that is a text": ("generation_config.json", '{"eos_token_id": "x"}', "eos_token_id: it is 'x'"),
    "no JSON": ("generation_config.json", "{", "generation_config.json is not JSON"),
    "half a tokenizer": ("tokenizer_config.json", "{}", "tokenizer_config.json: .*is not there"),
    "a template alone": ("chat_template.jinja", "x", "chat_template.jinja: .*is not there"),
    "torn weights": ("adapter_model.safetensors", "abc", "adapter_model.safetensors is cut short or damaged"),
}


@pytest.mark.parametrize("what", FILES)
def test_what_lies_beside_an_adapter_is_read_or_refused(models: Any, tmp_path: Path, what: str) -> None:
    name, content, sentence = FILES[what]
    place = trained(tmp_path, "llama", lora())
    (place / name).write_text(content)
    refused(models("llama"), place, sentence)
    try:
        said = check_adapter(str(place), str(models("llama"))).refusal
    except ModelError as error:
        said = str(error)
    assert re.search(sentence, str(said))


def test_code_that_comes_with_an_adapters_tokenizer_is_refused(models: Any, tmp_path: Path) -> None:
    place = trained(tmp_path, "llama", lora())
    tiny.tokenizer_with_chat().save_pretrained(place)
    path = place / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["own.Code", None]}}))
    refused(models("llama"), place, "auto_map: code of the folder's own")


def test_weights_that_torch_cannot_take_apart_are_refused(models: Any, tmp_path: Path) -> None:
    place = trained(tmp_path, "llama", lora())
    (place / "adapter_model.safetensors").unlink()
    (place / "adapter_model.bin").write_bytes(b"abc")
    refused(models("llama"), place, "adapter_model.bin is cut short or damaged")


def test_a_folder_that_is_no_adapters_says_what_it_is(models: Any, tmp_path: Path) -> None:
    trained(tmp_path / "run" / "checkpoint-10", "llama", lora())
    refused(models("llama"), tmp_path / "run", "holds the folder checkpoint-10")
    refused(models("llama"), models("llama"), "is a model's folder, .*--model")
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx" / "adapter_config.json").write_text('{"fine_tune_type": "lora"}')
    save_file({"a": torch.ones(1)}, tmp_path / "mlx" / "adapters.safetensors")
    refused(models("llama"), tmp_path / "mlx", "written by MLX")
    (tmp_path / "adapter.gguf").write_bytes(b"GGUF")
    refused(models("llama"), tmp_path / "adapter.gguf", "adapter.gguf is one file")


def test_a_folder_of_an_adapter_is_no_model(tmp_path: Path) -> None:
    place = trained(tmp_path, "llama", lora())
    with pytest.raises(ModelError, match=r"is the folder of an adapter.*--adapter"):
        load_model(str(place), device="cpu")
