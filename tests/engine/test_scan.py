"""What rankings and fits are shown: every sub-layer's work on every prompt token, each as often as it occurs."""

from __future__ import annotations

from collections import defaultdict

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from litestage.core import SubLayer, TokenIds, sub_layers
from litestage.engine import TorchEngine

STEM = tiny.prompt(20)
PROMPTS = [STEM + tiny.prompt(5), STEM + tiny.prompt(3), STEM[:8] + tiny.prompt(11), STEM, tiny.prompt(13), STEM]
WAYS = {"none": [], "stem": [STEM], "nested": [STEM[:8], STEM], "useless": [tiny.prompt(4, seed=8)], "own": PROMPTS}

Sums = dict[SubLayer, torch.Tensor]


def sums(engine: TorchEngine, prompts: list[TokenIds], prefixes: list[TokenIds]) -> tuple[Sums, dict[SubLayer, int]]:
    """The residual stream before and after each sub-layer, summed over prompts and tokens; and how many tokens."""
    total: Sums = defaultdict(lambda: torch.zeros(2, 32))
    tokens: dict[SubLayer, int] = defaultdict(int)

    def visit(layer: SubLayer, before: torch.Tensor, after: torch.Tensor, weight: int) -> None:
        total[layer] = total[layer] + weight * torch.stack([before.sum(0), after.sum(0)])
        tokens[layer] += weight * len(before)

    engine.scan(prompts, prefixes, visit)
    return total, tokens


def by_transformers(family: str, prompts: list[TokenIds]) -> dict[int, torch.Tensor]:
    """The residual stream into each block and out of the last, summed over prompts and tokens."""
    total: dict[int, torch.Tensor] = defaultdict(lambda: torch.zeros(32))
    model = tiny.transformers_model(family)
    for index, block in enumerate(model.model.layers):
        block.register_forward_pre_hook(lambda _, args, i=index: total.update({i: total[i] + args[0][0].sum(0)}))
    with torch.inference_mode():
        for ids in prompts:
            model(torch.tensor([ids]), use_cache=False)
    return total


@pytest.mark.parametrize("family", ["llama", "mistral"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mixed", [False, True])
def test_scan_shows_every_token_of_every_prompt(family: str, way: str, mixed: bool) -> None:
    """However the prompts share beginnings, and when none of them is there any more when it is needed."""
    prompts = PROMPTS[::2] + PROMPTS[1::2] if mixed else PROMPTS
    total, tokens = sums(tiny.engine(family), prompts, WAYS[way])
    assert tokens == dict.fromkeys(sub_layers(tiny.BLOCKS), sum(map(len, PROMPTS)))
    expected = by_transformers(family, PROMPTS)
    for block in range(tiny.BLOCKS):
        before, after = SubLayer(block, "attention"), SubLayer(block, "ffn")
        assert torch.allclose(total[before][0], expected[block], rtol=1e-3, atol=1e-2)
        assert torch.equal(total[before][1], total[after][0])
        if block + 1 < tiny.BLOCKS:
            assert torch.allclose(total[after][1], expected[block + 1], rtol=1e-3, atol=1e-2)


@given(
    picks=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 4)), min_size=1, max_size=5),
    prefixes=st.sets(st.integers(1, 20), max_size=3),
)
@settings(max_examples=25)
def test_shared_tokens_weigh_as_much_as_if_each_were_computed(picks: list[tuple[int, int]], prefixes: set[int]) -> None:
    prompts = [STEM[:shared] + tiny.prompt(own, seed=own) for shared, own in picks]
    alone, count = sums(tiny.engine(), prompts, [])
    shared, counted = sums(tiny.engine(), prompts, [STEM[:n] for n in prefixes])
    assert count == counted
    for layer, total in alone.items():
        assert torch.allclose(shared[layer], total, rtol=1e-3, atol=1e-2)


def test_scan_leaves_nothing_behind() -> None:
    engine = tiny.engine()
    engine.scan(PROMPTS, [STEM], lambda *_: None)
    assert not engine.cache_bytes
    engine.scan([], [], lambda *_: None)
