"""A search for a path of plans, from the safest to the fastest, in as few answers as it takes.

Each stage's levers are looked at alone first, then together. What is left out is screened by the tokens it changes,
tried on a few questions beside full depth, and on more only while it may still belong to the path. Plans that were not
tried are foretold from the nearest that was, and from what a single stage does. The path promises nothing: it is for
questions that this search has not seen to say how far down it one may go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from pydantic import Field

from litestage.core.layers import Record
from litestage.search.asked import Search, Strategy
from litestage.search.profile import budgets
from litestage.search.standing import PATH, Flips, Place, Standing, flips, pace, path_of, spread, undominated
from litestage.search.trial import Candidate, Purpose, Screen, ScreenedPolicy, StageCandidate, Trial

LOOKS = (4, 2, 1)
"""A candidate is tried on a quarter of the questions, half of them, and all, while it may belong to the path."""
FEWEST = 24
"""Questions of a look: fewer tell nothing."""
GLANCE = 8
"""Questions that show what is hopeless."""
GOOD, BAD = 0.98, 0.6
"""Shares of tokens that stay: where a stage's levers are tried first, and below which none is tried."""
GROWTH = 1.25
"""How much larger than the one before a budget is, at least, that is looked at."""
ROUNDS = 3
"""How often plans are put together from what is known."""
TOGETHER = 4
"""Plans that a round puts together."""
COMBINATIONS = 20_000
"""Plans that a round chooses from: more stages have fewer choices each."""
BEYOND = 1.5
"""How far beyond the points asked for a plan may seem to lose and still be tried on more questions."""


class PathOptions(Record):
    """What a path is searched for."""

    max_drop: float = 3.0
    """Points of accuracy that the plan may lose."""
    latency: float | None = None
    """Seconds a question that the plan may take: then the safest within it is looked for, whatever it loses."""
    promised_on: int = 1000
    """Questions that the path will be tested on: risks are reckoned for so many."""
    plans: int = PATH
    """On the path, at most."""
    step: int = 2
    exits: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """By stage: the rules by which its texts may end early."""
    left_out: tuple[str, ...] = ()
    """Stages that may be left out."""


class Tried(Record):
    """A candidate beside full depth, on the questions that both answered."""

    candidate: Candidate
    questions: int
    lost: int
    gained: int
    pace: float
    """Seconds as a share of full depth's."""
    seconds: float
    """A question."""
    risk: float
    """Points: about the bound that the certify questions would give, if what was seen is the truth."""
    agreement: dict[str, float] = Field(default_factory=dict)
    """By stage: the share of tokens that its skip set leaves as they were."""
    on_path: bool = False

    @property
    def loss(self) -> float:
        """Points of accuracy."""
        return 100 * (self.lost - self.gained) / self.questions

    @property
    def speedup(self) -> float:
        return 1 / self.pace


class PathFound(Record):
    """What a search found: a path of plans and all that was tried for it."""

    options: PathOptions
    questions: int
    full_correct: int
    full_seconds: float
    stage_seconds: dict[str, float]
    path: tuple[Tried, ...]
    """From the safest to the fastest, without full depth."""
    tried: tuple[Tried, ...]
    answers: int
    """Questions answered in all, full depth's not counted."""
    tokens: int
    """Tokens decoded for them; what was known already is not counted."""


def path_search(
    stages: Sequence[str], num_blocks: int, num_questions: int, options: PathOptions, screen: Screen
) -> Search[PathFound]:
    """Search a path for ``stages`` in task order; ``screen`` says what a budget of a stage does to its tokens."""
    return Search(_search(_Run(stages, num_blocks, num_questions, options, screen)))


def _search(run: _Run) -> Strategy[PathFound]:
    yield from run.measure([run.full], run.looks[-1], "full")
    yield from _levers_alone(run)
    for _ in range(ROUNDS):
        if not (together := run.put_together()):
            break
        yield from run.glance(together)
        for look in run.looks[1:]:
            yield from run.measure(run.worth_more(look), look, "path")
    return run.found()


def _levers_alone(run: _Run) -> Strategy[None]:
    """Each stage alone: exit, the stage left out, and budgets up or down from where tokens still agree."""
    options = run.options
    some = [run.full.with_exit(stage, True, rule) for stage, rules in options.exits.items() for rule in rules]
    some += [run.full.without(stage) for stage in options.left_out]
    ladders = {stage: _Ladder(run.screened(stage)) for stage in run.full.budgets}
    while True:
        steps = {stage: step for stage, ladder in ladders.items() if (step := ladder.step) is not None}
        tried = {stage: run.full.with_budget(stage, *step) for stage, step in steps.items()}
        if not (some := [*some, *tried.values()]):
            return
        yield from run.glance(some)
        for stage, candidate in tried.items():
            ladders[stage].tell(run.holds(candidate))
        some = []


