"""What stands in for skipped sub-layers: fitted on texts of the full model, stored beside the plan."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from litestage.core import Compensation, OptionError, PlanError, SubLayer, TokenIds
from litestage.core.files import write_bytes
from litestage.engine import TorchEngine
from litestage.engine.forcing import Text, scan_decoded
from litestage.models.decoder import Affine, CompensationWeights
from litestage.skipping.moments import Moments

PARTS = ("scale", "shift", "down", "up")


def gather(engine: TorchEngine, texts: Sequence[Text], products: bool = False) -> dict[SubLayer, Moments]:
    """What every sub-layer reads and adds at the tokens that the full model's decode steps ran, in one pass.

    ``products`` are what ``lowrank:R`` needs beside.
    """
    moments: dict[SubLayer, Moments] = {}

    def visit(layer: SubLayer, before: Tensor, after: Tensor) -> None:
        seen = moments.setdefault(layer, Moments(before.shape[-1], before.device, products))
        seen.add(before, after - before)

    scan_decoded(engine, texts, visit)
    return moments


def fit(
    engine: TorchEngine, kind: str, moments: Mapping[SubLayer, Moments]
) -> tuple[Compensation, CompensationWeights]:
    """A stand-in for every sub-layer, shrunk towards nothing by as much as its error on so few tokens says.

    ``mean`` adds the mean of what the sub-layer adds, ``affine`` a line for each channel, ``lowrank:R`` a ridge
    regression of rank R (`Moments`).
    """
    name, _, rank = kind.partition(":")
    solve: dict[str, Callable[[Moments], Affine]] = {
        "mean": Moments.mean,
        "affine": Moments.affine,
        "lowrank": lambda moments: moments.low_rank(int(rank)),
    }
    if name not in solve:
        raise OptionError(f"{kind} is not fitted on written texts. Choose mean, affine or lowrank:R.")
    return _named(engine, kind, {layer: solve[name](seen) for layer, seen in moments.items()})


def fit_norm_ratio(engine: TorchEngine, prompts: Sequence[TokenIds]) -> tuple[Compensation, CompensationWeights]:
    """AdaSkip's scale: the mean over prompts of ||x + f(norm(x))|| / ||x||, Frobenius over the prompt's tokens."""
    ratios: dict[SubLayer, list[float]] = {}

    def visit(layer: SubLayer, before: Tensor, after: Tensor, weight: int) -> None:
        ratios.setdefault(layer, []).extend([float(after.float().norm() / before.float().norm())] * weight)

    engine.scan(prompts, (), visit)
    scales = {layer: torch.tensor(sum(seen) / len(seen)) for layer, seen in ratios.items()}
    return _named(engine, "norm_ratio", {layer: Affine(scale=scale) for layer, scale in scales.items()})


def _named(engine: TorchEngine, kind: str, stand: CompensationWeights) -> tuple[Compensation, CompensationWeights]:
    """The numbers as the engine computes with them, and what a plan calls them."""
    decoder = engine.model.decoder
    cast = _cast(_tensors(stand), decoder.device, decoder.dtype)
    return Compensation(kind=kind, content=_content(_tensors(cast))), cast


def save_stand(folder: Path, compensation: Compensation, stand: CompensationWeights) -> None:
    """Write the numbers beside the plan, under the name that the plan knows them by."""
    if compensation.content is not None:
        write_bytes(_path(folder, compensation), save(_tensors(stand), metadata={"kind": compensation.kind}))


def load_stands(folder: Path, compensations: Sequence[Compensation], engine: TorchEngine) -> None:
    """Read what a plan's stages name into the engine; raises `PlanError` when numbers are missing or changed."""
    decoder = engine.model.decoder
    for compensation in {c for c in compensations if c.content is not None}:
        engine.stands[compensation.content or ""] = read_compensation(
            folder, compensation, decoder.device, decoder.dtype
        )


def read_compensation(
    folder: Path, compensation: Compensation, device: torch.device, dtype: torch.dtype
) -> CompensationWeights:
    """The numbers that lie beside a plan; raises `PlanError` when they are missing or changed."""
    path = _path(folder, compensation)
    if not path.is_file():
        raise PlanError(
            f"{path} is missing: the plan's {compensation.kind} compensation needs its numbers. "
            "Copy the whole plan folder."
        )
    if _content(numbers := _read(path)) != compensation.content:
        raise PlanError(f"{path} does not hold the numbers that the plan was searched with. Search the plan again.")
    return _cast(numbers, device, dtype)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        numbers: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise PlanError(f"{path} cannot be read ({error}). Copy the plan folder again, or search again.") from None
    return numbers


def _path(folder: Path, compensation: Compensation) -> Path:
    return folder / f"compensation-{(compensation.content or '')[:16]}.safetensors"


def _tensors(stand: CompensationWeights) -> dict[str, Tensor]:
    """Tensors by name, in fp32 after rounding to what the engine computes with."""
    return {
        f"{layer}:{part}": tensor.float().cpu().contiguous()
        for layer, affine in stand.items()
        for part in PARTS
        if (tensor := getattr(affine, part)) is not None
    }


def _cast(numbers: dict[str, Tensor], device: torch.device, dtype: torch.dtype) -> CompensationWeights:
    """Stand-ins from tensors by name, where and in what a model computes."""
    parts: dict[SubLayer, dict[str, Tensor]] = {}
    for name, tensor in numbers.items():
        layer, _, part = name.rpartition(":")
        parts.setdefault(SubLayer.parse(layer), {})[part] = tensor.to(device, dtype)
    return {layer: Affine(**some) for layer, some in parts.items()}


def _content(numbers: dict[str, Tensor]) -> str:
    """SHA-256 of the numbers as they are stored, whatever the engine computes with."""
    digest = hashlib.sha256()
    for name, tensor in sorted(numbers.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()
