"""Step 1: how redundant each sub-layer is, and the nested skip sets that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from litestage.core import OptionError, RankedLayer, Ranking, SubLayer, TokenIds
from litestage.engine import TorchEngine
from litestage.engine.forcing import NOT_DECODED, Text, scan_decoded
from litestage.skipping.probe import Effect


def rank_sub_layers(by_stage: Mapping[str, Mapping[SubLayer, float]]) -> Ranking:
    """Average over stages (the paper, section 4.2) and sort; ties prefer attention, then the lower block."""
    layers = next(iter(by_stage.values()))
    mean = {layer: sum(scores[layer] for scores in by_stage.values()) / len(by_stage) for layer in layers}
    order = sorted(mean, key=lambda layer: (-mean[layer], layer.kind != "attention", layer.block))
    return Ranking(
        scores=tuple(
            RankedLayer(
                layer=layer,
                redundancy=mean[layer],
                by_stage={stage: scores[layer] for stage, scores in by_stage.items()},
            )
            for layer in order
        )
    )


@dataclass(frozen=True)
class RankingKind:
    """How sub-layers are ranked: by which measure, at which positions, and for all stages alike or each by itself."""

    measure: Literal["cosine", "probe", "greedy"]
    at: Literal["prompt", "decoded"]
    pooled: bool


RANKINGS: dict[str, RankingKind] = {
    "cosine": RankingKind("cosine", "prompt", pooled=True),
    "cosine_by_stage": RankingKind("cosine", "prompt", pooled=False),
    "cosine_decoded": RankingKind("cosine", "decoded", pooled=False),
    "probe": RankingKind("probe", "decoded", pooled=False),
    "probe_pooled": RankingKind("probe", "decoded", pooled=True),
    "greedy": RankingKind("greedy", "decoded", pooled=False),
    "greedy_pooled": RankingKind("greedy", "decoded", pooled=True),
}
"""By name; ``cosine`` is the paper's."""


def rank_by_effect(effects: Sequence[tuple[SubLayer, Effect]], stage: str) -> Ranking:
    """Sub-layers in the order given, with what leaving them out did."""
    return Ranking(
        scores=tuple(
            RankedLayer(layer=layer, redundancy=-e.kl, by_stage={stage: -e.kl}, agreement=e.agreement)
            for layer, e in effects
        )
    )


def decoded_redundancy(engine: TorchEngine, texts: Sequence[Text]) -> dict[SubLayer, float]:
    """As `redundancy`, at the tokens that decode steps ran."""
    totals: dict[SubLayer, float] = {}

    def visit(layer: SubLayer, before: Tensor, after: Tensor) -> None:
        totals[layer] = totals.get(layer, 0.0) + _cosines(before, after)

    tokens = scan_decoded(engine, texts, visit)
    if not tokens:
        raise OptionError(NOT_DECODED)
    return {layer: total / tokens for layer, total in totals.items()}


def redundancy(
    engine: TorchEngine, prompts: Sequence[TokenIds], prefixes: Sequence[TokenIds] = ()
) -> dict[SubLayer, float]:
    """Mean over prompts and their tokens of cos(x, x + f(norm(x))), in fp32, from full-depth prefill (eq. 3 and 4).

    Tokens that prompts share through ``prefixes`` are computed once and count once for each prompt.
    """
    totals: dict[SubLayer, float] = {}

    def visit(layer: SubLayer, before: Tensor, after: Tensor, weight: int) -> None:
        totals[layer] = totals.get(layer, 0.0) + weight * _cosines(before, after)

    engine.scan(prompts, prefixes, visit)
    tokens = sum(len(prompt) for prompt in prompts)
    return {layer: total / tokens for layer, total in totals.items()}


def block_influence(engine: TorchEngine, prompts: Sequence[TokenIds], prefixes: Sequence[TokenIds] = ()) -> list[float]:
    """ShortGPT's score of each block: 1 - mean over tokens of cos(block input, block output), in fp32.

    Shared tokens count as in `redundancy`.
    """
    totals = [0.0] * engine.identity.num_blocks
    entered: list[Tensor] = []

    def visit(layer: SubLayer, before: Tensor, after: Tensor, weight: int) -> None:
        if layer.kind == "attention":
            entered[:] = [before]
        else:
            totals[layer.block] += weight * _cosines(entered[0], after)

    engine.scan(prompts, prefixes, visit)
    tokens = sum(len(prompt) for prompt in prompts)
    return [1 - total / tokens for total in totals]


def _cosines(before: Float[Tensor, "N D"], after: Float[Tensor, "N D"]) -> float:
    """The sum over tokens of cos(before, after): each in fp32, summed in double, which Apple's GPUs do not have."""
    return float(F.cosine_similarity(before.float(), after.float(), dim=-1).cpu().double().sum())
