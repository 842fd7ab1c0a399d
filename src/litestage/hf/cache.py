"""A layer of transformers' cache whose attention is skipped: it has no new entries, and counts as if it had."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from transformers.cache_utils import CacheLayerMixin

from litestage.core import PlanError


class Skipped(CacheLayerMixin):  # type: ignore[misc]
    """What a cache layer becomes at the first step that skips its attention, in front of its own class.

    transformers takes a text's length, and what its masks cover, from the first layer of a kind, so a skipped one must
    tell both rightly. Its entries are not read again before a `reset`.
    """

    _layer_type = None  # transformers files classes that have one under it
    index: int
    layers: Sequence[Any]
    """All of the cache."""
    missing: int
    """Tokens that the text has and this layer has not."""

    def get_seq_length(self) -> Any:
        """In tokens, those that are missing here counted in."""
        return super().get_seq_length() + self.missing

    def get_mask_sizes(self, query_length: int) -> Any:
        """What a mask of this kind of layer covers, by a layer that has all tokens; if none has, nobody attends."""
        for layer in self.layers:
            if not isinstance(layer, Skipped) and layer.is_sliding == self.is_sliding:
                return layer.get_mask_sizes(query_length)
        return super().get_mask_sizes(query_length)

    def update(self, *states: Any, **more: Any) -> Any:
        """Raise `PlanError`: the missing tokens would lie between the entries that are here and those that come."""
        if self.missing:
            raise PlanError(
                f"This cache was written under a plan that skips attention {self.index}, which so has no keys and "
                f"values of {self.missing} tokens: going on at full depth would attend over a gap. Start the next text "
                "with a new cache."
            )
        return super().update(*states, **more)

    def crop(self, tokens_to_remove: int) -> None:
        """Of drafts that were not accepted: tokens that are not here need not be removed here."""
        missing = min(self.missing, abs(tokens_to_remove))
        self.missing -= missing
        super().crop(missing - abs(tokens_to_remove))

    def reset(self) -> None:
        self.missing = 0
        super().reset()


@lru_cache
def _skipped(kind: Any) -> Any:
    return type(f"Skipped{kind.__name__}", (Skipped, kind), {"__slots__": ()})


def skip_in(cache: Any, attentions: Sequence[int]) -> None:
    """Have the layers of these attentions count without entries from now on."""
    for index in attentions:
        layer: Any = cache.layers[index]
        if not isinstance(layer, Skipped):
            layer.__class__ = _skipped(layer.__class__)
            layer.index, layer.layers, layer.missing = index, cache.layers, 0


def advance(cache: Any, attentions: Sequence[int], tokens: int) -> None:
    """Tell the skipped layers that a forward of so many tokens a row is over."""
    for index in attentions:
        cache.layers[index].missing += tokens
