"""Teacher forcing: texts that were written before, run again with sub-layers left out at their generated tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from litestage.core import SubLayer, TokenIds
from litestage.core.rows import common_length
from litestage.engine.batch import prefill
from litestage.engine.engine import TorchEngine
from litestage.models.decoder import FULL, Hidden, Skips

VisitDecoded = Callable[[SubLayer, Float[Tensor, "N D"], Float[Tensor, "N D"]], None]
"""Called with a sub-layer and the residual stream before and after it, at the tokens that decode steps run."""


NOT_DECODED = (
    "None of these texts has a second token, so no decode step ran and nothing can be said of skipping in them. "
    "Give more questions, or a stage with a larger max_new_tokens."
)
"""For whoever asks what skipping does to texts that no decode step wrote."""


class Text(NamedTuple):
    """A prompt and what a model wrote behind it; a decode step runs every written token but the last."""

    prompt: TokenIds
    written: TokenIds


class Forcing:
    """A few texts in a cache of their own. Prompts are prefilled once, at full depth; then a skip set costs one forward
    over the written tokens, and computes what decoding them one by one computes.

    N counts those tokens, over all texts; each predicts the one that follows it.
    """

    def __init__(self, engine: TorchEngine, texts: Sequence[Text]) -> None:
        self.decoder = engine.model.decoder
        device = self.decoder.device
        width = max(len(text.written) for text in texts) - 1
        if width < 1:
            raise ValueError("texts of one token have no decode step")
        starts = [len(text.prompt) for text in texts]
        self._cache = self.decoder.new_cache(len(texts), max(starts) + width + 1)
        self._prefill([text.prompt for text in texts])
        rows = [(*text.written[:-1], *(0,) * (width + 1 - len(text.written))) for text in texts]
        self._tokens = torch.tensor(rows, device=device)
        self._step = self.decoder.step(
            width,
            torch.tensor(starts, device=device),
            self._cache,
            torch.arange(len(texts), device=device),
            max(start + len(text.written) - 1 for start, text in zip(starts, texts, strict=True)),
            in_place=True,
        )
        at = [row * width + i for row, text in enumerate(texts) for i in range(len(text.written) - 1)]
        self._at: Int[Tensor, " N"] = torch.tensor(at, device=device)

    def __len__(self) -> int:
        return len(self._at)

    @torch.inference_mode()
    def logits(self, skips: Skips = FULL, visit: VisitDecoded | None = None) -> Float[Tensor, "N V"]:
        """Raw logits after each token; ``visit`` is shown the sub-layers that are kept."""

        def observe(layer: SubLayer, before: Hidden, after: Hidden) -> None:
            if visit is not None:
                visit(layer, self._flat(before), self._flat(after))

        program = skips.program(self.decoder.layers)
        x = self.decoder.run(self.decoder.embed(self._tokens), self._step, program, observe)
        return self.decoder.logits(self._flat(x))

    @torch.inference_mode()
    def logits_without_one_more(
        self, skips: Skips, candidates: Sequence[SubLayer]
    ) -> Iterator[tuple[SubLayer, Float[Tensor, "N V"]]]:
        """For each kept sub-layer of ``candidates``, the logits with it left out too.

        A forward starts where it differs: at the candidate.
        """
        entered: dict[SubLayer, Hidden] = {}

        def observe(layer: SubLayer, before: Hidden, after: Hidden) -> None:
            entered[layer] = before

        layers = self.decoder.layers
        self.decoder.run(self.decoder.embed(self._tokens), self._step, skips.program(layers), observe)
        for layer in candidates:
            more = Skips(skips.everywhere | {layer}, stand=skips.stand)
            x = self.decoder.run(entered[layer], self._step, more.program(layers[layers.index(layer) :]))
            yield layer, self.decoder.logits(self._flat(x))

    def _flat(self, x: Hidden) -> Float[Tensor, "N D"]:
        return x.flatten(0, 1)[self._at]

    @torch.inference_mode()
    def _prefill(self, prompts: list[TokenIds]) -> None:
        """The beginning that all prompts share once, then what is left of each."""
        shortest = min(map(len, prompts)) - 1  # every prompt keeps a token of its own to run
        shared = min(shortest, *(common_length(prompts[0], prompt) for prompt in prompts))
        rows = list(range(len(prompts)))
        if shared:
            prefill(self.decoder, self._cache, [0], [prompts[0][:shared]], [0])
            self._cache.copy(0, rows, shared)
        prefill(self.decoder, self._cache, rows, [prompt[shared:] for prompt in prompts], [shared] * len(prompts))


def forcings(engine: TorchEngine, texts: Sequence[Text], at_once: int = 8) -> Iterator[Forcing]:
    """Texts in groups of about one length; those that no decode step ran are left out.

    Each group is made when it is asked for, because it holds a cache: keep them only to run them again.
    """
    decoded = sorted((text for text in texts if len(text.written) > 1), key=lambda t: (len(t.written), len(t.prompt)))
    return (Forcing(engine, decoded[i : i + at_once]) for i in range(0, len(decoded), at_once))


def scan_decoded(engine: TorchEngine, texts: Sequence[Text], visit: VisitDecoded) -> int:
    """Show ``visit`` every sub-layer at full depth, at the tokens that decode steps ran; returns how many those are."""
    tokens = 0
    for group in forcings(engine, texts):
        group.logits(visit=visit)
        tokens += len(group)
        del group  # its cache goes before the next one is made
    return tokens
