"""Why a model's numbers became none: looked for once they have, since no step could bear to look for it."""

from __future__ import annotations

import torch

from litestage.core import SubLayer, TokenIds
from litestage.models import LoadedModel
from litestage.models.decoder import Hidden


@torch.inference_mode()
def not_finite(model: LoadedModel, text: TokenIds) -> str:
    """A sentence that names the model and the first sub-layer whose output is not finite on this text."""
    where: list[str] = []

    def look(layer: SubLayer, before: Hidden, after: Hidden) -> None:
        if not where and not before.isfinite().all():
            where.append("the token embedding makes others")
        if not where and not after.isfinite().all():
            where.append(f"sub-layer {layer} is the first that makes others")

    decoder, device = model.decoder, model.decoder.device
    zero = torch.zeros(1, dtype=torch.long, device=device)
    step = decoder.step(len(text), zero, decoder.new_cache(1, len(text)), zero, len(text))
    logits = decoder.forward(torch.tensor([text], device=device), step, observe=look)
    if not where and not logits.isfinite().all():
        where.append("the last norm or the output head makes others")
    if not where:
        where.append("at full depth they are, so it is what the plan leaves out or puts in its place")
    return (
        f"The logits of {model.identity.id} are no longer finite numbers, so no token can be chosen: {where[0]} "
        f"(a text of {len(text)} tokens). Check its weights; where those are sound, give --dtype fp32."
    )
