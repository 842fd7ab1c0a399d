"""Decode steps of fixed shapes: the same texts as steps made anew, and nothing in them that a GPU could not record."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from litestage.core import (
    Compensation,
    Completion,
    Decode,
    MeanConfidence,
    Request,
    Sampling,
    Segment,
    SkipSchedule,
    StagePlan,
    SubLayer,
    sub_layers,
    whole_blocks,
)
from litestage.engine import TorchEngine
from litestage.engine.steps import CONTEXT, FixedStep, FixedSteps, PendingTokens, StepKey, decision
from litestage.models import Affine, from_transformers
from litestage.models.convert import to_decoder
from litestage.models.decoder import Decoder, Skips

PROMPTS = tuple(tiny.prompt(length) for length in (3, 21, 11, 1, 30, 8, 14))
NEW = 14
SKIPPED = frozenset({SubLayer(0, "attention"), SubLayer(2, "ffn"), SubLayer(3, "attention")})
NUCLEUS = Sampling(temperature=0.8, top_k=20, top_p=0.9)
families = pytest.mark.parametrize("family", tiny.FAMILIES)


def complete(engine: TorchEngine, **options: Any) -> list[Completion]:
    return engine.generate(tiny.requests(PROMPTS, **({"max_new_tokens": NEW} | options)))


def texts(completions: list[Completion]) -> list[tuple[int, ...]]:
    return [completion.token_ids for completion in completions]


@families
def test_greedy_equals_transformers_generate(family: str) -> None:
    """In slots that are refilled, with rows that nobody holds beside them."""
    engine = tiny.engine(family, batch_size=3, fixed_steps=True)
    assert texts(complete(engine)) == [tiny.generate_by_transformers(family, ids, NEW) for ids in PROMPTS]


@pytest.mark.parametrize("family", ["llama-tied", "qwen2-window", "gemma2"])
@pytest.mark.parametrize("sampling", [Sampling(), NUCLEUS])
def test_a_plan_says_what_it_says_by_steps_made_anew(family: str, sampling: Sampling) -> None:
    """Skipped sub-layers with something in their places, an exit rule, draws; slots that are refilled."""
    width = tiny.loaded(family).decoder.norm.shape[0]
    stand = {layer: Affine(scale=torch.full((width,), 0.9), shift=torch.full((width,), 0.1)) for layer in SKIPPED}
    plan = StagePlan(
        schedule=SkipSchedule.fixed(SKIPPED),
        compensation=Compensation(kind="affine", content="hash"),
        exit=MeanConfidence(threshold=0.1, window=3),
    )
    anew, fixed = (
        tiny.engine(family, batch_size=3, stands={"hash": stand}, fixed_steps=fixed) for fixed in (False, True)
    )
    for stage_plan in (plan, StagePlan(), plan):
        options = {"stage_plan": stage_plan, "sampling": sampling, "seed": 5}
        expected, found = complete(anew, **options), complete(fixed, **options)
        assert texts(found) == texts(expected)
        assert [done.finish_reason for done in found] == [done.finish_reason for done in expected]
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.confidences == pytest.approx(theirs.confidences, rel=1e-4)


def test_rows_at_different_segments_have_a_step_each() -> None:
    """Those at the same segment by one step."""
    segments = (Segment(first_step=0), Segment(first_step=4, skipped=whole_blocks([1])))
    plan = StagePlan(schedule=SkipSchedule(segments=segments))
    anew, fixed = (tiny.engine(batch_size=3, fixed_steps=fixed) for fixed in (False, True))
    assert texts(complete(fixed, stage_plan=plan)) == texts(complete(anew, stage_plan=plan))


@settings(max_examples=12)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9)), min_size=1, max_size=9),
    capacity=st.integers(1, 9),
)
def test_any_lengths(lengths: list[tuple[int, int]], capacity: int) -> None:
    requests = [Request(prompt_ids=tiny.prompt(length, seed=length), max_new_tokens=new) for length, new in lengths]
    anew, fixed = (tiny.engine(batch_size=capacity, fixed_steps=fixed) for fixed in (False, True))
    assert texts(fixed.generate(requests)) == texts(anew.generate(requests))


@settings(max_examples=12)
@given(limits=st.lists(st.integers(1, 9), min_size=1, max_size=6), sampled=st.booleans())
def test_one_step_ahead_and_no_further(limits: list[int], sampled: bool) -> None:
    """A row that ends costs the others nothing, and the device at most one step that nobody reads."""
    engine = tiny.engine(batch_size=6, fixed_steps=True)
    work: list[Any] = []
    engine.on_pass = work.append
    sampling = NUCLEUS if sampled else Sampling()
    requests = [Request(prompt_ids=tiny.prompt(5), max_new_tokens=n, sampling=sampling, seed=n) for n in limits]
    done = engine.generate(requests)
    assert all(len(one.token_ids) <= limit for one, limit in zip(done, limits, strict=True))
    steps = [one for one in work if isinstance(one, Decode)]
    needed = max(one.counts.decoded for one in done)
    assert needed <= len(steps) <= needed + len(set(limits))


def test_steps_are_made_for_powers_of_two_and_kept() -> None:
    decoder = tiny.loaded("llama").decoder
    steps = FixedSteps(decoder, decoder.new_cache(6, CONTEXT + 64))

    def step(rows: int, context: int, skipped: frozenset[SubLayer] = frozenset()) -> FixedStep:
        program = Skips(skipped).program(decoder.layers)
        return steps.step(skipped, Compensation(), Sampling(), program, rows, context)

    assert step(3, 5) is step(4, CONTEXT)
    assert step(3, 5) is not step(3, 5, SKIPPED)
    assert [(key.rows, key.context) for key in steps.made] == [(4, CONTEXT), (4, CONTEXT)]
    assert step(5, CONTEXT + 1) is step(6, CONTEXT + 64), "never more rows or slots than the cache has"
    assert [(key.rows, key.context) for key in steps.made][2:] == [(6, CONTEXT + 64)]


def test_the_last_steps_asked_for_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search asks for other ones with every skip set; each holds memory."""
    monkeypatch.setattr("litestage.engine.steps.ROWS_KEPT", 5)
    decoder = tiny.loaded("llama").decoder
    steps = FixedSteps(decoder, decoder.new_cache(8, CONTEXT))

    def step(rows: int) -> FixedStep:
        return steps.step(frozenset(), Compensation(), Sampling(), decoder.layers, rows, 1)

    one, two = step(1), step(2)
    assert step(1) is one
    step(4)
    assert step(1) is one
    assert step(2) is not two


