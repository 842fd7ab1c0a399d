"""GGUF files that would run as another model: each is refused by a sentence that names what is in the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny
from gguf import GGMLQuantizationType as Kind
from gguf_files import Contents, contents, source

from litestage.core import ModelError
from litestage.models import load_model
from litestage.models.gguf import gguf_ledger

Change = Callable[[Contents], Any]


def key(name: str, value: Any) -> Change:
    return lambda file: file.set(name, value)


def general(name: str, value: Any) -> Change:
    return lambda file: file.put(name, value)


def tensor(name: str, *shape: int) -> Change:
    return lambda file: file.put_tensor(name, np.ones(shape))


def without(name: str) -> Change:
    return lambda file: file.tensors.pop(name)


def packed(kind: Kind) -> Change:
    """The first matrix as one of a type that is not unpacked."""

    def change(file: Contents) -> None:
        file.tensors["blk.0.ffn_up.weight"] = (np.zeros((48, 32), dtype=np.int8), kind)

    return change


def broken(name: str, value: float) -> Change:
    def change(file: Contents) -> None:
        values = file.tensors[name][0].copy()
        values.flat[values.size // 2] = value
        file.put_tensor(name, values)

    return change


YARN = [("rope.scaling.type", "yarn"), ("rope.scaling.factor", 4.0), ("rope.scaling.original_context_length", 32)]


def yarn(*others: tuple[str, Any]) -> Change:
    return lambda file: [file.set(name, value) for name, value in [*YARN, *others]]


REFUSED: dict[str, tuple[str, Change, str]] = {
    # what is no model, or of no family here
    "another architecture": (
        "llama",
        general("general.architecture", "qwen2moe"),
        r"'qwen2moe' is not supported.*olmo2",
    ),
    "an adapter": ("llama", general("general.type", "adapter"), r"general.type: it is an adapter.*--adapter"),
    "an image encoder": ("llama", general("general.type", "mmproj"), r"general.type: .*images"),
    "statistics": ("llama", general("general.type", "imatrix"), r"general.type: .*statistics"),
    "a type of the future": ("llama", general("general.type", "hologram"), r"general.type: 'hologram'"),
    # keys
    "an unknown key": ("llama", key("attention.future", 3), r"llama.attention.future: what it changes"),
    "another's key": ("llama", general("qwen2.rope.freq_base", 5.0), r"qwen2.rope.freq_base: "),
    "an unknown general key": ("llama", general("general.future", 3), r"general.future: "),
    "experts": ("llama", key("expert_count", 8), r"llama.expert_count: at 8 .*mixture of experts"),
    "embeddings": ("qwen3", key("pooling_type", 3), r"qwen3.pooling_type: at 3 .*embedding"),
    "looking forward": ("gemma3", key("attention.causal", False), r"gemma3.attention.causal: at False"),
    "mrope": ("qwen2", key("rope.dimension_sections", [8, 4, 4, 0]), r"qwen2.rope.dimension_sections: .*mrope"),
    "a kind of rope": ("qwen2", key("rope.scaling.type", "mrope"), r"qwen2.rope.scaling.type: 'mrope'"),
    "dynamic": ("llama", key("rope.scaling.type", "dynamic"), r"llama.rope.scaling.type: 'dynamic'"),
    "alibi": ("llama", key("attention.max_alibi_bias", 8.0), r"llama.attention.max_alibi_bias: at 8"),
    "parallel": ("llama", key("use_parallel_residual", True), r"llama.use_parallel_residual: at True"),
    "layers of many sizes": ("llama", key("attention.head_count_kv", [2, 2, 1, 2]), r"head_count_kv: it differs"),
    "values of another size": ("qwen3", key("attention.value_length", 8), r"value_length: values of 8 and keys of 16"),
    "half a head": ("llama", key("rope.dimension_count", 4), r"dimension_count: it turns 4 of a head's 8"),
    "another vocabulary": ("llama", key("vocab_size", 319), r"vocab_size: it is 319, .* 320 rows"),
    "a window somewhere": ("qwen2", key("attention.sliding_window", 8), r"qwen2.attention.sliding_window: at 8"),
    "olmo3's window": ("olmo2", key("attention.sliding_window", 8), r"olmo2.attention.sliding_window: at 8"),
    "a pattern for all": ("phi3", key("attention.sliding_window_pattern", 2), r"sliding_window_pattern: this family"),
    "a short pattern": ("gemma3", key("attention.sliding_window_pattern", [True]), r"pattern: it names 1 blocks of 7"),
    "a local base": ("llama", key("rope.freq_base_swa", 1e4), r"rope.freq_base_swa: this family"),
    "a foreign scale": ("llama", key("residual_scale", 0.5), r"llama.residual_scale: at 0.5"),
    "scores scaled": ("llama", key("attention.scale", 0.5), r"llama.attention.scale: "),
    "no positions": ("granite", key("rope.scaling.finetuned", False), r"finetuned: it turns no positions"),
    "yarn by half": ("llama", yarn(("rope.scaling.yarn_ext_factor", 0.5)), r"yarn_ext_factor: it blends"),
    "yarn stretched": ("llama", yarn(("rope.scaling.yarn_attn_factor", 1.0)), r"yarn_attn_factor: programs disagree"),
    "yarn by DeepSeek": ("llama", yarn(("rope.scaling.yarn_log_multiplier", 0.1)), r"yarn_log_multiplier: "),
    "yarn of Phi-3": ("phi3", yarn(), r"phi3.rope.scaling.type: this family is not scaled by yarn"),
    "yarn with factors": ("llama, scaled as llama3", yarn(), r"rope_freqs.weight: scales frequencies"),
    "longrope of another family": (
        "qwen2",
        lambda file: [
            file.set("rope.scaling.type", "longrope"),
            *(file.put_tensor(f"rope_factors_{name}.weight", np.ones(4)) for name in ("short", "long")),
        ],
        r"qwen2.rope.scaling.type: models of this family are not scaled by longrope",
    ),
    "longrope without factors": ("llama", key("rope.scaling.type", "longrope"), r"scaling.type: longrope divides"),
    "a long Phi-3 without factors": (
        "phi3",
        key("rope.scaling.original_context_length", 64),
        r"original_context_length: it is less than the 256",
    ),
    "another packing": ("llama", general("general.quantization_version", 1), r"quantization_version: its numbers"),
    "no sizes": ("llama", key("embedding_length", None), r"lacks the key llama.embedding_length"),
    "a size that is a word": (
        "llama",
        key("block_count", "four"),
        r"llama.block_count: it is four, and a whole number",
    ),
    "heads with a point": ("llama", key("attention.head_count", 4.0), r"head_count: it is 4.0, and a whole number"),
    "no heads": ("llama", key("attention.head_count", 0), r"llama.attention.head_count: it is no size"),
    "more blocks": ("llama", key("block_count", 1_000_000), r"block_count: it is 1000000, and the file holds 4"),
    "a base that is a word": ("llama", key("rope.freq_base", "high"), r"rope.freq_base: it is high, and a number"),
    "no scale of scores": ("granite", key("attention.scale", None), r"lacks the key granite.attention.scale"),
    "scores of nothing": ("granite", key("attention.scale", 0.0), r"granite.attention.scale: it is 0"),
    "scores below zero": (
        "granite",
        key("attention.scale", -0.5),
        r"granite.attention.scale: it is -0.5, and a number",
    ),
    "a stretch of some blocks": (
        "gemma3",
        key("rope.scaling.attn_factor", 1.5),
        r"gemma3.rope.scaling.attn_factor: it is",
    ),
    "no logit scale": ("granite", key("logit_scale", None), r"lacks the key granite.logit_scale"),
    "sizes of no model": ("llama", key("attention.head_count", 5), r"sizes that .* names make no llama model: .*heads"),
    "sizes of another": ("llama", key("feed_forward_length", 64), r"blk.0.ffn_gate.weight: has the shape \[48, 32\]"),
    "no key heads": ("llama", key("attention.head_count_kv", 0), r"head_count_kv: it is no size"),
    "sizes of one block": (
        "llama",
        key("attention.head_count_kv", [2]),
        r"head_count_kv: it has 1 numbers for 4 blocks",
    ),
    "a base of nothing": ("llama", key("rope.freq_base", 0.0), r"rope.freq_base: it is 0.0, and a number above 0"),
    "a base that is no number": ("llama", key("rope.freq_base", float("nan")), r"rope.freq_base: it is nan"),
    "a local base below zero": ("gemma3", key("rope.freq_base_swa", -1.0), r"rope.freq_base_swa: it is -1.0"),
    "an endless norm": (
        "llama",
        key("attention.layer_norm_rms_epsilon", float("inf")),
        r"layer_norm_rms_epsilon: it is inf, and a number",
    ),
    "a factor below zero": ("llama, linear", key("rope.scaling.factor", -2.0), r"rope.scaling.factor: it is -2.0"),
    "yarn that shortens": ("llama", yarn(("rope.scaling.factor", 0.5)), r"rope.scaling.factor: .*0.5 would shorten"),
    "yarn without bounds": ("llama", yarn(("rope.scaling.yarn_beta_fast", float("nan"))), r"yarn_beta_fast: it is nan"),
    "half a window": (
        "mistral",
        key("attention.sliding_window", 2.5),
        r"sliding_window: it is 2.5, and a whole number",
    ),
    "an odd part of a head": ("phi3", key("rope.dimension_count", 3), r"dimension_count: 3 of a head's 8 .* in pairs"),
    "no part of a head": ("phi3", key("rope.dimension_count", 0), r"dimension_count: 0 of a head's 8"),
    "more than a head": ("phi3", key("rope.dimension_count", 16), r"dimension_count: 16 of a head's 8"),
    "a text that is diffused": ("llama", general("diffusion.shift_logits", True), r"diffusion.shift_logits: what it"),
    # tensors
    "queries, keys and values in one": (
        "llama",
        tensor("blk.0.attn_qkv.weight", 64, 32),
        r"attn_qkv.weight: is queries, keys and values in one",
    ),
    "queries apart": ("phi3", tensor("blk.0.attn_q.weight", 32, 32), r"attn_q.weight: is kept in one tensor"),
    "a divisor of zero": (
        "llama, scaled as llama3",
        lambda file: file.put_tensor("rope_freqs.weight", np.array([1.0, 0.0, 1.0, 1.0])),
        r"rope_freqs.weight: holds what is no divisor",
    ),
    "a divisor that is no number": (
        "phi3, longrope",
        lambda file: file.put_tensor("rope_factors_long.weight", np.array([1.0, np.nan])),
        r"rope_factors_long.weight: holds what is no divisor",
    ),
    "a router": ("llama", tensor("blk.0.ffn_gate_inp.weight", 8, 32), r"ffn_gate_inp.weight: .*mixture of experts"),
    "llama's q norm": (
        "llama",
        tensor("blk.0.attn_q_norm.weight", 8),
        r"attn_q_norm.weight: is a norm that this family",
    ),
    "an output bias": ("llama", tensor("output.bias", 320), r"output.bias: is a bias that this family"),
    "qwen2's output bias": ("qwen2", tensor("blk.1.attn_output.bias", 32), r"blk.1.attn_output.bias: is a bias"),
    "half an adapter": ("llama", tensor("blk.0.attn_q.weight.lora_a", 4, 32), r"lora_a: is half of an adapter"),
    "a stored scale": ("llama", tensor("blk.0.attn_q.scale", 1), r"attn_q.scale: multiplies a weight"),
    "sinks": ("llama", tensor("blk.0.attn_sinks.weight", 4), r"attn_sinks.weight: "),
    "an image tensor": ("llama", tensor("v.blk.0.attn_q.weight", 4, 4), r"v.blk.0.attn_q.weight: .*images"),
    "a labelling head": ("qwen3", tensor("cls.output.weight", 2, 32), r"cls.output.weight: makes labels"),
    "factors elsewhere": ("qwen3", tensor("rope_freqs.weight", 8), r"rope_freqs.weight: changes how positions"),
    "factors of another size": (
        "llama",
        tensor("rope_freqs.weight", 3),
        r"rope_freqs.weight: has the shape \[3\].* 4 numbers",
    ),
    "half of longrope": (
        "phi3",
        tensor("rope_factors_long.weight", 4),
        r"rope_factors_long.weight: .*rope_factors_short",
    ),
    "a block too many": ("llama", tensor("blk.4.attn_norm.weight", 32), r"blk.4.attn_norm.weight: belongs to a block"),
    "another shape": ("llama", tensor("blk.0.attn_norm.weight", 31), r"attn_norm.weight: has the shape \[31\].*\[32\]"),
    "one missing": ("llama", without("blk.2.ffn_up.weight"), r"lacks the tensor blk.2.ffn_up.weight"),
    "a bias missing": ("qwen2", without("blk.1.attn_q.bias"), r"lacks the tensor blk.1.attn_q.bias"),
    "a bias in some blocks": (
        "llama, tied, with biases",
        without("blk.3.attn_output.bias"),
        r"lacks the tensor blk.3.attn_output.bias",
    ),
    "no embedding": ("llama", without("token_embd.weight"), r"lacks the tensor token_embd.weight"),
    "a head of its own": (
        "gemma2",
        tensor("output.weight", len(tiny.tokenizer()), 32),
        r"lm_head.weight, and gemma2 files have no tensor of that kind",
    ),
    "no tensors": ("llama", lambda file: file.tensors.clear(), r"holds no tensors: it is a vocabulary alone"),
    "not a number": (
        "llama",
        broken("blk.1.ffn_down.weight", np.nan),
        r"blk.1.ffn_down.weight with values that are no",
    ),
    "infinity": ("llama", broken("blk.1.attn_norm.weight", np.inf), r"blk.1.attn_norm.weight with values that are no"),
    "integers": ("llama", packed(Kind.I8), r"blk.0.ffn_up.weight: is packed as I8"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_by_name(tmp_path: Path, what: str) -> None:
    case, change, sentence = REFUSED[what]
    file = contents(source(case))
    change(file)
    path = file.write(tmp_path / "model.gguf")
    with pytest.raises(ModelError, match=sentence) as error:
        load_model(str(path), device="cpu")
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


NEUTRAL: dict[str, tuple[str, Change]] = {
    "no experts": ("llama", lambda file: [file.set("expert_count", 0), file.set("expert_used_count", 0)]),
    "no window": ("qwen2", key("attention.sliding_window", 0)),
    "causal": ("llama", key("attention.causal", True)),
    "pooling none": ("qwen3", key("pooling_type", 0)),
    "Meta's order": ("llama", key("tensor_data_layout", "Meta AI original pth")),
    "heads one by one": ("llama", key("attention.head_count", [4, 4, 4, 4])),
    "scaling trained": ("llama", key("rope.scaling.finetuned", True)),
    "the old factor": ("llama", key("rope.scale_linear", 1.0)),
    "the usual stretch": ("llama", key("rope.scaling.attn_factor", 1.0)),
    "old frequencies": ("llama", tensor("blk.0.attn_rot_embd.weight", 4)),
    "sizes of 1": (
        "llama",
        lambda file: file.tensors.update(
            {"output_norm.weight": (file.tensors["output_norm.weight"][0][None, None], Kind.F32)}
        ),
    ),
    "no padding token": ("llama", lambda file: file.put("tokenizer.ggml.padding_token_id", 0xFFFFFFFF)),
    "alignment": ("llama", general("general.alignment", 64)),
    "a suggestion": ("llama", general("general.sampling.temp", 0.6)),
    "another program's note": ("llama", general("mradermacher.quantized_on", "a machine")),
}


@pytest.mark.parametrize("what", NEUTRAL)
def test_what_changes_nothing_is_let_be(tmp_path: Path, what: str) -> None:
    case, change = NEUTRAL[what]
    file = contents(source(case))
    expected = load_model(str(file.write(tmp_path / "plain.gguf")), device="cpu").identity.fingerprint
    change(file)
    path = file.write(tmp_path / "model.gguf")
    assert load_model(str(path), device="cpu").identity.fingerprint == expected
    ledger = gguf_ledger(path, "a model")
    assert {entry.name for entry in ledger.entries} >= {*file.keys, *file.tensors}
    assert not list(ledger.of("refused"))


def test_a_ledger_names_all_that_is_refused(tmp_path: Path) -> None:
    file = contents(source("llama"))
    file.set("attention.future", 3)
    file.put_tensor("blk.0.attn_sinks.weight", np.ones(4))
    ledger = gguf_ledger(file.write(tmp_path / "model.gguf"), "a model")
    assert [entry.name for entry in ledger.of("refused")] == ["llama.attention.future", "blk.0.attn_sinks.weight"]


def test_other_byte_orders_are_refused(tmp_path: Path) -> None:
    path = contents(source("llama")).write(tmp_path / "model.gguf", endianess=gguf.GGUFEndian.BIG)
    with pytest.raises(ModelError, match=r"model.gguf has its bytes in big-endian order"):
        load_model(str(path), device="cpu")


@pytest.mark.parametrize("kept", [3, 30, 5000, -100])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    path = contents(source("llama")).write(tmp_path / "model.gguf")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"model.gguf is no GGUF file, is cut short or damaged"):
        load_model(str(path), device="cpu")


@pytest.mark.parametrize(
    ("at", "value", "sentence"),
    [
        (4, 1, r"model.gguf is of version 1 of the format; 2 and 3 are read"),
        (4, 4, r"model.gguf is of version 4 of the format"),
        (16, 500, r"model.gguf (is no GGUF file, .*counts other keys|holds a tensor of type)"),
        (16, 3, r"model.gguf (is no GGUF file, .*counts other keys|holds a tensor of type)"),
    ],
)
def test_what_the_head_of_a_file_says_is_checked(tmp_path: Path, at: int, value: int, sentence: str) -> None:
    path = contents(source("llama")).write(tmp_path / "model.gguf")
    content = path.read_bytes()
    path.write_bytes(content[:at] + value.to_bytes(4, "little") + content[at + 4 :])
    with pytest.raises(ModelError, match=sentence):
        load_model(str(path), device="cpu")


@pytest.mark.parametrize(
    ("kind", "said"), [(4, "4, Q4_2, which was taken out"), (33, "33, Q4_0_8_8, which was"), (99, "99, which nobody")]
)
def test_types_that_are_no_longer_there_are_named(tmp_path: Path, kind: int, said: str) -> None:
    path = contents(source("llama")).write(tmp_path / "model.gguf")
    content = path.read_bytes()
    at = content.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight") + 4 + 2 * 8
    path.write_bytes(content[:at] + kind.to_bytes(4, "little") + content[at + 4 :])
    with pytest.raises(ModelError, match=rf"holds a tensor of type {said}.*Quantise the model again"):
        load_model(str(path), device="cpu")


def test_a_key_that_is_there_twice_is_named(tmp_path: Path) -> None:
    file = contents(source("llama"))
    file.set("block_counu", 4)
    path = file.write(tmp_path / "model.gguf")
    path.write_bytes(path.read_bytes().replace(b"llama.block_counu", b"llama.block_count"))
    with pytest.raises(ModelError, match=r"model.gguf holds the key llama.block_count twice"):
        load_model(str(path), device="cpu")


def moved(content: bytes) -> bytes:
    """A tensor where the first one lies."""
    at = content.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight") + 4 + 2 * 8 + 4
    return content[:at] + bytes(8) + content[at + 8 :]


def fewer(content: bytes) -> bytes:
    """One tensor less is told than there is."""
    return content[:8] + (int.from_bytes(content[8:16], "little") - 1).to_bytes(8, "little") + content[16:]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (moved, r"holds the tensor blk.0.attn_q.weight at byte \d+, and it belongs at \d+"),
        (fewer, r"goes on for \d+ bytes behind its last tensor"),
        (lambda content: content + bytes(100), r"goes on for \d+ bytes behind its last tensor"),
    ],
)
def test_tensors_that_do_not_lie_one_behind_the_other_are_refused(
    tmp_path: Path, change: Callable[[bytes], bytes], sentence: str
) -> None:
    path = contents(source("llama")).write(tmp_path / "model.gguf")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ModelError, match=sentence):
        load_model(str(path), device="cpu")


def test_parts_that_do_not_make_a_whole_are_refused(tmp_path: Path) -> None:
    contents(source("llama")).write(tmp_path / "model.gguf", split_max_tensors=15)
    first, second, third = sorted(tmp_path.glob("model-*.gguf"))
    alone = tmp_path / "renamed.gguf"
    alone.write_bytes(first.read_bytes())
    with pytest.raises(ModelError, match=r"split into 3 parts with 39 tensors in all, and 15 are here"):
        load_model(str(alone), device="cpu")
    third.rename(tmp_path / "elsewhere")
    for part in (first, second):
        with pytest.raises(ModelError, match=r"of 3, and model-00003-of-00003.gguf does not lie beside it \(1 missing"):
            load_model(str(part), device="cpu")
    third.write_bytes(second.read_bytes())
    with pytest.raises(ModelError, match=r"00003-of-00003.gguf holds the tensor .* a second time"):
        load_model(str(first), device="cpu")


def test_a_vocabulary_without_an_end_is_refused(tmp_path: Path) -> None:
    file = contents(tiny.transformers_model("llama"))
    file.keys["tokenizer.ggml.tokens"][tiny.tokenizer().eos_token_id] = "<|other|>"
    for name in ("bos", "eos", "padding"):
        file.put(f"tokenizer.ggml.{name}_token_id", None)
    with pytest.raises(ModelError, match="names no end-of-sequence token"):
        load_model(str(file.write(tmp_path / "model.gguf")), device="cpu")
