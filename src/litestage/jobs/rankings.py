"""Rankings side by side: the order that each gives, how many tokens its skip sets change, and which answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litestage.core import OptionError, SubLayer
from litestage.core.files import read_kept, write_text
from litestage.core.plan import content_hash
from litestage.engine import CachedEngine
from litestage.evaluation import compare, question_scores, score, worse
from litestage.jobs.claim import refuse_other_jobs
from litestage.jobs.evaluate import answer
from litestage.jobs.policies import Policies, Policy
from litestage.jobs.progress import SILENT, Progress
from litestage.jobs.session import Session
from litestage.results import (
    BudgetAnswers,
    BudgetEffect,
    PolicyAnswers,
    PolicyEffects,
    Rankings,
    StageRankings,
    indispensable,
)
from litestage.search import SearchOptions, budgets
from litestage.skipping import RANKINGS
from litestage.tasks import Question

RANKINGS_FILE = "rankings.json"
ENDS = 0.3
"""Agreement below which a curve is not followed further."""


def compare_rankings(
    session: Session,
    questions: Sequence[Question],
    policies: Sequence[Policy],
    out: Path,
    *,
    step: int = 2,
    answers: bool = False,
    progress: Progress = SILENT,
) -> Rankings:
    """Answer at full depth, rank every stage in every policy, and judge budgets in steps; ``rankings.json`` in ``out``.

    Budgets are judged by the tokens that they change, and with ``answers`` by the answers as well, which costs a run
    over half the questions for each.
    """
    if len(questions) < 2:
        raise OptionError(
            "With one question nothing is left to judge on. Give 2 or more: half are fitted on, half judged."
        )
    SearchOptions(step=step).check_fits(session.engine.identity.num_blocks)
    refuse_other_jobs(out, "ranking")
    inputs = _inputs(session, questions)
    _refuse_other_rankings(out, inputs)
    engine = session.cached(out)
    full = answer(session, questions, session.full_plan(), engine, what="answering at full depth", progress=progress)
    prepared = Policies(session, full, policies, out, progress)
    stages = tuple(_stage(prepared, name, step) for name in session.task.stage_names)
    answered = _answers(prepared, questions, engine, step) if answers else ()
    found = Rankings(
        questions=len(questions), inputs=inputs, conditions=session.conditions, stages=stages, answers=answered
    )
    write_text(out / RANKINGS_FILE, found.model_dump_json(indent=1) + "\n")
    return found


def _inputs(session: Session, questions: Sequence[Question]) -> str:
    form = [session.options.dtype, session.options.quantise, len(session.task.shots)]
    asked = [question.model_dump(mode="json") for question in questions]
    return content_hash([session.engine.identity.fingerprint, session.task.fingerprint, form, asked])


def _refuse_other_rankings(out: Path, inputs: str) -> None:
    """Other policies of the same questions replace those of before, which the same command brings back at once."""
    before = read_kept(out / RANKINGS_FILE, Rankings.model_validate_json)
    if before is not None and before.inputs != inputs:
        raise OptionError(
            f"{out} holds rankings of another model, or of other questions, which these would replace. "
            "Choose another --out."
        )


def _stage(policies: Policies, stage: str, step: int) -> StageRankings:
    candidates = _candidates(policies, step)
    for policy in policies.policies:
        policies.prepare(stage, policy)
    policies.progress.start(f"judging skip sets of {stage}", len(policies.policies))
    curves = []
    for policy in policies.policies:
        curves.append(_curve(policies, stage, policy, candidates))
        policies.progress.advance()
    first: dict[str, Policy] = {}
    for policy in policies.policies:
        first.setdefault(policy.ranking, policy)
    return StageRankings(
        stage=stage,
        rankings={name: policies.ranking(stage, policy) for name, policy in first.items()},
        curves=tuple(curves),
        indispensable=_indispensable(policies, stage),
    )


def _curve(policies: Policies, stage: str, policy: Policy, candidates: Sequence[int]) -> PolicyEffects:
    points: list[BudgetEffect] = []
    for budget in candidates:
        effect = policies.effect(stage, budget, policy)
        points.append(BudgetEffect(budget=budget, agreement=effect.agreement, kl=effect.kl, tokens=effect.tokens))
        if effect.agreement < ENDS:
            break
    return PolicyEffects(ranking=policy.ranking, compensation=policy.compensation, points=tuple(points))


def _answers(
    policies: Policies, questions: Sequence[Question], engine: CachedEngine, step: int
) -> tuple[PolicyAnswers, ...]:
    judging = {trace.question_id for trace in policies.judging}
    asked = [question for question in questions if question.id in judging]
    return tuple(_answers_of(policies, policy, asked, engine, step) for policy in policies.policies)


def _answers_of(
    policies: Policies, policy: Policy, asked: Sequence[Question], engine: CachedEngine, step: int
) -> PolicyAnswers:
    session, points = policies.session, []
    for budget in _candidates(policies, step):
        plan = session.plan({stage: policies.stage_plan(stage, budget, policy) for stage in session.task.stage_names})
        what = f"{policy}: {budget} sub-layers left out of every stage"
        traces = answer(session, asked, plan, engine, what=what, progress=policies.progress)
        against_full = compare(question_scores(policies.judging), question_scores(traces))
        right = tuple(trace.question_id for trace in traces if trace.correct)
        points.append(BudgetAnswers(budget=budget, accuracy=score(traces), against_full=against_full, right=right))
        if worse(against_full):
            break
    return PolicyAnswers(ranking=policy.ranking, compensation=policy.compensation, points=tuple(points))


def _candidates(policies: Policies, step: int) -> Sequence[int]:
    return budgets(policies.session.engine.identity.num_blocks, step)[1:]


def _indispensable(policies: Policies, stage: str) -> tuple[SubLayer, ...]:
    probed = [policy for policy in policies.policies if RANKINGS[policy.ranking].measure == "probe"]
    return indispensable(policies.ranking(stage, probed[0])) if probed else ()
