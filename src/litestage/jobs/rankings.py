"""Rankings side by side: the order that each gives, how many tokens its skip sets change, and which answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from litestage.core import OptionError
from litestage.core.files import read_kept, write_text
from litestage.core.layers import Record
from litestage.core.plan import content_hash
from litestage.engine import CachedEngine
from litestage.evaluation import Accuracy, Paired, compare, question_scores, score, worse
from litestage.jobs.claim import refuse_other_jobs
from litestage.jobs.evaluate import answer
from litestage.jobs.progress import SILENT, Progress
from litestage.jobs.ways import Way, Ways
from litestage.jobs.workbench import Workbench
from litestage.search import SearchOptions, budgets
from litestage.skipping import INDISPENSABLE, RANKINGS, Ranking
from litestage.tasks import Question

RANKINGS_FILE = "rankings.json"
ENDS = 0.3
"""Agreement below which a curve is not followed further."""


class Effected(Record):
    """What a budget does to the tokens of questions that nothing was fitted on."""

    budget: int
    agreement: float
    """Share of tokens, 0 to 1, whose likeliest successor stays the full model's."""
    kl: float
    """Nats a token."""
    tokens: int


class Curve(Record):
    """A way's effect by budget, until it changes too many tokens."""

    ranking: str
    compensation: str
    points: tuple[Effected, ...]


class StageRankings(Record):
    """One stage's rankings by name, the curves of its ways, and what must never go."""

    stage: str
    rankings: dict[str, Ranking]
    """By name; of a greedy one that knows several compensations, the order with the first of them in place."""
    curves: tuple[Curve, ...]
    indispensable: tuple[str, ...]
    """Sub-layers that change more than every second token when they alone are left out; empty without a probe."""


class Answered(Record):
    """Answers with a budget left out of every stage, on the questions that nothing was fitted on."""

    budget: int
    accuracy: Accuracy
    against_full: Paired
    right: tuple[str, ...] = ()
    """Questions answered right, by id: ways can be paired with each other."""


class Answers(Record):
    """A way's answers by budget, until more are lost than chance explains."""

    ranking: str
    compensation: str
    points: tuple[Answered, ...]


class Rankings(Record):
    """All stages, on one set of questions."""

    questions: int
    inputs: str = ""
    """A name for the model, its form, the task and the questions."""
    conditions: dict[str, Any] = Field(default_factory=dict)
    stages: tuple[StageRankings, ...]
    answers: tuple[Answers, ...] = ()
    """One a way, where questions were answered at all."""


def compare_rankings(
    bench: Workbench,
    questions: Sequence[Question],
    ways: Sequence[Way],
    out: Path,
    *,
    step: int = 2,
    answers: bool = False,
    progress: Progress = SILENT,
) -> Rankings:
    """Answer at full depth, rank every stage in every way, and judge budgets in steps; ``rankings.json`` in ``out``.

    Budgets are judged by the tokens that they change, and with ``answers`` by the answers as well, which costs a run
    over half the questions for each.
    """
    if len(questions) < 2:
        raise OptionError(
            "With one question nothing is left to judge on. Give 2 or more: half are fitted on, half judged."
        )
    SearchOptions(step=step).check_fits(bench.engine.identity.num_blocks)
    refuse_other_jobs(out, "ranking")
    inputs = _inputs(bench, questions)
    _refuse_other_rankings(out, inputs)
    engine = bench.cached(out)
    full = answer(bench, questions, bench.full_plan(), engine, what="answering at full depth", progress=progress)
    prepared = Ways(bench, full, ways, out, progress)
    stages = tuple(_stage(prepared, name, step) for name in bench.task.stage_names)
    answered = _answers(prepared, questions, engine, step) if answers else ()
    found = Rankings(
        questions=len(questions), inputs=inputs, conditions=bench.conditions, stages=stages, answers=answered
    )
    write_text(out / RANKINGS_FILE, found.model_dump_json(indent=1) + "\n")
    return found


def _inputs(bench: Workbench, questions: Sequence[Question]) -> str:
    form = [bench.options.dtype, bench.options.quantise, len(bench.task.shots)]
    asked = [question.model_dump(mode="json") for question in questions]
    return content_hash([bench.engine.identity.fingerprint, bench.task.fingerprint, form, asked])


def _refuse_other_rankings(out: Path, inputs: str) -> None:
    """Other ways of the same questions replace those of before, which the same command brings back at once."""
    before = read_kept(out / RANKINGS_FILE, Rankings.model_validate_json)
    if before is not None and before.inputs != inputs:
        raise OptionError(
            f"{out} holds rankings of another model, or of other questions, which these would replace. "
            "Choose another --out."
        )


def _stage(ways: Ways, stage: str, step: int) -> StageRankings:
    candidates = _candidates(ways, step)
    for way in ways.ways:
        ways.prepare(stage, way)
    ways.progress.start(f"judging skip sets of {stage}", len(ways.ways))
    curves = []
    for way in ways.ways:
        curves.append(_curve(ways, stage, way, candidates))
        ways.progress.advance()
    first: dict[str, Way] = {}
    for way in ways.ways:
        first.setdefault(way.ranking, way)
    return StageRankings(
        stage=stage,
        rankings={name: ways.ranking(stage, way) for name, way in first.items()},
        curves=tuple(curves),
        indispensable=_indispensable(ways, stage),
    )


def _curve(ways: Ways, stage: str, way: Way, candidates: Sequence[int]) -> Curve:
    points: list[Effected] = []
    for budget in candidates:
        effect = ways.effect(stage, budget, way)
        points.append(Effected(budget=budget, agreement=effect.agreement, kl=effect.kl, tokens=effect.tokens))
        if effect.agreement < ENDS:
            break
    return Curve(ranking=way.ranking, compensation=way.compensation, points=tuple(points))


def _answers(ways: Ways, questions: Sequence[Question], engine: CachedEngine, step: int) -> tuple[Answers, ...]:
    judging = {trace.question_id for trace in ways.judging}
    asked = [question for question in questions if question.id in judging]
    return tuple(_answers_of(ways, way, asked, engine, step) for way in ways.ways)


def _answers_of(ways: Ways, way: Way, asked: Sequence[Question], engine: CachedEngine, step: int) -> Answers:
    bench, points = ways.bench, []
    for budget in _candidates(ways, step):
        plan = bench.plan({stage: ways.stage_plan(stage, budget, way) for stage in bench.task.stage_names})
        what = f"{way}: {budget} sub-layers left out of every stage"
        traces = answer(bench, asked, plan, engine, what=what, progress=ways.progress)
        against_full = compare(question_scores(ways.judging), question_scores(traces))
        right = tuple(trace.question_id for trace in traces if trace.correct)
        points.append(Answered(budget=budget, accuracy=score(traces), against_full=against_full, right=right))
        if worse(against_full):
            break
    return Answers(ranking=way.ranking, compensation=way.compensation, points=tuple(points))


def _candidates(ways: Ways, step: int) -> Sequence[int]:
    return budgets(ways.bench.engine.identity.num_blocks, step)[1:]


def _indispensable(ways: Ways, stage: str) -> tuple[str, ...]:
    probed = [way for way in ways.ways if RANKINGS[way.ranking].measure == "probe"]
    scores = ways.ranking(stage, probed[0]).scores if probed else ()
    return tuple(s.layer for s in reversed(scores) if s.agreement is not None and s.agreement < INDISPENSABLE)
