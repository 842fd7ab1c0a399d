"""The fast paths of the CPU: packed weights and our own kernels, against transformers and the plain engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from litestage.core import Completion, MeanConfidence, OptionError, Sampling, Segment, SkipSchedule, StagePlan
from litestage.engine import TorchEngine
from litestage.kernels import Kernels, find_kernels, round_weight
from litestage.models import LoadedModel, from_transformers, load_transformers
from litestage.models.packed import Packed, Packing, choose_packing

pytestmark = pytest.mark.skipif(find_kernels() is None, reason="needs a C compiler")
LENGTHS = (3, 21, 11, 1, 30, 8, 14)
PROMPTS = tuple(tiny.prompt(length) for length in LENGTHS)
NEW = 14
KINDS = ("bf16", "int8", "int4")
SCHEDULES = (
    SkipSchedule(),
    SkipSchedule.fixed(["0.attention", "2.ffn", "3.ffn"]),
    SkipSchedule(
        segments=(Segment(first_step=0, skipped={"1.ffn"}), Segment(first_step=4, skipped={"1.ffn", "2.attention"}))
    ),
)
families = pytest.mark.parametrize("family", tiny.FAMILIES)
kinds = pytest.mark.parametrize("kind", KINDS)


def rounded(family: str, kind: str) -> PreTrainedModel:
    """A model whose matrices hold the values that packed ones stand for."""
    model = tiny.new_model(family, intermediate_size=64)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                of_head = "embed_tokens" in name or "lm_head" in name
                weight.copy_(round_weight(weight, "int8" if of_head and kind == "int4" else kind))
    return model


@cache
def loaded(family: str, kind: str, plain: bool = False) -> LoadedModel:
    packing = Packing() if plain else Packing(kind, torch.float32, torch.float32, find_kernels())
    return from_transformers(rounded(family, kind), tiny.tokenizer(), family, device="cpu", packing=packing)


def complete(
    model: LoadedModel, schedule: SkipSchedule = SCHEDULES[0], batch_size: int = 32, **options: object
) -> list[Completion]:
    stage_plan = StagePlan(schedule=schedule, exit=MeanConfidence(window=3, threshold=0.02))
    requests = tiny.requests(PROMPTS, max_new_tokens=NEW, stage_plan=stage_plan, **options)
    return TorchEngine(model, batch_size=batch_size).generate(requests)


def first_logits(model: LoadedModel) -> torch.Tensor:
    """Behind each prompt, in their order."""
    seen: dict[int, torch.Tensor] = {}
    engine = TorchEngine(model)
    engine.on_logits = lambda rows, raw: seen.update(zip(rows, raw.clone(), strict=True))
    engine.generate(tiny.requests(PROMPTS, max_new_tokens=1))
    return torch.stack([seen[row] for row in range(len(PROMPTS))])


@families
def test_beginnings_read_once_change_nothing(family: str) -> None:
    """Worked examples that all rows share, questions that some do, rows of many lengths that leave and enter: bit for
    bit what each row gives by itself."""
    stem = tiny.prompt(24)
    questions = [stem + tiny.prompt(6, seed=seed) for seed in range(3)]
    prompts = [questions[i % 3] + tiny.prompt(1 + i % 4, seed=i) for i in range(15)]
    model = loaded(family, "bf16")
    together = TorchEngine(model, batch_size=9).generate(
        [
            request.model_copy(update={"max_new_tokens": 4 + 3 * (i % 4)})
            for i, request in enumerate(tiny.requests(prompts))
        ]
    )
    for prompt, row in zip(prompts, together, strict=True):
        (alone,) = TorchEngine(model).generate(tiny.requests([prompt], max_new_tokens=len(row.token_ids)))
        assert (alone.token_ids, alone.confidences) == (row.token_ids, row.confidences)


@families
def test_bf16_weights_on_an_fp32_stream_equal_transformers(family: str) -> None:
    """The kernels, cache and positions of every family; only the order of sums differs."""
    source = rounded(family, "bf16")
    expected = []
    with torch.inference_mode():
        for ids in PROMPTS:
            tokens = torch.tensor([ids])
            out = source.generate(tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=NEW)
            expected.append(tuple(out[0, len(ids) :].tolist()))
    engine = TorchEngine(loaded(family, "bf16"), batch_size=3)
    found = [done.token_ids for done in engine.generate(tiny.requests(PROMPTS, max_new_tokens=NEW))]
    assert found == expected
    assert len({token for tokens in expected for token in tokens}) >= 8


@families
@pytest.mark.parametrize("schedule", SCHEDULES[1:])
def test_bf16_weights_skip_as_plain_ones_do(family: str, schedule: SkipSchedule) -> None:
    plain, fast = (complete(loaded(family, "bf16", plain), schedule) for plain in (True, False))
    assert [done.token_ids for done in fast] == [done.token_ids for done in plain]
    assert fast[4].confidences == pytest.approx(plain[4].confidences, rel=1e-3)
    assert [done.token_ids for done in fast] != [done.token_ids for done in complete(loaded(family, "bf16"))]


@pytest.mark.parametrize(
    ("family", "kind"), [*(("llama", kind) for kind in KINDS), ("gemma2", "int8"), ("qwen3", "bf16")]
)
def test_texts_do_not_depend_on_the_batch(family: str, kind: str) -> None:
    """To the last bit of every confidence: alone, in slots that are refilled, all at once; greedy and drawn."""
    for options in ({}, {"sampling": Sampling(temperature=0.8), "seed": 3}):
        alone, few, all_ = (
            [complete(loaded(family, kind), schedule, size, **options) for schedule in SCHEDULES] for size in (1, 3, 32)
        )
        assert alone == few == all_
        assert len({done.token_ids for done in alone[0]}) >= 5


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("family", ["llama-tied", "gemma2", "qwen3"])
def test_integer_weights_come_close_to_their_plain_values(family: str, kind: str) -> None:
    """Inputs are rounded to bytes as well, so logits are near, and texts begin alike."""
    logits = {plain: first_logits(loaded(family, kind, plain)) for plain in (True, False)}
    error = (logits[True] - logits[False]).norm() / logits[True].norm()
    assert 0 < error < 0.08
    assert (logits[True].argmax(-1) == logits[False].argmax(-1)).float().mean() > 0.8


@pytest.mark.parametrize("family", ["llama", "phi3-partial", "gemma2"])
def test_four_bits_bear_an_adapter(family: str, tmp_path: Path) -> None:
    """What it adds is smaller than a step of 4 bits: peft's logits all the same, whose base is on the grid."""
    base, place = tmp_path / "base", tmp_path / "adapter"
    rounded(family, "int4").save_pretrained(base)
    tiny.tokenizer().save_pretrained(base)
    config = LoraConfig(r=3, lora_alpha=6, init_lora_weights=False, target_modules="all-linear")
    by_peft = get_peft_model(rounded(family, "int4"), config).eval()
    with torch.no_grad():
        for name, weight in by_peft.named_parameters():
            weight.mul_(0.15 if "lora" in name else 1)
    by_peft.save_pretrained(place)
    with torch.no_grad():
        expected = torch.cat([by_peft(torch.tensor([ids])).logits[:, -1] for ids in PROMPTS])
        untuned = torch.cat([rounded(family, "int4")(torch.tensor([ids])).logits[:, -1] for ids in PROMPTS])

    def error(kernels: Kernels | None) -> torch.Tensor:
        source, tokenizer = load_transformers(str(base), adapter=str(place))
        packing = Packing("int4", torch.float32, torch.float32, kernels)
        found = first_logits(from_transformers(source, tokenizer, family, device="cpu", packing=packing))
        return (found - expected).norm()

    assert error(None) < 1e-3 * (untuned - expected).norm()
    assert error(find_kernels()) < 0.08 * expected.norm(), "inputs are rounded to bytes as well"


