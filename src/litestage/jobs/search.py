"""Steps 1 and 2, then 3: rank, search budgets stage by stage, add exit; writes a plan folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from litestage.core import ExitRule, Plan, StagePlan, Trace
from litestage.core.files import write_text
from litestage.engine import CachedEngine
from litestage.evaluation import LatencyModel, price
from litestage.jobs.claim import claim
from litestage.jobs.evaluate import answer
from litestage.jobs.latency import LATENCY_FILE, check_latency, latency_model, wall_clock
from litestage.jobs.policies import PAPER, Policies, Policy
from litestage.jobs.progress import SILENT, Progress
from litestage.jobs.rank import rank_traces
from litestage.jobs.session import NARROW, Session
from litestage.pipeline import run
from litestage.search import (
    Candidate,
    ScreenedPolicy,
    SearchOptions,
    SearchRecord,
    StageCandidate,
    Trial,
    TrialResult,
    estimate_cost,
    search_budgets,
)
from litestage.search.trial import hopeless, misses_to_go
from litestage.skipping import Ranking, save_stand
from litestage.tasks import Question

SEARCH_FILE = "search.json"


@dataclass(frozen=True)
class Baseline:
    """What every search over the same questions stands on: full depth's answers, prices and the ranking."""

    engine: CachedEngine
    full: list[Trace]
    latency: LatencyModel
    ranking: Ranking


@dataclass(frozen=True)
class Found:
    """A finished search."""

    plan: Plan
    record: SearchRecord
    ranking: Ranking
    latency: LatencyModel
    full: list[Trace]
    """Full-depth traces of the search's questions."""


def search(
    session: Session,
    questions: Sequence[Question],
    out: Path,
    options: SearchOptions,
    *,
    split: str = "dev",
    exit_rule: ExitRule | None = None,
    policies: Sequence[Policy] = (PAPER,),
    latency: str = "priced",
    baseline: Baseline | None = None,
    progress: Progress = SILENT,
) -> Found:
    """Find a plan on ``questions`` and leave it in ``out``; the same call goes on where a killed one stopped.

    Several searches of the same questions may share their ``baseline``. Of several ``policies`` for a budget the one
    that changes the fewest tokens is decoded. Candidates are compared, and stages ordered, by ``latency``: priced, or
    by the wall clock.
    """
    check_latency(latency)
    options.check_fits(session.engine.identity.num_blocks)
    rule = exit_rule or ExitRule()
    if split == "test":
        progress.say("This tunes a plan on test questions: no figure on them will be honest afterwards. Use dev.")
    settings: dict[str, Any] = {"options": options.model_dump(), "exit": rule.model_dump(), "latency": latency}
    claim(session, questions, out, settings | {"policies": [str(policy) for policy in policies]})
    baseline = baseline or lay_baseline(session, questions, out, progress)
    measure = _Measure(
        session,
        baseline,
        questions,
        rule,
        Policies(session, baseline.full, policies, out, progress, baseline.ranking),
        latency,
        out,
        progress,
    )
    seconds = price(baseline.latency, baseline.full, session.full_plan()).seconds
    _announce(session, options, len(questions), seconds, progress)
    stages = session.task.stage_names
    blocks = session.engine.identity.num_blocks
    record = search_budgets(stages, blocks, len(questions), options, measure, measure.screen)
    plan = _evidence(session, measure.plan(record.candidate), record, split, baseline.latency, latency)
    _save(session, out, plan, record)
    return Found(plan, record, baseline.ranking, baseline.latency, baseline.full)


def lay_baseline(session: Session, questions: Sequence[Question], out: Path, progress: Progress = SILENT) -> Baseline:
    """Answer the questions at full depth, price the work and rank the sub-layers; kept in ``out``."""
    engine = session.cached(out)
    full = answer(session, questions, session.full_plan(), engine, what="answering at full depth", progress=progress)
    if not any(trace.correct for trace in full):
        progress.say(
            "The full model answers none of these questions, so any plan keeps its accuracy. Check the task, "
            "the model and --shots before trusting this search."
        )
    latency = latency_model(session, full, out / LATENCY_FILE, progress)
    return Baseline(engine, full, latency, rank_traces(session, full, out, progress))


