"""Training state on disk: written beside, then renamed, so that a kill costs the steps since the last one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from litestage.core.errors import OptionError
from litestage.core.files import write_bytes

CHECKPOINT = "checkpoint.pt"


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The weights that learn, by name: all of them, or an adapter's."""
    return {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}


def load_trainable(model: nn.Module, weights: dict[str, Tensor]) -> None:
    own = trainable(model)
    for name, weight in weights.items():
        own[name].copy_(weight)


def save(path: Path, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def damaged(path: Path, error: Exception) -> OptionError:
    return OptionError(
        f"{path} is damaged ({type(error).__name__}), so this training cannot go on from it. Delete that file to "
        "start again, or choose another --out."
    )


def load(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """The saved state, or None; raises `OptionError` when it is damaged or belongs to another run."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = state["fingerprint"]
    except Exception as error:  # torch raises whatever a broken archive makes of its reader
        raise damaged(path, error) from None
    if found != fingerprint:
        raise OptionError(
            f"{path} belongs to a run with another recipe, model, plan or question set (those of --validation count "
            "too), so it cannot be resumed here. Choose another --out, or delete that folder."
        )
    return state
