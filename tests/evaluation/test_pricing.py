from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litestage.core import (
    Compensation,
    Decode,
    MeanConfidence,
    ModelIdentity,
    Plan,
    Prefill,
    Row,
    Segment,
    SkipSchedule,
    StagePlan,
    StageTrace,
    Trace,
    passes,
    whole_blocks,
)
from litestage.core.errors import DataError, OptionError
from litestage.evaluation import CostModel, price
from litestage.evaluation.cost_model import DecodeCost, FitError, PrefillCost
from litestage.evaluation.pricing import work_of

MakeStage = Callable[..., StageTrace]

BLOCKS = 6
NO_ERROR = FitError(timings=0, median=0, max=0)
MODEL = CostModel(
    decode=(
        DecodeCost(rows=1, step=1, attention=0.5, per_context=0.001, ffn=0.8, compensation=0.05),
        DecodeCost(rows=8, step=2, attention=0.9, per_context=0.008, ffn=1.0, compensation=0.1),
    ),
    prefill=PrefillCost(forward=3, token=0.2, row=0.1, token_context=0.001),
    compensation_timed=True,
    decode_error=NO_ERROR,
    prefill_error=NO_ERROR,
)
SKIPPING = StagePlan(schedule=SkipSchedule.fixed(["1.attention", "2.attention", "4.ffn"]))


def plan(**stages: StagePlan) -> Plan:
    model = ModelIdentity(id="tiny", fingerprint="f", num_blocks=BLOCKS)
    return Plan(model=model, task="t", task_fingerprint="tf", stages=stages)


def trace(*stages: StageTrace, question: str = "q") -> Trace:
    return Trace(question_id=question, stages=stages, answer=0, gold=0)


def step_seconds(rows: int, context: int, attentions: int, ffns: int, compensated: int = 0) -> float:
    return MODEL.decode_seconds(Decode(rows, context, 0), attentions, ffns, compensated)


def test_one_branch_is_one_prefill_and_its_decode_steps(make_stage: MakeStage) -> None:
    """A prompt of 30 tokens, 10 of them the header: 20 are prefilled; the first decode step sees 31."""
    result = price(MODEL, [trace(make_stage("recall", [30], [3], shared=30, header=10))], plan())
    assert result.stages[0].prefill_seconds == pytest.approx(MODEL.prefill_seconds(Prefill(1, 20, 30)))
    assert result.stages[0].decode_seconds == pytest.approx(sum(step_seconds(1, c, 6, 6) for c in (31, 32, 33)))
    assert result.seconds == pytest.approx(result.stages[0].seconds)
    assert result.by_question == pytest.approx((result.seconds,))
    assert result.prefill_share == pytest.approx(result.stages[0].prefill_seconds / result.seconds)


def test_branches_share_a_prefix_that_is_prefilled_once(make_stage: MakeStage) -> None:
    """Header 10; shared 40, of which an earlier stage computed 25; branches of 44 and 45 tokens, 2 and 1 steps long."""
    stage = make_stage("analysis", [44, 45], [2, 1], shared=40, header=10, reused=25)
    assert work_of(stage) == ((Row(15, 25, 0),), (Row(4, 40, 2), Row(5, 40, 1)))
    result = price(MODEL, [trace(stage)], plan(analysis=SKIPPING)).stages[0]
    expected = MODEL.prefill_seconds(Prefill(1, 15, 40)) + MODEL.prefill_seconds(Prefill(2, 9, 45))
    assert result.prefill_seconds == pytest.approx(expected)
    assert result.decode_seconds == pytest.approx(step_seconds(2, 46, 4, 5) + step_seconds(1, 46, 4, 5))


@pytest.mark.parametrize(
    ("lengths", "work"),
    [
        ({"prompts": [30], "shared": 30, "header": 10, "reused": 20}, ((), (Row(10, 20, 5),))),
        ({"prompts": [30, 31], "shared": 20, "header": 20}, ((), (Row(10, 20, 5), Row(11, 20, 5)))),
        ({"prompts": [30, 31], "shared": 12, "header": 20}, ((), (Row(10, 20, 5), Row(11, 20, 5)))),
        # Equal prompts, or one that was there before: its logits are kept too, so there is nothing left to compute.
        ({"prompts": [30, 30], "shared": 30, "header": 5}, ((Row(25, 5, 0),), (Row(0, 30, 5), Row(0, 30, 5)))),
        ({"prompts": [30], "shared": 30, "reused": 30}, ((), (Row(0, 30, 5),))),
    ],
)
def test_work_counts_each_prompt_token_once(make_stage: MakeStage, lengths: dict, work: tuple) -> None:
    assert work_of(make_stage("s", decoded=[5] * len(lengths["prompts"]), **lengths)) == work


