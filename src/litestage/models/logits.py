"""What a forward's logits say besides the next token."""

from __future__ import annotations

from math import log

import torch
from jaxtyping import Float
from torch import Tensor


def entropy_bits(logits: Float[Tensor, " V"]) -> float:
    """Entropy of the next token's distribution.

    One row at a time: torch sums a row that is alone in another order than one of many, and a text must not depend on
    its neighbours.
    """
    return float(torch.special.entr(logits.float().softmax(-1)).sum()) / log(2)
