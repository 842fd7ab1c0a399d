"""What a change costs at most: full depth against the changed system on the same questions, by an exact test."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from litestage.core import Certificate, OptionError, Plan
from litestage.core.files import write_text
from litestage.core.plan import PLAN_FILE
from litestage.evaluation import Outcomes, certify, look_early, outcomes, questions_hash
from litestage.jobs.options import CertifyOptions, ChangeOptions
from litestage.jobs.session import Session
from litestage.results.answered import check_same_questions, read_answered
from litestage.tasks import Question, Task

CERTIFICATE_FILE = "certificate.json"


@dataclass(frozen=True)
class _Side:
    """One of the two systems."""

    session: Session
    task: Task
    plan: Plan

    def correct(self, questions: Sequence[Question], what: str) -> dict[str, bool]:
        traces = self.session.answer(questions, self.plan, what, task=self.task)
        return {trace.question_id: trace.correct for trace in traces}


def certify_folders(before: str, after: str, max_drop: float) -> Certificate:
    """A certificate of ``after`` against ``before``, from the answers that two finished jobs keep."""
    one, other = read_answered(before), read_answered(after)
    check_same_questions(one, other)
    return certify(outcomes(one.correct, other.correct), max_drop, questions=questions_hash(one.correct))


def certify_change(
    session: Session, change: ChangeOptions, questions: Sequence[Question] | None = None, *, max_drop: float = 3.0
) -> Certificate:
    """Answer questions at full depth and with the change, look at each third, and stop when it is known.

    Without ``questions`` it takes those that the session was asked for. The certificate is left in the session's folder
    and, where a plan alone was tested, in the plan's. A killed run goes on from the session's folder.
    """
    epsilon = CertifyOptions(max_drop=max_drop).max_drop
    check_change(change)
    asked = session.questions() if questions is None else list(questions)
    if unlabelled := [question.id for question in asked if question.answer is None]:
        raise OptionError(f"Question {unlabelled[0]} has no right answer, so nothing can be lost on it.")
    session.folder.reserve("certificate")
    before, after = _sides(session, change)
    _check_unseen(after.plan, session.data.split, change.plan)
    shuffled = random.Random(session.decoding.seed).sample(asked, len(asked))
    found = _look(before, after, shuffled, epsilon)
    if session.folder.path:
        write_text(session.folder.path / CERTIFICATE_FILE, found.model_dump_json(indent=2) + "\n")
    if change.plan is not None and change.is_plan_alone:
        after.plan.model_copy(update={"certificate": found}).save_pretrained(_plan_folder(change.plan))
    return found


def certify_plan(session: Session, plan: Plan, shuffled: Sequence[Question], max_drop: float) -> Certificate:
    """A certificate of a plan on questions in an order of chance; what is answered already is not decoded again."""
    full = _Side(session, session.task, session.full_plan())
    return _look(full, _Side(session, session.task, plan), shuffled, max_drop)


def _look(before: _Side, after: _Side, shuffled: Sequence[Question], epsilon: float) -> Certificate:
    """Look at each third, and stop when it is known."""
    seen: list[str] = []

    def first(k: int) -> Outcomes:
        seen[:] = [question.id for question in shuffled[:k]]
        what = f"{k} of {len(shuffled)} questions"
        return outcomes(
            before.correct(shuffled[:k], f"full depth: {what}"), after.correct(shuffled[:k], f"changed: {what}")
        )

    found = look_early(first, len(shuffled), epsilon)
    return found.model_copy(update={"questions": questions_hash(seen)})


def check_change(change: ChangeOptions) -> None:
    """Raise `OptionError` where nothing is changed, or a certificate could not be kept."""
    if change == ChangeOptions():
        raise OptionError(
            "Nothing is changed, so there is nothing to certify. Give a change (--plan DIR, --quantise int4, "
            "--exit 5,0.5, --without STAGE, --to-adapter NAME), two result folders, or --counts LOST,GAINED,N."
        )
    if change.is_plan_alone and change.plan is not None:
        path = _plan_folder(change.plan) / PLAN_FILE
        if path.is_file() and not os.access(path.parent, os.W_OK):
            raise OptionError(f"--plan {change.plan}: its certificate is kept there, but nothing may be written there.")


def _plan_folder(place: str) -> Path:
    return Path(place) if Path(place).is_dir() else Path(place).parent


def _sides(session: Session, change: ChangeOptions) -> tuple[_Side, _Side]:
    model = replace(
        session.model,
        quantise=change.to_quantise or session.model.quantise,
        adapter=change.to_adapter or session.model.adapter,
    )
    changed = session
    if model != session.model:
        data = replace(session.data, shots=len(session.task.shots))
        changed = Session(model, data, session.decoding, out=session.folder.path, progress=session.progress)
    task = changed.task.without(change.without) if change.without else changed.task
    plan = changed.chosen_plan(change.by_hand)
    return _Side(session, session.task, session.full_plan()), _Side(changed, task, plan)


def _check_unseen(plan: Plan, split: str, folder: str | None) -> None:
    """Raise `OptionError` where the plan was searched on these questions: they can promise nothing."""
    if plan.evidence.get("split") == split:
        raise OptionError(
            f"--split {split}: plan {folder} was searched on {split} questions, which chose it for doing well on them. "
            "Only questions that it has never seen can promise anything: choose another --split."
        )