def test_a_prompt_that_is_there_already_costs_no_prefill(make_stage: MakeStage) -> None:
    result = price(MODEL, [trace(make_stage("s", [30], [1], shared=30, reused=30))], plan()).stages[0]
    assert (result.prefill_seconds, result.decode_seconds) == (0, step_seconds(1, 31, 6, 6))


def test_a_schedule_is_priced_step_by_step_with_its_compensation(make_stage: MakeStage) -> None:
    schedule = SkipSchedule(
        segments=(
            Segment(),
            Segment(first_step=2, skipped=whole_blocks([1])),
            Segment(first_step=3, skipped=whole_blocks([1, 2])),
        )
    )
    stage_plan = StagePlan(
        schedule=schedule, compensation=Compensation(kind="norm_ratio", content="x"), exit=MeanConfidence()
    )
    result = price(MODEL, [trace(make_stage("s", [9], [4]))], plan(s=stage_plan)).stages[0]
    parts = [
        step_seconds(1, 10, 6, 6),
        step_seconds(1, 11, 6, 6),
        step_seconds(1, 12, 5, 5, 1),  # one run of skipped sub-layers, folded
        step_seconds(1, 13, 4, 4, 1),
    ]
    assert result.decode_seconds == pytest.approx(sum(parts))


def test_means_over_questions_and_only_the_planned_stage_gets_faster(make_stage: MakeStage) -> None:
    traces = [
        trace(make_stage("recall", [20 + i], [4 + i]), make_stage("summary", [50], [6]), question=str(i))
        for i in range(3)
    ]
    full, skipping = price(MODEL, traces, plan()), price(MODEL, traces, plan(recall=SKIPPING))
    assert full.seconds == pytest.approx(sum(full.by_question) / 3)
    assert [p.seconds for p in (price(MODEL, [t], plan()) for t in traces)] == pytest.approx(list(full.by_question))
    assert skipping.stages[1] == full.stages[1]
    assert skipping.stages[0].prefill_seconds == full.stages[0].prefill_seconds
    assert skipping.stages[0].decode_seconds < full.stages[0].decode_seconds
    assert set(full.stage_seconds) == {"recall", "summary"}


lengths = st.tuples(st.integers(1, 3), st.integers(5, 40), st.integers(0, 12), st.integers(0, 30), st.integers(0, 10))


@given(st.lists(lengths, min_size=1, max_size=5), st.integers(1, 4), st.none() | st.integers(1, 6), st.booleans())
@settings(deadline=None)
def test_any_batch_costs_what_its_passes_cost_one_by_one(
    make_stage: MakeStage, questions: list[tuple[int, ...]], at_once: int, capacity: int | None, skipping: bool
) -> None:
    traces = [
        trace(make_stage("s", [prompt + b for b in range(branches)], [steps + b for b in range(branches)],
                         shared=min(shared, prompt), header=min(header, prompt)))
        for branches, prompt, steps, shared, header in questions
    ]  # fmt: skip
    stage_plan = SKIPPING if skipping else StagePlan()
    result = price(MODEL, traces, plan(s=stage_plan), questions_at_once=at_once, capacity=capacity)

    total, skipped = 0.0, stage_plan.schedule.at(0)
    attentions = BLOCKS - len([layer for layer in skipped if layer.kind == "attention"])
    ffns = BLOCKS - len([layer for layer in skipped if layer.kind == "ffn"])
    for start in range(0, len(traces), at_once):
        works = [work_of(t.stages[0]) for t in traces[start : start + at_once]]
        rows = [row for work in works for row in work.rows]
        for group in ([row for work in works for row in work.prefix], rows):
            for step in passes(group, capacity or len(rows)):
                is_prefill = isinstance(step, Prefill)
                if not is_prefill:
                    total += MODEL.decode_seconds(step, attentions, ffns)
                elif step.tokens:
                    total += MODEL.prefill_seconds(step)
    assert result.seconds == pytest.approx(total / len(traces))
    assert sum(result.by_question) == pytest.approx(total)


def test_batches_of_questions_cost_less_a_question_here(make_stage: MakeStage) -> None:
    traces = [trace(make_stage("s", [20], [10]), question=str(i)) for i in range(4)]
    one, four = price(MODEL, traces, plan()), price(MODEL, traces, plan(), questions_at_once=4)
    assert four.seconds < one.seconds
    assert (one.questions_at_once, four.questions_at_once) == (1, 4)


def test_nothing_to_price() -> None:
    with pytest.raises(DataError, match="nothing to price"):
        price(MODEL, [], plan())


def test_no_question_at_once(make_stage: MakeStage) -> None:
    with pytest.raises(OptionError, match="--batch-size must be 1 or more"):
        price(MODEL, [trace(make_stage("s", [3], [1]))], plan(), questions_at_once=0)
