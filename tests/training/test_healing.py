"""What training sees under a plan, against teacher forcing by the engine that decodes with it."""

from __future__ import annotations

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from litestage.core import SubLayer, sub_layers
from litestage.engine.forcing import Forcing, Text
from litestage.models import Affine, Skips
from litestage.training.healing import Healing
from litestage.training.loop import target_logits, target_loss
from litestage.training.packing import PROMPT, Example, collate, pack

LAYERS = sub_layers(tiny.BLOCKS)
FAMILIES = [name for name in tiny.FAMILIES if "window" not in name]
SHARED, RECALL, *VERDICTS = (tiny.prompt(n, seed=i) for i, n in enumerate((2, 2, 2, 3)))
# No longer than the sliding windows, whose models are trained on no longer sequence.
EXAMPLES = [
    Example(0, SHARED, RECALL),
    *(Example(1, (*SHARED, *RECALL), verdict) for verdict in VERDICTS),  # prompts go on where recall's text began
    Example(1, (*SHARED, *RECALL), (*VERDICTS[0], 5, 7)),
]


def stand(seed: int) -> dict[SubLayer, Affine]:
    g = torch.Generator().manual_seed(seed)
    width = tiny.SHARED["hidden_size"]

    def draw(*shape: int) -> torch.Tensor:
        return 0.3 * torch.randn(*shape, generator=g)

    return {
        layer: Affine(scale=1 + draw(width), shift=draw(width), down=draw(3, width), up=draw(width, 3))
        for layer in LAYERS[1:]
    }


def decoded(family: str, example: Example, skips: Skips) -> torch.Tensor:
    """The oracle: logits after each written token but the last, decoded behind a full-depth prompt."""
    return Forcing(tiny.engine(family), [Text(example.prompt, example.target)]).logits(skips)


def by_example(logits: torch.Tensor, examples: list[Example], skipping: tuple[int, ...]) -> list[torch.Tensor]:
    """A pack's logits without those of each prompt's last token, in the order of ``examples``."""

    def place(example: Example) -> tuple[list[tuple[int, int]], int]:
        by = example.stage if example.stage in skipping else PROMPT
        written = [(token, by) for token in example.target]
        return [(token, PROMPT) for token in example.prompt] + written, len(example.prompt)

    order = sorted(examples, key=place)
    parts = dict(zip(map(id, order), logits.split([len(example.target) for example in order]), strict=True))
    return [parts[id(example)][1:] for example in examples]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("compensated", [False, True])
def test_logits_are_those_of_decoding_with_the_plan(family: str, compensated: bool) -> None:
    stages = {
        stage: Skips(frozenset(LAYERS[i] for i in skipped), stand=stand(stage) if compensated else {})
        for stage, skipped in {0: (0, 3, 4), 1: (1, 3, 6, 7)}.items()
    }
    model = tiny.transformers_model(family)
    healing = Healing(stages, "")
    with torch.no_grad():
        logits = target_logits(model, collate([pack(EXAMPLES, (0, 1))]), healing)
        full = target_logits(model, collate([pack(EXAMPLES, (0, 1))]))
    for example, found in zip(EXAMPLES, by_example(logits, EXAMPLES, (0, 1)), strict=True):
        expected = decoded(family, example, stages[example.stage])
        torch.testing.assert_close(found, expected, atol=3e-4, rtol=1e-3)
    assert (full - logits).abs().max() > 0.1, "the plan must change something"


def test_a_stage_at_full_depth_is_left_alone() -> None:
    model = tiny.transformers_model("llama")
    healing = Healing({1: Skips(frozenset(LAYERS[2:5]))}, "")
    with torch.no_grad():
        logits = target_logits(model, collate([pack(EXAMPLES, (1,))]), healing)
    recall, *analyses = by_example(logits, EXAMPLES, (1,))
    torch.testing.assert_close(recall, decoded("llama", EXAMPLES[0], Skips()), atol=1e-4, rtol=1e-3)
    expected = decoded("llama", EXAMPLES[1], healing.stages[1])
    torch.testing.assert_close(analyses[0], expected, atol=1e-4, rtol=1e-3)


def test_hooks_go_and_gradients_flow_past_what_is_left_out() -> None:
    model = tiny.transformers_model("llama").requires_grad_(True)
    left_out = [layer for layer in LAYERS if layer.block == 1]
    batch = collate([pack(EXAMPLES[:1], (0,))])
    target_loss(model, batch, healing=Healing({0: Skips(frozenset(left_out))}, "")).backward()
    for block in model.model.layers:  # prompts run block 1 too, and predict the first token
        assert block.mlp.down_proj.weight.grad.abs().sum() > 0
    with torch.no_grad():
        before = target_logits(model, batch)
        torch.testing.assert_close(before, target_logits(tiny.transformers_model("llama"), batch))


tokens = st.lists(st.integers(0, 2), min_size=1, max_size=5).map(tuple)
example_lists = st.lists(st.builds(Example, st.integers(0, 1), tokens, tokens), min_size=1, max_size=6)


@settings(max_examples=60)
@given(example_lists, st.sampled_from([(), (0,), (1,), (0, 1)]))
def test_each_target_is_predicted_from_its_prompt_and_its_own_stage(
    examples: list[Example], skipping: tuple[int, ...]
) -> None:
    packed = pack(examples, skipping)
    mask = collate([packed]).mask[0, 0].numpy()
    seen = []
    for source, label in zip(packed.source, packed.label, strict=True):
        past = mask[source].nonzero()[0]
        seen.append((tuple(packed.token[past]), tuple(packed.decoded_by[past]), int(label)))
    expected = []
    for example in examples:
        by = example.stage if example.stage in skipping else PROMPT
        for i, label in enumerate(example.target):
            past_tokens = example.prompt + example.target[:i]
            expected.append((past_tokens, (PROMPT,) * len(example.prompt) + (by,) * i, label))
    assert sorted(seen) == sorted(expected)
