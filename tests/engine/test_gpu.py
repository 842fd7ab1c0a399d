"""Whole models on our GPU kernels against the same rounded weights on plain torch."""

from __future__ import annotations

import pytest
import tiny
import torch

from litestage.core import SkipSchedule, StagePlan
from litestage.engine import TorchEngine
from litestage.kernels import find_gpu_kernels
from litestage.kernels import gpu as gpu_module
from litestage.models import LoadedModel, from_transformers
from litestage.models.packed import Packed, Packing, choose_packing

KINDS = ("bf16", "int8", "int4")
PROMPTS = tuple(tiny.prompt(length) for length in (3, 21, 11, 1, 30, 8, 14))
NEW = 14
kinds = pytest.mark.parametrize("kind", KINDS)
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def loaded(family: str, kind: str, dtype: torch.dtype, kernels: bool, blocks: int = tiny.BLOCKS) -> LoadedModel:
    model = tiny.new_model(family, intermediate_size=64, num_hidden_layers=blocks)
    packing = Packing(kind, dtype, dtype, tiny.gpu_kernels() if kernels else None)
    return from_transformers(model, tiny.tokenizer(), family, device=tiny.GPU, packing=packing)


@torch.inference_mode()
def logits(model: LoadedModel) -> torch.Tensor:
    """Behind a prefill of two rows and each of two decode steps, one beyond any window."""
    decoder, here = model.decoder, torch.device(tiny.GPU)
    cache, rows = decoder.new_cache(2, 64), torch.arange(2, device=here)
    tokens = torch.tensor([tiny.prompt(10), tiny.prompt(10, seed=1)], device=here)
    starts = torch.zeros(2, dtype=torch.long, device=here)
    found = [decoder.forward(tokens, decoder.step(10, starts, cache, rows, 10))]
    for step in range(2):
        given = tokens[:, step : step + 1]
        found.append(decoder.forward(given, decoder.step(1, starts + 10 + step, cache, rows, 64, in_place=True)))
    return torch.cat(found).float()


@pytest.mark.parametrize(
    ("family", "kind"),
    [("llama-tied", "bf16"), ("llama-tied", "int8"), ("qwen3", "int4"), ("gemma2", "int8"), ("olmo2", "int4")],
)
def test_a_model_is_that_of_the_rounded_weights(family: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In fp32, where only the order of sums differs."""
    if tiny.GPU == "cpu":  # fewer and larger programs: each costs the interpreter a hundredth of a second
        monkeypatch.setattr(gpu_module, "OUTPUTS_OF_ROWS", (512, 512))
        monkeypatch.setattr(gpu_module, "PROGRAMS", 1)
    blocks = 4 if tiny.GPU == "cuda" else 2
    fast, plain = (loaded(family, kind, torch.float32, kernels, blocks) for kernels in (True, False))
    assert isinstance(fast.decoder.blocks[0].ffn.down, Packed)
    found, expected = logits(fast), logits(plain)
    assert (found - expected).abs().max() < 2e-3 * expected.abs().max()
    assert len(set(expected.argmax(-1).tolist())) > 1


def complete(model: LoadedModel, schedule: SkipSchedule, **options: bool) -> list[tuple[int, ...]]:
    requests = tiny.requests(PROMPTS, max_new_tokens=NEW, stage_plan=StagePlan(schedule=schedule))
    return [done.token_ids for done in TorchEngine(model, batch_size=3, **options).generate(requests)]


@pytest.mark.gpu
@on_a_gpu
@kinds
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_captured_steps_decode_what_plain_torch_does(family: str, kind: str) -> None:
    """In bf16 near ties fall either way, so that most tokens are the same: a graph's steps read more slots, in other
    parts, and sum in another order."""
    fast, plain = (loaded(family, kind, torch.bfloat16, kernels) for kernels in (True, False))
    found, expected = logits(fast), logits(plain)
    assert (found - expected).norm() < 0.05 * expected.norm()
    for schedule in (SkipSchedule(), SkipSchedule.fixed(["0.attention", "2.ffn", "3.ffn"])):
        texts = complete(fast, schedule)
        for others in (complete(fast, schedule, fixed_steps=False), complete(plain, schedule)):
            assert sum(a[:3] == b[:3] for a, b in zip(texts, others, strict=True)) >= len(texts) // 2
    assert len({token for text in texts for token in text}) >= 8


@pytest.mark.gpu
@on_a_gpu
def test_a_gpu_runs_every_kind_of_weight_by_kernels() -> None:
    kernels = find_gpu_kernels()
    assert kernels is not None
    for quantise, kind in (("none", "bf16"), ("int8", "int8"), ("int4", "int4")):
        packing = choose_packing(quantise, torch.bfloat16, torch.device("cuda"))
        assert packing == Packing(kind, torch.bfloat16, torch.bfloat16, kernels)


def test_without_triton_rounded_values_run_on_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    find_gpu_kernels.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "litestage.kernels.programs", None)
    monkeypatch.delattr("litestage.kernels.programs", raising=False)
    cuda = torch.device("cuda")
    with pytest.warns(UserWarning, match="GPU kernels are not used"):
        assert choose_packing("none", torch.bfloat16, cuda) == Packing()
    assert choose_packing("int4", torch.bfloat16, cuda) == Packing("int4", torch.bfloat16, torch.bfloat16)
    assert choose_packing("none", torch.float32, cuda) == Packing()
    find_gpu_kernels.cache_clear()
