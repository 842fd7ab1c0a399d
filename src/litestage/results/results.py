"""What a job leaves for people and programs: ``results.json``, the only input of a report.

Units: accuracies in percent, differences in points, times in seconds a question, shares 0 to 1. Search and ranking keep
the field names of the records that make them, so that a workflow passes ``model_dump()`` on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from litestage.core import DataError, FinishReason, ModelIdentity, StagePlan, StageTrace, SubLayer, Trace
from litestage.core.files import write_text
from litestage.core.layers import Record
from litestage.core.wording import problem
from litestage.evaluation import Accuracy, FitError, Paired, Price, PriceError, Speedup, StagePrice, StageUsage, Usage

SCHEMA_VERSION: Literal[1] = 1
RESULTS_FILE = "results.json"


class StageCost(Record):
    """What one stage costs a question (with votes: a run of a question), its branches summed."""

    name: str
    """The stage's; ``all`` for all stages together."""
    seconds: float
    """Priced by the latency model."""
    prefill_share: float
    """Of those seconds."""
    tokens: float
    """Generated tokens."""
    decode_steps: float
    """One a row: branches side by side count each."""
    prompt_tokens: float
    early_exit_share: float
    """Share of generations that the exit rule ended."""

    @property
    def prefill_seconds(self) -> float:
        return self.seconds * self.prefill_share

    @property
    def decode_seconds(self) -> float:
        return self.seconds - self.prefill_seconds


class System(Record):
    """One way of running the model on the test questions."""

    accuracy: Accuracy
    """With its interval, n and None rate."""
    stages: tuple[StageCost, ...]
    """In task order."""
    total: StageCost
    wall_seconds: float | None = None
    """A question's by the wall clock, one question at a time with all its votes."""
    price_error: PriceError | None = None
    """The latency model's prices against the clock, on the timed questions."""

    @classmethod
    def of(
        cls,
        accuracy: Accuracy,
        usage: Usage,
        price: Price,
        wall_seconds: float | None = None,
        price_error: PriceError | None = None,
    ) -> Self:
        """From what an evaluation measures."""
        whole = StagePrice(
            name="all",
            prefill_seconds=sum(stage.prefill_seconds for stage in price.stages),
            decode_seconds=sum(stage.decode_seconds for stage in price.stages),
        )
        return cls(
            accuracy=accuracy,
            stages=tuple(_cost(used, priced) for used, priced in zip(usage.stages, price.stages, strict=True)),
            total=_cost(usage.total, whole),
            wall_seconds=wall_seconds,
            price_error=price_error,
        )


class Split(Record):
    """Which questions, and how many of those at hand."""

    name: str
    used: int
    available: int | None = None
    """None where that is not known."""

    def __str__(self) -> str:
        part = f" of {self.available}" if self.available not in (None, self.used) else ""
        return f"{self.used}{part} {self.name} questions"


class Group(Record):
    """Accuracy on some of the test questions, such as those on pairs that training held out."""

    name: str
    full: Accuracy
    plan: Accuracy


class PointResult(Record):
    """A setting of the search, measured end to end."""

    questions: int
    measured: int
    """Fewer than ``questions`` when the point ended early, because it could not be chosen any more."""
    correct: int
    accuracy: float
    """Percent; for a point that ended early the most it could have reached."""
    seconds: float | None
    """None for a point that ended early."""
    feasible: bool | None
    """Whether it keeps the target; None when it ended early before that was certain."""

    @property
    def cut_short(self) -> bool:
        return self.measured < self.questions


class ProfilePoint(PointResult):
    budget: int
    """Sub-layers skipped in the stage."""
    way: str = ""
    """By which ranking, and what stands in for them."""
    agreement: float | None = None
    """Where several ways were compared: share of the full model's tokens, 0 to 1, that this one leaves as they were."""
    seconds_at_least: float | None = None
    """For a point that ended early because it was slower than the best."""


class Profile(Record):
    """One stage's budgets, with the stages searched before it at their chosen budgets and the others at full depth."""

    stage: str
    points: tuple[ProfilePoint, ...]
    chosen: int
    left_out: int
    """Budgets not measured, because several in a row before them missed the target."""


