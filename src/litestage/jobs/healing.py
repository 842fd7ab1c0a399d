"""Training under a plan: what it leaves out, and the same plan for the model that comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from litestage.core import ModelIdentity, OptionError, Plan
from litestage.core.plan import content_hash
from litestage.engine import TorchEngine
from litestage.jobs.options import TrainingOptions
from litestage.jobs.session import load_plan, plan_by_hand
from litestage.models import Skips
from litestage.models.decoder import CompensationWeights
from litestage.skipping import save_stand
from litestage.tasks import Task
from litestage.training import Healing, TrainingReport


@dataclass(frozen=True)
class Healed:
    """A plan that a model learns to live with."""

    plan: Plan
    stands: Mapping[str, CompensationWeights]
    """By content, as an engine keeps them."""
    stages: tuple[str, ...]

    @classmethod
    def load(cls, options: TrainingOptions, engine: TorchEngine, task: Task) -> Healed:
        """A plan folder, or full depth, with sets by hand over it.

        Raises `PlanError` when it is of another model or task than ``engine`` has, `OptionError` for a plan that skips
        nothing, or more and more as a text grows.
        """
        full, folder = Plan.full_depth(engine.identity, task.name, task.fingerprint), options.plan
        base = _read(folder, engine, task) if folder else full
        plan = plan_by_hand(base, task, options.skip)
        if any(len(stage.schedule.segments) > 1 for stage in plan.stages.values()):
            raise OptionError(
                f"--plan {folder} skips other sub-layers as a text grows. Give a plan of `litestage search`."
            )
        if not any(stage.schedule.num_skipped for stage in plan.stages.values()):
            raise OptionError(f"--plan {folder} leaves no sub-layer out, so there is nothing to heal.")
        return cls(plan, dict(engine.stands), task.stage_names)

    @property
    def healing(self) -> Healing:
        """What training leaves out; an exit rule has no part in it."""
        skips = {index: self._skips(name) for index, name in enumerate(self.stages)}
        shaping = {name: stage.model_dump(mode="json", exclude={"exit"}) for name, stage in self.plan.stages.items()}
        return Healing({i: some for i, some in skips.items() if some.everywhere}, content_hash(shaping))

    def plan_on(self, engine: TorchEngine) -> Plan:
        """The plan, on a model that has learnt meanwhile."""
        engine.stands.update(self.stands)
        return self.plan.model_copy(update={"model": engine.identity})

    def save(self, out: Path, identity: ModelIdentity, report: TrainingReport) -> None:
        """Leave the plan of the healed model in ``out``; what was measured before holds no longer."""
        evidence = {
            "healed_from": self.plan.model.model_dump(mode="json"),
            "steps": report.steps,
            "split": "dev",
            "n": report.validation_questions,
            "best_accuracy": report.best_accuracy,
        }
        for stage in self.plan.stages.values():
            if stage.compensation.content is not None:
                save_stand(out, stage.compensation, self.stands[stage.compensation.content])
        plan = self.plan.model_copy(update={"model": identity, "target": {}, "evidence": evidence, "certificate": None})
        plan.save_pretrained(out)

    def _skips(self, stage: str) -> Skips:
        plan = self.plan.stage(stage)
        content = plan.compensation.content
        return Skips(plan.schedule.at(0), stand=self.stands[content] if content else {})


def _read(folder: str, engine: TorchEngine, task: Task) -> Plan:
    conditions = Plan.from_pretrained(folder).evidence.get("conditions")
    if shots := conditions.get("shots") if isinstance(conditions, dict) else None:
        raise OptionError(
            f"--plan {folder} was searched with worked examples in each prompt ({shots}), and training shows "
            "none. Search one with --shots 0."
        )
    return load_plan(folder, engine, task)
