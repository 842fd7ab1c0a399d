"""`apply_plan` around transformers' `generate` writes what the engine writes, and leaves the model as it was."""

from __future__ import annotations

import pickle
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from planned import EOS, NEW, PROMPTS, batch, by_engine, cut, folder_of, generated, written_by
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    StaticCache,
    TextIteratorStreamer,
    TorchAoConfig,
    pipeline,
)

from litestage.core import (
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
from litestage.skipping import fit, fit_norm_ratio, gather, save_stand

LAYERS = sub_layers(tiny.BLOCKS)
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

TWO = ("attention 0", "block 0, ffn 2")
TAKEN = StagePlan(schedule=SkipSchedule.fixed(["0.attention", "2.ffn"]))
GREEDY = GenerationConfig(do_sample=False, max_new_tokens=NEW, eos_token_id=EOS, pad_token_id=EOS)
FOLDED = SkipSchedule.fixed(["0.attention", "0.ffn", "2.ffn"])
"""Two that follow each other, whose stand-ins fold into one."""
KINDS = ("norm_ratio", "mean", "affine", "lowrank:3")


def every_plan(engine: TorchEngine, folder: Path) -> dict[str, StagePlan]:
    """By name; what stands in for skipped sub-layers lies in the folder."""
    plans = {name: StagePlan(schedule=schedule) for name, schedule in SKIP_SETS.items()}
    for seed in range(4):
        chosen = random.Random(seed).sample(LAYERS, 3)
        plans[f"random, {chosen}"] = StagePlan(schedule=SkipSchedule.fixed(chosen))
    exit = MeanConfidence(window=3, threshold=0.4)
    plans["exit"] = StagePlan(schedule=SkipSchedule.fixed(["1.ffn"]), exit=exit)
    plans["folded"] = StagePlan(schedule=FOLDED)
    gathered = gather(
        engine, [Text(tiny.prompt(24, seed), tiny.prompt(24, seed + 50)) for seed in range(4)], products=True
    )
    for kind in KINDS:
        compensation, weights = fit_norm_ratio(engine, PROMPTS) if kind == "norm_ratio" else fit(engine, kind, gathered)
        save_stand(folder, compensation, weights)
        engine.stands[compensation.content or ""] = weights
        plans[kind] = StagePlan(schedule=FOLDED, compensation=compensation)
    return plans


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_ragged_batch_gets_the_engines_tokens(family: str, tmp_path: Path) -> None:
    """At every skip set, with every compensation, with an exit; and the model is itself before and after."""
    engine, model = tiny.engine(family), tiny.transformers_model(family)
    plans = every_plan(engine, tmp_path)
    asked = [
        request for plan in plans.values() for request in tiny.requests(PROMPTS, max_new_tokens=NEW, stage_plan=plan)
    ]
    done = iter(engine.generate(asked))
    expected = {name: [next(done).token_ids for _ in PROMPTS] for name in plans}
    full = [tiny.generate_by_transformers(family, prompt, NEW) for prompt in PROMPTS]
    assert [name for name in SKIP_SETS if expected[name] == full] == ["nothing"]
    assert all(expected[kind] != expected["folded"] for kind in KINDS), "it must make a difference to be seen"
    for name, plan in plans.items():
        with apply_plan(model, folder_of(plan, tmp_path, family), "s"):
            assert generated(model) == expected[name], name
    ids = torch.tensor([PROMPTS[1]])
    assert torch.equal(model(ids).logits, tiny.transformers_model(family)(ids).logits)
    assert vars(model).keys() == vars(tiny.transformers_model(family)).keys()


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


@pytest.mark.parametrize("named", [True, False])
def test_a_loop_of_ones_own(named: bool) -> None:
    """Without `generate`: a forward of several tokens is a prompt, one of a single token behind it a decode step."""
    plan = StagePlan(schedule=SKIP_SETS["more and more"])
    model = tiny.transformers_model("llama")
    text, cache = list(PROMPTS[1]), None
    with torch.inference_mode(), apply_plan(model, folder_of(plan), "s"):
        ids = torch.tensor([text])
        for _ in range(NEW):
            out = model(ids, past_key_values=cache, use_cache=True, return_dict=named)
            logits, cache = (out.logits, out.past_key_values) if named else out
            text.append(int(logits[0, -1].argmax()))
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


def test_plans_can_be_nested_and_left_in_any_order() -> None:
    model = tiny.transformers_model("llama")
    outer, inner = (apply_plan(model, folder_of(StagePlan(schedule=SKIP_SETS[name])), "s") for name in TWO)
    expected = [by_engine("llama", StagePlan(schedule=SKIP_SETS[name]), PROMPTS[:2]) for name in TWO]
    with outer:
        with inner:
            assert generated(model, PROMPTS[:2]) == expected[1]
        assert generated(model, PROMPTS[:2]) == expected[0]
    first, second = (apply_plan(model, folder_of(StagePlan(schedule=SKIP_SETS[name])), "s") for name in TWO)
    first.__enter__()
    with second:
        first.__exit__(None, None, None)
        assert generated(model, PROMPTS[:2]) == expected[1]


def test_copies_made_in_the_block_are_plain_models() -> None:
    """With weights of their own."""
    model = tiny.transformers_model("llama")
    with apply_plan(model, folder_of(TAKEN), "s"):
        copies = [deepcopy(model), pickle.loads(pickle.dumps(model))]
        assert generated(copies[0], PROMPTS[:2]) == by_engine("llama", StagePlan(), PROMPTS[:2])
    other = tiny.new_model("llama", seed=1)
    for copied in copies:
        copied.load_state_dict(other.state_dict())
        assert generated(copied, PROMPTS[:2]) == generated(other, PROMPTS[:2])
    assert generated(model, PROMPTS[:2]) == by_engine("llama", StagePlan(), PROMPTS[:2])


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_a_text_that_was_broken_off(stop: type[BaseException]) -> None:
    model = tiny.transformers_model("llama")

    def raising(module: Any, args: Any) -> None:
        if args[0].shape[1] == 1:
            raise stop

    with apply_plan(model, folder_of(TAKEN), "s"):
        hook = model.model.layers[1].mlp.register_forward_pre_hook(raising)
        with pytest.raises(stop):
            generated(model)
        hook.remove()
        assert generated(model, PROMPTS[:2]) == by_engine("llama", TAKEN, PROMPTS[:2])


HEARD: list[torch.Tensor] = []


def heard(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """A logits processor of the caller's own."""
    HEARD.append(ids)
    return scores


WAYS: dict[str, Callable[[PreTrainedModel, dict[str, torch.Tensor]], Any]] = {
    "by position": lambda model, given: model.generate(
        given["input_ids"], GREEDY, LogitsProcessorList([heard]), attention_mask=given["attention_mask"]
    ),
    "positions": lambda model, given: model.generate(
        **given, position_ids=(given["attention_mask"].cumsum(-1) - 1).clamp(min=0), generation_config=GREEDY
    ),
    "embeddings": lambda model, given: model.generate(
        inputs_embeds=model.get_input_embeddings()(given["input_ids"]),
        attention_mask=given["attention_mask"],
        generation_config=GREEDY,
    ),
    "a way of one's own": lambda model, given: model.generate(
        **given, generation_config=GREEDY, custom_generate=sampling
    ),
    "training": lambda model, given: model.train().generate(**given, generation_config=GREEDY),
    "in a dictionary": lambda model, given: (
        model.generate(
            **given, generation_config=GREEDY, return_dict_in_generate=True, output_hidden_states=True
        ).sequences
    ),
}


def sampling(model: Any, input_ids: torch.Tensor, **given: Any) -> Any:
    return model._sample(input_ids, **given)


@pytest.mark.parametrize("way", WAYS)
def test_ways_of_calling_generate(way: str) -> None:
    plan = TAKEN.model_copy(update={"exit": MeanConfidence(window=3, threshold=0.4)})
    model, given = tiny.transformers_model("llama"), batch()
    with apply_plan(model, folder_of(plan), "s"):
        out = WAYS[way](model, given)
    prompt = 0 if way == "embeddings" else given["input_ids"].shape[1]
    assert [cut(row) for row in out[:, prompt:].tolist()] == by_engine("llama", plan)
    assert HEARD or way != "by position"


def test_another_model_drafts() -> None:
    """Which has a plan of its own, or none; or is the model itself."""
    model, other = tiny.transformers_model("llama"), tiny.transformers_model("llama")
    expected = by_engine("llama", TAKEN, PROMPTS[1:2])
    with apply_plan(model, folder_of(TAKEN), "s"):
        for assistant in (model, other):
            assert generated(model, PROMPTS[1:2], assistant_model=assistant) == expected
        with apply_plan(other, folder_of(StagePlan(schedule=SKIP_SETS["more and more"])), "s"):
            assert generated(model, PROMPTS[1:2], assistant_model=other) == expected


@pytest.mark.parametrize("whole", [True, False])
def test_a_prompt_whose_beginning_is_cached(whole: bool) -> None:
    """All of its tokens given, or those alone that are new."""
    from transformers import DynamicCache

    model = tiny.transformers_model("llama")
    prompt, cache = torch.tensor([PROMPTS[4]]), DynamicCache(config=model.config)
    with torch.inference_mode():
        model(prompt[:, :20], past_key_values=cache, use_cache=True)
    new = prompt if whole else prompt[:, 20:]
    plan = TAKEN.model_copy(update={"exit": MeanConfidence(window=3, threshold=0.4)})
    with apply_plan(model, folder_of(plan), "s"):
        out = model.generate(
            new, attention_mask=torch.ones_like(prompt), past_key_values=cache, generation_config=GREEDY
        )
    assert [cut(out[0, new.shape[1] :].tolist())] == by_engine("llama", plan, PROMPTS[4:])


def test_a_pipeline_and_a_stream() -> None:
    model, tokenizer = tiny.transformers_model("llama"), tiny.tokenizer()
    text = "A candle gives light because"
    expected = by_engine("llama", TAKEN, [tuple(tokenizer.encode(text))])[0]
    with apply_plan(model, folder_of(TAKEN), "s"):
        ask = pipeline("text-generation", model=model, tokenizer=tokenizer)
        (said,) = ask(text, do_sample=False, max_new_tokens=NEW, return_tensors=True)
        assert tuple(said["generated_token_ids"][-NEW:]) == expected
        with pytest.warns(UserWarning, match="enter it"):  # a thread of the block's without a plan
            assert streamed(model, text) != tokenizer.decode(expected)

    def planned(**given: Any) -> None:
        with apply_plan(model, folder_of(TAKEN), "s"):
            model.generate(**given)

    assert streamed(model, text, planned) == tokenizer.decode(expected)


def streamed(model: PreTrainedModel, text: str, generate: Callable[..., Any] | None = None) -> str:
    """As transformers' documents show it: one thread generates, another reads."""
    stream = TextIteratorStreamer(tiny.tokenizer(), skip_prompt=True)
    given = {**tiny.tokenizer()(text, return_tensors="pt"), "generation_config": GREEDY, "streamer": stream}
    given.pop("token_type_ids", None)
    thread = threading.Thread(target=generate or model.generate, kwargs=given)
    thread.start()
    said = "".join(stream)
    thread.join()
    return said


@pytest.mark.parametrize("kind", ["mean", "lowrank:3"])
def test_a_model_moved_in_the_block_takes_its_stand_ins_along(kind: str, tmp_path: Path) -> None:
    engine = tiny.engine()
    texts = [Text(tiny.prompt(24, seed), tiny.prompt(24, seed + 50)) for seed in range(2)]
    compensation, weights = fit(engine, kind, gather(engine, texts, products=True))
    save_stand(tmp_path, compensation, weights)
    folder = folder_of(StagePlan(schedule=FOLDED, compensation=compensation), tmp_path)
    model, before = tiny.transformers_model("llama"), tiny.transformers_model("llama").to(torch.bfloat16)
    with apply_plan(before, folder, "s", check=False):
        expected = generated(before, PROMPTS[1:2])
    with apply_plan(model, folder, "s"):
        generated(model, PROMPTS[1:2])
        assert generated(model.to(torch.bfloat16), PROMPTS[1:2])[0][:4] == expected[0][:4]


def test_what_cannot_be_decoded_under_a_plan_is_refused() -> None:
    model, ids = tiny.transformers_model("llama"), torch.tensor([PROMPTS[1]])
    with apply_plan(model, folder_of(TAKEN), "s"):
        with pytest.raises(PlanError, match="use_cache"):
            generated(model, use_cache=False)
        with pytest.raises(PlanError, match="guidance_scale"):
            generated(model, guidance_scale=1.5)
        with pytest.raises(PlanError, match="thread"):
            model.generate_batch([list(PROMPTS[1])])
        with pytest.raises(PlanError, match="by itself"):
            model.model(ids)
        model.gradient_checkpointing_enable()
        with pytest.raises(PlanError, match="checkpointing"):
            generated(model.train())
    with pytest.raises(PlanError, match="eos_token_id 320"), apply_plan(model, folder_of(TAKEN), "s", eos_token_id=320):
        pass
    with pytest.raises(PlanError, match="Plan"), apply_plan(model, folder_of(TAKEN).plan, "s"):  # type: ignore[arg-type]
        pass


def test_adapters_that_are_not_merged() -> None:
    """Those that are active when a text is written, whatever was when the block began."""
    from peft import LoraConfig, get_peft_model

    plan = StagePlan(schedule=SKIP_SETS["block 0, ffn 2"], exit=MeanConfidence(window=3, threshold=0.2))
    adapted = get_peft_model(
        tiny.transformers_model("llama"), LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    )
    with apply_plan(adapted, folder_of(plan), "s", check=False):
        with adapted.disable_adapter():
            assert generated(adapted) == by_engine("llama", plan)
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
    with pytest.raises(PlanError, match=r"plan\.json"):
        load_plan(tmp_path)
    with pytest.raises(PlanError, match="Linear"), apply_plan(torch.nn.Linear(2, 2), plan, "s"):
        pass


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
    from transformers import CohereConfig, GptOssConfig, StableLmConfig

    sizes = {**tiny.SHARED, "vocab_size": len(tiny.tokenizer()), "eos_token_id": EOS, "pad_token_id": EOS}
    torch.manual_seed(0)
    known = AutoModelForCausalLM.from_config(StableLmConfig(**sizes)).eval()
    plan = folder_of(StagePlan(schedule=SkipSchedule.fixed(["0.attention", "2.ffn"])))
    with zeroed(known, [SubLayer(0, "attention"), SubLayer(2, "ffn")]):
        expected = generated(known, PROMPTS[1:3])
    with apply_plan(known, plan, "s", check=False):
        assert generated(known, PROMPTS[1:3]) == expected
    routed = AutoModelForCausalLM.from_config(GptOssConfig(**sizes, head_dim=8, num_local_experts=4)).eval()
    with zeroed(routed, [SubLayer(0, "attention"), SubLayer(2, "ffn")]):
        expected = generated(routed, PROMPTS[1:3])
    with apply_plan(routed, plan, "s", check=False):
        assert generated(routed, PROMPTS[1:3]) == expected
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
    model.load_state_dict(tiny.new_model("llama", seed=1).state_dict())
    with pytest.raises(PlanError, match="under another name"), apply_plan(model, same, "s"):
        pass


def replace_id(found: str) -> Any:
    return tiny.loaded("llama").identity.model_copy(update={"fingerprint": found, "id": "under another name"})
