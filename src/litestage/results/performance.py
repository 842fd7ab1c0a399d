"""What every job's results have in common: performances, splits, examples and provenance.

Units: accuracies in percent, differences in points, times in seconds a question, shares 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Literal, Self

from pydantic import Field, model_validator

from litestage.core import FinishReason, RunConditions, StageTrace, Trace
from litestage.core.layers import Record
from litestage.core.request import EXITS
from litestage.evaluation import Accuracy, FitError, Paired, Price, PriceError, StagePrice, StageUsage, Usage

AccuracyVerdict = Literal["gain", "loss", "no answer changed", "open"]


def verdict_on(paired: Paired) -> AccuracyVerdict:
    """What the questions say of a change in accuracy; a gain or a loss is one beyond chance."""
    if paired.can_tell:
        return "gain" if paired.difference > 0 else "loss"
    return "open" if paired.gained + paired.lost else "no answer changed"


class StageCost(Record):
    """What one stage costs a question (with votes: a run of a question), its branches summed."""

    name: str
    """The stage's; ``all`` for all stages together."""
    seconds: float
    """Priced by the cost model."""
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


class Performance(Record):
    """How accurate and how fast one way of running the model is."""

    accuracy: Accuracy
    """With its interval, n and None rate."""
    stages: tuple[StageCost, ...]
    """In task order."""
    total: StageCost
    wall_seconds: float | None = None
    """A question's by the wall clock, one question at a time with all its votes."""
    price_error: PriceError | None = None
    """The cost model's prices against the clock, on the timed questions."""

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

    @property
    def stage_names(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages)


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


class Split(Record):
    """Which questions, and how many of those at hand."""

    name: str
    used: int
    available: int | None = None
    """None where that is not known."""

    def __str__(self) -> str:
        part = f" of {self.available}" if self.available not in (None, self.used) else ""
        return f"{self.used}{part} {self.name} questions"


class Generation(Record):
    """One branch's text."""

    text: str
    tokens: int
    finish_reason: FinishReason
    cut: str = ""
    """What it would have gone on to say, had the exit rule not ended it."""

    @property
    def exited(self) -> bool:
        """Whether the exit rule ended it."""
        return self.finish_reason in EXITS


class ExampleStage(Record):
    name: str
    full: tuple[Generation, ...]
    plan: tuple[Generation, ...]

    @model_validator(mode="after")
    def _same_branches(self) -> Self:
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


def _generations(stage: StageTrace, uncut: StageTrace | None) -> tuple[Generation, ...]:
    return tuple(
        Generation(
            text=done.text,
            tokens=len(done.token_ids),
            finish_reason=done.finish_reason,
            cut=_cut(done.text, longer.text) if longer and done.exited else "",
        )
        for done, longer in zip(stage.completions, uncut.completions if uncut else repeat(None), strict=False)
    )


def _cut(text: str, longer: str) -> str:
    """The rest of the longer text; nothing when the texts part before (another prompt led to another text)."""
    return longer[len(text) :] if longer.startswith(text) else ""


class Provenance(RunConditions):
    """The command, and the conditions under which its numbers hold."""

    command: str
    date: str
    durations: dict[str, float] = Field(default_factory=dict)
    """Seconds that each part of the job took."""
    decode_fit: FitError | None = None
    """How far the cost model lies from the timings it was fitted to."""
    prefill_fit: FitError | None = None

    @classmethod
    def of(
        cls,
        conditions: RunConditions,
        *,
        command: str,
        date: str,
        durations: dict[str, float],
        fits: tuple[FitError, FitError] | None = None,
    ) -> Self:
        """From a job's conditions, which may also name the model and the task; ``fits``: of decode and prefill."""
        decode, prefill = fits or (None, None)
        known = conditions.model_dump(include=set(RunConditions.model_fields))
        return cls(**known, command=command, date=date, durations=durations, decode_fit=decode, prefill_fit=prefill)
