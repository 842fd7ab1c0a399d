"""A plain model without the blocks that a plan skips."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from planned import PROMPTS, folder_of
from transformers import AutoModelForCausalLM, PreTrainedModel

from litestage.core import (
    Compensation,
    MeanConfidence,
    OptionError,
    Plan,
    PlanError,
    SkipSchedule,
    StagePlan,
    whole_blocks,
)
from litestage.hf.export import blocks_of, without_blocks
from litestage.models import load_model


def logits_without(model: PreTrainedModel, blocks: list[int], ids: torch.Tensor) -> torch.Tensor:
    """The slow way: hooks that hand on the residual stream behind a block as it was before it."""
    hooks = [model.model.layers[i].register_forward_hook(lambda module, args, output: args[0]) for i in blocks]
    logits: torch.Tensor = model(ids, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    return logits


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_plain_checkpoint_is_the_model_without_those_blocks(family: str, tmp_path: Path) -> None:
    """Written, read again by transformers, and by our own loader."""
    ids = torch.tensor([PROMPTS[1]])
    expected = logits_without(tiny.transformers_model(family), [0, 2], ids)
    smaller = without_blocks(tiny.transformers_model(family), [0, 2])
    smaller.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert again.config.num_hidden_layers == len(again.model.layers) == tiny.BLOCKS - 2
    assert torch.equal(again(ids, use_cache=False).logits, expected)
    out = again.generate(ids, do_sample=False, max_new_tokens=8)
    engine = tiny.TorchEngine(load_model(str(tmp_path), device="cpu"))
    (completion,) = engine.generate(tiny.requests([PROMPTS[1]], max_new_tokens=8))
    assert completion.token_ids == tuple(out[0, len(PROMPTS[1]) :].tolist())


def plan_of(**stages: StagePlan) -> Plan:
    return folder_of(StagePlan()).plan.model_copy(update={"stages": stages})


def test_which_plans_a_plain_model_can_follow() -> None:
    blocks = StagePlan(schedule=SkipSchedule.fixed(whole_blocks([1, 3])))
    assert blocks_of(plan_of(a=blocks, b=blocks.model_copy(update={"exit": MeanConfidence()}))) == (1, 3)
    with pytest.raises(PlanError, match="a 4, b 0"):
        blocks_of(plan_of(a=blocks, b=StagePlan()))
    single = StagePlan(schedule=SkipSchedule.fixed(["1.attention", "1.ffn", "2.ffn"]))
    with pytest.raises(PlanError, match=r"keeps 2\.attention"):
        blocks_of(plan_of(a=single))
    scaled = blocks.model_copy(update={"compensation": Compensation(kind="norm_ratio", content="0" * 64)})
    with pytest.raises(PlanError, match="norm_ratio"):
        blocks_of(plan_of(a=scaled))


def test_blocks_that_cannot_be_taken_out() -> None:
    with pytest.raises(OptionError, match=r"Block 4 .* 0 to 3"):
        without_blocks(tiny.transformers_model("llama"), [1, 4])
    with pytest.raises(OptionError, match="All 4 blocks"):
        without_blocks(tiny.transformers_model("llama"), range(4))
