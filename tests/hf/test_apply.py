"""`apply_plan` around transformers' `generate` writes what the engine writes, and leaves the model as it was."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from planned import EOS, NEW, PROMPTS, by_engine, folder_of, generated, written_by
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel, StaticCache, TorchAoConfig

from litestage.core import (
    Compensation,
    MeanConfidence,
    MeanEntropy,
    PlanError,
    Segment,
    SettledAnswer,
    SkipSchedule,
    StagePlan,
    SubLayer,
    sub_layers,
    whole_blocks,
)
from litestage.engine import TorchEngine
from litestage.engine.forcing import Text
from litestage.hf import apply_plan, load_plan
from litestage.models.convert import fingerprint
from litestage.models.decoder import CompensationWeights
from litestage.skipping import fit, fit_norm_ratio, gather, save_stand

LAYERS = sub_layers(tiny.BLOCKS)
families = pytest.mark.parametrize("family", tiny.FAMILIES)
SKIP_SETS = {
    "nothing": SkipSchedule(),
    "attention 0": SkipSchedule.fixed([SubLayer(0, "attention")]),
    "block 0, ffn 2": SkipSchedule.fixed([*whole_blocks([0]), SubLayer(2, "ffn")]),
    "all attentions": SkipSchedule.fixed(layer for layer in LAYERS if layer.kind == "attention"),
    "everything": SkipSchedule.fixed(LAYERS),
    "more and more": SkipSchedule(
        segments=(
            Segment(),
            Segment(first_step=2, skipped=frozenset({SubLayer(0, "attention"), SubLayer(1, "ffn")})),
            Segment(first_step=6, skipped=frozenset({SubLayer(0, "attention"), SubLayer(3, "attention")})),
        )
    ),
}

GROWING = "more and more"
WHOLE = ("llama", "gemma2", "phi3-partial")
"""Families that meet every set; random sets are met by all."""


@pytest.mark.parametrize(
    ("family", "name"),
    [
        (family, name)
        for family in tiny.FAMILIES
        for name in SKIP_SETS
        if family in WHOLE or name in ("nothing", GROWING)
    ],
)
def test_a_ragged_batch_gets_the_engines_tokens(family: str, name: str) -> None:
    plan = StagePlan(schedule=SKIP_SETS[name])
    model = tiny.transformers_model(family)
    with apply_plan(model, folder_of(plan, family=family), "s"):
        got = generated(model)
    assert got == by_engine(family, plan)
    full = [tiny.generate_by_transformers(family, prompt, NEW) for prompt in PROMPTS]
    assert (got == full) == (name == "nothing"), "a skip set that changes no text would show nothing"
    assert generated(model) == full, "without the plan the model is what it was"


@families
def test_random_skip_sets(family: str) -> None:
    model = tiny.transformers_model(family)
    for seed in range(4):
        chosen = random.Random(seed).sample(LAYERS, 3)
        plan = StagePlan(schedule=SkipSchedule.fixed(chosen))
        with apply_plan(model, folder_of(plan, family=family), "s"):
            assert generated(model) == by_engine(family, plan), chosen


def fitted(engine: TorchEngine, kind: str) -> tuple[Compensation, CompensationWeights]:
    if kind == "norm_ratio":
        return fit_norm_ratio(engine, PROMPTS)
    texts = [Text(tiny.prompt(24, seed), tiny.prompt(24, seed + 50)) for seed in range(4)]
    return fit(engine, kind, gather(engine, texts, products=kind.startswith("lowrank")))


@families
@pytest.mark.parametrize("kind", ["norm_ratio", "mean", "affine", "lowrank:3"])
def test_compensation_stands_in_as_in_the_engine(family: str, kind: str, tmp_path: Path) -> None:
    """Scales are far from 1 on random weights, and two sub-layers that follow each other fold into one."""
    engine = tiny.engine(family)
    compensation, weights = fitted(engine, kind)
    save_stand(tmp_path, compensation, weights)
    engine.stands[compensation.content or ""] = weights
    skipped = SkipSchedule.fixed(["0.attention", "0.ffn", "2.ffn"])
    plan = StagePlan(schedule=skipped, compensation=compensation)
    expected = written_by(engine, plan, PROMPTS)
    model = tiny.transformers_model(family)
    with apply_plan(model, folder_of(plan, tmp_path, family), "s"):
        assert generated(model) == expected
    assert expected != by_engine(family, StagePlan(schedule=skipped)), "it must make a difference to be seen"


def test_a_rule_that_reads_the_text_is_refused() -> None:
    model = tiny.transformers_model("llama")
    folder = folder_of(StagePlan(exit=SettledAnswer(window=2, pattern="(a)")))
    with apply_plan(model, folder, "s"), pytest.raises(PlanError, match=r"answer:2 reads the text .* own engine"):
        generated(model)


def test_an_entropy_ends_rows_where_the_engine_ends_them() -> None:
    model = tiny.transformers_model("llama")
    plan = StagePlan(exit=MeanEntropy(window=3, bits=6.4))
    with apply_plan(model, folder_of(plan), "s"):
        got = generated(model)
    assert got == by_engine("llama", plan)
    assert len({len(tokens) for tokens in got}) > 1


@families
def test_the_exit_rule_ends_rows_where_the_engine_ends_them(family: str) -> None:
    model = tiny.transformers_model(family)
    plan = StagePlan(schedule=SkipSchedule.fixed(["1.ffn"]), exit=MeanConfidence(window=3, threshold=0.4))
    with apply_plan(model, folder_of(plan, family=family), "s"):
        got = generated(model)
    assert got == by_engine(family, plan)


def test_exits_happen_at_all() -> None:
    """Some rows end early and others go on, whatever other processors make of the scores."""
    plan = StagePlan(exit=MeanConfidence(window=3, threshold=0.5))
    expected = by_engine("llama", plan)
    assert {len(tokens) for tokens in expected} != {NEW}
    model = tiny.transformers_model("llama")
    with apply_plan(model, folder_of(plan), "s"):
        assert generated(model) == expected
        warm = generated(model, do_sample=True, temperature=1e-6, top_k=0)
    assert warm == expected, "confidence is of the raw logits"


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen2-window"])
def test_a_static_cache(family: str) -> None:
    plan = StagePlan(schedule=SKIP_SETS["block 0, ffn 2"])
    model = tiny.transformers_model(family)
    with apply_plan(model, folder_of(plan, family=family), "s"):
        assert generated(model, cache_implementation="static") == by_engine(family, plan)
        cache = StaticCache(config=model.config, max_cache_len=64)
        for _ in range(2):
            assert generated(model, past_key_values=cache) == by_engine(family, plan)
            cache.reset()


def test_a_compiled_step() -> None:
    """As transformers compiles it: a static cache and `get_compiled_call`."""
    from transformers import CompileConfig

    plan = StagePlan(schedule=SKIP_SETS["block 0, ffn 2"])
    model = tiny.transformers_model("llama")
    settings = CompileConfig(backend="eager", fullgraph=False, mode=None)
    settings._compile_all_devices = True
    with apply_plan(model, folder_of(plan), "s"):
        got = generated(model, cache_implementation="static", compile_config=settings)
    assert got == by_engine("llama", plan)


@contextmanager
def zeroed(model: PreTrainedModel, layers: Sequence[SubLayer]) -> Iterator[None]:
    """The slow way: run every sub-layer, and drop what some add wherever one token a row is run."""

    def drop(module: Any, args: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        if states.shape[1] > 1:
            return output
        return (torch.zeros_like(states), *output[1:]) if isinstance(output, tuple) else torch.zeros_like(states)

    hooks = [tiny.ends(model, layer)[1].register_forward_hook(drop) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3"])
@pytest.mark.parametrize("how", ["beams", "sampled", "sampled beams", "several"])
def test_beams_and_samples_are_those_of_the_slow_way(family: str, how: str) -> None:
    options = {
        "beams": {"num_beams": 3},
        "sampled": {"do_sample": True, "temperature": 0.8},
        "sampled beams": {"do_sample": True, "num_beams": 2},
        "several": {"do_sample": True, "num_return_sequences": 2},
    }[how]
    model = tiny.transformers_model(family)
    prompts = PROMPTS[1:3]  # of several tokens, which the slow way takes for a prompt
    torch.manual_seed(3)
    with zeroed(model, [SubLayer(0, "attention"), SubLayer(2, "ffn")]):
        expected = generated(model, prompts, **options)
    plan = StagePlan(schedule=SkipSchedule.fixed(["0.attention", "2.ffn"]))
    torch.manual_seed(3)
    with apply_plan(model, folder_of(plan, family=family), "s"):
        assert generated(model, prompts, **options) == expected
    torch.manual_seed(3)
    assert generated(model, prompts, **options) != expected


@pytest.mark.parametrize("name", ["attention 0", "more and more", "everything"])
def test_drafts_of_transformers_change_nothing(name: str) -> None:
    """Prompt lookup: a first forward of a prompt and a draft, drafts that are dropped, and one across a segment."""
    plan = StagePlan(schedule=SKIP_SETS[name], exit=MeanConfidence(window=4, threshold=0.3))
    model = tiny.transformers_model("llama")
    for prompt in (PROMPTS[1] * 2, PROMPTS[2] * 3):
        (expected,) = by_engine("llama", plan, [prompt])
        with apply_plan(model, folder_of(plan), "s"):
            assert generated(model, [prompt], prompt_lookup_num_tokens=5) == [expected]


def test_a_prompt_in_chunks_is_a_prompt() -> None:
    plan = StagePlan(schedule=SKIP_SETS["block 0, ffn 2"])
    model = tiny.transformers_model("llama")
    with apply_plan(model, folder_of(plan), "s"):
        assert generated(model, PROMPTS[1:2], prefill_chunk_size=8) == by_engine("llama", plan, PROMPTS[1:2])


def test_a_loop_of_ones_own() -> None:
    """Without `generate`: a forward of several tokens is a prompt, one of a single token behind it a decode step."""
    plan = StagePlan(schedule=SKIP_SETS["more and more"])
    model = tiny.transformers_model("llama")
    text, cache = list(PROMPTS[1]), None
    with torch.inference_mode(), apply_plan(model, folder_of(plan), "s"):
        ids = torch.tensor([text])
        for _ in range(NEW):
            out = model(ids, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            text.append(int(out.logits[0, -1].argmax()))
            ids = torch.tensor([text[-1:]])
    assert tuple(text[len(PROMPTS[1]) :]) == by_engine("llama", plan, PROMPTS[1:2])[0]


def test_the_model_is_itself_after_an_error() -> None:
    model = tiny.transformers_model("llama")
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    with pytest.raises(RuntimeError, match="on purpose"), apply_plan(model, folder_of(StagePlan()), "s"):
        raise RuntimeError("on purpose")
    after = {name: dict(module.__dict__) for name, module in model.named_modules()}
    assert {name: list(names) for name, names in before.items()} == {name: list(names) for name, names in after.items()}
    logits = model(torch.tensor([PROMPTS[1]])).logits
    assert torch.equal(logits, tiny.transformers_model("llama")(torch.tensor([PROMPTS[1]])).logits)


def test_threads_have_plans_of_their_own() -> None:
    """Three at once on one model: two plans, and none."""
    model = tiny.transformers_model("llama")
    plans = [StagePlan(schedule=SKIP_SETS["attention 0"]), StagePlan(schedule=SKIP_SETS["block 0, ffn 2"])]
    got: dict[int, list[list[tuple[int, ...]]]] = {0: [], 1: [], 2: []}

    def under(index: int) -> None:
        for _ in range(4):
            with apply_plan(model, folder_of(plans[index]), "s"):
                got[index].append(generated(model))

    def plainly() -> None:
        got[2].extend(generated(model) for _ in range(6))

    threads = [threading.Thread(target=under, args=(0,)), threading.Thread(target=under, args=(1,))]
    threads.append(threading.Thread(target=plainly))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    full = [tiny.generate_by_transformers("llama", prompt, NEW) for prompt in PROMPTS]
    assert got[0] == [by_engine("llama", plans[0])] * 4
    assert got[1] == [by_engine("llama", plans[1])] * 4
    assert got[2] == [full] * 6
    assert "forward" not in model.__dict__


def test_plans_can_be_nested() -> None:
    model = tiny.transformers_model("llama")
    outer, inner = StagePlan(schedule=SKIP_SETS["attention 0"]), StagePlan(schedule=SKIP_SETS["block 0, ffn 2"])
    with apply_plan(model, folder_of(outer), "s"):
        with apply_plan(model, folder_of(inner), "s"):
            assert generated(model) == by_engine("llama", inner)
        assert generated(model) == by_engine("llama", outer)


def test_adapters_that_are_not_merged() -> None:
    from peft import LoraConfig, get_peft_model

    plan = StagePlan(schedule=SKIP_SETS["block 0, ffn 2"], exit=MeanConfidence(window=3, threshold=0.2))
    adapted = get_peft_model(
        tiny.transformers_model("llama"), LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    )
    with apply_plan(adapted, folder_of(plan), "s", check=False):
        got = generated(adapted)
    from litestage.models import from_transformers

    merged = from_transformers(adapted.merge_and_unload(), tiny.tokenizer(), "merged", device="cpu")
    assert got == written_by(TorchEngine(merged), plan, PROMPTS)
    assert got != by_engine("llama", plan)


@pytest.mark.parametrize("package", ["torchao", "bitsandbytes"])
def test_weights_that_another_library_quantised(package: str, tmp_path: Path) -> None:
    """Such a model is no other family: its blocks run as they are, and what is left out is left out."""
    pytest.importorskip(package)
    quantised = BitsAndBytesConfig(load_in_8bit=True) if package == "bitsandbytes" else int8_of_torchao()
    folder = tiny.saved(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=quantised, dtype=torch.float32, device_map="cpu"
    )
    skipped, prompts = [SubLayer(0, "attention"), SubLayer(2, "ffn")], PROMPTS[1:3]
    full = generated(model, prompts)
    with zeroed(model, skipped):
        expected = generated(model, prompts)
    with apply_plan(model, folder_of(StagePlan(schedule=SkipSchedule.fixed(skipped))), "s", check=False):
        assert generated(model, prompts) == expected
    assert expected != full == generated(model, prompts)


def int8_of_torchao() -> TorchAoConfig:
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = tiny.transformers_model("llama")
    plan = folder_of(StagePlan(schedule=SKIP_SETS["attention 0"]))
    with pytest.raises(PlanError, match="no stage 'analysis'"), apply_plan(model, plan, "analysis"):
        pass
    with pytest.raises(PlanError, match="tiny-llama"), apply_plan(tiny.transformers_model("mistral"), plan, "s"):
        pass
    smaller = tiny.new_model("llama", num_hidden_layers=2)
    with pytest.raises(PlanError, match="4 blocks, but this model has 2"), apply_plan(smaller, plan, "s", check=False):
        pass
    with pytest.raises(PlanError, match="use_cache"), apply_plan(model, plan, "s"):
        generated(model, use_cache=False)
    with pytest.raises(PlanError, match=r"plan\.json"):
        load_plan(tmp_path)
    gpt = tiny.tokenizer()
    with pytest.raises(PlanError), apply_plan(torch.nn.Linear(2, 2), plan, "s"):
        assert gpt


def test_a_cache_with_gaps_is_not_gone_on_with() -> None:
    from transformers import DynamicCache

    model = tiny.transformers_model("llama")
    cache = DynamicCache(config=model.config)
    with apply_plan(model, folder_of(StagePlan(schedule=SKIP_SETS["attention 0"])), "s"):
        first = generated(model, PROMPTS[1:2], past_key_values=cache)
        longer = (*PROMPTS[1], *first[0], 5, 6, 7)
        with pytest.raises(PlanError, match="attention 0"):
            generated(model, [longer], past_key_values=cache)


def test_other_families_whose_blocks_add_in_the_same_way() -> None:
    """One that our loader does not read is told by its norms and tried on the first prompt; another is refused."""
    from transformers import CohereConfig, StableLmConfig

    sizes = {**tiny.SHARED, "vocab_size": len(tiny.tokenizer()), "eos_token_id": EOS, "pad_token_id": EOS}
    torch.manual_seed(0)
    known = AutoModelForCausalLM.from_config(StableLmConfig(**sizes)).eval()
    plan = folder_of(StagePlan(schedule=SkipSchedule.fixed(["0.attention", "2.ffn"])))
    with zeroed(known, [SubLayer(0, "attention"), SubLayer(2, "ffn")]):
        expected = generated(known, PROMPTS[1:3])
    with apply_plan(known, plan, "s", check=False):
        assert generated(known, PROMPTS[1:3]) == expected
    parallel = AutoModelForCausalLM.from_config(CohereConfig(**sizes)).eval()
    with pytest.raises(PlanError), apply_plan(parallel, plan, "s", check=False):
        generated(parallel, PROMPTS[1:3])


def test_the_weights_decide_whether_a_plan_is_this_models() -> None:
    model = tiny.transformers_model("llama")
    identity = replace_id(fingerprint(model))
    plan = folder_of(StagePlan())
    same = replace(plan, plan=plan.plan.model_copy(update={"model": identity}))
    with apply_plan(model, same, "s"):
        assert generated(model, PROMPTS[:1]) == by_engine("llama", StagePlan(), PROMPTS[:1])


def replace_id(found: str) -> Any:
    return tiny.loaded("llama").identity.model_copy(update={"fingerprint": found, "id": "under another name"})
