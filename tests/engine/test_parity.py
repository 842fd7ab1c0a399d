"""Every family against two oracles: transformers' own `generate`, and a cache-free model with hooks (`tiny`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from litestage.core import Compensation, PlanError, Segment, SkipSchedule, StagePlan, SubLayer, sub_layers, whole_blocks
from litestage.engine import TorchEngine
from litestage.models import Affine, LoadedModel, from_transformers
from litestage.models.decoder import Block

LENGTHS = (3, 21, 11, 1, 30, 8, 14)
"""Ragged, a single token among them, most longer than the sliding windows."""
PROMPTS = tuple(tiny.prompt(length) for length in LENGTHS)
NEW = 14
LAYERS = sub_layers(tiny.BLOCKS)
families = pytest.mark.parametrize("family", tiny.FAMILIES)


def by_transformers(family: str) -> list[tuple[int, ...]]:
    return [tiny.generate_by_transformers(family, ids, NEW) for ids in PROMPTS]


def distinct(outputs: list[tuple[int, ...]]) -> int:
    return len({token for tokens in outputs for token in tokens})


@families
@pytest.mark.parametrize("batch_size", [32, 3, 1])
def test_greedy_equals_transformers_generate(family: str, batch_size: int) -> None:
    """Ragged prompts in one batch, in a batch of fewer slots than requests (so slots are refilled), and alone."""
    expected = by_transformers(family)
    assert complete(tiny.engine(family, batch_size=batch_size), PROMPTS, SkipSchedule()) == expected
    assert distinct(expected) >= 8
    assert len(set(expected)) == len(expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@families
def test_a_gpu_decodes_the_same_tokens(family: str) -> None:
    """The same code on CUDA: full depth, and a skip set, against the processor."""
    model = from_transformers(tiny.transformers_model(family), tiny.tokenizer(), family, device="cuda")
    assert complete(TorchEngine(model, batch_size=3), PROMPTS, SkipSchedule()) == by_transformers(family)
    schedule = SkipSchedule.fixed(["0.attention", "2.ffn"])
    assert complete(TorchEngine(model), PROMPTS, schedule) == complete(tiny.engine(family), PROMPTS, schedule)


@families
def test_greedy_equals_transformers_generate_where_prompts_share_beginnings(family: str) -> None:
    """Prompts that share a beginning, one that is the beginning, one a token longer, and nested beginnings."""
    stem = tiny.prompt(19)
    prompts = [stem + tiny.prompt(n, seed=5) for n in (7, 1, 12)] + [stem, stem[:9] + tiny.prompt(4), tiny.prompt(23)]
    expected = [tiny.generate_by_transformers(family, ids, NEW) for ids in prompts]
    for batch_size in (32, 2):
        engine = tiny.engine(family, batch_size=batch_size)
        for again in range(2):
            got = engine.generate(tiny.requests(prompts[again:], max_new_tokens=NEW))
            assert [completion.token_ids for completion in got] == expected[again:]
    assert distinct(expected) >= 8


@families
def test_eos_ends_a_row_where_transformers_ends_it(family: str) -> None:
    """The id of a token that comes up anyway is made an end-of-sequence token, one of two."""
    free = by_transformers(family)
    eos = free[0][4]
    model = replace(tiny.loaded(family), eos_ids=(tiny.tokenizer().eos_token_id, eos))
    got = TorchEngine(model, batch_size=3).generate(tiny.requests(PROMPTS, max_new_tokens=NEW))
    cut = [tokens[: tokens.index(eos) + 1] if eos in tokens else tokens for tokens in free]
    assert [completion.token_ids for completion in got] == cut
    assert [completion.finish_reason == "eos" for completion in got] == [eos in tokens for tokens in free]
    assert got[0].finish_reason == "eos"
    assert got[0].text == tiny.tokenizer().decode(cut[0][:-1]), "the token that ends a text is not part of it"


SKIP_SETS = {
    "attention 0": {SubLayer(0, "attention")},
    "ffn 0": {SubLayer(0, "ffn")},
    "block 0": whole_blocks([0]),
    "blocks 0 and 2": whole_blocks([0, 2]),
    "all attentions": {layer for layer in LAYERS if layer.kind == "attention"},
    "all ffns": {layer for layer in LAYERS if layer.kind == "ffn"},
    "mixed": {SubLayer(1, "ffn"), SubLayer(2, "attention"), SubLayer(3, "attention")},
    "everything": set(LAYERS),
}


def complete(
    engine: TorchEngine, prompts: Sequence[tuple[int, ...]], schedule: SkipSchedule, **plan: Any
) -> list[tuple[int, ...]]:
    stage_plan = StagePlan(schedule=schedule, **plan)
    got = engine.generate(tiny.requests(prompts, max_new_tokens=NEW, stage_plan=stage_plan))
    return [completion.token_ids for completion in got]


def forced(
    family: str, outputs: list[tuple[int, ...]], schedule: SkipSchedule, stand: Mapping[SubLayer, Affine] | None = None
) -> list[tuple[int, ...]]:
    """What the hook reference says after each prefix of the outputs for `PROMPTS`."""
    return [
        tiny.by_hooks(family, ids, tokens, schedule, stand)[0] for ids, tokens in zip(PROMPTS, outputs, strict=True)
    ]


@families
@pytest.mark.parametrize("name", SKIP_SETS)
def test_a_skip_set_equals_the_hook_reference(family: str, name: str) -> None:
    schedule = SkipSchedule.fixed(SKIP_SETS[name])
    got = complete(tiny.engine(family, batch_size=3), PROMPTS, schedule)
    full = by_transformers(family)
    assert got == forced(family, got, schedule)
    assert got != full, "a skip set that changes nothing proves nothing"
    assert [tokens[0] for tokens in got] == [tokens[0] for tokens in full], "prefill is full depth"


@families
def test_the_hook_reference_equals_itself_step_by_step(family: str) -> None:
    """One forward over the whole text says what a forward a step says, and without skips what transformers says."""
    schedule = SkipSchedule.fixed(SKIP_SETS["mixed"])
    got = complete(tiny.engine(family), PROMPTS[:3], schedule)
    assert got == [tiny.decode_by_hooks(family, ids, NEW, schedule) for ids in PROMPTS[:3]]
    full = by_transformers(family)
    assert full == forced(family, full, SkipSchedule())


@st.composite
def schedules(draw: st.DrawFn) -> SkipSchedule:
    """Schedules of one to four segments: FFNs come and go, an attention once skipped stays skipped."""
    starts = [0, *sorted(draw(st.sets(st.integers(1, NEW - 2), max_size=3)))]
    attentions: set[SubLayer] = set()
    segments = []
    for start in starts:
        drawn = draw(st.sets(st.sampled_from(LAYERS)))
        attentions |= {layer for layer in drawn if layer.kind == "attention"}
        segments.append(Segment(first_step=start, skipped=frozenset(drawn | attentions)))
    return SkipSchedule(segments=tuple(segments))


@families
@given(schedule=schedules(), batch_size=st.integers(1, 4))
@settings(max_examples=10)
def test_any_schedule_equals_the_hook_reference(family: str, schedule: SkipSchedule, batch_size: int) -> None:
    """Rows of a batch are at different steps, hence at different segments, after the first refill."""
    plan = StagePlan(schedule=schedule)
    requests = [
        request.model_copy(update={"max_new_tokens": 3 + 2 * i})
        for i, request in enumerate(tiny.requests(PROMPTS, stage_plan=plan))
    ]
    got = tiny.engine(family, batch_size=batch_size).generate(requests)
    for request, completion in zip(requests, got, strict=True):
        tokens, confidences = tiny.by_hooks(family, request.prompt_ids, completion.token_ids, schedule)
        assert completion.token_ids == tokens
        assert completion.confidences == pytest.approx(confidences, rel=1e-3)


@families
def test_skipdecode_equals_the_hook_reference(family: str) -> None:
    """Whole blocks that grow with the step, block 0 never; each segment changes what comes out."""
    schedule = SkipSchedule(
        segments=tuple(
            Segment(first_step=first, skipped=whole_blocks(range(1, 1 + count)))
            for first, count in [(0, 1), (3, 2), (7, 3)]
        )
    )
    got = complete(tiny.engine(family, batch_size=3), PROMPTS, schedule)
    assert got == forced(family, got, schedule)
    for segment in schedule.segments:
        assert got != forced(family, got, SkipSchedule.fixed(segment.skipped))


@pytest.mark.parametrize("family", ["llama", "qwen2-window"])
def test_compensation_equals_the_hook_reference(family: str) -> None:
    """A scale on one skipped sub-layer, a constant vector on another, nothing on a third, from two segments."""
    stand = {
        SubLayer(0, "attention"): Affine(scale=torch.tensor(1.3)),
        SubLayer(2, "ffn"): Affine(scale=torch.tensor(0.8), shift=torch.linspace(-1, 1, 32)),
    }
    schedule = SkipSchedule(
        segments=(
            Segment(skipped=["0.attention"]),
            Segment(first_step=4, skipped=["0.attention", "2.ffn", "3.attention"]),
        )
    )
    engine = tiny.engine(family, batch_size=2, stands={"hash": stand})
    got = complete(engine, PROMPTS, schedule, compensation=Compensation(kind="norm_ratio", content="hash"))
    assert got == forced(family, got, schedule, stand)
    assert got != complete(engine, PROMPTS, schedule), "the compensation changes something"


def test_a_compensation_that_is_not_loaded_is_refused() -> None:
    plan = StagePlan(compensation=Compensation(kind="norm_ratio", content="0123456789abcdef"))
    with pytest.raises(PlanError, match=r"norm_ratio compensation \(0123456789ab\) is not loaded.*whole folder"):
        tiny.engine().generate(tiny.requests(PROMPTS[:1], stage_plan=plan))


# The comparisons above must be able to fail.


def test_a_reference_that_is_off_by_one_sub_layer_is_noticed() -> None:
    """For every sub-layer: skipping it too, or not skipping it, changes the tokens that are compared."""
    skipped = frozenset(SKIP_SETS["mixed"])
    got = complete(tiny.engine(), PROMPTS, SkipSchedule.fixed(skipped))
    for layer in LAYERS:
        assert got != forced("llama", got, SkipSchedule.fixed(skipped ^ {layer})), layer


def test_a_segment_that_starts_a_step_late_is_noticed() -> None:
    early, late = (
        SkipSchedule(segments=(Segment(), Segment(first_step=first, skipped=whole_blocks([1])))) for first in (5, 6)
    )
    got = complete(tiny.engine(), PROMPTS, early)
    assert got == forced("llama", got, early)
    assert got != forced("llama", got, late)


def _with_block(model: LoadedModel, index: int, block: Block) -> LoadedModel:
    decoder = tiny.from_transformers(
        tiny.transformers_model(model.identity.id.removeprefix("tiny-")), model.tokenizer, "broken", device="cpu"
    ).decoder
    decoder.blocks = (*decoder.blocks[:index], block, *decoder.blocks[index + 1 :])
    return replace(model, decoder=decoder)


FAULTS = {
    "a window one token too long": ("mistral", lambda a: replace(a, window=tiny.WINDOW + 1)),
    "no window": ("qwen2-window", lambda a: replace(a, window=None)),
    "a forgotten bias": ("qwen2", lambda a: replace(a, qkv=replace(a.qkv, bias=None))),
    "a forgotten output bias": ("llama-tied", lambda a: replace(a, out=replace(a.out, bias=None))),
    "a forgotten head norm": ("qwen3", lambda a: replace(a, head_norm=None)),
    "a norm without its weights": ("llama", lambda a: replace(a, norm=torch.ones_like(a.norm))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_one_block_is_noticed(fault: str) -> None:
    family, breaking = FAULTS[fault]
    model = tiny.loaded(family)
    index = tiny.BLOCKS - 1
    block = model.decoder.blocks[index]
    healthy = _with_block(model, index, block)
    broken = _with_block(model, index, replace(block, attention=breaking(block.attention)))
    assert complete(TorchEngine(healthy), PROMPTS, SkipSchedule()) == by_transformers(family)
    assert complete(TorchEngine(broken), PROMPTS, SkipSchedule()) != by_transformers(family)


@families
def test_confidence_is_the_largest_probability_of_the_raw_logits(family: str) -> None:
    """Also while sampling: temperature and nucleus shape the draw, not the confidence."""
    samplings = [{}, {"temperature": 0.7}, {"temperature": 2.0, "top_k": 5, "top_p": 0.9}]
    schedule = SkipSchedule.fixed(["1.attention"])
    requests = [
        request
        for seed, sampling in enumerate(samplings)
        for request in tiny.requests(
            PROMPTS[:3], max_new_tokens=8, sampling=sampling, seed=seed, stage_plan=StagePlan(schedule=schedule)
        )
    ]
    for request, completion in zip(requests, tiny.engine(family).generate(requests), strict=True):
        prompt = len(request.prompt_ids)
        logits = tiny.raw_logits(family, request.prompt_ids + completion.token_ids, prompt, schedule)
        expected = logits[prompt - 1 : -1].softmax(-1).amax(-1)
        assert completion.confidences == pytest.approx(expected.tolist(), rel=1e-3)


def test_bf16_runs_and_mostly_agrees() -> None:
    """bf16 sums differ, so tokens may; what is left of fp32's precision keeps confidences near."""
    model = tiny.from_transformers(
        tiny.transformers_model("llama").to(torch.bfloat16), tiny.tokenizer(), "bf16", device="cpu"
    )
    assert model.decoder.dtype == torch.bfloat16
    plan = StagePlan(schedule=SkipSchedule.fixed(["2.ffn"]))
    halves = TorchEngine(model).generate(tiny.requests(PROMPTS, max_new_tokens=NEW, stage_plan=plan))
    wholes = tiny.engine().generate(tiny.requests(PROMPTS, max_new_tokens=NEW, stage_plan=plan))
    assert [c.confidences[0] for c in halves] == pytest.approx([c.confidences[0] for c in wholes], abs=0.05)
    pairs = [
        (a, b)
        for half, whole in zip(halves, wholes, strict=True)
        for a, b in zip(half.token_ids, whole.token_ids, strict=False)
    ]
    assert sum(a == b for a, b in pairs) / len(pairs) > 0.5
