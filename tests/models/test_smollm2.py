"""Real weights, when they have been pulled: `litestage models pull smollm2-135m`."""

from __future__ import annotations

import pytest
import tiny
import torch

from litestage.core import ModelError, SkipSchedule, StagePlan
from litestage.engine import TorchEngine
from litestage.models import from_transformers, load_model, load_transformers
from litestage.models.catalog import resolve
from litestage.models.packed import round_weight

NAME = "smollm2-135m"
PROMPTS = [
    "Which of these would float on water?\n(A) a stone (B) a cork (C) an anvil (D) a key\nRecall:",
    "The capital of France is",
    "A candle gives light because",
]
NEW = 24


@pytest.fixture(scope="module", autouse=True)
def pulled() -> None:
    try:
        resolve(NAME)
    except ModelError as missing:
        pytest.skip(str(missing))


@pytest.mark.slow
def test_greedy_text_equals_transformers() -> None:
    """The GGUF in fp32: ragged rows, a slot that is refilled, a shared beginning, and the hook reference for a skip."""
    source, tokenizer = load_transformers(NAME)
    expected = []
    for text in PROMPTS:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        out = source.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW)
        expected.append(tuple(out[0, ids.shape[1] :].tolist()))
    engine = TorchEngine(from_transformers(source, tokenizer, NAME, device="cpu"), batch_size=2)
    prompts = [engine.encode(text) for text in PROMPTS]
    got = engine.generate(tiny.requests(prompts, max_new_tokens=NEW))
    assert [completion.token_ids for completion in got] == expected
    assert "Paris" in got[1].text
    plan = StagePlan(schedule=SkipSchedule.fixed(["10.attention", "11.ffn", "20.attention"]))
    skipping = engine.generate(tiny.requests(prompts, max_new_tokens=NEW, stage_plan=plan))
    assert [completion.token_ids[0] for completion in skipping] == [tokens[0] for tokens in expected]
    assert [completion.token_ids for completion in skipping] != expected


@pytest.mark.slow
def test_bf16_agrees_with_fp32_nearly_everywhere() -> None:
    engines = [TorchEngine(load_model(NAME, dtype=dtype, device="cpu")) for dtype in ("fp32", "bf16")]
    whole, half = (
        engine.generate(tiny.requests([engine.encode(text) for text in PROMPTS], max_new_tokens=NEW))
        for engine in engines
    )
    assert engines[0].identity == engines[1].identity
    for one, other in zip(whole, half, strict=True):
        assert other.confidences[0] == pytest.approx(one.confidences[0], abs=0.05)
    first = [(one.token_ids[:4], other.token_ids[:4]) for one, other in zip(whole, half, strict=True)]
    assert sum(a == b for a, b in first) >= 2


@pytest.mark.slow
def test_four_bits_are_those_of_the_file() -> None:
    """What the GGUF holds in Q4_1 and Q8_0 is found again from the unpacked weights, to fp32's accuracy."""
    source, _ = load_transformers(NAME)
    for name, weight in source.named_parameters():
        if weight.dim() == 2:
            kind = "int8" if "embed" in name or "lm_head" in name else "int4"
            assert torch.allclose(round_weight(weight.detach(), kind), weight, rtol=1e-5, atol=1e-7), name


@pytest.mark.slow
def test_llama_cpp_has_nearly_the_same_logits() -> None:
    """The same 4-bit weights, inputs rounded on both sides: a peer in the benchmarks must not be another model."""
    llama_cpp = pytest.importorskip("llama_cpp")
    peer = llama_cpp.Llama(str(resolve(NAME)), n_ctx=256, verbose=False, logits_all=True)
    engine = TorchEngine(load_model(NAME, dtype="bf16", quantise="int4", device="cpu"))
    for text in PROMPTS:
        ids = engine.encode(text)
        seen: list[torch.Tensor] = []
        engine.on_logits = lambda rows, raw, seen=seen: seen.append(raw[0].clone())  # type: ignore[misc]
        engine.generate(tiny.requests([ids], max_new_tokens=1))
        peer.reset()
        peer.eval(list(ids))
        theirs = torch.tensor(peer.scores[len(ids) - 1])
        assert torch.corrcoef(torch.stack([seen[0], theirs]))[0, 1] > 0.99
