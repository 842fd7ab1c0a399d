"""What a text can depend on besides its request: machines that differ in any of it could write other texts."""

from __future__ import annotations

import platform
from collections.abc import Mapping

import torch

from litestage.engine import TorchEngine
from litestage.jobs.session import versions
from litestage.kernels.build import instructions

Likeness = dict[str, str]


def likeness(engine: TorchEngine) -> Likeness:
    """Of this machine with this engine, by the names that a person reads."""
    decoder, model = engine.model.decoder, engine.model
    return {
        "weights": model.identity.fingerprint,
        "tokenizer": model.tokenizer_fingerprint,
        "dtype": str(decoder.dtype).removeprefix("torch."),
        "device": _device(decoder.device),
        "kernels": "torch" if decoder.kernels is None else "litestage",
        **versions(decoder.device),
        "python": platform.python_version(),
    }


def differences(mine: Likeness, other: Mapping[str, str]) -> str:
    """In words what another machine has otherwise; empty where nothing is."""
    return "; ".join(
        f"its {name} is {_short(other.get(name, 'not known'))}, here {_short(value)}"
        for name, value in mine.items()
        if other.get(name) != value
    )


def _device(device: torch.device) -> str:
    """The GPU's name; of a processor what it computes with, by which libraries choose their code."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    return f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}, kernels for {instructions()}"


def _short(value: str) -> str:
    """A fingerprint's beginning tells it from another."""
    return value[:12] if len(value) == 64 else value