class ExitCheck(PointResult):
    """The whole plan with exit on in ``exits``; ``without`` is the stage whose exit was just switched off."""

    exits: tuple[str, ...]
    without: str | None
    kept: bool


class Spent(Record):
    points: int
    questions: int
    questions_saved: int
    points_left_out: int


class Search(Record):
    """How the plan was found: the part of a search's record that a reader wants to see."""

    full: PointResult
    target: float
    order: tuple[str, ...]
    profiles: tuple[Profile, ...]
    exit_checks: tuple[ExitCheck, ...] = ()
    result: PointResult
    spent: Spent
    max_drop: float
    """Points of accuracy that the plan might lose."""
    split: Split
    latency: Literal["priced", "wall"] = "priced"

    @classmethod
    def of(cls, record: BaseModel, split: Split, max_drop: float, latency: str = "priced") -> Self:
        """From the search's own record."""
        kept = set(cls.model_fields) & set(type(record).model_fields)
        return cls.model_validate(
            record.model_dump(include=kept) | {"split": split, "max_drop": max_drop, "latency": latency}
        )


class RankedLayer(Record):
    """A sub-layer's redundancy: a cosine, and high means skip first."""

    layer: str
    redundancy: float
    by_stage: dict[str, float] = Field(default_factory=dict)
    agreement: float | None = None
    """Where it was probed: share of tokens, 0 to 1, that stay as they were."""

    @property
    def sub_layer(self) -> SubLayer:
        return SubLayer.parse(self.layer)


class Generation(Record):
    """One branch's text."""

    text: str
    tokens: int
    finish_reason: FinishReason
    cut: str = ""
    """What it would have gone on to say, had the exit rule not ended it."""


class ExampleStage(Record):
    name: str
    full: tuple[Generation, ...]
    plan: tuple[Generation, ...]

    @model_validator(mode="after")
    def _alike(self) -> Self:
        if len(self.full) != len(self.plan):
            raise ValueError("full and plan need a text each for the same branches")
        return self


class Example(Record):
    """One question answered at full depth and under the plan."""

    question: str
    choices: tuple[str, ...]
    gold: int | None
    full_answer: int | None
    plan_answer: int | None
    stages: tuple[ExampleStage, ...]

    @classmethod
    def of(
        cls, question: str, choices: Sequence[str], full: Trace, plan: Trace, without_exit: Trace | None = None
    ) -> Self:
        """From the traces of one question; ``without_exit``, the plan without its exit rule, shows what exit cut."""
        longer: Sequence[StageTrace | None] = without_exit.stages if without_exit else [None] * len(plan.stages)
        return cls(
            question=question,
            choices=tuple(choices),
            gold=full.gold,
            full_answer=full.answer,
            plan_answer=plan.answer,
            stages=tuple(
                ExampleStage(name=before.name, full=_generations(before, None), plan=_generations(after, uncut))
                for before, after, uncut in zip(full.stages, plan.stages, longer, strict=True)
            ),
        )


class Provenance(Record):
    """The conditions under which the numbers hold."""

    command: str
    date: str
    hardware: str
    device: str
    threads: int
    dtype: str
    quantise: str = "none"
    kernels: str = "torch"
    batch_size: int
    seed: int
    shots: int
    versions: dict[str, str]
    durations: dict[str, float] = Field(default_factory=dict)
    """Seconds that each part of the job took."""
    decode_fit: FitError | None = None
    """How far the latency model lies from the timings it was fitted to."""
    prefill_fit: FitError | None = None

    @property
    def numbers(self) -> str:
        """How weights and cache are kept, and whose kernels run them where that is a choice."""
        weights = "" if self.quantise == "none" else f"{self.quantise} weights, "
        return f"{weights}{self.dtype}" + (", own kernels" if self.kernels == "litestage" else "")

    @classmethod
    def of(cls, conditions: Mapping[str, Any], **more: Any) -> Self:
        """From a job's conditions, which also name the model and the task."""
        return cls.model_validate({k: v for k, v in conditions.items() if k in cls.model_fields} | more)


