"""Probes against a direct computation: one hooked forward for every text and skip set."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from litestage.core import OptionError, SkipSchedule, SubLayer, sub_layers
from litestage.engine.forcing import Text, forcings
from litestage.models import Affine
from litestage.skipping import Effect, Probe, decoded_redundancy, fit, gather, greedy, probe
from litestage.skipping.probe import effect_of

LAYERS = sub_layers(tiny.BLOCKS)


def texts(family: str, count: int = 5) -> list[Text]:
    prompts = [tiny.prompt(6 + 3 * i, seed=i) for i in range(count)]
    done = tiny.engine(family).generate(tiny.requests(prompts, max_new_tokens=9))
    return [Text(prompt, one.token_ids) for prompt, one in zip(prompts, done, strict=True)]


def direct(family: str, some: list[Text], skipped: frozenset[SubLayer], stand: dict[SubLayer, Affine]) -> Effect:
    kls, same = [], []
    for text in some:
        whole = [*text.prompt, *text.written[:-1]]
        schedule = SkipSchedule.fixed(skipped)
        full = tiny.raw_logits(family, whole, len(text.prompt))[len(text.prompt) :].double()
        cut = tiny.raw_logits(family, whole, len(text.prompt), schedule, stand)[len(text.prompt) :].double()
        p, q = full.softmax(-1), cut.softmax(-1)
        kls += (p * (p / q).log()).sum(-1).tolist()
        same += (full.argmax(-1) == cut.argmax(-1)).tolist()
    return Effect(sum(kls) / len(kls), sum(same) / len(same), len(kls))


def close(effect: Effect) -> tuple[object, object, int]:
    return pytest.approx(effect.kl, rel=2e-3, abs=1e-5), pytest.approx(effect.agreement), effect.tokens


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "granite"])
@pytest.mark.parametrize("kind", ["none", "mean", "affine", "lowrank:4"])
def test_single_probes_equal_the_direct_computation(family: str, kind: str) -> None:
    some = texts(family)
    engine = tiny.engine(family)
    stand = {} if kind == "none" else dict(fit(engine, kind, gather(engine, some, products=kind.startswith("low")))[1])
    effects = probe(Probe(engine, some, at_once=2), stand)
    assert list(effects) == list(LAYERS)
    for layer, effect in effects.items():
        expected = direct(family, some, frozenset({layer}), stand)
        assert (effect.kl, effect.agreement, effect.tokens) == close(expected), layer
    assert len({round(effect.kl, 4) for effect in effects.values()}) > 4


def test_a_whole_set_with_stand_ins_equals_the_direct_computation() -> None:
    some, engine = texts("llama"), tiny.engine()
    skipped, stand = frozenset(LAYERS[2:6]), dict(fit(engine, "affine", gather(engine, some))[1])
    effect = Probe(engine, some, at_once=2).effect(skipped, stand)
    assert (effect.kl, effect.agreement, effect.tokens) == close(direct("llama", some, skipped, stand))


@pytest.mark.parametrize("compensated", [False, True])
def test_greedy_takes_the_least_harmful_each_time(compensated: bool) -> None:
    some, engine = texts("llama"), tiny.engine()
    stand = dict(fit(engine, "mean", gather(engine, some))[1]) if compensated else {}
    order = greedy(Probe(engine, some), stand, ends=0.0)
    assert sorted(layer for layer, _ in order) == sorted(LAYERS)
    removed: frozenset[SubLayer] = frozenset()
    for layer, effect in order[:4]:
        tried = {one: direct("llama", some, removed | {one}, stand) for one in LAYERS if one not in removed}
        best = min(one.kl for one in tried.values())
        assert tried[layer].kl == pytest.approx(best, rel=1e-3)
        assert effect.kl == pytest.approx(best, rel=2e-3)
        removed |= {layer}


def test_greedy_ends_where_too_many_tokens_change_and_still_names_every_sub_layer() -> None:
    probes = Probe(tiny.engine(), texts("llama", count=9), at_once=1)
    seen: list[int] = []
    order = greedy(probes, ends=0.95, on_removal=lambda: seen.append(1))
    assert sorted(layer for layer, _ in order) == sorted(LAYERS)
    assert len(seen) < len(LAYERS)
    assert order[len(seen) - 1][1].agreement < 0.95
    rest = [effect.kl for _, effect in order[len(seen) :]]
    assert rest == sorted(rest)


class NoDoubles(TorchDispatchMode):
    """Refuses what Apple's GPUs cannot do."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        assert getattr(found, "dtype", None) != torch.float64, f"{func} makes doubles"
        return found


def test_decoding_and_probing_make_no_doubles() -> None:
    with NoDoubles():
        probe(Probe(tiny.engine(), texts("llama")))
        with pytest.raises(AssertionError, match="makes doubles"):
            torch.ones(2).double()


def test_no_decode_step_no_probe() -> None:
    engine, texts = tiny.engine(), [Text(tiny.prompt(4), (5,))]
    for ask in (
        lambda: Probe(engine, texts),
        lambda: effect_of(zip(forcings(engine, texts), forcings(engine, texts), strict=True)),
        lambda: decoded_redundancy(engine, texts),
    ):
        with pytest.raises(OptionError, match="None of these texts has a second token, so no decode step ran"):
            ask()


@pytest.mark.parametrize("kind", ["mean", "affine", "lowrank:3"])
def test_stand_ins_are_fitted_on_what_hooks_see(kind: str) -> None:
    """The mean of what a sub-layer adds at written tokens, by hooks; the other kinds come nearer to it than that."""
    some, engine = texts("llama"), tiny.engine()
    _, stand = fit(engine, kind, gather(engine, some, products=kind.startswith("low")))
    model = tiny.transformers_model("llama")
    for layer in (LAYERS[2], LAYERS[5]):
        before, added = [], []
        first, last = tiny.ends(model, layer)
        hooks = [
            first.register_forward_pre_hook(lambda _, args, into=before: into.append(args[0][0])),
            last.register_forward_hook(
                lambda _, args, out, into=added: into.append((out[0] if isinstance(out, tuple) else out)[0])
            ),
        ]
        with torch.no_grad():
            for text in some:
                model(torch.tensor([[*text.prompt, *text.written[:-1]]]), use_cache=False)
        for hook in hooks:
            hook.remove()
        x, f = (
            torch.cat([one[len(text.prompt) :] for one, text in zip(seen, some, strict=True)])
            for seen in (before, added)
        )
        error = F.mse_loss(stand[layer](x), x + f)
        if kind == "mean":
            assert stand[layer].scale is None
            assert torch.nn.functional.cosine_similarity(stand[layer].shift, f.mean(0), dim=0) > 0.9999
            assert error < f.square().mean()
        else:
            assert error <= F.mse_loss(x + f.mean(0), x + f)
