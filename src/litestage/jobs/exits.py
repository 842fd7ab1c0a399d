"""An exit rule as a task's stages run it: what a rule has to know of the model and the task is found here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from litestage.core import CalibratedConfidence, ExitRule, SettledAnswer, Trace

if TYPE_CHECKING:
    from litestage.jobs.session import Session

WARM_UP = 50
"""Dev questions whose full-depth texts calibrate a threshold, where no others are at hand."""


def fitted_exits(session: Session, rule: ExitRule, full: Sequence[Trace] | None = None) -> dict[str, ExitRule]:
    """The rule of each stage that can have one, whole.

    A threshold is calibrated on each stage's texts in ``full``, full-depth traces, or else on the first `WARM_UP` dev
    questions. Only the last stage states an answer.
    """
    stages = session.task.stage_names
    if isinstance(rule, SettledAnswer):
        known = rule.pattern or session.task.answer_pattern
        return {stages[-1]: SettledAnswer(window=rule.window, pattern=known)}
    if isinstance(rule, CalibratedConfidence) and rule.threshold is None:
        if full is None:
            dev = session.questions("dev", WARM_UP)
            full = session.answer(dev, session.full_plan(), "calibrating the exit rule at full depth")
        texts = {
            name: [one for trace in full for one in trace.stages[place].completions]
            for place, name in enumerate(stages)
        }
        return {name: rule.calibrated(texts[name]) for name in stages}
    return dict.fromkeys(stages, rule)