class Kept(Record):
    """Results of a job, which lie in its folder as ``results.json``."""

    def save(self, folder: Path) -> Path:
        """Write ``results.json``, whole or not at all."""
        path = folder / RESULTS_FILE
        write_text(path, self.model_dump_json(indent=1) + "\n")
        return path

    @classmethod
    def load(cls, place: Path) -> Self:
        """Read a folder's ``results.json``; raises `DataError` that says what is wrong with it."""
        path = place / RESULTS_FILE if place.is_dir() else place
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DataError(
                f"No results at {path} ({error.strerror}), so there is nothing to report. "
                "Give the folder that a job wrote with --out."
            ) from None
        except ValidationError as error:
            raise DataError(
                f"{path}: {problem(error, None, {})}. These results were not written by this version of litestage, "
                "or were changed. Run the job again."
            ) from None


class Results(Kept):
    """A plan against full depth on the test questions, how it was found, and under which conditions."""

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["plan"] = "plan"
    full: System
    plan: System
    speedup: float
    """By the wall clock: full depth's seconds over the plan's; ``wall`` has its interval."""
    accuracy_change_points: float
    """Plan minus full depth; ``paired`` has its interval and test."""
    wall: Speedup
    paired: Paired
    model: ModelIdentity
    task: str
    tested_on: Split
    search: Search | None = None
    """None when the plan was not searched here."""
    ranking: tuple[RankedLayer, ...] = ()
    """From the most to the least redundant."""
    stage_plans: dict[str, StagePlan]
    """What the plan skips, in task order."""
    groups: tuple[Group, ...] = ()
    examples: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences that a reader must not miss."""
    provenance: Provenance

    @model_validator(mode="after")
    def _one_story(self) -> Self:
        """The figures at the top are those of their evidence, and every part speaks of the same stages."""
        if (self.speedup, self.accuracy_change_points) != (self.wall.speedup, self.paired.difference):
            raise ValueError("speedup and accuracy_change_points must be those of wall and paired")
        stages = tuple(self.stage_plans)
        if not stages == self.stages(self.full) == self.stages(self.plan):
            raise ValueError(f"stage_plans, full and plan must have the same stages in the same order, not {stages}")
        return self

    @staticmethod
    def stages(system: System) -> tuple[str, ...]:
        return tuple(stage.name for stage in system.stages)

    @property
    def num_skipped(self) -> dict[str, int]:
        """Sub-layers that each stage skips."""
        return {name: stage.schedule.num_skipped for name, stage in self.stage_plans.items()}

    @property
    def is_full_depth(self) -> bool:
        """Whether the plan changes nothing: no sub-layer is skipped and no generation may exit."""
        return not any(self.num_skipped.values()) and not self.exits

    @property
    def exits(self) -> tuple[str, ...]:
        """Stages that may exit early."""
        return tuple(name for name, stage in self.stage_plans.items() if stage.exit)


def _cost(used: StageUsage, priced: StagePrice) -> StageCost:
    return StageCost(
        name=used.name,
        seconds=priced.seconds,
        prefill_share=priced.prefill_seconds / priced.seconds if priced.seconds else 0.0,
        tokens=used.generated_tokens,
        decode_steps=used.decode_steps,
        prompt_tokens=used.prompt_tokens,
        early_exit_share=used.early_exit_share,
    )


def _generations(stage: StageTrace, uncut: StageTrace | None) -> tuple[Generation, ...]:
    return tuple(
        Generation(
            text=done.text,
            tokens=len(done.token_ids),
            finish_reason=done.finish_reason,
            cut=_cut(done.text, longer.text) if longer and done.finish_reason == "low_confidence" else "",
        )
        for done, longer in zip(stage.completions, uncut.completions if uncut else repeat(None), strict=False)
    )


def _cut(text: str, longer: str) -> str:
    """The rest of the longer text; nothing when the texts part before (another prompt led to another text)."""
    return longer[len(text) :] if longer.startswith(text) else ""
