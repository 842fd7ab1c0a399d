"""Policies of leaving sub-layers out: a ranking and a compensation, prepared once and compared by agreement."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from litestage.core import Compensation, OptionError, PlanError, SkipSchedule, SkipSet, StagePlan, SubLayer, Trace
from litestage.core.layers import Record
from litestage.core.plan import check_compensation
from litestage.engine.forcing import Text
from litestage.jobs.rank import check_room, fit_compensation, prompts_run, rank_traces, stage_redundancy
from litestage.jobs.session import Session
from litestage.models.decoder import CompensationWeights
from litestage.skipping import (
    RANKINGS,
    Effect,
    Probe,
    Ranking,
    decoded_redundancy,
    fit,
    gather,
    greedy,
    load_stands,
    probe,
    rank_by_effect,
    rank_sub_layers,
    save_stand,
)
from litestage.skipping.moments import Moments

POLICIES_FILE = "policies.json"
PROBED, FITTED, JUDGED = 24, 400, 120
"""Texts a stage: that sub-layers are probed on, stand-ins fitted on, and, of other questions, skip sets judged on."""


class Policy(NamedTuple):
    """How a stage leaves sub-layers out."""

    ranking: str = "cosine"
    compensation: str = "none"

    def __str__(self) -> str:
        return f"{self.ranking} + {self.compensation}"


PAPER = Policy()
PRESETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "path": (("probe",), ("none", "affine")),
    "paper": (("cosine",), ("none",)),
    "probed": (("cosine", "probe"), ("none", "mean", "affine", "lowrank:16")),
}
"""Rankings and compensations that a search chooses from, by name.

