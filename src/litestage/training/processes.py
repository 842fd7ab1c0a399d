"""The processes that train together: one, or the several that ``accelerate launch`` starts."""

from __future__ import annotations

from functools import cache

import torch
from accelerate import PartialState


@cache
def process_group() -> PartialState:
    """Who this process is among them. (On processors accelerate has to be told so to look for others.)"""
    return PartialState(cpu=not torch.cuda.is_available())
