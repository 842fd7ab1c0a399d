"""Rankings side by side: the order that each gives, how many tokens its skip sets change, and which answers."""

from __future__ import annotations

import json
from collections.abc import Sequence

from litestage.core import OptionError, SubLayer
from litestage.core.files import read_kept, write_text
from litestage.core.plan import content_hash
from litestage.evaluation import compare, question_scores, score, worse
from litestage.jobs.options import RankOptions
from litestage.jobs.policies import Policies, Policy
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


def rank(
    session: Session, options: RankOptions = RankOptions(), questions: Sequence[Question] | None = None
) -> Rankings:
    """Answer at full depth, rank every stage by every policy, and judge budgets in steps; leaves ``rankings.json``.

    Budgets are judged by the tokens that they change, and with ``answers`` by the answers as well, which costs a run
    over half the questions for each.
    """
    questions = session.questions() if questions is None else questions
    if len(questions) < 2:
        raise OptionError(
            "With one question nothing is left to judge on. Give 2 or more: half are fitted on, half judged."
        )
    candidates = budgets(session.engine.identity.num_blocks, options.step)[1:]
    SearchOptions(step=options.step).check_fits(session.engine.identity.num_blocks)
    session.folder.reserve("ranking")
    inputs = _inputs(session, questions)
    _refuse_other_rankings(session, inputs)
    full = session.answer(questions, session.full_plan(), "answering at full depth")
    policies = Policies(session, full, options.policies)
    stages = tuple(_stage(policies, name, candidates) for name in session.task.stage_names)
    answered = _answers(policies, questions, candidates) if options.answers else ()
    found = Rankings(
        questions=len(questions), inputs=inputs, conditions=session.conditions, stages=stages, answers=answered
    )
    if session.folder.path:
        write_text(session.folder.path / RANKINGS_FILE, found.model_dump_json(indent=1) + "\n")
    return found


def _inputs(session: Session, questions: Sequence[Question]) -> str:
    form = [session.model.dtype, session.model.quantise, len(session.task.shots)]
    asked = [question.model_dump(mode="json") for question in questions]
    return content_hash([session.engine.identity.fingerprint, session.task.fingerprint, form, asked])


def _refuse_other_rankings(session: Session, inputs: str) -> None:
    """Other policies of the same questions replace those of before, which the same command brings back at once."""
    before = read_kept(session.folder.path / RANKINGS_FILE, json.loads) if session.folder.path else None
    if isinstance(before, dict) and before.get("inputs") != inputs:
        raise OptionError(
            f"{session.folder.path} holds rankings of another model, or of other questions, which these would replace. "
            "Choose another --out."
        )


def _stage(policies: Policies, stage: str, candidates: Sequence[int]) -> StageRankings:
    for policy in policies.policies:
        policies.prepare(stage, policy)
    policies.session.progress.start(f"judging skip sets of {stage}", len(policies.policies))
    curves = []
    for policy in policies.policies:
        curves.append(_curve(policies, stage, policy, candidates))
        policies.session.progress.advance()
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


def _answers(policies: Policies, questions: Sequence[Question], candidates: Sequence[int]) -> tuple[PolicyAnswers, ...]:
    judging = {trace.question_id for trace in policies.judging}
    asked = [question for question in questions if question.id in judging]
    return tuple(_answers_of(policies, policy, asked, candidates) for policy in policies.policies)


def _answers_of(
    policies: Policies, policy: Policy, asked: Sequence[Question], candidates: Sequence[int]
) -> PolicyAnswers:
    session, points = policies.session, []
    for budget in candidates:
        plan = session.plan({name: policies.stage_plan(name, budget, policy) for name in session.task.stage_names})
        traces = session.answer(asked, plan, f"{policy}: {budget} sub-layers left out of every stage")
        against_full = compare(question_scores(policies.judging), question_scores(traces))
        right = tuple(trace.question_id for trace in traces if trace.correct)
        points.append(BudgetAnswers(budget=budget, accuracy=score(traces), against_full=against_full, right=right))
        if worse(against_full):
            break
    return PolicyAnswers(ranking=policy.ranking, compensation=policy.compensation, points=tuple(points))


def _indispensable(policies: Policies, stage: str) -> tuple[SubLayer, ...]:
    probed = [policy for policy in policies.policies if RANKINGS[policy.ranking].measure == "probe"]
    return indispensable(policies.ranking(stage, probed[0])) if probed else ()
