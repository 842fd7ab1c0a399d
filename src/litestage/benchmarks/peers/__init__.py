"""Other engines, timed beside ours on the same weights, where they are installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import torch

from litestage.benchmarks.peers.batches import BatchEngine, Steps
from litestage.benchmarks.peers.elsewhere import APART, Elsewhere, ElsewhereEngine, Process
from litestage.benchmarks.peers.of_llama_cpp import LlamaCpp
from litestage.benchmarks.peers.of_transformers import TransformersEngine, transformers_steps
from litestage.core import OptionError
from litestage.models import catalog

TRANSFORMERS, LLAMA_CPP = "transformers", "llama.cpp"
PEERS = (TRANSFORMERS, LLAMA_CPP, *(peer.name for peer in APART))


def usable_peers(wanted: str, model: str, device: torch.device) -> list[str]:
    """The peers named, separated by commas; ``all`` are those that run here, ``none`` none.

    Those that run elsewhere take a minute or more to start, so they are never among ``all``.
    """
    if wanted == "none":
        return []
    reasons = {LLAMA_CPP: _why_not_llama(model, device)} | {one.name: one.why_not(device.type) for one in APART}
    if wanted == "all":
        return [TRANSFORMERS, *([] if reasons[LLAMA_CPP] else [LLAMA_CPP])]
    for name in wanted.split(","):
        if name not in PEERS:
            raise OptionError(f"--peers {name} is not known. Choose from {', '.join(PEERS)}; all; or none.")
        if reason := reasons.get(name):
            raise OptionError(f"--peers {name} cannot run: {reason}")
    return wanted.split(",")


def apart(names: Sequence[str]) -> list[Elsewhere]:
    """Those of the peers named that run in an environment of their own."""
    return [one for one in APART if one.name in names]


def _why_not_llama(model: str, device: torch.device) -> str | None:
    if find_spec("llama_cpp") is None:
        return "llama-cpp-python is not installed. pip install llama-cpp-python, or leave it out."
    if catalog.resolve(model).suffix.lower() != ".gguf":
        return f"it reads GGUF files, and {model} is none. Give one as --model, or leave it out."
    if device.type != "cpu":
        return "it is timed on the CPU alone. Add --device cpu, or leave it out."
    return None


__all__ = [
    "APART",
    "LLAMA_CPP",
    "PEERS",
    "TRANSFORMERS",
    "BatchEngine",
    "Elsewhere",
    "ElsewhereEngine",
    "LlamaCpp",
    "Process",
    "Steps",
    "TransformersEngine",
    "apart",
    "transformers_steps",
    "usable_peers",
]
