"""From transformers to the decoder: what is refused, what is kept of the weights, and what is let go of."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import tiny
import torch
from transformers import (
    AutoModelForCausalLM,
    DbrxConfig,
    DeepseekV3Config,
    Gemma3Config,
    Gemma3nTextConfig,
    Gemma3TextConfig,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen2MoeConfig,
    T5Config,
)

from litestage.core import ModelError
from litestage.engine import TorchEngine
from litestage.models import from_transformers
from litestage.models.convert import check_supported, longest_seen_whole, to_decoder
from litestage.models.families import FAMILIES

CPU = torch.device("cpu")
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
NESTED = {"full_attention": DYNAMIC, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (T5Config(), "t5 is an encoder-decoder; litestage skips sub-layers of decoder-only models"),
        (MixtralConfig(), "mixtral is a mixture of experts.*Use a dense model"),
        (Qwen2MoeConfig(), "qwen2_moe is a mixture of experts"),
        (DeepseekV3Config(), "deepseek_v3 is a mixture of experts"),
        (Gemma3nTextConfig(), "gemma3n_text shares keys and values between layers"),
        (Gemma3Config(), "gemma3 reads more than text.*text part saved by itself .gemma3_text"),
        (Gemma3TextConfig(use_bidirectional_attention=True), "lets a token see those after it"),
        (GPT2Config(), "The family 'gpt2' is not supported. Supported: gemma2, .*llama, mistral.*small file"),
        (DbrxConfig(), "'dbrx' is not supported"),
        (LlamaConfig(rope_parameters=DYNAMIC), "llama with dynamic rotary scaling"),
        (Gemma3TextConfig(rope_parameters=NESTED), "gemma3_text with dynamic rotary scaling"),
    ],
)
def test_what_the_decoder_cannot_run_is_refused(config: Any, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        check_supported(config)


LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.1] * 48, "long_factor": [2.0] * 48}


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        (LlamaConfig(max_position_embeddings=256, sliding_window=8), 256),
        (GraniteConfig(max_position_embeddings=256, sliding_window=8), 256),
        (MistralConfig(max_position_embeddings=256, sliding_window=8), 8),
        (MistralConfig(max_position_embeddings=256, sliding_window=None), 256),
        (Qwen2Config(max_position_embeddings=256, sliding_window=8, use_sliding_window=False), 256),
        (Qwen2Config(max_position_embeddings=256, sliding_window=8, use_sliding_window=True, max_window_layers=3), 8),
        (Gemma3TextConfig(max_position_embeddings=256, sliding_window=300), 256),
        (
            Phi3Config(max_position_embeddings=256, original_max_position_embeddings=64, rope_parameters=LONGROPE),
            64,
        ),
    ],
)
def test_only_a_window_that_the_family_obeys_bounds_what_is_trained_on(config: Any, longest: int) -> None:
    assert longest_seen_whole(config) == longest


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_families_are_known_by_transformers_own_name(family: str) -> None:
    config = tiny.transformers_model(family).config
    assert check_supported(config) is FAMILIES[config.model_type]


ROPES = {
    "plain": {"rope_type": "default", "rope_theta": 500.0},
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "rope_theta": 1e4, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 64},
}  # fmt: skip


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("activation", ["silu", "gelu_pytorch_tanh"])
def test_rotary_scaling_activation_and_epsilon_are_the_configs(rope: str, activation: str) -> None:
    shared = tiny.SHARED | {"max_position_embeddings": 1024, "hidden_act": activation, "rms_norm_eps": 0.05}
    config = LlamaConfig(**shared, vocab_size=len(tiny.tokenizer()), rope_parameters=ROPES[rope])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = tiny.prompt(700)
    with torch.inference_mode():
        expected = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=12)[0, len(ids) :].tolist()
    engine = TorchEngine(from_transformers(model, tiny.tokenizer(), rope, device="cpu"))
    got = engine.generate(tiny.requests([ids[:5], ids], max_new_tokens=12))[1]
    assert list(got.token_ids) == expected
    assert len(set(expected)) >= 8


@pytest.mark.parametrize(
    ("family", "alike"),
    [
        ("gemma3", {"layer_types": ["sliding_attention"] * tiny.BLOCKS}),
        ("gemma3", {"layer_types": ["full_attention"] * tiny.BLOCKS}),
        ("smollm3", {"no_rope_layers": [0] * tiny.BLOCKS}),
        ("smollm3", {"no_rope_layers": [1] * tiny.BLOCKS}),
    ],
)
def test_blocks_may_all_be_alike(family: str, alike: dict[str, Any]) -> None:
    """Rotary tables that no block uses need not even be there."""
    model = tiny.new_model(family, **alike)
    ids = tiny.prompt(20)
    with torch.inference_mode():
        expected = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=12)[0, len(ids) :].tolist()
    engine = TorchEngine(from_transformers(model, tiny.tokenizer(), family, device="cpu"))
    assert list(engine.generate(tiny.requests([ids], max_new_tokens=12))[0].token_ids) == expected
    assert len(set(expected)) >= 4


@pytest.mark.parametrize("share", [0.4, 0.7, 0.9])
def test_an_odd_part_of_a_head_is_turned_as_transformers_turns_it(share: float) -> None:
    """3, 5 and 7 of 8 dimensions: it turns one more."""
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": share}
    model = tiny.new_model("phi3", rope_parameters=rope)
    ids = tiny.prompt(20)
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0]
    got = tiny.logits_of(from_transformers(model, tiny.tokenizer(), "phi3", device="cpu"), ids, range(len(ids)))
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)


def test_a_tied_head_stays_one_tensor() -> None:
    tied, untied = tiny.loaded("llama-tied").decoder, tiny.loaded("llama").decoder
    assert tied.head is tied.embedding
    assert untied.head is not untied.embedding


def test_the_originals_are_let_go_of_block_by_block() -> None:
    """While a block is fused, all before it are gone: at no time are there two copies of the model."""
    model = tiny.transformers_model("qwen2")
    layers = model.model.layers
    originals = [weakref.ref(layer.self_attn.q_proj.weight) for layer in layers]
    alive: list[int] = []
    for layer in layers:
        layer.input_layernorm.register_parameter("weight", Watched(layer.input_layernorm.weight, originals, alive))
    del layer
    to_decoder(model, CPU)
    assert alive == [4, 3, 2, 1]
    assert not any(original() is not None for original in originals)


class Watched(torch.nn.Parameter):
    """Notes how many original projections live when its block's turn comes."""

    def __new__(cls, data: torch.Tensor, originals: list[Any], alive: list[int]) -> Watched:
        parameter = super().__new__(cls, data.detach(), requires_grad=False)
        parameter.originals, parameter.alive = originals, alive
        return parameter

    def detach(self) -> torch.Tensor:
        self.alive.append(sum(original() is not None for original in self.originals))
        return super().detach()
