"""Steps 1 and 2, then 3: rank, search budgets stage by stage, add exit; writes a plan folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litestage.core import Plan, Trace
from litestage.core.files import write_text
from litestage.core.shown import Shown
from litestage.evaluation import CostModel, price
from litestage.jobs.ahead import SIDE_BY_SIDE, measured
from litestage.jobs.options import SearchSettings
from litestage.jobs.path import FoundPath, Questions, find_path
from litestage.jobs.policies import Policies
from litestage.jobs.rank import rank_traces
from litestage.jobs.session import Session
from litestage.jobs.timing import cost_model
from litestage.jobs.trials import Trials, save_plan, settings_of, warn_if_none_is_right
from litestage.results import PlanSearch, Split
from litestage.search import (
    SearchOptions,
    SearchRecord,
    budget_search,
    estimate_effort,
)
from litestage.skipping import Ranking
from litestage.tasks import Question

SEARCH_FILE = "search.json"


@dataclass(frozen=True)
class Baseline:
    """What every search over the same questions stands on: full depth's answers, prices and the ranking."""

    full: list[Trace]
    cost: CostModel
    ranking: Ranking


@dataclass(frozen=True)
class Found(Shown):
    """A finished search."""

    plan: Plan
    record: SearchRecord
    ranking: Ranking
    cost: CostModel
    full: list[Trace]
    """Full-depth traces of the search's questions."""

    @property
    def search(self) -> PlanSearch:
        """How the plan was found, as results keep it."""
        split = Split(name=self.plan.evidence["split"], used=self.record.questions)
        return PlanSearch.of(self.record, split, self.record.options.max_drop, self.plan.evidence["latency"])

    def _shown(self) -> tuple[object, ...]:
        return (self.search, self.plan)


def search(
    session: Session,
    settings: SearchSettings = SearchSettings(),
    questions: Sequence[Question] | None = None,
    *,
    split: str = "dev",
) -> FoundPath | Found:
    """Find a plan and leave it in the session's folder; the same call goes on where a killed one stopped.

    By default it is the fastest of a path whose loss is bounded on questions that the search has not seen; the presets
    ``paper`` and ``probed`` promise nothing. ``questions`` are those of ``split``, by default as many as the session
    was asked for; where there is no split for certificates, some of them are kept for that.
    """
    if settings.preset != "path":
        return search_greedily(session, settings, questions, split=split)
    return find_path(session, settings, Questions.of(session, split, settings.certify, questions))


def search_greedily(
    session: Session,
    settings: SearchSettings = SearchSettings(preset="paper", max_drop=1),
    questions: Sequence[Question] | None = None,
    *,
    split: str = "dev",
    baseline: Baseline | None = None,
) -> Found:
    """The paper's search: the slowest stage first, by what the plan loses on the questions of the search itself.

    Several searches of the same questions may share their ``baseline``. Of several policies for a budget the one that
    changes the fewest tokens is decoded. Candidates are compared, and stages ordered, by price or by the wall clock.
    """
    questions = session.questions(split, session.data.limit) if questions is None else questions
    options, stages, blocks = settings.options, session.task.stage_names, session.engine.identity.num_blocks
    options.check_fits(blocks)
    if split == "test":
        session.progress.say(
            "This tunes a plan on test questions: no figure on them will be honest afterwards. Use dev."
        )
    session.folder.reserve("plan", settings_of(session, questions, settings))
    baseline = baseline or lay_baseline(session, questions)
    policies = Policies(session, baseline.full, settings.policies, baseline.ranking)
    trials = Trials(session, baseline.cost, questions, settings, policies)
    seconds = price(baseline.cost, baseline.full, session.full_plan()).seconds
    _announce(session, options, len(questions), seconds)
    side_by_side = SIDE_BY_SIDE if session.capacity else 1
    record = measured(budget_search(stages, blocks, len(questions), options, trials.screen, side_by_side), trials)
    evidence = _evidence(record, split, baseline.cost, settings.latency) | {
        "conditions": session.conditions.model_dump(mode="json")
    }
    target = {"certified": False, "max_drop": options.max_drop, "accuracy": record.target, "step": options.step}
    plan = trials.plan(record.candidate).model_copy(update={"target": target, "evidence": evidence})
    found = Found(plan, record, baseline.ranking, baseline.cost, baseline.full)
    if session.folder.path:
        _save(session, session.folder.path, found)
    return found


def lay_baseline(session: Session, questions: Sequence[Question]) -> Baseline:
    """Answer the questions at full depth, price the work and rank the sub-layers; all of it remembered."""
    full = session.answer(questions, session.full_plan(), "answering at full depth")
    warn_if_none_is_right(session, full)
    return Baseline(full, cost_model(session, full), rank_traces(session, full))


def _announce(session: Session, options: SearchOptions, n: int, seconds: float) -> None:
    blocks = session.engine.identity.num_blocks
    cost = estimate_effort(len(session.task.stages), blocks, options.step, n, seconds)
    session.progress.say(
        f"The full profile is {cost.points} settings x {n} questions, {_duration(cost.seconds)} at one question at a "
        "time. Settings that cannot keep the target or be the fastest end early, and questions run side by side."
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _evidence(record: SearchRecord, split: str, cost: CostModel, latency: str) -> dict[str, Any]:
    """What a plan rests on."""
    return {
        "split": split,
        "n": record.questions,
        "full": record.full.model_dump(mode="json"),
        "plan": record.result.model_dump(mode="json"),
        "latency": latency,
        "latency_fit": {"decode": cost.decode_error.model_dump(), "prefill": cost.prefill_error.model_dump()},
    }


def _save(session: Session, out: Path, found: Found) -> None:
    write_text(out / SEARCH_FILE, found.record.model_dump_json(indent=2) + "\n")
    save_plan(session, out, found.plan)
