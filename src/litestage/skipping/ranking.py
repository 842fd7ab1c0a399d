"""Step 1: how redundant each sub-layer is, and the nested skip sets that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from litestage.core import OptionError, SkipSet, SubLayer, TokenIds
from litestage.core.layers import Record
from litestage.engine import TorchEngine


class Score(Record):
    """A sub-layer's redundancy: high means skip first."""

    layer: str
    redundancy: float
    by_stage: dict[str, float]


class Ranking(Record):
    """Sub-layers from the most to the least redundant."""

    scores: tuple[Score, ...]
    inputs: str = ""
    """A hash of what it was computed from, for whoever keeps it."""

    def skip_set(self, budget: int) -> SkipSet:
        """The ``budget`` most redundant sub-layers; sets of growing budgets are nested."""
        if not 0 <= budget <= len(self.scores):
            raise OptionError(f"A budget of {budget} sub-layers does not fit a model of {len(self.scores)}.")
        return frozenset(SubLayer.parse(score.layer) for score in self.scores[:budget])


def rank_sub_layers(by_stage: Mapping[str, Mapping[SubLayer, float]]) -> Ranking:
    """Average over stages and sort; ties prefer attention, then the lower block (REFERENCE, section 2)."""
    layers = next(iter(by_stage.values()))
    mean = {layer: sum(scores[layer] for scores in by_stage.values()) / len(by_stage) for layer in layers}
    order = sorted(mean, key=lambda layer: (-mean[layer], layer.kind != "attention", layer.block))
    return Ranking(
        scores=tuple(
            Score(
                layer=str(layer),
                redundancy=mean[layer],
                by_stage={stage: scores[layer] for stage, scores in by_stage.items()},
            )
            for layer in order
        )
    )


def redundancy(
    engine: TorchEngine, prompts: Sequence[TokenIds], prefixes: Sequence[TokenIds] = ()
) -> dict[SubLayer, float]:
    """Mean over prompts and their tokens of cos(x, x + f(norm(x))), in fp32, from full-depth prefill (eq. 3 and 4).

    Tokens that prompts share through ``prefixes`` are computed once and count once for each prompt.
    """
    totals: dict[SubLayer, float] = {}

    def visit(layer: SubLayer, before: Tensor, after: Tensor, weight: int) -> None:
        cosine = F.cosine_similarity(before.float(), after.float(), dim=-1)
        totals[layer] = totals.get(layer, 0.0) + weight * float(cosine.double().sum())

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
            entered[:] = [before.float()]
        else:
            cosine = F.cosine_similarity(entered[0], after.float(), dim=-1)
            totals[layer.block] += weight * float(cosine.double().sum())

    engine.scan(prompts, prefixes, visit)
    tokens = sum(len(prompt) for prompt in prompts)
    return [1 - total / tokens for total in totals]


__all__ = ["Ranking", "Score", "block_influence", "rank_sub_layers", "redundancy"]
