"""Tiny random models of every family, a real tokenizer, and the slow oracles that the engine is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from litestage.core import Request, SkipSchedule, SubLayer
from litestage.engine import TorchEngine
from litestage.kernels import GpuKernels, find_kernels
from litestage.models import Affine, LoadedModel, from_transformers
from litestage.models.packed import Packing

WINDOW = 8
"""Sliding window of the models that have one: shorter than most prompts below."""
BLOCKS = 4
EOS = "<|endoftext|>"
GPU = "cuda" if torch.cuda.is_available() else "cpu"
"""Where GPU kernels are tested: without a GPU Triton's interpreter runs them, as conftest.py has it."""

_SENTENCES = [
    "A candle gives light because its wick burns, and the wax that melts feeds the flame.",
    "Which of these would float on water? (A) a stone (B) a cork (C) an anvil (D) a key",
    "So the answer is option B.",
    "Recall: Cork is light and full of air.\nAnalyze: For option A, a stone is heavy and sinks.",
]


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on four sentences."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(_SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=EOS)


def tokenizer_with_chat() -> PreTrainedTokenizerFast:
    chatty = deepcopy(tokenizer())
    chatty.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    return chatty


PARTIAL = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
SHARED: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
_CONFIGS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "llama": (LlamaConfig, {"tie_word_embeddings": False}),
    "llama-tied": (LlamaConfig, {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "mistral": (MistralConfig, {"sliding_window": WINDOW, "num_key_value_heads": 1}),
    "qwen2": (Qwen2Config, {"tie_word_embeddings": False}),
    "qwen2-window": (
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2, "tie_word_embeddings": True},
    ),
    "qwen3": (Qwen3Config, {"head_dim": 16, "tie_word_embeddings": False}),
    "smollm3": (SmolLM3Config, {"no_rope_layers": [1, 0, 1, 1]}),
    "granite": (
        GraniteConfig,
        {"embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.4, "logits_scaling": 2.0},
    ),
    "phi3": (Phi3Config, {"tie_word_embeddings": False}),
    "phi3-partial": (Phi3Config, {"rope_parameters": PARTIAL}),
    "olmo2": (Olmo2Config, {}),
    "gemma2": (
        Gemma2Config,
        {
            "head_dim": 16,
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 12,
            "attn_logit_softcapping": 8.0,
            "final_logit_softcapping": 30.0,
        },
    ),
    "gemma3": (
        Gemma3TextConfig,
        {
            "head_dim": 16,
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 12,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
}
FAMILIES = tuple(_CONFIGS)


@cache
def _source(family: str, seed: int) -> PreTrainedModel:
    return new_model(family, seed)


def new_model(family: str, seed: int = 0, **other: Any) -> PreTrainedModel:
    """A random model in fp32, with ``other`` settings of its config where given."""
    kind, options = _CONFIGS[family]
    vocabulary = len(tokenizer())
    eos = tokenizer().eos_token_id
    own = {"vocab_size": vocabulary, "eos_token_id": eos, "bos_token_id": eos, "pad_token_id": eos}
    config = kind(**SHARED | own | options | other)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3)
            elif parameter.dim() == 1:
                parameter.normal_(1, 0.3)
    return model


def transformers_model(family: str, seed: int = 0) -> PreTrainedModel:
    """A fresh copy of a random model in fp32; norms and biases are random too, so that none can be forgotten."""
    return deepcopy(_source(family, seed))


def saved(place: Path, family: str = "llama") -> Path:
    """A model folder as transformers saves it."""
    transformers_model(family).save_pretrained(place)
    tokenizer().save_pretrained(place)
    return place


@cache
def loaded(family: str, seed: int = 0) -> LoadedModel:
    return from_transformers(transformers_model(family, seed), tokenizer(), f"tiny-{family}", device="cpu")


def logits_of(model: LoadedModel, ids: Sequence[int], at: Sequence[int]) -> torch.Tensor:
    """Our decoder's logits [N, V] at some positions of a text, each from a prefill that ends there."""
    decoder, row = model.decoder, torch.tensor([0])

    def last(n: int) -> torch.Tensor:
        step = decoder.step(n, torch.tensor([0]), decoder.new_cache(1, n), row, n)
        return decoder.forward(torch.tensor([list(ids[:n])]), step)

    return torch.cat([last(n + 1) for n in at])


@cache
def packed(kind: str = "int8") -> LoadedModel:
    """A model whose numbers do not depend on what is computed beside them."""
    packing = Packing(kind, torch.float32, torch.float32, find_kernels())
    return from_transformers(new_model("llama", intermediate_size=64), tokenizer(), kind, device="cpu", packing=packing)


def engine(family: str = "llama", *, batch_size: int = 32, **options: Any) -> TorchEngine:
    """A fresh engine, with nothing in its prefix store, on shared weights."""
    return TorchEngine(loaded(family), batch_size=batch_size, **options)


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    """Random token ids without EOS."""
    generator = torch.Generator().manual_seed(1000 * length + seed)
    return tuple(torch.randint(1, len(tokenizer()), (length,), generator=generator).tolist())


@cache
def generate_by_transformers(family: str, prompt_ids: tuple[int, ...], max_new_tokens: int) -> tuple[int, ...]:
    """Greedy tokens of transformers' own `generate`, one prompt at a time."""
    ids = torch.tensor([prompt_ids])
    with torch.inference_mode():
        out = _source(family, 0).generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_new_tokens
        )
    return tuple(out[0, len(prompt_ids) :].tolist())


def raw_logits(
    family: str,
    text: Sequence[int],
    prompt_length: int,
    schedule: SkipSchedule | None = None,
    stand: Mapping[SubLayer, Affine] | None = None,
) -> torch.Tensor:
    """Logits [T, V] of a whole text: the transformers model without a cache, with hooks on its sub-layers.

    A hook replaces what a sub-layer adds to the residual stream by zero (or by what a compensation adds) at the
    positions of generated tokens whose decode step skips it. Nothing else is needed to be exactly equal to decoding
    with a cache: prompt positions are full depth, as in prefill; a generated position p, run at decode step
    p - prompt_length, gets the sub-layers of its own step alone; and where an attention is kept, the keys and values it
    reads are those of full-depth prompt positions and of generated positions that kept it too, computed from the
    residual stream of the shortened path, because an attention once skipped stays skipped.
    """
    model = _source(family, 0)
    steps = range(len(text) - prompt_length)
    skipped = [(schedule or SkipSchedule()).at(step) for step in steps]
    with ExitStack() as hooks, torch.inference_mode():
        for layer in frozenset().union(*skipped):
            at = [prompt_length + step for step in steps if layer in skipped[step]]
            hooks.enter_context(_replaced(model, layer, at, (stand or {}).get(layer)))
        logits: torch.Tensor = model(torch.tensor([list(text)]), use_cache=False).logits[0]
        return logits


@contextmanager
def _replaced(model: PreTrainedModel, layer: SubLayer, positions: list[int], affine: Affine | None) -> Any:
    """While open, ``layer`` adds nothing at ``positions``, or what turns x into ``scale * x + shift``."""
    first, last = ends(model, layer)
    scale = getattr(model.config, "residual_multiplier", 1.0)  # Granite's, of what comes out of the last module
    stream: list[torch.Tensor] = []

    def before(module: Any, args: tuple[torch.Tensor, ...]) -> None:
        stream[:] = [args[0]]

    def after(module: Any, args: Any, output: Any) -> Any:
        added = (output[0] if isinstance(output, tuple) else output).clone()
        x = stream[0][:, positions]
        added[:, positions] = 0 if affine is None else (affine(x) - x) / scale
        return (added, *output[1:]) if isinstance(output, tuple) else added

    handles = [first.register_forward_pre_hook(before), last.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def ends(model: PreTrainedModel, layer: SubLayer) -> tuple[Any, Any]:
    """The modules that see the residual stream first and make what is added to it last, by the family's own code."""
    block, attention = model.model.layers[layer.block], layer.kind == "attention"
    match model.config.model_type:
        case "gemma2" | "gemma3_text":
            first = block.input_layernorm if attention else block.pre_feedforward_layernorm
            return first, block.post_attention_layernorm if attention else block.post_feedforward_layernorm
        case "olmo2" if attention:
            return block, block.post_attention_layernorm
        case "olmo2":
            return block.mlp, block.post_feedforward_layernorm
        case _:
            first = block.input_layernorm if attention else block.post_attention_layernorm
            return first, block.self_attn if attention else block.mlp


def by_hooks(
    family: str,
    prompt_ids: Sequence[int],
    tokens: Sequence[int],
    schedule: SkipSchedule | None = None,
    stand: Mapping[SubLayer, Affine] | None = None,
) -> tuple[tuple[int, ...], list[float]]:
    """The greedy token and its confidence after the prompt and after each of ``tokens`` but the last.

    One forward over the whole text: a causal model's logits at a position do not depend on what follows it. So tokens
    are the greedy ones exactly when they equal what this returns (`decode_by_hooks` takes the long way).
    """
    logits = raw_logits(family, [*prompt_ids, *tokens[:-1]], len(prompt_ids), schedule, stand)[len(prompt_ids) - 1 :]
    return tuple(logits.argmax(-1).tolist()), logits.softmax(-1).amax(-1).tolist()


def decode_by_hooks(
    family: str, prompt_ids: Sequence[int], max_new_tokens: int, schedule: SkipSchedule | None = None
) -> tuple[int, ...]:
    """Greedy tokens, every step a forward over the whole text so far (`raw_logits`)."""
    text = list(prompt_ids)
    for _ in range(max_new_tokens):
        text.append(int(raw_logits(family, text, len(prompt_ids), schedule)[-1].argmax()))
        if text[-1] == tokenizer().eos_token_id:
            break
    return tuple(text[len(prompt_ids) :])


def requests(prompts: Sequence[Sequence[int]], **options: Any) -> list[Request]:
    return [Request(prompt_ids=tuple(ids), **options) for ids in prompts]


@cache
def gpu_kernels() -> GpuKernels:
    """Skips a test where there is no triton."""
    pytest.importorskip("triton")
    from litestage.kernels import programs

    if GPU == "cpu":
        _let_numbers_bound_loops()
    return GpuKernels(programs)


def _let_numbers_bound_loops() -> None:
    """Triton 3.6's interpreter makes a number of an array of one element, which numpy 2.4 no longer does."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched
