"""Teacher forcing against hooks on the transformers model, and against the engine's own decoding."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from litestage.core import SkipSchedule, StagePlan, SubLayer, sub_layers
from litestage.engine.forcing import Forcing, Text, forcings, scan_decoded
from litestage.models import Affine
from litestage.models.cache import Cache
from litestage.models.decoder import Decoder, Skips

LAYERS = sub_layers(tiny.BLOCKS)
TEXTS = [Text(tiny.prompt(n), tiny.prompt(m, seed=1)) for n, m in ((9, 7), (4, 2), (12, 5))]
WIDTH = 32


def stand(seed: int = 0) -> dict[SubLayer, Affine]:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return 0.3 * torch.randn(*shape, generator=g)

    return {
        layer: Affine(scale=1 + draw(WIDTH), shift=draw(WIDTH), down=draw(3, WIDTH), up=draw(WIDTH, 3))
        for layer in LAYERS[1:]
    }


def by_hooks(family: str, text: Text, skipped: frozenset[SubLayer], instead: dict[SubLayer, Affine]) -> torch.Tensor:
    whole = [*text.prompt, *text.written[:-1]]
    schedule = SkipSchedule.fixed(skipped)
    return tiny.raw_logits(family, whole, len(text.prompt), schedule, instead)[len(text.prompt) :]


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("compensated", [False, True])
def test_logits_equal_those_of_hooks_text_by_text(family: str, compensated: bool) -> None:
    skipped = frozenset(LAYERS[i] for i in (0, 2, 3, 4, 7))
    instead = stand() if compensated else {}
    expected = torch.cat([by_hooks(family, text, skipped, instead) for text in TEXTS])
    forcing = Forcing(tiny.engine(family), TEXTS)
    assert len(forcing) == 6 + 1 + 4
    torch.testing.assert_close(forcing.logits(Skips(skipped, stand=instead)), expected, atol=2e-4, rtol=1e-3)
    assert (forcing.logits() - expected).abs().max() > 0.1, "the skip set must change something"


@settings(max_examples=15)
@given(st.frozensets(st.sampled_from(LAYERS), max_size=5), st.booleans())
def test_one_more_equals_a_forward_of_its_own(skipped: frozenset[SubLayer], compensated: bool) -> None:
    instead = stand(1) if compensated else {}
    forcing = Forcing(tiny.engine(), TEXTS)
    candidates = [layer for layer in LAYERS if layer not in skipped]
    skips = Skips(skipped, stand=instead)
    for layer, logits in forcing.logits_without_one_more(skips, candidates):
        alone = Forcing(tiny.engine(), TEXTS).logits(Skips(skipped | {layer}, stand=instead))
        torch.testing.assert_close(logits, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "qwen2-window", "gemma2"])
def test_the_engines_own_text_is_agreed_with_token_by_token(family: str) -> None:
    """What was decoded under a skip set is the likeliest under the same set when teacher-forced, and not without it."""
    skipped, instead = frozenset(LAYERS[i] for i in (1, 4, 5)), stand(2)
    engine = tiny.engine(family)
    engine.stands["numbers"] = instead
    plan = StagePlan(schedule=SkipSchedule.fixed(skipped), compensation={"kind": "lowrank:3", "content": "numbers"})
    prompts = [tiny.prompt(n) for n in (5, 11, 20)]
    done = engine.generate(tiny.requests(prompts, max_new_tokens=12, stage_plan=plan))
    texts = [Text(prompt, one.token_ids) for prompt, one in zip(prompts, done, strict=True)]
    forcing = Forcing(engine, texts)
    after = torch.tensor([token for text in texts for token in text.written[1:]])
    assert torch.equal(forcing.logits(Skips(skipped, stand=instead)).argmax(-1), after)
    assert not torch.equal(forcing.logits().argmax(-1), after)
    assert len(set(after.tolist())) >= 8


def test_visits_show_the_written_tokens_alone() -> None:
    seen: dict[SubLayer, int] = {}

    def visit(layer: SubLayer, before: torch.Tensor, after: torch.Tensor) -> None:
        assert before.shape == after.shape == (11, WIDTH)
        seen[layer] = len(before)

    Forcing(tiny.engine(), TEXTS).logits(visit=visit)
    assert set(seen) == set(LAYERS)


def test_texts_without_a_decode_step_are_left_out() -> None:
    groups = forcings(tiny.engine(), [Text(tiny.prompt(5), (3,)), *TEXTS], at_once=2)
    assert [len(group) for group in groups] == [1 + 4, 6]
    with pytest.raises(ValueError, match="no decode step"):
        Forcing(tiny.engine(), [Text(tiny.prompt(5), (3,))])


def test_a_scan_holds_one_group_of_texts_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the next one takes its memory; all of them together could take more than there is."""
    texts = [Text(tiny.prompt(4 + n), tiny.prompt(3 + n % 4, seed=n)) for n in range(30)]
    alive: list[int] = []

    def count() -> None:
        alive.append(sum(type(one) is Forcing for one in gc.get_objects()))

    def new_cache(decoder: Decoder, rows: int, slots: int, make: Any = Decoder.new_cache) -> Cache:
        count()
        return make(decoder, rows, slots)

    def visit(layer: SubLayer, before: torch.Tensor, after: torch.Tensor) -> None:
        if layer == LAYERS[-1]:
            count()

    monkeypatch.setattr(Decoder, "new_cache", new_cache)
    engine = tiny.engine()
    gc.collect()  # what other tests left
    gc.disable()  # a group must go by itself, when it is done with
    try:
        tokens = scan_decoded(engine, texts, visit)
    finally:
        gc.enable()
    assert alive == [1] * 8, "at the making and in the run of each of four groups"
    assert tokens == sum(len(text.written) - 1 for text in texts)
