from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from litestage.core import (
    Completion,
    Counts,
    MeanConfidence,
    Request,
    Sampling,
    SkipSchedule,
    StagePlan,
    StageTrace,
    Trace,
    whole_blocks,
)

REQUEST = Request(
    prompt_ids=(1, 2, 3),
    stage_plan=StagePlan(schedule=SkipSchedule.fixed(whole_blocks([4, 11])), exit=MeanConfidence()),
    stop=("\n", "é"),
    sampling=Sampling(temperature=0.7),
    seed=3,
)


def test_requests_are_values() -> None:
    same = Request.model_validate_json(REQUEST.model_dump_json())
    assert (same, hash(same), same.key()) == (REQUEST, hash(REQUEST), REQUEST.key())
    with pytest.raises(ValidationError, match="frozen"):
        REQUEST.seed = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    "change",
    [
        {"prompt_ids": (1, 2, 4)},
        {"prompt_ids": (1, 2)},
        {"stage_plan": StagePlan()},
        {"max_new_tokens": 199},
        {"stop": ("\n",)},
        {"stop": ("é", "\n")},
        {"sampling": Sampling(temperature=0.8)},
        {"seed": 4},
    ],
)
def test_any_change_is_another_key(change: dict[str, object]) -> None:
    changed = REQUEST.model_copy(update=change)
    assert changed.key() != REQUEST.key()
    assert changed != REQUEST


def test_a_key_outlives_the_process() -> None:
    """Sets of sub-layers have no order of their own, and Python's hashes differ from process to process."""
    code = (
        "from litestage.core import *; print(Request(prompt_ids=(1, 2, 3), stage_plan=StagePlan(schedule=SkipSchedule."
        "fixed(reversed(sub_layers(12))), exit=MeanConfidence()), seed=3).key())"
    )
    from litestage.core import sub_layers

    here = Request(
        prompt_ids=(1, 2, 3),
        stage_plan=StagePlan(schedule=SkipSchedule.fixed(sub_layers(12)), exit=MeanConfidence()),
        seed=3,
    )
    for seed in "01":
        there = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        assert there.stdout.strip() == here.key()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"sampling": {"temperature": -0.1}}, "temperature"),
        ({"sampling": {"top_k": -1}}, "top_k"),
        ({"sampling": {"top_p": 0.0}}, "top_p"),
        ({"sampling": {"top_p": 1.1}}, "top_p"),
        ({"stage_plan": {"exit": {"window": 0}}}, "window"),
        ({"stage_plan": {"exit": {"threshold": 1.5}}}, "threshold"),
        ({"stage_plan": {"compensation": {"kind": "norm_ratio"}}}, "compensation norm_ratio with content None"),
        ({"stage_plan": {"compensation": {"content": "ab"}}}, "compensation none with content ab"),
        ({"temperature": 1.0}, "temperature"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Request.model_validate({"prompt_ids": (1,), **options})


def test_exit_rule_on_hand_made_confidences() -> None:
    """REFERENCE, section 4: from the fifth token on, the mean of the last five, below 0.5."""
    rule = MeanConfidence()
    assert (rule.window, rule.threshold) == (5, 0.5)
    assert rule.first_exit([0.0] * 4) is None
    assert rule.first_exit([0.0] * 9) == 4
    assert rule.first_exit([0.9, 0.4, 0.4, 0.4, 0.4]) is None, "exactly the threshold is not below it"
    assert rule.first_exit([0.9, 0.4, 0.4, 0.4, 0.4, 0.89]) == 5
    assert MeanConfidence(window=1, threshold=0.3).first_exit([0.5, 0.3, 0.2, 0.1]) == 2
    assert MeanConfidence(threshold=0).first_exit([0.0] * 9) is None


def test_traces_are_values_and_know_whether_they_are_right() -> None:
    completion = Completion(
        token_ids=(5, 6), text="a", confidences=(0.5, 1.0), finish_reason="eos", counts=Counts(prefilled=3, decoded=1)
    )
    stage = StageTrace(
        name="recall", prompts=("p",), prompt_tokens=(3,), shared_tokens=0, header_tokens=0, text="a",
        completions=(completion,),
    )  # fmt: skip
    trace = Trace(question_id="q", stages=(stage,), answer=1, gold=1)
    assert Trace.model_validate_json(trace.model_dump_json()) == trace
    assert hash(trace) == hash(trace.model_copy())
    assert trace.correct
    assert not trace.model_copy(update={"answer": None}).correct
    assert not trace.model_copy(update={"answer": None, "gold": None}).correct
    assert not trace.model_copy(update={"answer": 0}).correct
