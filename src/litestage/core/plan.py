"""Stage plans and plans: what decoding may leave out, as data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, model_validator

from litestage.core.certificate import Certificate
from litestage.core.complaints import RepeatedError, once, problem, shown
from litestage.core.errors import OptionError, PlanError
from litestage.core.exits import EXIT_FIELDS, ExitRule
from litestage.core.files import write_text
from litestage.core.layers import Record, Segment, SkipSchedule, SkipSet, num_runs
from litestage.core.shown import Shown

SCHEMA_VERSION = 1
PLAN_FILE = "plan.json"


COMPENSATIONS = ("none", "norm_ratio", "mean", "affine", "lowrank:R")
"""Kinds of compensation; R is a rank."""
_OPERATIONS = {"none": 0, "norm_ratio": 1, "mean": 1, "affine": 2, "lowrank": 4}


def check_compensation(kind: str) -> str:
    """The kind; raises `OptionError` for one that is not known."""
    if kind not in COMPENSATIONS[:-1] and not re.fullmatch("lowrank:[1-9][0-9]{0,4}", kind):
        raise OptionError(
            f"compensation {shown(kind)} is not known. Choose {', '.join(COMPENSATIONS)}, where R is a rank such as 16."
        )
    return kind


def _check_kind(kind: str) -> str:
    try:
        return check_compensation(kind)
    except OptionError as error:
        raise ValueError(str(error)) from None


CompensationKind = Annotated[str, AfterValidator(_check_kind)]


class Compensation(Record):
    """What stands in for skipped sub-layers, named by kind and content; the numbers lie beside the plan."""

    kind: CompensationKind = "none"
    content: str | None = Field(default=None, pattern="^[0-9a-z_:]+$")
    """SHA-256 of the numbers; None for ``none``."""

    @model_validator(mode="after")
    def _names_its_numbers(self) -> Compensation:
        if (self.kind == "none") != (self.content is None):
            raise ValueError(f"compensation {self.kind} with content {self.content}: only none has no numbers")
        return self

    def operations(self, skipped: SkipSet) -> int:
        """Tensor operations that a decode step runs in place of ``skipped``: runs of sub-layers fold into one."""
        return _OPERATIONS[self.kind.partition(":")[0]] * num_runs(skipped)


class StagePlan(Record):
    """How one stage decodes. The default is full depth without exit."""

    schedule: SkipSchedule = SkipSchedule()
    compensation: Compensation = Compensation()
    exit: ExitRule | None = None
    left_out: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether the stage is not run at all, and later prompts go without its text; not written where it is not."""

    @property
    def is_full_depth(self) -> bool:
        """Whether nothing is left out, and no text is ended early."""
        return not (self.left_out or self.schedule.num_skipped or self.exit)

    @model_validator(mode="after")
    def _one_or_the_other(self) -> StagePlan:
        if self.left_out and (self.schedule.num_skipped or self.exit):
            raise ValueError("a stage that is left out skips no sub-layer and has no exit rule")
        return self


FULL_DEPTH = StagePlan()


class ModelIdentity(Record):
    """Which model a plan belongs to: its id as the user wrote it and the SHA-256 of its weights and layout."""

    id: str
    fingerprint: str
    num_blocks: int