class _Ladder:
    """Budgets of a stage, tried from where its tokens mostly stay: upward by twos, then in halves."""

    def __init__(self, screened: Sequence[tuple[int, ScreenedPolicy]]) -> None:
        self._rungs = [(budget, policy.policy) for budget, policy in screened]
        good = [i for i, (_, policy) in enumerate(screened) if (policy.agreement or 0) >= GOOD]
        self._at = max(good, default=0)
        self._held, self._fell = -1, len(screened)

    @property
    def step(self) -> tuple[int, str] | None:
        """Budget and policy to try; None when it is known how far up one may go."""
        return self._rungs[self._at] if self._held < self._at < self._fell else None

    def tell(self, holds: bool) -> None:
        if holds:
            self._held = self._at
        else:
            self._fell = self._at
        if self._fell == len(self._rungs):
            self._at = min(self._held + 2, len(self._rungs) - 1)
        else:
            self._at = (self._held + self._fell) // 2


class _Run:
    """What is known so far, and what that makes worth trying."""

    def __init__(
        self, stages: Sequence[str], num_blocks: int, questions: int, options: PathOptions, screen: Screen
    ) -> None:
        self.full = Candidate.full_depth(stages)
        self.options, self.screen = options, screen
        self._budgets = _growing(budgets(num_blocks, options.step)[1:])
        self.looks = tuple(dict.fromkeys(min(questions, max(FEWEST, questions // part)) for part in LOOKS))
        self.known: dict[Candidate, Standing] = {}
        self.agreements: dict[tuple[str, int, str], float] = {}
        self._screened: dict[str, list[StageCandidate]] = {}
        self.answers = self.tokens = 0
        self.stage_seconds: dict[str, float] = {}

    def measure(self, candidates: Sequence[Candidate], look: int, purpose: Purpose) -> Strategy[None]:
        """Answer the first ``look`` questions with each candidate, but for those that it answered before."""
        trials = []
        for candidate in dict.fromkeys(candidates):
            known = self.known.setdefault(candidate, Standing(candidate))
            if order := tuple(i for i in range(look) if i not in known.correct):
                trials.append(Trial(candidate=candidate, needed=0, order=order, purpose=purpose, whole=False))
        if not trials:
            return
        for trial, told in zip(trials, (yield tuple(trials)), strict=True):
            self.known[trial.candidate].take(told)
            if purpose == "full":
                self.stage_seconds = told.stage_seconds
            else:
                self.answers += len(trial.order)
                self.tokens += told.tokens

    def glance(self, candidates: Sequence[Candidate]) -> Strategy[None]:
        """The first look, in two steps: what surely loses on the first questions is asked no others."""
        yield from self.measure(candidates, min(GLANCE, self.looks[0]), "profile")
        yield from self.measure([one for one in candidates if self._may_belong(one)], self.looks[0], "profile")

    def _may_belong(self, candidate: Candidate) -> bool:
        """Whether what was seen leaves it possible that a candidate loses no more than is allowed."""
        allowed = self.options.max_drop if self.options.latency is None else 100.0
        return self.flips(candidate).surely_loses <= allowed

    def screened(self, stage: str) -> list[tuple[int, ScreenedPolicy]]:
        """Budgets that leave enough of a stage's tokens as they were."""
        kept: list[tuple[int, ScreenedPolicy]] = []
        for budget in self._budgets:
            policy = self.screen(stage, budget)
            if (policy.agreement or 0) < BAD:
                break
            self.agreements[stage, budget, policy.policy] = policy.agreement or 0
            kept.append((budget, policy))
        self._screened[stage] = [StageCandidate(stage=stage, budget=b, policy=told.policy) for b, told in kept]
        return kept

    def flips(self, candidate: Candidate) -> Flips:
        return flips(self.known[candidate], self.known[self.full])

    def pace(self, candidate: Candidate) -> float:
        return pace(self.known[candidate], self.known[self.full])

    def holds(self, candidate: Candidate) -> bool:
        """Whether a lever alone gains time, and may lose what is allowed; one question may be bad luck."""
        seen = self.flips(candidate)
        allowed = 100.0 if self.options.latency is not None else self.options.max_drop
        return self.pace(candidate) < 1 and seen.loss <= allowed + 100 / seen.n

    def put_together(self) -> list[Candidate]:
        """Plans that were not tried and are foretold to belong to the path."""
        known = {one: self._seen(one) for one in self.known}
        foretold = self._foretold(one for one in self._combinations() if one not in self.known)
        points = {one: place for one, (place, loss) in (known | foretold).items() if self._allowed(place[0], loss)}
        return self._best(points, TOGETHER, set(self.known))

    def worth_more(self, look: int) -> list[Candidate]:
        """Candidates that may belong to the path, and were asked fewer questions than ``look``."""
        points = {one: self._seen(one)[0] for one in self.known if self._belongs(one) and self._may_belong(one)}
        known = {one for one in points if self.known[one].n >= look}
        return self._best(points, TOGETHER, known)

    def _best(self, points: Mapping[Candidate, Place], most: int, known: set[Candidate]) -> list[Candidate]:
        """The best that are not known: along the path, or, where the latency is given, the safest."""
        if self.options.latency is not None:
            safest = sorted(points, key=lambda one: points[one][1])[:most]
            return [one for one in safest if one not in known]
        return spread([one for one in undominated(points) if one not in known], most)

    def _belongs(self, candidate: Candidate) -> bool:
        return candidate != self.full and self._allowed(self.pace(candidate), self.flips(candidate).loss)

    def _allowed(self, pace: float, loss: float) -> bool:
        if self.options.latency is not None:
            return pace * self._full_seconds <= self.options.latency
        return pace < 1 and loss <= BEYOND * self.options.max_drop

    @property
    def _full_seconds(self) -> float:
        seconds = self.known[self.full].seconds.values()
        return sum(seconds) / len(seconds)

    def _seen(self, candidate: Candidate) -> tuple[Place, float]:
        """Where a candidate is, as if all questions had shown what was seen; and its loss."""
        seen = self.flips(candidate)
        return self._place(candidate, self.pace(candidate), seen.lost, seen.gained)

    def _place(self, candidate: Candidate, pace: float, lost: float, gained: float) -> tuple[Place, float]:
        seen = Flips(max(0.0, lost), max(0.0, gained), self.looks[-1])
        return (pace, seen.risk(self.options.promised_on, self._changed(candidate))), seen.loss

    def _changed(self, candidate: Candidate) -> float:
        """Shares of tokens that its skip sets change, added up over the stages."""
        return sum(1 - agreement for agreement in self._agreements(candidate).values())

    def _agreements(self, candidate: Candidate) -> dict[str, float]:
        found = {
            stage.stage: self.agreements.get((stage.stage, stage.budget, stage.policy)) for stage in candidate.stages
        }
        return {stage: agreement for stage, agreement in found.items() if agreement is not None}

    def _foretold(self, candidates: Iterable[Candidate]) -> dict[Candidate, tuple[Place, float]]:
        """The same, from the nearest plan that was tried, and what its levers do alone that tell the two apart."""
        known = [(_levers(one), -self.known[one].n, self.flips(one), self.pace(one)) for one in self.known]
        alone = self._alone_so_far()
        foretold = {}
        for candidate in candidates:
            mine = _levers(candidate)
            levers, _, seen, pace = min(known, key=lambda one: (len(one[0] ^ mine), one[1]))
            lost, gained = seen.lost, seen.gained
            for sign, some in ((1, mine - levers), (-1, levers - mine)):
                for lever in some:
                    effect = alone.of(lever)
                    lost += sign * effect.lost
                    gained += sign * effect.gained
                    pace += sign * effect.pace
            foretold[candidate] = self._place(candidate, pace, lost, gained)
        return foretold

    def _alone_so_far(self) -> _Alone:
        tried = {_levers(one): one for one in self.known}
        return _Alone(
            {next(iter(levers)): (self.flips(one), self.pace(one)) for levers, one in tried.items() if len(levers) == 1}
        )

    def _combinations(self) -> Iterator[Candidate]:
        """Plans of levers that hold alone, and of budgets below those: of each stage the few that promise most."""
        held = {lever for one in self.known for lever in _levers(one) if self._is_held(lever)}
        stages, alone = self.full.budgets, self._alone_so_far()
        most = max(2, int(COMBINATIONS ** (1 / len(stages))))
        choices = [self._promising(_choices(stage, held, self._screened[stage]), alone, most) for stage in stages]
        return (Candidate(stages=some) for some in product(*choices))

    def _promising(self, choices: Sequence[StageCandidate], alone: _Alone, most: int) -> list[StageCandidate]:
        """Of too much that a stage may do: nothing, and what is not beaten in what it saves and risks."""
        if len(choices) <= most:
            return list(choices)
        places: dict[StageCandidate, Place] = {}
        for choice in choices[1:]:
            candidate = Candidate(stages=(choice,))
            effects = [alone.of(lever) for lever in _levers(candidate)]
            lost, gained, pace = (sum(column) for column in zip(*effects, strict=True))
            places[choice] = self._place(candidate, 1 + pace, lost, gained)[0]
        return [choices[0], *spread(undominated(places), most - 1)]

    def _is_held(self, lever: StageCandidate) -> bool:
        alone = _alone(self.full, lever)
        return alone in self.known and self.holds(alone)

    def found(self) -> PathFound:
        whole = {
            one: self._seen(one)[0] for one in self.known if self.known[one].n == self.looks[-1] and self._belongs(one)
        }
        path = path_of(whole, self.options.plans)
        full = self.known[self.full]
        tried = [self._tried(one, one in path) for one in self.known if one != self.full]
        return PathFound(
            options=self.options,
            questions=full.n,
            full_correct=sum(full.correct.values()),
            full_seconds=self._full_seconds,
            stage_seconds=self.stage_seconds,
            path=tuple(self._tried(one, True) for one in path),
            tried=tuple(sorted(tried, key=lambda one: -one.pace)),
            answers=self.answers,
            tokens=self.tokens,
        )

    def _tried(self, candidate: Candidate, on_path: bool) -> Tried:
        seen, at = self.flips(candidate), self.pace(candidate)
        return Tried(
            candidate=candidate,
            questions=seen.n,
            lost=round(seen.lost * seen.n),
            gained=round(seen.gained * seen.n),
            pace=at,
            seconds=at * self._full_seconds,
            risk=seen.risk(self.options.promised_on, self._changed(candidate)),
            agreement=self._agreements(candidate),
            on_path=on_path,
        )


def _growing(tried: Sequence[int]) -> list[int]:
    """Budgets whose steps grow: a quarter more each, where the first are a step apart."""
    kept: list[int] = []
    for budget in tried:
        if not kept or budget >= GROWTH * kept[-1]:
            kept.append(budget)
    return kept


def _levers(candidate: Candidate) -> frozenset[StageCandidate]:
    """What a candidate does in each stage, each by itself: sub-layers skipped, exit, the stage left out."""
    found: set[StageCandidate] = set()
    for stage in candidate.stages:
        name = stage.stage
        if stage.budget:
            found.add(StageCandidate(stage=name, budget=stage.budget, policy=stage.policy))
        if stage.exit:
            found.add(StageCandidate(stage=name, exit=True, rule=stage.rule))
        if stage.left_out:
            found.add(StageCandidate(stage=name, left_out=True))
    return frozenset(found)


def _alone(full: Candidate, lever: StageCandidate) -> Candidate:
    """Full depth with one lever pulled."""
    return Candidate(stages=tuple(lever if stage.stage == lever.stage else stage for stage in full.stages))


def _choices(stage: str, held: set[StageCandidate], screened: Sequence[StageCandidate]) -> list[StageCandidate]:
    """All that one stage may do."""
    mine = [lever for lever in held if lever.stage == stage]
    most = max((lever.budget for lever in mine), default=0)
    skips = [StageCandidate(stage=stage), *(one for one in screened if one.budget <= most)]
    exits = [one.model_copy(update={"exit": True, "rule": lever.rule}) for one in skips for lever in mine if lever.exit]
    return [*skips, *exits, *(lever for lever in mine if lever.left_out)]


class _Effect(NamedTuple):
    """What a lever changes by itself: shares of questions lost and gained, and of full depth's seconds."""

    lost: float
    gained: float
    pace: float


class _Alone:
    """Levers by themselves; a budget that was not tried lies between those that were."""

    def __init__(self, tried: Mapping[StageCandidate, tuple[Flips, float]]) -> None:
        self._tried = {lever: _Effect(seen.lost, seen.gained, pace - 1) for lever, (seen, pace) in tried.items()}

    def of(self, lever: StageCandidate) -> _Effect:
        if lever not in self._tried:
            self._tried[lever] = self._between(lever)
        return self._tried[lever]

    def _between(self, lever: StageCandidate) -> _Effect:
        tried = {one.budget: effect for one, effect in self._tried.items() if one.stage == lever.stage and one.budget}
        tried[0] = _Effect(0.0, 0.0, 0.0)
        low = max(budget for budget in tried if budget <= lever.budget)
        high = min((budget for budget in tried if budget >= lever.budget), default=low)
        share = (lever.budget - low) / (high - low) if high > low else 0.0
        return _Effect(*(a + share * (b - a) for a, b in zip(tried[low], tried[high], strict=True)))
