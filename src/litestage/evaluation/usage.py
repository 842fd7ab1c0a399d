"""What the work was: tokens, decode steps and how generations ended, per stage and in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from litestage.core.errors import DataError
from litestage.core.layers import Record
from litestage.core.request import EXITS, FinishReason
from litestage.core.trace import StageTrace, Trace


class StageUsage(Record):
    """Means a question (with votes: a run of a question); a question's branches are summed."""

    name: str
    generated_tokens: float
    decode_steps: float
    """Decode steps summed over branches: one a row."""
    lockstep_steps: float
    """Decode steps of the longest branch: forwards when a question's branches run side by side."""
    prompt_tokens: float
    prefilled_tokens: float
    reused_tokens: float
    finish_reasons: dict[FinishReason, float]
    """Share of generations, 0 to 1, that ended for each reason."""

    @property
    def early_exit_share(self) -> float:
        """Share of generations, 0 to 1, that an exit rule ended."""
        return sum(share for reason, share in self.finish_reasons.items() if reason in EXITS)


class Usage(Record):
    """Each stage in task order, and all of them together."""

    stages: tuple[StageUsage, ...]
    total: StageUsage


def usage_of(traces: Sequence[Trace]) -> Usage:
    """Mean work a question; raises `DataError` without a trace."""
    if not traces:
        raise DataError("No question was answered, so there is no work to count.")
    names = [stage.name for stage in traces[0].stages]
    by_stage = [[trace.stages[i] for trace in traces] for i in range(len(names))]
    every = [stage for stages in by_stage for stage in stages]
    return Usage(
        stages=tuple(_usage(name, stages, len(traces)) for name, stages in zip(names, by_stage, strict=True)),
        total=_usage("all", every, len(traces)),
    )


def _usage(name: str, stages: Sequence[StageTrace], questions: int) -> StageUsage:
    completions = [completion for stage in stages for completion in stage.completions]
    reasons = Counter(completion.finish_reason for completion in completions)
    longest = (max((done.counts.decoded for done in stage.completions), default=0) for stage in stages)
    return StageUsage(
        name=name,
        generated_tokens=sum(len(completion.token_ids) for completion in completions) / questions,
        decode_steps=sum(completion.counts.decoded for completion in completions) / questions,
        lockstep_steps=sum(longest) / questions,
        prompt_tokens=sum(sum(stage.prompt_tokens) for stage in stages) / questions,
        prefilled_tokens=sum(completion.counts.prefilled for completion in completions) / questions,
        reused_tokens=sum(completion.counts.reused for completion in completions) / questions,
        finish_reasons={reason: count / len(completions) for reason, count in reasons.items()},
    )