class Plan(Record, Shown):
    """A stage plan for each stage of one task on one model, with the evidence it rests on."""

    schema_version: int = SCHEMA_VERSION
    model: ModelIdentity
    task: str
    task_fingerprint: str
    stages: dict[str, StagePlan]
    target: dict[str, Any] = Field(default_factory=dict)
    """What was asked of the search: max_drop in points, step, latency kind, ..."""
    evidence: dict[str, Any] = Field(default_factory=dict)
    """What was measured: split, n, accuracies, latencies, hardware, versions, dtype."""
    certificate: Certificate | None = Field(default=None, exclude_if=lambda value: value is None)
    """What is promised of the plan; a plan without a certificate is written as before there were any."""

    def __hash__(self) -> int:
        return hash(content_hash(self.model_dump(mode="json")))

    @classmethod
    def full_depth(cls, model: ModelIdentity, task: str, task_fingerprint: str) -> Plan:
        """The plan that leaves nothing out."""
        return cls(model=model, task=task, task_fingerprint=task_fingerprint, stages={})

    def stage(self, name: str) -> StagePlan:
        """The plan of a stage; full depth for one that the plan does not name."""
        return self.stages.get(name, FULL_DEPTH)

    def check_fits(self, model: ModelIdentity, task: str, task_fingerprint: str, stages: Sequence[str]) -> None:
        """Raise `PlanError` naming what differs from the model and task at hand."""
        if self.model.fingerprint != model.fingerprint:
            raise PlanError(
                f"The plan was searched on {self.model.id} (weights {self.model.fingerprint[:12]}), "
                f"but the model here is {model.id} (weights {model.fingerprint[:12]}): its sub-layers would be the "
                "wrong ones. Use the plan's model, or search a plan for this one."
            )
        if (self.task, self.task_fingerprint) != (task, task_fingerprint):
            what = f"task {task}" if self.task != task else f"a changed version of task {task}"
            raise PlanError(
                f"The plan was searched for task {self.task}, but this is {what}: its stages differ. "
                "Use the plan's task, or search a plan for this one."
            )
        if self.model.num_blocks != model.num_blocks:
            raise PlanError(
                f"The plan says that its model has {self.model.num_blocks} blocks, but {model.id} has "
                f"{model.num_blocks}: its budgets would mean something else. Search the plan again."
            )
        for name, stage in self.stages.items():
            if name not in stages:
                raise PlanError(
                    f"The plan has a stage {name!r}, which task {task} has not (its stages are {', '.join(stages)}): "
                    "that stage's skips would be lost. Correct the name, or search the plan again."
                )
            try:
                stage.schedule.check_fits(model.num_blocks)
            except OptionError as error:
                raise PlanError(f"The plan's stage {name} does not fit: {error} Search the plan again.") from None
        if stages and self.stage(stages[-1]).left_out:
            raise PlanError(
                f"The plan leaves out stage {stages[-1]}, which gives task {task}'s answer. Search the plan again."
            )
        for name in stages:
            if name not in self.stages:
                raise PlanError(
                    f"The plan lacks stage {name} of task {task}, which would run at full depth unnoticed. "
                    f'Add it under "stages" ("{name}": {{}} is full depth), or search the plan again.'
                )

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write ``plan.json`` into ``folder``, whole or not at all; returns its path."""
        path = Path(folder) / PLAN_FILE
        write_text(path, self.model_dump_json(indent=2) + "\n")
        return path

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Plan:
        """Read a plan folder (or its ``plan.json``); raises `PlanError` that names what is wrong."""
        path = Path(folder)
        path = path / PLAN_FILE if path.is_dir() else path
        try:
            text = path.read_text(encoding="utf-8")
            content = json.loads(text, object_pairs_hook=once)
        except OSError as error:
            raise PlanError(f"No plan at {path} ({error.strerror}). `litestage search --out DIR` writes one.") from None
        except RepeatedError as error:
            raise PlanError(f"{path}: {error}. Leave one out.") from None
        except (ValueError, RecursionError) as error:
            raise PlanError(
                f"{path} is not JSON ({error}), so no plan can be read from it. Search the plan again."
            ) from None
        return cls._parse(text, content, path)

    @classmethod
    def _parse(cls, text: str, content: Any, path: Path) -> Plan:
        if not isinstance(content, dict):
            raise PlanError(f"{path} is not a plan: a plan is one object. `litestage search --out DIR` writes one.")
        version = content.get("schema_version")
        if version != SCHEMA_VERSION:
            raise PlanError(
                f"{path} has schema version {version!r}; this litestage reads version {SCHEMA_VERSION}. "
                "Search the plan again with this version."
            )
        try:
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            raise PlanError(
                f"{path}: {problem(error, content, _fields(content))}. Correct it, or search the plan again."
            ) from None


def _fields(content: dict[str, Any]) -> dict[str, Iterable[str]]:
    """The fields of each part of a plan file, for messages; a stage is called as its task likes."""
    stages = content.get("stages")
    return {
        **dict.fromkeys(stages if isinstance(stages, dict) else (), StagePlan.model_fields),
        "": Plan.model_fields,
        "model": ModelIdentity.model_fields,
        "schedule": SkipSchedule.model_fields,
        "segments": Segment.model_fields,
        "compensation": Compensation.model_fields,
        **EXIT_FIELDS,
        "certificate": Certificate.model_fields,
    }


def content_hash(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
