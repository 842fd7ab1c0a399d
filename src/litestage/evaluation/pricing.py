"""Pricing: the forwards that recorded traces need under a plan, in seconds of a cost model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain, pairwise
from typing import NamedTuple

from litestage.core.errors import DataError, OptionError
from litestage.core.layers import Record
from litestage.core.plan import Plan, StagePlan
from litestage.core.request import Completion
from litestage.core.rows import BEGINNING, Prefill, Row, passes
from litestage.core.trace import StageTrace, Trace
from litestage.evaluation.cost_model import CostModel


class StagePrice(Record):
    """One stage's seconds a question (with votes: a run of a question), by phase."""

    name: str
    prefill_seconds: float
    decode_seconds: float

    @property
    def seconds(self) -> float:
        return self.prefill_seconds + self.decode_seconds


class Price(Record):
    """Seconds a question at a stated batch, by stage and phase, and of each question in the traces' order.

    With votes it is a run of a question wherever a question is said, priced as if it ran alone: what votes share and
    what they gain side by side is not in it, nor what a stopping rule leaves undrawn.
    """

    questions_at_once: int
    stages: tuple[StagePrice, ...]
    by_question: tuple[float, ...]
    """Inside a batch every question has an equal share of its batch's seconds."""

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def prefill_share(self) -> float:
        """Share of the seconds, 0 to 1, that prefill takes."""
        return sum(stage.prefill_seconds for stage in self.stages) / self.seconds

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds a question by stage name: what the search orders stages by."""
        return {stage.name: stage.seconds for stage in self.stages}


class Work(NamedTuple):
    """What one stage of one question asks of the engine: a shared prefix to compute once, then a row a branch."""

    prefix: tuple[Row, ...]
    """One row without decode steps, or none."""
    rows: tuple[Row, ...]


def price(
    model: CostModel,
    traces: Sequence[Trace],
    plan: Plan,
    *,
    questions_at_once: int = 1,
    capacity: int | None = None,
) -> Price:
    """Price recorded traces under ``plan``, ``questions_at_once`` going through each stage together.

    ``capacity`` is the engine's number of slots; None is as many as there are rows. What every question shares (the
    header) is free: it is prefilled once a run.
    """
    _check(traces, questions_at_once)
    pricers = [_pricer(model, plan.stage(stage.name), plan.model.num_blocks, capacity) for stage in traces[0].stages]
    batches = [traces[i : i + questions_at_once] for i in range(0, len(traces), questions_at_once)]
    seconds = [
        [pricer([work_of(trace.stages[i]) for trace in batch]) for i, pricer in enumerate(pricers)] for batch in batches
    ]
    return Price(
        questions_at_once=questions_at_once,
        stages=tuple(
            StagePrice(
                name=stage.name,
                prefill_seconds=sum(batch[i][0] for batch in seconds) / len(traces),
                decode_seconds=sum(batch[i][1] for batch in seconds) / len(traces),
            )
            for i, stage in enumerate(traces[0].stages)
        ),
        by_question=tuple(
            sum(map(sum, stages)) / len(batch) for batch, stages in zip(batches, seconds, strict=True) for _ in batch
        ),
    )


def work_of(stage: StageTrace) -> Work:
    """Count a stage's work when prompts are warm: the header is there, and so is what an earlier stage computed.

    Branches that share more than that have it prefilled once.
    """
    already = max(stage.header_tokens, stage.reused_tokens)
    new = stage.shared_tokens - already if len(stage.prompt_tokens) > 1 else 0
    new = new if new >= BEGINNING else 0
    rows = tuple(
        row_of(prompt, min(already + new, prompt), completion)
        for prompt, completion in zip(stage.prompt_tokens, stage.completions, strict=True)
    )
    return Work((Row(prefill=new, reused=already, decode=0),) if new else (), rows)


def row_of(prompt: int, reused: int, completion: Completion) -> Row:
    """A generation's work. Of an answer by choice each forward runs all that came before a decision."""
    counts = completion.counts
    runs = (after - before for before, after in pairwise((counts.joined, *completion.asked)))
    return Row(
        prefill=prompt + counts.joined - reused,
        reused=reused,
        decode=counts.decoded,
        joined=counts.joined,
        runs=tuple(tokens for tokens in runs if tokens),
    )


def _pricer(
    model: CostModel, plan: StagePlan, num_blocks: int, capacity: int | None
) -> Callable[[Sequence[Work]], tuple[float, float]]:
    """A function from one stage's work to its seconds of prefill and of decode, with prices looked up once."""

    @cache
    def line(rows: int, segment: int) -> tuple[float, float]:
        return model.decode_line(rows, *kept(plan, segment, num_blocks))

    segment = cache(plan.schedule.segment_index)

    def seconds(works: Sequence[Work]) -> tuple[float, float]:
        prefixes = [row for work in works for row in work.prefix]
        rows = [row for work in works for row in work.rows]
        slots = capacity or len(rows)
        prefill = decode = 0.0
        for step in chain(passes(prefixes, slots), passes(rows, slots)):
            if isinstance(step, Prefill):
                # Rows whose whole prompt is there already need no forward.
                prefill += model.prefill_seconds(step) if step.tokens else 0
            else:
                base, per_context = line(step.tokens, segment(step.step))
                decode += base + per_context * step.context
        return prefill, decode

    return seconds


def kept(plan: StagePlan, segment: int, num_blocks: int) -> tuple[int, int, int]:
    """Attentions and FFNs kept, and operations that stand in for the others, in a segment of the plan's schedule."""
    skipped = plan.schedule.segments[segment].skipped
    attentions = sum(layer.kind == "attention" for layer in skipped)
    return num_blocks - attentions, num_blocks - (len(skipped) - attentions), plan.compensation.operations(skipped)


def _check(traces: Sequence[Trace], questions_at_once: int) -> None:
    if not traces:
        raise DataError("No question was answered, so there is nothing to price.")
    if questions_at_once < 1:
        raise OptionError(f"{questions_at_once} questions at once cannot be run: --batch-size must be 1 or more.")
