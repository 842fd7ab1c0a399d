"""Steps 1 and 2, then 3: rank, search budgets stage by stage, add exit; writes a plan folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from litestage.core import ExitRule, Plan, StagePlan, Trace
from litestage.core.files import write_text
from litestage.core.plan import content_hash
from litestage.core.shown import Shown
from litestage.evaluation import CostModel, price
from litestage.jobs.exits import fitted_exits
from litestage.jobs.options import SearchSettings
from litestage.jobs.policies import PAPER, Policies
from litestage.jobs.rank import rank_traces
from litestage.jobs.session import Session
from litestage.jobs.timing import cost_model, wall_clock
from litestage.pipeline import run
from litestage.results import PlanSearch, Split
from litestage.search import (
    Candidate,
    ScreenedPolicy,
    SearchOptions,
    SearchRecord,
    StageCandidate,
    Trial,
    TrialResult,
    budget_search,
    estimate_effort,
    one_by_one,
)
from litestage.search.trial import hopeless, misses_to_go
from litestage.skipping import Ranking, save_stand
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
    baseline: Baseline | None = None,
) -> Found:
    """Find a plan and leave it in the session's folder; the same call goes on where a killed one stopped.

    ``questions`` are those of ``split``, by default as many as the session was asked for. Several searches of the same
    questions may share their ``baseline``. Of several policies for a budget the one that changes the fewest tokens is
    decoded. Candidates are compared, and stages ordered, by price or by the wall clock.
    """
    questions = session.questions(split, session.data.limit) if questions is None else questions
    options, stages, blocks = settings.options, session.task.stage_names, session.engine.identity.num_blocks
    options.check_fits(blocks)
    if split == "test":
        session.progress.say(
            "This tunes a plan on test questions: no figure on them will be honest afterwards. Use dev."
        )
    session.folder.reserve("plan", _reserved(session, questions, settings))
    baseline = baseline or lay_baseline(session, questions)
    policies = Policies(session, baseline.full, settings.policies, baseline.ranking)
    trials = Trials(session, baseline, questions, settings, policies)
    seconds = price(baseline.cost, baseline.full, session.full_plan()).seconds
    _announce(session, options, len(questions), seconds)
    record = one_by_one(budget_search(stages, blocks, len(questions), options, trials.screen), trials.run)
    evidence = _evidence(record, split, baseline.cost, settings.latency) | {
        "conditions": session.conditions.model_dump(mode="json")
    }
    target = {"max_drop": options.max_drop, "accuracy": record.target, "step": options.step}
    plan = trials.plan(record.candidate).model_copy(update={"target": target, "evidence": evidence})
    found = Found(plan, record, baseline.ranking, baseline.cost, baseline.full)
    if session.folder.path:
        _save(session, session.folder.path, found)
    return found


def _reserved(session: Session, questions: Sequence[Question], settings: SearchSettings) -> dict[str, Any]:
    """What makes a search the one that it is: it is not mixed with another."""
    return {
        "options": settings.options.model_dump(),
        "exit": settings.exit_rule.model_dump(),
        "latency": settings.latency,
        "policies": [str(policy) for policy in settings.policies],
        "model": session.engine.identity.fingerprint,
        "task": session.task.fingerprint,
        "questions": content_hash([question.model_dump(mode="json") for question in questions]),
        "dtype": session.model.dtype,
        "quantise": session.model.quantise,
        "device": session.engine.model.decoder.device.type,
        "batch_size": session.decoding.batch_size,
    }


def lay_baseline(session: Session, questions: Sequence[Question]) -> Baseline:
    """Answer the questions at full depth, price the work and rank the sub-layers; all of it remembered."""
    full = session.answer(questions, session.full_plan(), "answering at full depth")
    if not any(trace.correct for trace in full):
        session.progress.say(
            "The full model answers none of these questions, so any plan keeps its accuracy. Check the task, "
            "the model and --shots before trusting this search."
        )
    return Baseline(full, cost_model(session, full), rank_traces(session, full))


@dataclass
class Trials:
    """Runs candidates over the questions, in the order asked for, until all is known or they cannot be chosen."""

    session: Session
    baseline: Baseline
    questions: Sequence[Question]
    settings: SearchSettings
    policies: Policies

    def run(self, trial: Trial) -> TrialResult:
        by_clock = self.settings.latency == "wall"
        if by_clock:  # seconds are known only when all is done
            trial = trial.model_copy(update={"too_slow": None})
        plan, n = self.plan(trial.candidate), len(self.questions)
        self.session.progress.start(describe(trial), n)
        so_far = self._answered(plan, trial)
        traces = so_far.traces
        outcomes = tuple(traces[i].correct if i in traces else None for i in range(n))
        if len(traces) < n:
            why = "cannot keep the target" if so_far.hopeless else "slower than the best"
            self.session.progress.advance(n - len(traces), why)
            return TrialResult(outcomes=outcomes, seconds_at_least=so_far.seconds if so_far.slow else None)
        if by_clock:
            return self._timed(plan, outcomes)
        priced = price(self.baseline.cost, [traces[i] for i in range(n)], plan)
        return TrialResult(outcomes=outcomes, seconds=priced.seconds, stage_seconds=priced.stage_seconds)

    def plan(self, candidate: Candidate) -> Plan:
        """The plan that a candidate means: of each stage's policy, as much as its budget says."""
        return self.session.plan({stage.stage: self._stage(stage) for stage in candidate.stages})

    def screen(self, stage: str, budget: int) -> ScreenedPolicy:
        policy, effect = self.policies.best(stage, budget)
        return ScreenedPolicy(policy=str(policy), agreement=effect.agreement if effect else None)

    def _stage(self, candidate: StageCandidate) -> StagePlan:
        policy = next((policy for policy in self.policies.policies if str(policy) == candidate.policy), PAPER)
        plan = self.policies.stage_plan(candidate.stage, candidate.budget, policy)
        return plan.model_copy(update={"exit": self.exits.get(candidate.stage) if candidate.exit else None})

    @cached_property
    def exits(self) -> dict[str, ExitRule]:
        """The exit rule of each stage that can have one."""
        return fitted_exits(self.session, self.settings.exit_rule, self.baseline.full)

    def _answered(self, plan: Plan, trial: Trial) -> _SoFar:
        """Run all questions, or as many as show that the candidate cannot be chosen."""
        so_far = _SoFar(trial)
        while not so_far.settled:
            some = min(self.rows, so_far.next_group(filling=max(1, self.rows // self.branches)))
            group = trial.order[len(so_far.traces) : len(so_far.traces) + some]
            questions = [self.questions[i] for i in group]
            answered = run(self.session.stored, self.session.task, questions, plan, questions_at_once=len(group))
            so_far.add(group, answered, price(self.baseline.cost, answered, plan).seconds)
            self.session.progress.advance(len(group), f"{so_far.right} of {len(so_far.traces)} right")
        return so_far

    @property
    def rows(self) -> int:
        """Rows that a group of questions fills: a batch, or two of a model so narrow that two processes share them.

        Not one for each process at hand, whose number must not change what a search records. Two processes that shared
        a single batch took 5 % longer.
        """
        return self.session.decoding.batch_size * (2 if self.session.narrow else 1)

    @property
    def branches(self) -> int:
        """Most rows that a stage of a question has."""
        return max(stage.branches(question) for stage in self.session.task.stages for question in self.questions)

    def _timed(self, plan: Plan, outcomes: tuple[bool | None, ...]) -> TrialResult:
        """Seconds a question by the clock, from fresh runs; remembered, so that a resumed search decides alike."""
        threads = self.baseline.cost.threads
        samples = wall_clock(self.session, {"plan": plan}, self.questions, threads)
        return TrialResult(
            outcomes=outcomes,
            seconds=fmean(sample.seconds for sample in samples),
            stage_seconds={
                stage: fmean(sample.stage_seconds[stage] for sample in samples)
                for stage in self.session.task.stage_names
            },
        )


class _SoFar:
    """What the questions run so far show of a setting."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.traces: dict[int, Trace] = {}  # by question
        self.right = 0
        self.seconds = 0.0  # priced, and shared by all questions: what a question takes at least

    def add(self, group: Sequence[int], answered: Sequence[Trace], seconds: float) -> None:
        """Take in a group's traces, and its ``seconds`` a question."""
        self.traces.update(zip(group, answered, strict=True))
        self.right += sum(trace.correct for trace in answered)
        self.seconds += seconds * len(group) / len(self.trial.order)

    @property
    def settled(self) -> bool:
        return len(self.traces) == len(self.trial.order) or self.hopeless or self.slow

    @property
    def hopeless(self) -> bool:
        return hopeless(self.right, len(self.traces), len(self.trial.order), self.trial.needed)

    @property
    def slow(self) -> bool:
        return self.trial.is_too_slow(self.seconds)

    def next_group(self, filling: int) -> int:
        """How many questions to run next: as many as wrong answers need to settle it, or as fill a batch; fewer where
        being slow settles it first. ``filling`` questions show the pace."""
        misses = misses_to_go(self.right, len(self.traces), len(self.trial.order), self.trial.needed)
        if self.trial.too_slow is None:
            return max(misses, filling)
        if not self.seconds:
            return filling
        too_slow_after = len(self.traces) * self.trial.too_slow / self.seconds
        return max(1, min(max(misses, filling), 1 + int(too_slow_after) - len(self.traces)))


def describe(trial: Trial) -> str:
    """What is being measured, for a progress line."""
    if trial.purpose == "profile" and trial.stage:
        return f"{trial.stage}: {trial.candidate.budgets[trial.stage]} sub-layers left out"
    return "full depth" if trial.purpose == "full" else f"exit on in {', '.join(trial.candidate.exits) or 'no stage'}"


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
    for stage in found.plan.stages.values():
        if stage.compensation.content is not None:
            save_stand(out, stage.compensation, session.engine.stands[stage.compensation.content])
    write_text(out / SEARCH_FILE, found.record.model_dump_json(indent=2) + "\n")
    found.plan.save_pretrained(out)
