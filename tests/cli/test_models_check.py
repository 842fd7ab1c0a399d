"""`litestage models check`: what a model is, what of it is read, ignored and refused, in words and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from litestage.core import ModelError
from litestage.models import load_model

Run = Callable[..., tuple[int, str, str]]


def with_keys(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def adapter(place: Path, family: str = "llama", **options: Any) -> Path:
    torch.manual_seed(1)
    get_peft_model(tiny.transformers_model(family), LoraConfig(target_modules=["q_proj"], **options)).save_pretrained(
        place
    )
    return place


def test_a_folder_says_what_it_is_and_what_of_it_is_ignored(litestage: Run, tmp_path: Path) -> None:
    folder = with_keys(tiny.saved(tmp_path), sliding_window_pattern=8)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"repetition_penalty": 1.1}))
    code, out, _ = litestage("models", "check", str(folder))
    words = " ".join(out.split())
    assert code == 0
    for said in ("a model folder", "family llama", "4, so 8 sub-layers", "F32 100%", "up to 4 of 8 sub-layers"):
        assert said in words
    assert "sliding_window" in words
    assert "a text ends at <|endoftext|>" in words
    assert "Not applied because repetition_penalty" in words
    assert "it is 1.1" in words
    assert "does not read it" in words
    assert all(len(line) <= 80 for line in out.splitlines() if str(tmp_path) not in line)


def test_the_same_as_json_names_each_key_and_tensor(litestage: Run, tmp_path: Path) -> None:
    folder = with_keys(tiny.saved(tmp_path, "gemma2"), cache_implementation="hybrid")
    code, out, _ = litestage("models", "check", str(folder), "--json")
    (found,) = json.loads(out)
    assert code == 0
    assert (found["kind"], found["facts"]["family"], found["refusal"]) == ("model folder", "gemma2", None)
    entries = {entry["name"]: entry for entry in found["ledger"]["entries"]}
    assert entries["attn_logit_softcapping"]["verdict"] == "used"
    assert entries["cache_implementation"]["verdict"] == "harmless"
    assert set(load_file(folder / "model.safetensors")) <= set(entries)
    assert found["facts"]["weights"] == sum(
        weight.numel() for weight in load_file(folder / "model.safetensors").values()
    )


def lacking(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: with_keys(f, kv_latent_dim=64), ("kv_latent_dim", "no supported family")),
        (lambda f: with_keys(f, quantization={"bits": 4}), ("quantization", "MLX")),
        (lambda f: with_keys(f, quantization_config={}), ("quantization_config", "quantised")),
        (lacking, ("model.norm.weight", "Missing")),
        (lambda f: with_keys(f, model_type="octopus"), ("'octopus' is not supported",)),
        (lambda f: (f / "tokenizer.json").unlink(), ("has no tokenizer",)),
        (lambda f: (f / "model.safetensors").unlink(), ("has no weights",)),
        (lambda f: (f / "config.json").write_text("{"), ("is not JSON",)),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_code_2(
    litestage: Run, tmp_path: Path, change: Any, said: tuple[str, ...]
) -> None:
    """And loading refuses the same."""
    folder = tiny.saved(tmp_path)
    change(folder)
    code, out, err = litestage("models", "check", str(folder))
    words = " ".join((out + err).split())
    assert code == 2
    for part in said:
        assert part in words
    assert "Traceback" not in words
    with pytest.raises(ModelError):
        load_model(str(folder), device="cpu")


def test_an_adapter_is_looked_into_alone_and_with_its_model(litestage: Run, tmp_path: Path) -> None:
    folder, place = tiny.saved(tmp_path / "model"), adapter(tmp_path / "adapter")
    code, out, _ = litestage("models", "check", str(place))
    assert (code, "an adapter" in " ".join(out.split()), "--adapter" in out) == (0, True, True)
    code, out, _ = litestage("models", "check", str(folder), "--adapter", str(place))
    assert code == 0
    assert "and 8 tensors" in out
    assert "It fits the model" in out
    code, out, _ = litestage("models", "check", str(tiny.saved(tmp_path / "other", "qwen3")), "--adapter", str(place))
    assert code == 2
    assert "its size is" in " ".join(out.split())


def test_an_adapter_that_cannot_be_merged_is_refused_with_code_2(litestage: Run, tmp_path: Path) -> None:
    place = adapter(tmp_path, alora_invocation_tokens=[5])
    code, out, _ = litestage("models", "check", str(place))
    assert code == 2
    assert "alora_invocation_tokens" in out
    assert "cannot be merged" in " ".join(out.split())


@pytest.mark.parametrize(
    ("name", "said"), [("./nowhere", "no model at ./nowhere"), ("everday", "Did you mean everyday")]
)
def test_a_model_that_is_not_there_gets_a_sentence(litestage: Run, name: str, said: str) -> None:
    code, _, err = litestage("models", "check", name)
    assert code == 2
    assert said in err
