"""Sub-layers in the order in which they are left out."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from litestage.core.errors import OptionError
from litestage.core.layers import Record, SkipSet, SubLayerField


class RankedLayer(Record):
    """A sub-layer's redundancy: high means skip first."""

    layer: SubLayerField
    redundancy: float
    """A cosine; for probes minus the KL, in nats a token, of leaving it out (greedy: on top of those before)."""
    by_stage: dict[str, float] = Field(default_factory=dict)
    agreement: float | None = None
    """Where it was probed: share of tokens, 0 to 1, that stay the full model's."""


class Ranking(Record):
    """Sub-layers from the most to the least redundant."""

    scores: tuple[RankedLayer, ...]

    @model_validator(mode="before")
    @classmethod
    def _from_before(cls, content: Any) -> Any:
        """Earlier versions kept a hash of what it was computed from beside the scores."""
        older = isinstance(content, dict) and content.keys() == {"scores", "inputs"}
        return {"scores": content["scores"]} if older else content

    def skip_set(self, budget: int) -> SkipSet:
        """The ``budget`` most redundant sub-layers; sets of growing budgets are nested."""
        if not 0 <= budget <= len(self.scores):
            raise OptionError(f"A budget of {budget} sub-layers does not fit a model of {len(self.scores)}.")
        return frozenset(score.layer for score in self.scores[:budget])