@kinds
def test_without_kernels_the_same_values_are_kept_plain(kind: str) -> None:
    plain = from_transformers(
        tiny.new_model("llama", intermediate_size=64),
        tiny.tokenizer(),
        "llama",
        device="cpu",
        packing=Packing(kind, torch.float32, torch.float32),
    )
    assert [done.token_ids for done in complete(plain)] == [
        done.token_ids for done in complete(loaded("llama", kind, plain=True))
    ]


def test_four_bits_take_a_seventh_of_the_memory() -> None:
    decoder, whole = (loaded("llama", "int4", plain).decoder for plain in (False, True))
    assert all(isinstance(part, Packed) for block in decoder.blocks for part in (block.attention.qkv, block.ffn.down))
    packed, plain = (one.blocks[0].ffn.gate_up.nbytes for one in (decoder, whole))
    assert plain / packed == 32 / 5
    assert isinstance(decoder.head, Packed)
    assert decoder.head.matrix.kind == "int8"


def test_head_sizes_that_kernels_cannot_attend_run_plainly() -> None:
    packing = Packing("bf16", torch.float32, torch.bfloat16, find_kernels())
    model = tiny.new_model("llama", hidden_size=48, num_attention_heads=4, intermediate_size=64)  # heads of 12
    odd = from_transformers(model, tiny.tokenizer(), "odd", device="cpu", packing=packing)
    assert odd.decoder.kernels is None
    assert len(complete(odd)) == len(PROMPTS)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (
            lambda: choose_packing("int3", torch.float32, torch.device("cpu")),
            "int3 is not known. Choose one of none, i",
        ),
        (lambda: choose_packing("int4", torch.float32, torch.device("meta")), "int4 runs on the CPU and on CUDA"),
    ],
)
def test_what_cannot_be_quantised_is_refused(ask: Callable[[], object], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        ask()


def test_fp32_keeps_its_weights_as_they_are() -> None:
    assert choose_packing("none", torch.float32, torch.device("cpu")).kind == "none"
    assert choose_packing("none", torch.float32, torch.device("cuda")) == Packing()
    assert choose_packing("none", torch.bfloat16, torch.device("mps")) == Packing()
    assert replace(choose_packing("none", torch.bfloat16, torch.device("cpu")), kernels=None).kind == "bf16"