Without greedy removal: it keeps the most tokens, by which a search screens, but not the answers (results/rankings.md).
"""


def policies_of(rankings: Sequence[str], compensations: Sequence[str]) -> tuple[Policy, ...]:
    """Every pair; raises `OptionError` for a name that is not known."""
    for name in rankings:
        if name not in RANKINGS:
            raise OptionError(f"--ranking {name or repr(name)} is not known. Choose from {', '.join(RANKINGS)}.")
    for kind in compensations:
        try:
            check_compensation(kind)
        except OptionError as error:
            raise OptionError(f"--compensation: {error}") from None
    return tuple(Policy(ranking, kind) for ranking in rankings for kind in compensations)


class _Kept(Record):
    """What was prepared; keys are written ``stage, ranking, compensation``."""

    rankings: dict[str, Ranking] = Field(default_factory=dict)
    compensations: dict[str, Compensation] = Field(default_factory=dict)
    effects: dict[str, tuple[float, float, int]] = Field(default_factory=dict)
    """KL, agreement and tokens of a budget on the judging texts."""


class Policies:
    """Rankings and compensations of a task's stages, from full-depth traces of its questions.

    Every other question calibrates; the rest judge. What was prepared is kept in the session's folder and taken up
    again. Raises `OptionError` when a stage has no prompt that the model could read.
    """

    def __init__(
        self, session: Session, traces: Sequence[Trace], policies: Sequence[Policy], ranking: Ranking | None = None
    ) -> None:
        """``ranking`` is the paper's, where it is known already; a search takes it from all its questions."""
        check_room(session, traces)
        self.session, self.traces, self.policies = session, traces, tuple(policies)
        self._paper = ranking
        self._probes: dict[tuple[str, str], Probe] = {}
        self._seen: dict[str, dict[SubLayer, Moments]] = {}
        texts = [[(s.prompts, [one.token_ids for one in s.completions]) for s in trace.stages] for trace in traces]
        self._inputs = [texts, PROBED, FITTED, JUDGED]
        self._kept = self._recalled() or _Kept()

    @property
    def calibrating(self) -> Sequence[Trace]:
        """Traces of the questions that all is fitted on."""
        return self.traces[::2]

    @property
    def judging(self) -> Sequence[Trace]:
        """Traces of the questions that nothing is fitted on."""
        return self.traces[1::2] or self.traces

    def best(self, stage: str, budget: int) -> tuple[Policy, Effect | None]:
        """The policy that changes the fewest tokens, and what it does; with one policy there is nothing to compare.

        Ties go to the policy that comes first.
        """
        if len(self.policies) == 1:
            return self.policies[0], None
        effects = {policy: self.effect(stage, budget, policy) for policy in self.policies}
        policy = max(self.policies, key=lambda policy: (effects[policy].agreement, -effects[policy].kl))
        return policy, effects[policy]

    def stage_plan(self, stage: str, budget: int, policy: Policy) -> StagePlan:
        """A stage plan without exit that skips ``budget`` sub-layers."""
        if not budget:
            return StagePlan()
        skipped = self.skip_set(stage, budget, policy)
        return StagePlan(
            schedule=SkipSchedule.fixed(skipped), compensation=self.compensation(stage, policy.compensation)
        )

    def skip_set(self, stage: str, budget: int, policy: Policy) -> SkipSet:
        return self.ranking(stage, policy).skip_set(budget)

    def prepare(self, stage: str, policy: Policy) -> None:
        """Rank and fit now rather than when a skip set is first asked for."""
        self.ranking(stage, policy)
        self.compensation(stage, policy.compensation)

    def effect(self, stage: str, budget: int, policy: Policy) -> Effect:
        """What a budget does to the tokens of questions that nothing was fitted on."""
        name = f"{stage}, {policy.ranking}, {policy.compensation}, {budget}"
        if name not in self._kept.effects:
            skipped, stand = (
                self.skip_set(stage, budget, policy),
                self._stand(self.compensation(stage, policy.compensation)),
            )
            effect = self._probe("judge", stage).effect(skipped, stand)
            self._kept.effects[name] = (effect.kl, effect.agreement, effect.tokens)
            self._write()
        return Effect(*self._kept.effects[name])

    def ranking(self, stage: str, policy: Policy) -> Ranking:
        """The order in which the policy leaves a stage's sub-layers out."""
        kind = RANKINGS[policy.ranking]
        where = "all" if kind.pooled else stage
        stand = policy.compensation if kind.measure == "greedy" else "none"
        name = f"{where}, {policy.ranking}, {stand}"
        if name not in self._kept.rankings:
            self._kept.rankings[name] = self._rank(where, policy.ranking, stand)
            self._write()
        return self._kept.rankings[name]

    def compensation(self, stage: str, kind: str) -> Compensation:
        """The stage's stand-ins of a kind, fitted and loaded into the engine; ``all`` is every stage together."""
        if kind == "none":
            return Compensation()
        name = f"{'all' if kind == 'norm_ratio' else stage}, {kind}"
        if name not in self._kept.compensations:
            self._kept.compensations[name] = self._fit(stage, kind)
            self._write()
        return self._kept.compensations[name]

    def _rank(self, stage: str, name: str, stand: str) -> Ranking:
        kind = RANKINGS[name]
        if name == "cosine":
            return self._paper or rank_traces(self.session, self.calibrating)
        if kind.measure == "cosine":
            score = self._redundancy_decoded if kind.at == "decoded" else self._redundancy_of_prompts
            return rank_sub_layers({stage: score(stage)})
        probes = self._probe("calibrate", stage)
        if kind.measure == "probe":
            self.session.progress.start(f"probing sub-layers of {stage}", 1)
            effects = sorted(probe(probes).items(), key=lambda item: (item[1].kl, item[0]))
            self.session.progress.advance()
            return rank_by_effect(effects, stage)
        with_stand = "" if stand == "none" else f" with {stand}"
        fitted = self._stand(self.compensation(stage, stand))
        self.session.progress.start(f"removing sub-layers of {stage} one by one{with_stand}", len(probes.layers))
        order = greedy(probes, fitted, on_removal=self.session.progress.advance)
        return rank_by_effect(order, stage)

    def _redundancy_of_prompts(self, stage: str) -> dict[SubLayer, float]:
        return stage_redundancy(self.session, self.calibrating, stage)

    def _redundancy_decoded(self, stage: str) -> dict[SubLayer, float]:
        return decoded_redundancy(self.session.engine, self._texts("calibrate", stage, FITTED))

    def _fit(self, stage: str, kind: str) -> Compensation:
        if kind == "norm_ratio":
            compensation = fit_compensation(self.session, kind, self.calibrating)
            stand = self.session.engine.stands[compensation.content or ""]
        else:
            compensation, stand = fit(self.session.engine, kind, self._moments(stage))
            self.session.engine.stands[compensation.content or ""] = stand
        if folder := self.session.folder.path:
            save_stand(folder, compensation, stand)
        return compensation

    def _moments(self, stage: str) -> dict[SubLayer, Moments]:
        if stage not in self._seen:
            self.session.progress.start(f"watching sub-layers of {stage}", 1)
            products = any(policy.compensation.startswith("lowrank") for policy in self.policies)
            self._seen[stage] = gather(self.session.engine, self._texts("calibrate", stage, FITTED), products)
            self.session.progress.advance()
        return self._seen[stage]

    def _stand(self, compensation: Compensation) -> CompensationWeights:
        return self.session.engine.stands[compensation.content] if compensation.content else {}

    def _probe(self, purpose: Literal["calibrate", "judge"], stage: str) -> Probe:
        if (purpose, stage) not in self._probes:
            count = PROBED if purpose == "calibrate" else JUDGED
            self._probes[purpose, stage] = Probe(self.session.engine, self._texts(purpose, stage, count))
        return self._probes[purpose, stage]

    def _texts(self, purpose: Literal["calibrate", "judge"], stage: str, count: int) -> list[Text]:
        """Up to ``count`` texts of a stage; of ``all``, an equal part of each stage."""
        traces = self.judging if purpose == "judge" else self.calibrating
        names = self.session.task.stage_names
        if stage == "all":
            return [text for name in names for text in self._texts(purpose, name, max(1, count // len(names)))]
        return drawn(stage_texts(self.session, traces, names.index(stage)), count)

    def _recalled(self) -> _Kept | None:
        """What is kept of these inputs, its stand-ins loaded; nothing when their files are not whole any more."""
        folder = self.session.folder
        kept = folder.recall(POLICIES_FILE, self._inputs, _Kept)
        if folder.path is None or kept is None:
            return None
        try:
            load_stands(folder.path, list(kept.compensations.values()), self.session.engine)
        except PlanError:
            return None
        return kept

    def _write(self) -> None:
        self.session.folder.keep(POLICIES_FILE, self._inputs, _Kept, self._kept)


def drawn(texts: Sequence[Text], count: int) -> list[Text]:
    """Up to ``count`` of them at random, in their order.

    Every so many-th would be, of a stage that fans out, the texts of one choice alone.
    """
    places = random.Random(0).sample(range(len(texts)), min(count, len(texts)))
    return [texts[i] for i in sorted(places)]


def stage_texts(session: Session, traces: Sequence[Trace], index: int) -> list[Text]:
    """What a stage wrote, behind its prompts, in question order."""
    return [
        Text(session.engine.encode(prompt, session.task.chat), completion.token_ids)
        for trace in traces
        for prompt, completion in zip(
            prompts_run(trace.stages[index]),
            [one for one in trace.stages[index].completions if one.token_ids],
            strict=True,
        )
    ]
