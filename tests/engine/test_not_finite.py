"""Numbers that are none end a run, in a sentence that says where they come from first."""

from __future__ import annotations

import pytest
import tiny
import torch
from transformers import PreTrainedModel

from litestage.core import Compensation, ModelError, SkipSchedule, StagePlan, SubLayer, UnansweredError
from litestage.engine import TorchEngine
from litestage.kernels import find_kernels
from litestage.models import Affine, from_transformers
from litestage.models.packed import Packing

HUGE = 1e30


def spoilt(where: str) -> PreTrainedModel:
    """A model that is sound number by number, and overflows at one place."""
    model = tiny.new_model("llama", intermediate_size=64)
    with torch.no_grad():
        match where.split("."):
            case ["embedding"]:
                model.model.embed_tokens.weight[:] = float("nan")  # as rows of unused tokens may be
            case ["head"]:
                model.lm_head.weight *= HUGE * 1e8
            case [block, "ffn"]:
                model.model.layers[int(block)].mlp.up_proj.weight *= HUGE
                model.model.layers[int(block)].mlp.down_proj.weight *= HUGE
            case [block, _]:
                model.model.layers[int(block)].self_attn.v_proj.weight *= HUGE
                model.model.layers[int(block)].self_attn.o_proj.weight *= HUGE
    return model


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("embedding", "the token embedding"),
        ("0.attention", "sub-layer 0.attention is the first"),
        ("2.ffn", "sub-layer 2.ffn is the first"),
        ("3.attention", "sub-layer 3.attention is the first"),
        ("head", "the last norm or the output head"),
    ],
)
def test_the_first_sub_layer_whose_numbers_are_none_is_named(where: str, said: str, kernels: bool) -> None:
    found = find_kernels() if kernels else None
    if kernels and found is None:
        pytest.skip("needs a C compiler")
    packing = Packing("bf16", torch.float32, torch.float32, found) if kernels else Packing()
    model = from_transformers(spoilt(where), tiny.tokenizer(), "a spoilt model", device="cpu", packing=packing)
    with pytest.raises(UnansweredError, match=rf"logits of a spoilt model .*{said}"):
        TorchEngine(model).generate(tiny.requests([tiny.prompt(9), tiny.prompt(12)], max_new_tokens=4))


def test_what_a_plan_spoils_is_not_laid_to_the_model() -> None:
    stands = {"spoils": {SubLayer(1, "ffn"): Affine(scale=torch.tensor(float("inf")))}}
    compensation = Compensation(kind="norm_ratio", content="spoils")
    plan = StagePlan(schedule=SkipSchedule.fixed(["1.ffn"]), compensation=compensation)
    engine = tiny.engine(stands=stands)
    sound = tiny.requests([tiny.prompt(9)], max_new_tokens=4)
    before = engine.generate(sound)
    spoilt = tiny.requests([tiny.prompt(9)], max_new_tokens=4, stage_plan=plan)
    with pytest.raises(UnansweredError, match=r"logits of tiny-llama .*at full depth they are.*the plan") as failed:
        engine.generate([*spoilt, *sound, *spoilt])
    assert failed.value.done[1].token_ids == before[0].token_ids, "what decodes beside it goes on"
    assert set(failed.value.reasons) == {0, 2}
    assert engine.generate(sound) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named_when_the_model_is_loaded(value: float) -> None:
    model = tiny.new_model("llama")
    with torch.no_grad():
        model.model.layers[1].self_attn.k_proj.weight[3, 4] = value
    with pytest.raises(ModelError, match=r"model\.layers\.1\.self_attn\.k_proj\.weight of that one .*finite"):
        from_transformers(model, tiny.tokenizer(), "that one", device="cpu")


def test_large_weights_are_sound() -> None:
    model = tiny.new_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[:] = 3e37  # their sum is infinite
    from_transformers(model, tiny.tokenizer(), "that one", device="cpu")
