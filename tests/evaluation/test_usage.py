from __future__ import annotations

from collections.abc import Callable

import pytest

from litestage.core import StageTrace, Trace
from litestage.core.errors import DataError
from litestage.evaluation import usage_of


def test_means_a_question_per_stage_and_in_all(make_stage: Callable[..., StageTrace]) -> None:
    first = (
        make_stage("recall", [20], [9]),
        make_stage("analysis", [40, 42], [5, 11], shared=36, reasons=["low_confidence", "eos"]),
    )
    second = (
        make_stage("recall", [30], [15], reasons=["length"]),
        make_stage("analysis", [50, 51], [8, 6], shared=46, reasons=["eos", "eos"]),
    )
    result = usage_of([Trace(question_id=str(i), stages=s, answer=0, gold=0) for i, s in enumerate([first, second])])
    recall, analysis = result.stages
    assert (recall.name, analysis.name, result.total.name) == ("recall", "analysis", "all")
    assert (recall.generated_tokens, recall.decode_steps, recall.lockstep_steps) == (13, 12, 12)
    assert (analysis.generated_tokens, analysis.decode_steps, analysis.lockstep_steps) == (17, 15, 9.5)
    assert (analysis.prompt_tokens, analysis.prefilled_tokens, analysis.reused_tokens) == (91.5, 9.5, 82)
    assert analysis.finish_reasons == {"low_confidence": 0.25, "eos": 0.75}
    assert (recall.early_exit_share, analysis.early_exit_share) == (0, 0.25)
    assert (result.total.generated_tokens, result.total.decode_steps, result.total.lockstep_steps) == (30, 27, 21.5)
    assert result.total.finish_reasons == pytest.approx({"eos": 4 / 6, "length": 1 / 6, "low_confidence": 1 / 6})


def test_no_trace_has_no_usage() -> None:
    with pytest.raises(DataError, match="no work to count"):
        usage_of([])
