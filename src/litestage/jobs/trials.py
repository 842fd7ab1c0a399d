"""What every search measures with: candidates made into plans, and run over its questions."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from litestage.core import ExitRule, Plan, StagePlan, Trace
from litestage.core.plan import content_hash
from litestage.evaluation import CostModel, price
from litestage.jobs.exits import fitted_exits
from litestage.jobs.options import SearchSettings
from litestage.jobs.policies import PAPER, Policies
from litestage.jobs.session import Session
from litestage.jobs.timing import wall_clock
from litestage.pipeline import run
from litestage.search import Candidate, ScreenedPolicy, StageCandidate, Trial, TrialResult
from litestage.search.trial import hopeless, misses_to_go
from litestage.skipping import save_stand
from litestage.tasks import Question

T = TypeVar("T")
Racing = Generator[Sequence[int], Sequence[Trace], T]
"""Asks for groups of questions by their numbers, is sent their traces, and ends when a trial is settled."""


@dataclass
class Trials:
    """Runs candidates over the questions, in the order asked for, until all is known or they cannot be chosen."""

    session: Session
    cost: CostModel
    questions: Sequence[Question]
    settings: SearchSettings
    policies: Policies
    _written: set[tuple[StagePlan, str]] = field(default_factory=set)
    """Texts that some trial had written, by stage plan and prompt."""

    def run(self, trial: Trial) -> TrialResult:
        if not trial.whole:
            return self._some(trial)
        plan, n = self.plan(trial.candidate), len(self.questions)
        self.session.progress.start(describe(trial), n)
        so_far = self._answered(plan, trial)
        traces = so_far.traces
        told = TrialResult(
            outcomes=tuple(traces[i].correct if i in traces else None for i in range(n)),
            tokens=self._new_tokens(list(traces.values()), plan),
        )
        if len(traces) < n:
            why = "cannot keep the target" if so_far.hopeless else "slower than the best"
            self.session.progress.advance(n - len(traces), why)
            return told.model_copy(update={"seconds_at_least": so_far.seconds if so_far.slow else None})
        if self.settings.latency == "wall":
            each, by_stage = self._clock(plan, self.questions)
            seconds = fmean(each)
        else:
            priced = price(self.cost, [traces[i] for i in range(n)], plan)
            seconds, by_stage = priced.seconds, priced.stage_seconds
        return told.model_copy(update={"seconds": seconds, "stage_seconds": by_stage})

    def plan(self, candidate: Candidate) -> Plan:
        """The plan that a candidate means: of each stage's policy, as much as its budget says."""
        return self.session.plan({stage.stage: self._stage(stage) for stage in candidate.stages})

    def screen(self, stage: str, budget: int) -> ScreenedPolicy:
        policy, effect = self.policies.best(stage, budget)
        return ScreenedPolicy(policy=str(policy), agreement=effect.agreement if effect else None)

    def compare(self, stage: str, budget: int) -> ScreenedPolicy:
        """As `screen`, and with what becomes of the tokens where there is one policy alone."""
        policy, effect = self.policies.best(stage, budget)
        effect = effect or self.policies.effect(stage, budget, policy)
        return ScreenedPolicy(policy=str(policy), agreement=effect.agreement)

    def _some(self, trial: Trial) -> TrialResult:
        """Answer the questions asked for, all of them."""
        plan, n = self.plan(trial.candidate), len(self.questions)
        asked = [self.questions[i] for i in trial.order]
        traces = self.session.answer(asked, plan, describe(trial))
        priced = price(self.cost, traces, plan)
        each, by_stage = list(priced.by_question), priced.stage_seconds
        if self.settings.latency == "wall":
            each, by_stage = self._clock(plan, asked)
        correct = {i: trace.correct for i, trace in zip(trial.order, traces, strict=True)}
        seconds = dict(zip(trial.order, each, strict=True))
        return TrialResult(
            outcomes=tuple(correct.get(i) for i in range(n)),
            question_seconds=tuple(seconds.get(i) for i in range(n)),
            stage_seconds=by_stage,
            tokens=self._new_tokens(traces, plan),
        )

    def _new_tokens(self, traces: Sequence[Trace], plan: Plan) -> int:
        """Tokens of texts that no trial had written before: what a trial costs, whatever a resumed one finds."""
        tokens = 0
        for trace in traces:
            for stage in trace.stages:
                patient = plan.stage(stage.name)
                if patient.exit and patient.exit.looks_at != "entropy":  # cut from the whole text, where that is known
                    patient = patient.model_copy(update={"exit": None})
                for prompt, done in zip(stage.prompts, stage.completions, strict=True):
                    if (patient, prompt) not in self._written:
                        self._written.add((patient, prompt))
                        tokens += len(done.token_ids)
        return tokens

    def _stage(self, candidate: StageCandidate) -> StagePlan:
        if candidate.left_out:
            return StagePlan(left_out=True)
        policy = next((policy for policy in self.policies.policies if str(policy) == candidate.policy), PAPER)
        plan = self.policies.stage_plan(candidate.stage, candidate.budget, policy)
        rules = self.exits[candidate.rule or str(self.settings.exit_rules[0])]
        return plan.model_copy(update={"exit": rules.get(candidate.stage) if candidate.exit else None})

    @cached_property
    def exits(self) -> dict[str, dict[str, ExitRule]]:
        """By name, each rule as the stages that can have it run it: fitted to full depth's texts on the questions."""
        rules = self.settings.exit_rules
        return {str(rule): fitted_exits(self.session, rule, self.policies.traces) for rule in rules}

    def racing(self, plan: Plan, trial: Trial) -> Racing[SoFar]:
        """Ask for all questions, or for as many as show that the candidate cannot be chosen."""
        if self.settings.latency == "wall":  # seconds are known only when all is done
            trial = trial.model_copy(update={"too_slow": None})
        so_far = SoFar(trial)
        while not so_far.settled:
            some = min(self.rows, so_far.next_group(filling=max(1, self.rows // self.branches)))
            group = trial.order[len(so_far.traces) : len(so_far.traces) + some]
            answered = yield group
            so_far.add(group, answered, price(self.cost, answered, plan).seconds)
        return so_far

    def _answered(self, plan: Plan, trial: Trial) -> SoFar:
        """Run the questions that the trial asks for, one group after the other."""
        racing, answered, right = self.racing(plan, trial), None, 0
        while True:
            try:
                group = next(racing) if answered is None else racing.send(answered)
            except StopIteration as settled:
                so_far: SoFar = settled.value
                return so_far
            questions = [self.questions[i] for i in group]
            answered = run(self.session.stored, self.session.task, questions, plan, questions_at_once=len(group))
            right += sum(trace.correct for trace in answered)
            self.session.progress.advance(len(group), f"{right} right")

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

    def _clock(self, plan: Plan, questions: Sequence[Question]) -> tuple[list[float], dict[str, float]]:
        """Seconds of each question, and their mean by stage, from fresh runs that are remembered."""
        samples = wall_clock(self.session, {"plan": plan}, questions, self.cost.threads)
        names = self.session.task.stage_names
        by_stage = {name: fmean(sample.stage_seconds[name] for sample in samples) for name in names}
        return [sample.seconds for sample in samples], by_stage


class SoFar:
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
    if not trial.whole:
        return f"{trial.candidate}: {len(trial.order)} questions"
    return "full depth" if trial.purpose == "full" else f"exit on in {', '.join(trial.candidate.exits) or 'no stage'}"


def save_plan(session: Session, folder: Path, plan: Plan) -> None:
    """The plan, and the numbers of its stand-ins beside it."""
    for stage in plan.stages.values():
        if stage.compensation.content is not None:
            save_stand(folder, stage.compensation, session.engine.stands[stage.compensation.content])
    plan.save_pretrained(folder)


def warn_if_none_is_right(session: Session, full: Sequence[Trace]) -> None:
    """A search of questions that the model cannot answer finds whatever is fastest."""
    if not any(trace.correct for trace in full):
        session.progress.say(
            "The full model answers none of these questions, so any plan keeps its accuracy. Check the task, "
            "the model and --shots before trusting this search."
        )


def settings_of(
    session: Session, questions: Sequence[Question], settings: SearchSettings, certify: Sequence[Question] = ()
) -> dict[str, Any]:
    """What makes a search the one that it is: it is not mixed with another."""
    given = {
        "options": settings.options.model_dump(),
        "exit": settings.exit_rules[0].model_dump(),
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
    if certify:
        given |= {
            "preset": settings.preset,
            "latency_target": settings.latency_target,
            "levers": list(settings.levers),
            "exits": [str(rule) for rule in settings.exit_rules],
            "plans": settings.plans,
            "certify": content_hash([question.id for question in certify]),
        }
    return given