class OnTheDevice(TorchDispatchMode):
    """Refuses what would wait for the device, or bring numbers to it, in the middle of a step, and what not every
    device has: Apple's GPUs compute nothing in double."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "_local_scalar_dense" not in str(func), "a number was read from the device"
        for value in torch.utils._pytree.tree_leaves((args, kwargs)):
            if isinstance(value, torch.Tensor) and value.dim():
                assert value.device.type == "meta", f"{func} takes a tensor that is not there"
        found = func(*args, **(kwargs or {}))
        for value in torch.utils._pytree.tree_leaves(found):
            assert not isinstance(value, torch.Tensor) or value.dtype != torch.float64, f"{func} makes doubles"
        return found


def unreal_step(decoder: Decoder, sampling: Sampling) -> FixedStep:
    """A step on a device that has shapes and no numbers."""
    key = StepKey(SKIPPED, Compensation(), sampling, 4, 64)
    return FixedStep(decoder, decoder.new_cache(4, 64), Skips(SKIPPED).program(decoder.layers), key)


@families
@pytest.mark.parametrize("sampling", [Sampling(), NUCLEUS])
@torch.inference_mode()
def test_nothing_in_a_step_leaves_the_device(family: str, sampling: Sampling) -> None:
    """What a capture would refuse: a number read in the middle, a tensor of another device, a shape made of numbers."""
    step = unreal_step(to_decoder(tiny.new_model(family), torch.device("meta")), sampling)
    with OnTheDevice():
        logits, numbers = step._step()
    assert (len(logits), numbers.shape) == (4, (2, 4))


def test_a_decision_holds_any_token_and_the_confidence_as_it_is() -> None:
    vocabulary = 2**18  # the largest there are
    logits = torch.zeros(3, vocabulary)
    chosen = [0, vocabulary // 2 + 1, vocabulary - 1]
    logits[range(3), chosen] = torch.tensor([20.0, 11.0, 30.0])
    tokens, confidences = PendingTokens(decision(logits, Sampling(), None, None), 3).wait()
    assert tokens == chosen
    assert confidences == logits.softmax(-1).amax(-1).tolist()


class Reads(Affine):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.sum().item()


class Chooses(Affine):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x + x[x > 0].sum()


class Doubles(Affine):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.double().to(x.dtype)


@pytest.mark.parametrize("fault", [Reads(), Chooses(), Doubles(), Affine(scale=torch.ones(32))])
@torch.inference_mode()
def test_what_leaves_the_device_is_noticed(fault: Affine) -> None:
    step = unreal_step(to_decoder(tiny.new_model("llama"), torch.device("meta")), Sampling())
    step._program = (fault, *step._program)
    with OnTheDevice(), pytest.raises((AssertionError, RuntimeError)):
        step._step()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@families
def test_a_gpu_replays_what_it_captured(family: str) -> None:
    model = from_transformers(tiny.new_model(family), tiny.tokenizer(), family, device="cuda")
    plan = StagePlan(schedule=SkipSchedule.fixed(SKIPPED))
    for sampling in (Sampling(), NUCLEUS):
        engine, anew = TorchEngine(model, batch_size=3), TorchEngine(model, batch_size=3, fixed_steps=False)
        for stage_plan in (StagePlan(), plan):
            options = {"stage_plan": stage_plan, "sampling": sampling, "seed": 5}
            assert texts(complete(engine, **options)) == texts(complete(anew, **options))
        assert engine.steps is not None
        assert len(engine.steps.made) >= 4
        assert all(step.graph is not None for step in engine.steps.made.values())


def test_fixed_steps_are_for_a_gpu_and_sub_layers_are_all_there() -> None:
    assert tiny.engine().fixed_steps(tiny.loaded("llama").decoder.new_cache(1, 8)) is None
    assert set(sub_layers(tiny.BLOCKS)) > SKIPPED