@dataclass
class _Measure:
    """Runs a setting over the questions, in the order asked for, until it is done or cannot be chosen any more."""

    session: Session
    baseline: Baseline
    questions: Sequence[Question]
    exit_rule: ExitRule
    policies: Policies
    latency: str
    out: Path
    progress: Progress

    def __call__(self, ask: Trial) -> TrialResult:
        if self.latency == "wall":  # by the clock, seconds are known only when all is done
            ask = ask.model_copy(update={"too_slow": None})
        plan, n = self.plan(ask.candidate), len(self.questions)
        self.progress.start(describe(ask), n)
        so_far = self._run(plan, ask)
        traces = so_far.traces
        outcomes = tuple(traces[i].correct if i in traces else None for i in range(n))
        if len(traces) < n:
            self.progress.advance(
                n - len(traces), "cannot keep the target" if so_far.hopeless else "slower than the best"
            )
            return TrialResult(outcomes=outcomes, seconds_at_least=so_far.seconds if so_far.slow else None)
        if self.latency == "wall":
            return self._wall(plan, outcomes)
        priced = price(self.baseline.latency, [traces[i] for i in range(n)], plan)
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
        return plan.model_copy(update={"exit": self.exit_rule if candidate.exit else None})

    def _run(self, plan: Plan, ask: Trial) -> _SoFar:
        """Run all questions, or as many as show that the setting cannot be chosen."""
        so_far = _SoFar(ask)
        while not so_far.settled:
            some = min(self.rows, so_far.next_group(filling=max(1, self.rows // self.branches)))
            group = ask.order[len(so_far.traces) : len(so_far.traces) + some]
            answered = run(
                self.baseline.engine,
                self.session.task,
                [self.questions[i] for i in group],
                plan,
                questions_at_once=len(group),
            )
            so_far.add(group, answered, price(self.baseline.latency, answered, plan).seconds)
            self.progress.advance(len(group), f"{so_far.right} of {len(so_far.traces)} right")
        return so_far

    @property
    def rows(self) -> int:
        """Rows that a group of questions fills: a batch, or two of a model so narrow that two processes share them.

        Not one for each process at hand, whose number must not change what a search records. Two processes that shared
        a single batch took 5 % longer.
        """
        narrow = self.session.engine.model.decoder.head.shape[1] <= NARROW
        return self.session.options.batch_size * (2 if narrow else 1)

    @property
    def branches(self) -> int:
        """Most rows that a stage of a question has."""
        return max(stage.branches(question) for stage in self.session.task.stages for question in self.questions)

    def _wall(self, plan: Plan, outcomes: tuple[bool | None, ...]) -> TrialResult:
        """Seconds a question by the clock, from fresh runs; remembered, so that a resumed search decides alike."""
        threads = self.baseline.latency.threads
        samples = wall_clock(
            self.session, {"plan": plan}, self.questions, threads=threads, out=self.out, progress=self.progress
        )
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

    def __init__(self, ask: Trial) -> None:
        self.ask = ask
        self.traces: dict[int, Trace] = {}  # by question
        self.right = 0
        self.seconds = 0.0  # priced, and shared by all questions: what a question takes at least

    def add(self, group: Sequence[int], answered: Sequence[Trace], seconds: float) -> None:
        """Take in a group's traces, and its ``seconds`` a question."""
        self.traces.update(zip(group, answered, strict=True))
        self.right += sum(trace.correct for trace in answered)
        self.seconds += seconds * len(group) / len(self.ask.order)

    @property
    def settled(self) -> bool:
        return len(self.traces) == len(self.ask.order) or self.hopeless or self.slow

    @property
    def hopeless(self) -> bool:
        return hopeless(self.right, len(self.traces), len(self.ask.order), self.ask.needed)

    @property
    def slow(self) -> bool:
        return self.ask.is_too_slow(self.seconds)

    def next_group(self, filling: int) -> int:
        """How many questions to run next: as many as wrong answers need to settle it, or as fill a batch; fewer where
        being slow settles it first. ``filling`` questions show the pace."""
        misses = misses_to_go(self.right, len(self.traces), len(self.ask.order), self.ask.needed)
        if self.ask.too_slow is None:
            return max(misses, filling)
        if not self.seconds:
            return filling
        too_slow_after = len(self.traces) * self.ask.too_slow / self.seconds
        return max(1, min(max(misses, filling), 1 + int(too_slow_after) - len(self.traces)))


def describe(ask: Trial) -> str:
    """What is being measured, for a progress line."""
    if ask.purpose == "profile" and ask.stage:
        return f"{ask.stage}: {ask.candidate.budgets[ask.stage]} sub-layers left out"
    return "full depth" if ask.purpose == "full" else f"exit on in {', '.join(ask.candidate.exits) or 'no stage'}"


def _announce(session: Session, options: SearchOptions, n: int, seconds: float, progress: Progress) -> None:
    blocks = session.engine.identity.num_blocks
    cost = estimate_cost(len(session.task.stages), blocks, options.step, n, seconds)
    progress.say(
        f"The full profile is {cost.points} settings x {n} questions, {_duration(cost.seconds)} at one question at a "
        "time. Settings that cannot keep the target or be the fastest end early, and questions run side by side."
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _evidence(
    session: Session, plan: Plan, record: SearchRecord, split: str, model: LatencyModel, latency: str
) -> Plan:
    """The plan with what it was asked for and what it rests on."""
    target = {"max_drop": record.options.max_drop, "accuracy": record.target, "step": record.options.step}
    evidence = {
        "split": split,
        "n": record.questions,
        "full": record.full.model_dump(mode="json"),
        "plan": record.result.model_dump(mode="json"),
        "latency": latency,
        "latency_fit": {"decode": model.decode_error.model_dump(), "prefill": model.prefill_error.model_dump()},
        "conditions": session.conditions.model_dump(mode="json"),
    }
    return plan.model_copy(update={"target": target, "evidence": evidence})


def _save(session: Session, out: Path, plan: Plan, record: SearchRecord) -> None:
    for stage in plan.stages.values():
        if stage.compensation.content is not None:
            save_stand(out, stage.compensation, session.engine.stands[stage.compensation.content])
    write_text(out / SEARCH_FILE, record.model_dump_json(indent=2) + "\n")
    plan.save_pretrained(out)
