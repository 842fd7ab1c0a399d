"""A plan's folder as transformers' users know folders: here or on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel

from litestage.core import Compensation, Plan, PlanError, StagePlan, SubLayer
from litestage.core.plan import PLAN_FILE
from litestage.hf.hub import write_repository
from litestage.models.convert import fingerprint
from litestage.models.decoder import Affine
from litestage.skipping import read_compensation

FINGERPRINTS: WeakKeyDictionary[nn.Module, tuple[object, str]] = WeakKeyDictionary()
"""Of models that plans were applied to, and where the weights lay then and how often they had been changed: hashing
all of them takes a second for every few hundred megabytes."""


@dataclass(frozen=True)
class PlanFolder:
    """A plan with the numbers that lie beside it."""

    plan: Plan
    folder: Path

    def stage(self, name: str) -> StagePlan:
        """The plan of a stage; raises `PlanError` for one that the plan does not name."""
        if name not in self.plan.stages:
            raise PlanError(f"The plan has no stage {name!r}. Its stages are {', '.join(self.plan.stages)}.")
        if (stage := self.plan.stages[name]).left_out:
            raise PlanError(f"The plan leaves stage {name} out: its text is not generated at all.")
        return stage

    def check_fits(self, model: PreTrainedModel, num_blocks: int, by_weights: bool = True) -> None:
        """Raise `PlanError` when the plan was searched on another model, told by its weights or its size alone."""
        of = self.plan.model
        if of.num_blocks != num_blocks:
            raise PlanError(
                f"The plan was searched on {of.id}, which has {of.num_blocks} blocks, but this model has {num_blocks}: "
                "its sub-layers would be the wrong ones. Use the plan's model, or search a plan for this one."
            )
        if by_weights and (found := _fingerprint(model)) != of.fingerprint:
            raise PlanError(
                f"The plan was searched on {of.id} (weights {of.fingerprint[:12]}), but this model's weights are "
                f"{found[:12]}. Use the plan's model. If these are its weights in another form (fewer bits, adapters "
                "that are not merged), say check=False."
            )

    def save(self, folder: str | Path, name: str | None = None) -> Path:
        """Write the plan as a repository that `generate` loads by ``name`` (the folder's own path without one)."""
        target = Path(folder)
        write_repository(self.plan, self.folder, target, name or str(target.resolve()))
        return target

    def push_to_hub(self, repo_id: str, **settings: Any) -> str:
        """Write the plan and its card to the hub; ``settings`` are `huggingface_hub.HfApi`'s, such as ``token``.

        Returns the address of the repository.
        """
        from huggingface_hub import HfApi

        hub = HfApi(**settings)
        place = hub.create_repo(repo_id, exist_ok=True)
        with TemporaryDirectory() as folder:
            self.save(folder, place.repo_id)
            hub.upload_folder(repo_id=place.repo_id, folder_path=folder, commit_message="A litestage plan")
        return str(place)

    def compensation_weights(
        self, compensation: Compensation, device: torch.device, dtype: torch.dtype
    ) -> dict[SubLayer, Affine]:
        """What stands in for skipped sub-layers, where and in what the model computes."""
        if compensation.content is None:
            return {}
        return dict(read_compensation(self.folder, compensation, device, dtype))


def load_plan(place: str | Path) -> PlanFolder:
    """A plan from its folder, or from the hub by an id such as ``someone/smollm2-obqa-plan``."""
    if not isinstance(place, (str, Path)):
        raise PlanError(f"A plan is given by its folder or its hub id, not as {type(place).__name__}.")
    path = Path(place).expanduser()
    if path.is_file():
        path = path.parent
    if not path.exists() and isinstance(place, str) and place.count("/") == 1 and not place.startswith((".", "~")):
        path = _from_hub(place)
    return PlanFolder(Plan.from_pretrained(path), path)


def _from_hub(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo_id, allow_patterns=[PLAN_FILE, "compensation-*.safetensors"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise PlanError(
            f"There is no folder {repo_id} here, and no plan of that name could be fetched from the hub "
            f"({type(error).__name__}). Check the name and the network."
        ) from None


def _fingerprint(model: PreTrainedModel) -> str:
    state = [(weight.data_ptr(), weight._version) for weight in model.parameters()]
    known, found = FINGERPRINTS.get(model, (None, ""))
    if known != state:
        FINGERPRINTS[model] = state, (found := fingerprint(model))
    return found
