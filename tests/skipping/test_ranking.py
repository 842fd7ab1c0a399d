"""Step 1 against a direct, unoptimised computation on the transformers model."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import FAMILIES, ends, engine, tokenizer, transformers_model
from torch import nn

from litestage.core import Compensation, OptionError, PlanError, SubLayer, sub_layers
from litestage.engine import TorchEngine
from litestage.models import from_transformers
from litestage.skipping import block_influence, fit_norm_ratio, load_stands, rank_sub_layers, redundancy, save_stand

PROMPTS = [tuple(range(3, 3 + n)) for n in (5, 9, 14)] + [(*range(3, 12), 40, 41, 42), tuple(range(3, 8))]
PREFIXES = [tuple(range(3, 8)), tuple(range(3, 12))]


def residuals(model: nn.Module, prompt: tuple[int, ...]) -> dict[SubLayer, tuple[torch.Tensor, torch.Tensor]]:
    """Every sub-layer's input and output residual stream [T, D], caught by hooks, one prompt at a time."""
    caught: dict[SubLayer, tuple[torch.Tensor, torch.Tensor]] = {}
    hooks = []
    scale = getattr(model.config, "residual_multiplier", 1.0)
    for index in range(len(model.model.layers)):
        for kind in ("attention", "ffn"):
            layer = SubLayer(index, kind)
            first, last = ends(model, layer)

            def before(module, inputs, layer=layer):
                caught[layer] = (inputs[0][0].clone(), inputs[0][0].clone())

            def after(module, inputs, output, layer=layer):
                added = scale * (output[0] if isinstance(output, tuple) else output)
                caught[layer] = (caught[layer][0], caught[layer][0] + added.reshape(caught[layer][0].shape))

            hooks += [first.register_forward_pre_hook(before), last.register_forward_hook(after)]
    with torch.no_grad():
        model(torch.tensor([prompt]))
    for hook in hooks:
        hook.remove()
    return caught


@pytest.mark.parametrize("family", FAMILIES)
def test_redundancy_equals_the_direct_mean_of_cosines(family: str) -> None:
    caught = [residuals(transformers_model(family), prompt) for prompt in PROMPTS]
    direct = {
        layer: torch.cat([torch.cosine_similarity(*one[layer], dim=-1) for one in caught]).mean().item()
        for layer in caught[0]
    }
    used = engine(family)
    assert len({round(score, 4) for score in direct.values()}) > 4, "scores that are all alike would prove nothing"
    for prefixes in ([], PREFIXES):
        assert redundancy(used, PROMPTS, prefixes) == pytest.approx(direct, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_block_influence_equals_the_direct_computation(family: str) -> None:
    caught = [residuals(transformers_model(family), prompt) for prompt in PROMPTS]
    used = engine(family)
    direct = [
        1 - torch.cat([torch.cosine_similarity(o[a][0], o[f][1], dim=-1) for o in caught]).mean().item()
        for a, f in zip(*[iter(sub_layers(used.identity.num_blocks))] * 2, strict=True)
    ]
    assert len({round(score, 4) for score in direct}) > 2
    for prefixes in ([], PREFIXES):
        assert block_influence(used, PROMPTS, prefixes) == pytest.approx(direct, abs=1e-5)


def test_norm_ratio_equals_the_direct_mean_of_frobenius_ratios() -> None:
    caught = [residuals(transformers_model("llama"), prompt) for prompt in PROMPTS]
    _, stand = fit_norm_ratio(engine("llama"), PROMPTS)
    for layer in caught[0]:
        ratios = [one[layer][1].norm() / one[layer][0].norm() for one in caught]
        assert stand[layer].scale is not None
        assert stand[layer].scale.item() == pytest.approx(torch.stack(ratios).mean().item(), rel=1e-5)


def test_ties_prefer_attention_then_the_lower_block() -> None:
    ranking = rank_sub_layers({"only": dict.fromkeys(sub_layers(3), 0.5)})
    assert [str(score.layer) for score in ranking.scores] == [
        "0.attention", "1.attention", "2.attention", "0.ffn", "1.ffn", "2.ffn",
    ]  # fmt: skip


def test_scores_are_averaged_over_stages_and_high_goes_first() -> None:
    first = {SubLayer(0, "attention"): 0.9, SubLayer(0, "ffn"): 0.1}
    second = {SubLayer(0, "attention"): 0.2, SubLayer(0, "ffn"): 0.8}
    ranking = rank_sub_layers({"recall": first, "summary": second})
    assert [(str(s.layer), pytest.approx(s.redundancy)) for s in ranking.scores] == [
        ("0.attention", 0.55),
        ("0.ffn", 0.45),
    ]
    assert ranking.scores[0].by_stage == {"recall": 0.9, "summary": 0.2}


@given(st.dictionaries(st.sampled_from(sub_layers(6)), st.floats(-1, 1), min_size=4))
def test_budgets_are_nested(scores: dict[SubLayer, float]) -> None:
    ranking = rank_sub_layers({"only": scores})
    sets = [ranking.skip_set(budget) for budget in range(len(scores) + 1)]
    assert [len(s) for s in sets] == list(range(len(scores) + 1))
    assert all(small < large for small, large in pairwise(sets))


def test_a_budget_beyond_the_model_is_refused() -> None:
    with pytest.raises(OptionError, match="budget of 9"):
        rank_sub_layers({"only": dict.fromkeys(sub_layers(2), 0.5)}).skip_set(9)


def test_compensation_is_saved_beside_the_plan_and_checked(tmp_path) -> None:
    used = engine("llama")
    compensation, stand = fit_norm_ratio(used, PROMPTS)
    save_stand(tmp_path, compensation, stand)
    other = TorchEngine(used.model)
    load_stands(tmp_path, [compensation, Compensation()], other)
    loaded = other.stands[compensation.content or ""]
    assert {k: v.scale for k, v in loaded.items()} == {k: v.scale for k, v in stand.items()}
    with pytest.raises(PlanError, match="is missing"):
        load_stands(tmp_path / "elsewhere", [compensation], other)
    changed = compensation.model_copy(update={"content": (compensation.content or "")[:16] + "0" * 48})
    with pytest.raises(PlanError, match="does not hold"):
        load_stands(tmp_path, [changed], other)


def test_compensation_fitted_in_fp32_runs_in_bf16(tmp_path) -> None:
    """The hash is of the stored numbers: a plan does not depend on the dtype that it runs in."""
    compensation, stand = fit_norm_ratio(engine("llama"), PROMPTS)
    save_stand(tmp_path, compensation, stand)
    half = TorchEngine(from_transformers(transformers_model("llama").bfloat16(), tokenizer(), "half", device="cpu"))
    load_stands(tmp_path, [compensation], half)
    assert {affine.scale.dtype for affine in half.stands[compensation.content or ""].values()} == {torch.bfloat16}


def test_a_truncated_compensation_is_refused(tmp_path) -> None:
    compensation, stand = fit_norm_ratio(engine("llama"), PROMPTS)
    save_stand(tmp_path, compensation, stand)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(PlanError, match="cannot be read"):
        load_stands(tmp_path, [compensation], engine("llama"))
