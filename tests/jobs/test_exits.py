"""Exit rules as a task's stages run them: calibrated on full-depth texts, and read by the task's own pattern."""

from __future__ import annotations

import pytest

from litestage.core import CalibratedConfidence, MeanConfidence, MeanEntropy, PlanError, SettledAnswer
from litestage.jobs.exits import fitted_exits
from litestage.jobs.options import PlanOptions
from litestage.jobs.session import Session

QUESTIONS = 6


def test_a_rule_without_anything_to_find_is_the_same_in_all_stages(session: Session) -> None:
    for rule in (MeanConfidence(), MeanEntropy(), CalibratedConfidence(threshold=0.4)):
        assert fitted_exits(session, rule) == dict.fromkeys(session.task.stage_names, rule)


def test_each_stage_has_the_threshold_that_its_own_full_depth_texts_keep(session: Session) -> None:
    full = session.answer(session.questions("dev", QUESTIONS), session.full_plan(), "full depth")
    found = fitted_exits(session, CalibratedConfidence(window=3, share=0.8), full)
    assert tuple(found) == session.task.stage_names
    assert len({rule.threshold for rule in found.values() if isinstance(rule, CalibratedConfidence)}) > 1
    for place, rule in enumerate(found.values()):
        texts = [one for trace in full for one in trace.stages[place].completions]
        ended = sum(
            rule.first_exit(one.confidences[: -1 if one.finish_reason == "eos" else None]) is not None for one in texts
        )
        assert ended <= 0.2 * len(texts)


def test_an_answer_is_looked_for_where_the_task_reads_it(session: Session) -> None:
    plan = session.chosen_plan(PlanOptions(exit=SettledAnswer()))
    assert [name for name, stage in plan.stages.items() if stage.exit] == [session.task.stage_names[-1]]
    rule = plan.stage(session.task.stage_names[-1]).exit
    assert isinstance(rule, SettledAnswer)
    assert rule.pattern == session.task.answer_pattern
    questions = session.questions("dev", QUESTIONS)
    full, cut = (session.answer(questions, one, "answering") for one in (session.full_plan(), plan))
    assert [trace.answer for trace in cut] == [trace.answer for trace in full]


def test_a_rule_that_nobody_fitted_is_refused(session: Session) -> None:
    plan = session.plan({"summary": session.full_plan().stage("summary").model_copy(update={"exit": SettledAnswer()})})
    with pytest.raises(PlanError, match="lacks a pattern"):
        session.answer(session.questions("dev", 1), plan, "answering")
