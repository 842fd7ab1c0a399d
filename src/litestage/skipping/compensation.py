"""What stands in for skipped sub-layers: fitted on prompts, stored beside the plan."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from litestage.core import Compensation, PlanError, SubLayer, TokenIds
from litestage.core.files import write_bytes
from litestage.engine import TorchEngine
from litestage.models.decoder import Affine, Stand


def fit_norm_ratio(engine: TorchEngine, prompts: Sequence[TokenIds]) -> tuple[Compensation, Stand]:
    """AdaSkip's scale: the mean over prompts of ||x + f(norm(x))|| / ||x||, Frobenius over the prompt's tokens."""
    ratios: dict[SubLayer, list[float]] = {}

    def visit(layer: SubLayer, before: Tensor, after: Tensor, weight: int) -> None:
        ratios.setdefault(layer, []).extend([float(after.float().norm() / before.float().norm())] * weight)

    engine.scan(prompts, (), visit)
    decoder = engine.model.decoder
    stand = {
        layer: Affine(scale=torch.tensor(sum(seen) / len(seen), dtype=decoder.dtype, device=decoder.device))
        for layer, seen in ratios.items()
    }
    return Compensation(kind="norm_ratio", content=_content(_tensors(stand))), stand


def save_stand(folder: Path, compensation: Compensation, stand: Stand) -> None:
    """Write the numbers beside the plan, under the name that the plan knows them by."""
    if compensation.content is not None:
        write_bytes(_path(folder, compensation), save(_tensors(stand), metadata={"kind": compensation.kind}))


def load_stands(folder: Path, compensations: Sequence[Compensation], engine: TorchEngine) -> None:
    """Read what a plan's stages name into the engine; raises `PlanError` when numbers are missing or changed."""
    decoder = engine.model.decoder
    for compensation in {c for c in compensations if c.content is not None}:
        path = _path(folder, compensation)
        if not path.is_file():
            raise PlanError(
                f"{path} is missing: the plan's {compensation.kind} compensation needs its numbers. "
                "Copy the whole plan folder."
            )
        if _content(numbers := _read(path)) != compensation.content:
            raise PlanError(f"{path} does not hold the numbers that the plan was searched with. Search the plan again.")
        engine.stands[compensation.content or ""] = {
            SubLayer.parse(name.removesuffix(":scale")): Affine(scale=tensor.to(decoder.device, decoder.dtype))
            for name, tensor in numbers.items()
        }


def _read(path: Path) -> dict[str, Tensor]:
    try:
        numbers: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise PlanError(f"{path} cannot be read ({error}). Copy the plan folder again, or search again.") from None
    return numbers


def _path(folder: Path, compensation: Compensation) -> Path:
    return folder / f"compensation-{(compensation.content or '')[:16]}.safetensors"


def _tensors(stand: Stand) -> dict[str, Tensor]:
    """Tensors by name, in fp32 after rounding to what the engine computes with."""
    return {f"{layer}:scale": affine.scale.float().cpu() for layer, affine in stand.items() if affine.scale is not None}


def _content(numbers: dict[str, Tensor]) -> str:
    """SHA-256 of the numbers as they are stored, whatever the engine computes with."""
    digest = hashlib.sha256()
    for name, tensor in sorted(numbers.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()
