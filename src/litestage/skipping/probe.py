"""What leaving sub-layers out does to tokens, by teacher forcing the model's own full-depth texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from litestage.core import EMPTY, OptionError, SkipSet, SubLayer
from litestage.engine import TorchEngine
from litestage.engine.forcing import NOT_DECODED, Forcing, Text, forcings
from litestage.models.decoder import CompensationWeights, Skips

GREEDY_ENDS = 0.5
"""Agreement below which greedy removal ends: such a set changes every second token."""
ROUGH = 0.25
"""Share of the texts, in groups, that all candidates of a removal are tried on; the better third is tried on all."""
CACHED = 4
"""Tokens whose logits are compared at once on a processor: with more they leave its caches, and take twice as long."""


@dataclass(frozen=True)
class Effect:
    """What a skip set does at the tokens that decode steps run."""

    kl: float
    """Mean over tokens of KL(full || skipped), in nats."""
    agreement: float
    """Share of tokens, 0 to 1, whose likeliest successor stays the full model's."""
    tokens: int


class Probe:
    """Texts of one stage, ready to be run under any skip set."""

    def __init__(self, engine: TorchEngine, texts: Sequence[Text], at_once: int = 8) -> None:
        self.layers = engine.model.decoder.layers
        self.groups = list(forcings(engine, texts, at_once))
        if not self.groups:
            raise OptionError(NOT_DECODED)

    def effect(self, skipped: SkipSet, stand: CompensationWeights | None = None) -> Effect:
        """What skipping ``skipped`` does, with ``stand`` in its place."""
        skips = Skips(skipped, stand=stand or {})
        return _mean([_Reference(group.logits()).effect(group.logits(skips)) for group in self.groups])

    def without_one_more(
        self,
        skipped: SkipSet,
        stand: CompensationWeights,
        candidates: Iterable[SubLayer],
        groups: Sequence[Forcing] | None = None,
    ) -> dict[SubLayer, Effect]:
        """What each candidate does on top of what is skipped already."""
        effects: dict[SubLayer, list[Effect]] = {layer: [] for layer in candidates}
        for group in self.groups if groups is None else groups:
            full = _Reference(group.logits())
            skips = Skips(skipped, stand=stand)
            for layer, logits in group.logits_without_one_more(skips, list(effects)):
                effects[layer].append(full.effect(logits))
        return {layer: _mean(some) for layer, some in effects.items()}


def effect_of(pairs: Iterable[tuple[Forcing, Forcing]]) -> Effect:
    """What another form of a model does to the same texts: the reference's, then its own."""
    return _mean([_Reference(reference.logits()).effect(other.logits()) for reference, other in pairs])


def probe(probes: Probe, stand: CompensationWeights | None = None) -> dict[SubLayer, Effect]:
    """What each sub-layer does when it alone is left out."""
    return probes.without_one_more(EMPTY, stand or {}, probes.layers)


def greedy(
    probes: Probe,
    stand: CompensationWeights | None = None,
    ends: float = GREEDY_ENDS,
    on_removal: Callable[[], None] | None = None,
) -> list[tuple[SubLayer, Effect]]:
    """Sub-layers in the order of the least harm on top of those before, with what all of them together do.

    When a set's agreement falls below ``ends``, the rest follow by what each did last.
    """
    removed: list[tuple[SubLayer, Effect]] = []
    stand = stand or {}
    every = round(1 / ROUGH)
    few = probes.groups[min(len(probes.groups) // 2, every // 2) :: every]  # groups go by length: none of the ends
    while left := [layer for layer in probes.layers if layer not in dict(removed)]:
        skipped = frozenset(dict(removed))
        rough = probes.without_one_more(skipped, stand, left, few)
        best = _least_harmful(rough)[: max(1, len(left) // 3)]
        whole = rough if few == probes.groups else probes.without_one_more(skipped, stand, best)
        layer = _least_harmful(whole)[0]
        removed.append((layer, whole[layer]))
        if on_removal is not None:
            on_removal()
        if whole[layer].agreement < ends:
            rest = [other for other in _least_harmful(rough) if other != layer]
            return [*removed, *((other, rough[other]) for other in rest)]
    return removed


def _least_harmful(effects: dict[SubLayer, Effect]) -> list[SubLayer]:
    return sorted(effects, key=lambda layer: (effects[layer].kl, layer))


class _Reference:
    """What the full model says at some tokens, for many skip sets to be held against."""

    def __init__(self, logits: Float[Tensor, "N V"]) -> None:
        self.rows = CACHED if logits.device.type == "cpu" else len(logits)
        self.likeliest = torch.cat([some.max(-1).indices for some in torch.split(logits, self.rows)])
        self.log = torch.cat([F.log_softmax(some.float(), dim=-1) for some in torch.split(logits, self.rows)])

    def effect(self, logits: Float[Tensor, "N V"]) -> Effect:
        kl, same, count = 0.0, 0, len(logits)
        parts = (torch.split(tensor, self.rows) for tensor in (self.log, self.likeliest, logits))
        for log, likeliest, skipped in zip(*parts, strict=True):
            log_skipped = F.log_softmax(skipped.float(), dim=-1)
            kl += float(F.kl_div(log_skipped, log, log_target=True, reduction="sum"))
            same += int((likeliest == skipped.max(-1).indices).sum())
        return Effect(kl / count, same / count, count)


def _mean(effects: Sequence[Effect]) -> Effect:
    if not effects:
        raise OptionError(NOT_DECODED)
    tokens = sum(effect.tokens for effect in effects)
    kl = sum(effect.kl * effect.tokens for effect in effects) / tokens
    return Effect(kl, sum(effect.agreement * effect.tokens for effect in effects) / tokens, tokens)
