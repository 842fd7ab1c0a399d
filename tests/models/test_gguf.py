"""GGUF files against the transformers models that they were written from: one contract for all families."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import gguf
import gguf_files
import numpy as np
import pytest
import tiny
import torch
from gguf import GGMLQuantizationType as Kind
from gguf_files import CASES, LONG, SIX, Contents, contents, source
from transformers import PreTrainedModel

from litestage.engine import TorchEngine
from litestage.models import load_model, load_transformers
from litestage.models.gguf import gguf_ledger
from litestage.models.gguf.file import can_unpack

NEW = 12
PROMPTS = [tiny.prompt(n) for n in (3, 21, 60)]
"""The last is longer than windows, and than the texts before which scaled models turn as unscaled ones."""
QUANTISED = (
    "llama, tied, with biases",
    "mistral, with a window",
    "qwen2",
    "qwen3",
    "smollm3",
    "granite",
    "olmo2",
    "phi3, longrope",
    "gemma2",
    "gemma3, linear in blocks that see all",
)
"""One case of each family."""


def logits(model: PreTrainedModel) -> list[torch.Tensor]:
    with torch.inference_mode():
        return [model(torch.tensor([ids])).logits[0] for ids in PROMPTS]


def tokens(model: PreTrainedModel) -> list[tuple[int, ...]]:
    made = []
    for ids in PROMPTS:
        at = torch.tensor([ids])
        out = model.generate(at, attention_mask=torch.ones_like(at), do_sample=False, max_new_tokens=NEW)
        made.append(tuple(out[0, len(ids) :].tolist()))
    return made


def differs(model: PreTrainedModel, other: PreTrainedModel) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(logits(model), logits(other), strict=True))


def assert_same(path: Path, expected: PreTrainedModel) -> None:
    """By transformers on what was read, and token by token by the engine."""
    read, _ = load_transformers(str(path))
    assert differs(read, expected) < 2e-4
    engine = TorchEngine(load_model(str(path), device="cpu"))
    got = engine.generate(tiny.requests(PROMPTS, max_new_tokens=NEW))
    assert [completion.token_ids for completion in got] == tokens(expected)


@pytest.mark.parametrize("case", CASES)
def test_a_file_gives_the_folders_tokens(tmp_path: Path, case: str) -> None:
    assert_same(contents(source(case)).write(tmp_path / "model.gguf"), source(case))


@pytest.mark.parametrize("case", QUANTISED)
def test_a_packed_file_gives_the_tokens_of_its_rounded_weights(tmp_path: Path, case: str) -> None:
    file = contents(source(case), Kind.Q8_0)
    assert any(kind == Kind.Q8_0 for _, kind in file.tensors.values())
    expected = gguf_files.rounded(deepcopy(source(case)), Kind.Q8_0)
    assert differs(expected, source(case)) > 1e-3
    assert_same(file.write(tmp_path / "model.gguf"), expected)


def without_biases(file: Contents, which: str) -> None:
    """Of one map, in all blocks."""
    for block in range(tiny.BLOCKS):
        file.tensors.pop(f"blk.{block}.{which}.bias")


WITHOUT: dict[str, tuple[str, Callable[[Contents], None]]] = {
    "rope factors": ("llama, scaled as llama3", lambda file: file.tensors.pop("rope_freqs.weight") and None),
    "the kind of scaling": ("llama, linear", lambda file: file.set("rope.scaling.type", "none")),
    "the factor": ("llama, linear", lambda file: file.set("rope.scaling.factor", None)),
    "yarn's factor": ("llama, yarn", lambda file: file.set("rope.scaling.factor", None)),
    "where yarn begins": ("llama, yarn", lambda file: file.set("rope.scaling.original_context_length", None)),
    "yarn's fast end": (
        "llama, yarn with all its factors",
        lambda file: file.set("rope.scaling.yarn_beta_fast", None),
    ),
    "the base": ("gemma3", lambda file: file.set("rope.freq_base", None)),
    "the local base": ("gemma3", lambda file: file.set("rope.freq_base_swa", 7.0)),
    "the global factor": (
        "gemma3, linear in blocks that see all",
        lambda file: file.set("rope.scaling.factor", None),
    ),
    "the window": ("mistral, with a window", lambda file: file.set("attention.sliding_window", None)),
    "phi3's window": ("phi3, with a window", lambda file: file.set("attention.sliding_window", 0)),
    "gemma3's window": ("gemma3", lambda file: file.set("attention.sliding_window", None)),
    "gemma2's window": ("gemma2", lambda file: file.set("attention.sliding_window", None)),
    "the stretch": ("phi3, longrope", lambda file: file.set("rope.scaling.attn_factor", None)),
    "short factors": ("phi3, longrope", lambda file: file.put_tensor("rope_factors_short.weight", LONG)),
    "biases": ("llama, tied, with biases", lambda file: without_biases(file, "attn_q")),
    "squeezed scores": ("gemma2", lambda file: file.set("attn_logit_softcapping", 0.0)),
    "squeezed logits": ("gemma2", lambda file: file.set("final_logit_softcapping", 0.0)),
    **{
        key: ("granite", lambda file, key=key: file.set(key, 1.5))
        for key in ("attention.scale", "embedding_scale", "residual_scale", "logit_scale")
    },
}
"""What a file may say that, left out, makes another model: so that the parity above is not blind to it."""


@pytest.mark.parametrize("what", WITHOUT)
def test_what_a_file_says_matters(tmp_path: Path, what: str) -> None:
    case, change = WITHOUT[what]
    file = contents(source(case))
    change(file)
    read, _ = load_transformers(str(file.write(tmp_path / "model.gguf")))
    assert differs(read, source(case)) > 1e-2


def test_longrope_texts_end_where_they_would_be_turned_otherwise(tmp_path: Path) -> None:
    path = contents(source("phi3, longrope")).write(tmp_path / "model.gguf")
    assert TorchEngine(load_model(str(path), device="cpu")).max_context == 128
    shorter = contents(source("llama, scaled as llama3")).write(tmp_path / "llama.gguf")
    assert TorchEngine(load_model(str(shorter), device="cpu")).max_context == 256


def test_the_key_heads_are_as_many_as_heads_where_the_file_is_silent(tmp_path: Path) -> None:
    case = "llama, as many key heads as heads"
    file = contents(source(case))
    file.set("attention.head_count_kv", None)
    assert_same(file.write(tmp_path / "model.gguf"), source(case))


@pytest.mark.parametrize("blocks", [46, 45])
def test_gemmas_largest_model_divides_scores_by_another_number(tmp_path: Path, blocks: int) -> None:
    """By its width per head: so does the program that made the format, which knows the model by its blocks."""
    model = tiny.new_model("gemma2", num_hidden_layers=blocks, query_pre_attn_scalar=8 if blocks == 46 else 16)
    read, _ = load_transformers(str(contents(model).write(tmp_path / "model.gguf")))
    assert read.config.query_pre_attn_scalar == model.config.query_pre_attn_scalar


@pytest.mark.parametrize("pattern", [4, [True, True, False, True, False, True, True]])
def test_a_file_may_say_which_blocks_have_a_window(tmp_path: Path, pattern: Any) -> None:
    local = pattern if isinstance(pattern, list) else [(i + 1) % 4 != 0 for i in range(7)]
    types = ["sliding_attention" if one else "full_attention" for one in local]
    model = tiny.new_model("gemma3", **SIX | {"layer_types": types})
    file = contents(model)
    file.set("attention.sliding_window_pattern", pattern)
    assert_same(file.write(tmp_path / "model.gguf"), model)


def test_two_scalings_at_once_multiply(tmp_path: Path) -> None:
    """Frequencies that are divided by factors, and positions that are squeezed."""
    file = contents(source("llama, scaled as llama3"))
    factors = file.tensors["rope_freqs.weight"][0]
    file.put_tensor("rope_freqs.weight", factors / 2)
    file.set("rope.scaling.type", "linear")
    file.set("rope.scaling.factor", 2.0)
    assert_same(file.write(tmp_path / "model.gguf"), source("llama, scaled as llama3"))


def test_a_capital_suffix_and_none_are_files_too(tmp_path: Path) -> None:
    for name in ("M.GGUF", "sha256-0a1b2c"):
        path = contents(source("llama")).write(tmp_path / name)
        assert load_model(str(path), device="cpu").identity.num_blocks == tiny.BLOCKS


def test_any_part_of_a_split_file_stands_for_all(tmp_path: Path) -> None:
    contents(source("llama")).write(tmp_path / "model.gguf", split_max_tensors=15)
    parts = sorted(tmp_path.glob("model-*.gguf"))
    assert len(parts) == 3
    for part in parts:
        assert_same(part, source("llama"))


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1])
def test_other_types_are_unpacked(tmp_path: Path, kind: Kind) -> None:
    read, _ = load_transformers(str(contents(source("llama"), kind).write(tmp_path / "model.gguf")))
    values = source("llama").model.embed_tokens.weight.detach().numpy()
    expected = gguf.dequantize(gguf.quantize(values, kind), kind)
    assert torch.equal(read.model.embed_tokens.weight.detach(), torch.from_numpy(expected))


@pytest.mark.parametrize("kind", gguf_files.SCALES, ids=lambda kind: kind.name)
def test_types_that_are_packed_elsewhere_are_unpacked(tmp_path: Path, kind: Kind) -> None:
    """As files on the hub have them, of which most are Q4_K with some Q6_K. Rows of queries and keys are in pairs."""
    model = tiny.new_model("llama", hidden_size=256, intermediate_size=512, num_hidden_layers=1, initializer_range=0.02)
    file = contents(model)
    packed = {name for name, (values, _) in file.tensors.items() if values.ndim == 2}
    assert len(packed) == 9
    for seed, name in enumerate(sorted(packed)):
        data = gguf_files.at_random(kind, *file.tensors[name][0].shape, seed)
        file.tensors[name] = (data, kind)
        values = gguf.dequantize(data, kind)
        assert 1e-3 < np.abs(values).max() < 20
    read, _ = load_transformers(str(file.write(tmp_path / "model.gguf")))
    written = gguf_files.tensors(read, "llama")
    for name in packed:
        assert np.array_equal(written[name], gguf.dequantize(file.tensors[name][0], kind)), name
    assert differs(read, model) > 1e-2


def test_each_type_is_unpacked_or_refused() -> None:
    plain = {Kind.F32, Kind.F16, Kind.BF16}
    packed = {Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0, *gguf_files.SCALES}
    assert {kind for kind in Kind if can_unpack(kind)} == plain | packed


@pytest.mark.parametrize("case", CASES)
def test_every_key_and_tensor_is_in_the_ledger(tmp_path: Path, case: str) -> None:
    file = contents(source(case))
    ledger = gguf_ledger(file.write(tmp_path / "model.gguf"), "a model")
    entries = {(entry.kind, entry.name): entry for entry in ledger.entries}
    assert len(entries) == len(ledger.entries)
    assert set(entries) == {("key", key) for key in ("general.architecture", *file.keys)} | {
        ("tensor", name) for name in file.tensors
    }
    assert not list(ledger.of("refused"))
    assert all(entry.why for entry in ledger.entries)
    assert {entry.name for entry in ledger.of("harmless")} <= {*gguf_files.DESCRIPTION}
