"""Engines that bring their worker down, as a fault in a kernel or too little memory would."""

from __future__ import annotations

import os
from collections.abc import Sequence

from litestage.core import Request
from litestage.engine import TorchEngine
from litestage.jobs.options import ModelOptions
from litestage.jobs.session import load_engine


class Fragile(TorchEngine):
    """Ends its process over prompts that hold some tokens in a row."""

    poison: Sequence[int] = ()

    def add(self, request: Request, *, stream: bool = False) -> int:
        ids, poison = request.prompt_ids, tuple(self.poison)
        if any(ids[start : start + len(poison)] == poison for start in range(len(ids) - len(poison) + 1)):
            os._exit(1)
        return super().add(request, stream=stream)


def fragile(options: ModelOptions, batch_size: int, poison: Sequence[int]) -> TorchEngine:
    engine = Fragile(load_engine(options, batch_size).model, batch_size=batch_size)
    engine.poison = poison
    return engine


def unlike_on(node: str, options: ModelOptions, batch_size: int) -> TorchEngine:
    """As where one of the machines is older than the others."""
    import ray

    if ray.get_runtime_context().get_node_id() == node:
        os.environ["LITESTAGE_KERNELS"] = "portable"
    return load_engine(options, batch_size)
