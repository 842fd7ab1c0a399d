"""Step 2 of the paper (4.3): how many sub-layers each stage skips, the slowest stage first.

The search only asks and is told: it is a pure function of its measurements, so replaying stored ones resumes it.
How many trials it asks for at once changes what is measured on the way, never the choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from litestage.core.layers import Record
from litestage.search.asked import Search, Strategy, one_by_one
from litestage.search.effort import Spent
from litestage.search.profile import Profile, ProfilePoint, TrialSummary, Verdict, budgets, choose, needed_correct
from litestage.search.trial import (
    Candidate,
    Measure,
    Purpose,
    Screen,
    ScreenedPolicy,
    SearchOptions,
    Trial,
    TrialResult,
    only_policy,
)

ROUNDING = 1e-9
"""Share of a latency by which sums of the same seconds may differ."""


class ExitCheck(TrialSummary):
    """The whole plan with exit on in some stages."""

    exits: tuple[str, ...]
    without: str | None
    """The stage whose exit is off here and was on in the plan that is being mended; None for the first check."""
    kept: bool
    """Whether the search went on from here: of each round the best, whose missing exit was the most harmful."""

    @property
    def verdict(self) -> Verdict:
        """One less accurate than the round's best may have ended undecided."""
        if self.feasible is None:
            return "less accurate than another, ended early"
        return "keeps the target" if self.feasible else "misses the target"


class SearchOutcome(Record):
    """How a plan was found, as far as a reader wants to see it."""

    full: TrialSummary
    target: float
    """Percent of right answers to keep: the full model's less ``max_drop``."""
    order: tuple[str, ...]
    """Stages as they were searched, the slowest first."""
    profiles: tuple[Profile, ...]
    exit_checks: tuple[ExitCheck, ...] = ()
    result: TrialSummary
    """What the chosen candidate reached on the questions of the search."""
    spent: Spent


class SearchRecord(SearchOutcome):
    """The outcome of a search, and all that led to it."""

    options: SearchOptions
    questions: int
    stage_seconds: dict[str, float]
    """The full model's latency a question, by stage."""
    candidate: Candidate
    """What was chosen."""

    @property
    def exit_note(self) -> str:
        """What became of the exit rule, in a sentence; empty when it was not asked for."""
        return _exit_note(self)


def search_budgets(
    stages: Sequence[str],
    num_blocks: int,
    num_questions: int,
    options: SearchOptions,
    measure: Measure,
    screen: Screen = only_policy,
) -> SearchRecord:
    """The whole of `budget_search` on one machine."""
    return one_by_one(budget_search(stages, num_blocks, num_questions, options, screen), measure)


def budget_search(
    stages: Sequence[str],
    num_blocks: int,
    num_questions: int,
    options: SearchOptions,
    screen: Screen = only_policy,
    side_by_side: int = 1,
) -> Search[SearchRecord]:
    """Search the budget of each of ``stages`` (in task order), then check the exit rule (the paper, sections 4.3, 4.4).

    Where there are several policies to leave a budget out, ``screen`` picks the one that is measured. Up to
    ``side_by_side`` trials are wanted at once, where all of them will be needed whatever one of them shows.
    """
    return Search(_search(stages, num_blocks, _Run(num_questions, options, screen, side_by_side)))


def _search(stages: Sequence[str], num_blocks: int, run: _Run) -> Strategy[SearchRecord]:
    options, num_questions = run.options, run.num_questions
    full = yield from run.ask(Candidate.full_depth(stages), 0, "full")
    target = max(0.0, 100 * full.correct / num_questions - options.max_drop)
    needed = needed_correct(num_questions, target)
    order = tuple(sorted(stages, key=lambda stage: -full.stage_seconds[stage]))
    candidate = Candidate.full_depth(stages, exits=options.search_exit)
    profiles = []
    for stage in order:
        profile = yield from _profile(run, candidate, stage, budgets(num_blocks, options.step), target)
        profiles.append(profile)
        chosen = profile.chosen_point
        candidate = candidate.with_budget(stage, chosen.budget, chosen.policy)
    checks: list[ExitCheck] = []
    if options.use_exit:
        candidate, checks = yield from _add_exit(run, candidate, needed)
    result = yield from run.ask(candidate, needed, "exit")
    return SearchRecord(
        options=options,
        questions=num_questions,
        full=TrialSummary.of(full, needed),
        target=target,
        stage_seconds=full.stage_seconds,
        order=order,
        profiles=tuple(profiles),
        exit_checks=tuple(checks),
        candidate=candidate,
        result=TrialSummary.of(result, needed),
        spent=run.spent(sum(profile.left_out for profile in profiles)),
    )


def _profile(run: _Run, candidate: Candidate, stage: str, tried: Sequence[int], target: float) -> Strategy[Profile]:
    """Measure budgets upward until several in a row miss the target; without a feasible one the budget is 0."""
    points: list[ProfilePoint] = []
    needed = needed_correct(run.num_questions, target)

    def measured(some: Sequence[int], too_slow: float | None = None) -> Strategy[list[ProfilePoint]]:
        policies = [run.screen(stage, budget) if budget else ScreenedPolicy() for budget in some]
        trials = [
            run.trial(candidate.with_budget(stage, budget, screened.policy), needed, "profile", stage, too_slow)
            for budget, screened in zip(some, policies, strict=True)
        ]
        told = yield from run.ask_all(trials)
        return [
            ProfilePoint.of(one, needed, budget=budget, seconds_at_least=one.seconds_at_least, **screened.model_dump())
            for budget, screened, one in zip(some, policies, told, strict=True)
        ]

    while len(points) < len(tried):
        if not run.options.exhaustive and (yield from _all_miss(points, run.options.patience, measured)):
            break
        some = tried[len(points) : len(points) + run.sure_of(points)]
        points += yield from measured(some, None if run.options.exhaustive else _too_slow(points))
    best = choose(points, target)
    return Profile(
        stage=stage,
        points=tuple(points),
        chosen=best.budget if best else 0,
        left_out=len(tried) - len(points),
    )


def _too_slow(points: Sequence[ProfilePoint]) -> float | None:
    """Seconds a question above which the next point cannot be the fastest; None while no point keeps the target."""
    best = min((point.seconds for point in points if point.feasible and point.seconds is not None), default=None)
    return None if best is None else best * (1 + ROUNDING)


def _all_miss(
    points: list[ProfilePoint], patience: int, finish: Callable[[Sequence[int]], Strategy[list[ProfilePoint]]]
) -> Strategy[bool]:
    """Whether the last ``patience`` points miss the target.

    Points that were too slow to be decided are finished, in place, only when it hangs on them. The newest come first:
    one that keeps the target puts the same question off for longest.
    """
    last = range(len(points) - patience, len(points))
    if last.start < 0 or any(points[i].feasible for i in last):
        return False
    for i in reversed(last):
        if points[i].feasible is None:
            points[i] = (yield from finish([points[i].budget]))[0]
        if points[i].feasible:
            return False
    return True


def _add_exit(run: _Run, candidate: Candidate, needed: int) -> Strategy[tuple[Candidate, list[ExitCheck]]]:
    """Turn exit on everywhere, then off again stage by stage, the most harmful first, until the target holds.

    It always ends with the target kept: without exit the chosen budgets keep it, and full depth does.
    """
    for stage in candidate.budgets:
        candidate = candidate.with_exit(stage, True)
    measurement = yield from run.ask(candidate, needed, "exit")
    checks = [ExitCheck.of(measurement, needed, exits=candidate.exits, without=None, kept=True)]
    while measurement.at_most < needed:
        best, measured = yield from _without_most_harmful(run, candidate)
        checks += [
            ExitCheck.of(told, needed, exits=tried.exits, without=stage, kept=tried == best)
            for stage, tried, told in measured
        ]
        candidate, measurement = best, next(told for _, tried, told in measured if tried == best)
    return candidate, checks


def _without_most_harmful(
    run: _Run, candidate: Candidate
) -> Strategy[tuple[Candidate, list[tuple[str, Candidate, TrialResult]]]]:
    """Try the plan without each exit in turn; the best of these (ties: the faster) lacks the most harmful one."""
    measured: list[tuple[str, Candidate, TrialResult]] = []
    exits = list(candidate.exits)
    while exits:
        some, exits = exits[: run.side_by_side], exits[run.side_by_side :]
        most = max([0, *(told.correct for _, _, told in measured)])
        tried = [candidate.with_exit(stage, False) for stage in some]
        told = yield from run.ask_all([run.trial(without, most, "exit") for without in tried])
        measured += zip(some, tried, told, strict=True)
    whole = [(told.correct, -(told.seconds or 0), tried) for _, tried, told in measured if not told.cut_short]
    return max(whole, key=lambda entry: entry[:2])[2], measured


class _Run:
    """Asks for each candidate until it is settled, and keeps what came."""

    def __init__(self, num_questions: int, options: SearchOptions, screen: Screen, side_by_side: int) -> None:
        self.screen = screen
        self.num_questions = num_questions
        self.options = options
        self.side_by_side = side_by_side
        self.known: dict[Candidate, TrialResult] = {}
        self.misses: Counter[int] = Counter()

    def trial(
        self,
        candidate: Candidate,
        needed: int,
        purpose: Purpose,
        stage: str | None = None,
        too_slow: float | None = None,
    ) -> Trial:
        if not self.options.end_points_early:
            needed, too_slow = 0, None
        order = self.order(candidate)
        return Trial(candidate=candidate, needed=needed, too_slow=too_slow, order=order, purpose=purpose, stage=stage)

    def ask(self, candidate: Candidate, needed: int, purpose: Purpose) -> Strategy[TrialResult]:
        return (yield from self.ask_all([self.trial(candidate, needed, purpose)]))[0]

    def ask_all(self, trials: Sequence[Trial]) -> Strategy[list[TrialResult]]:
        """Measure candidates, or recall them; what was cut short for a reason that no longer holds is finished."""
        open_ = tuple(trial for trial in trials if not self._is_settled(trial))
        if open_:
            told = yield open_
            for trial, result in zip(open_, told, strict=True):
                self._tell(trial, result)
        return [self.known[trial.candidate] for trial in trials]

    def sure_of(self, points: Sequence[ProfilePoint]) -> int:
        """How many budgets behind these will be measured whatever comes, of those that may run side by side."""
        if self.options.exhaustive:
            return self.side_by_side
        trailing = next((i for i, point in enumerate(reversed(points)) if point.feasible), len(points))
        return max(1, min(self.side_by_side, self.options.patience - trailing))

    def _is_settled(self, trial: Trial) -> bool:
        known = self.known.get(trial.candidate)
        return known is not None and trial.is_settled_by(known)

    def _tell(self, trial: Trial, result: TrialResult) -> None:
        both = zip(self.outcomes(trial.candidate), result.outcomes, strict=True)
        self.misses.update(i for i, (before, now) in enumerate(both) if before is None and now is False)
        self.known[trial.candidate] = result

    def outcomes(self, candidate: Candidate) -> tuple[bool | None, ...]:
        """What is known of a candidate so far, by question."""
        return self.known[candidate].outcomes if candidate in self.known else (None,) * self.num_questions

    def order(self, candidate: Candidate) -> tuple[int, ...]:
        """Questions by how often they were missed so far, most first, after those that the candidate has behind it."""
        known = self.outcomes(candidate)
        return tuple(sorted(range(self.num_questions), key=lambda i: (known[i] is None, -self.misses[i])))

    def spent(self, left_out: int) -> Spent:
        return Spent(
            points=len(self.known),
            questions=sum(measurement.measured for measurement in self.known.values()),
            questions_saved=sum(len(m.outcomes) - m.measured for m in self.known.values()),
            points_left_out=left_out,
        )


def _exit_note(record: SearchRecord) -> str:
    kept = [check for check in record.exit_checks if check.kept]
    if not kept:
        return ""
    last = kept[-1]
    reached = f"{last.accuracy:.1f} % keeps the target of {record.target:.1f} %.{_slower(record)}"
    if len(kept) == 1:
        return f"Exit is on in every stage: {reached}"
    off = ", then ".join(check.without or "" for check in kept[1:])
    on = f"in {', '.join(last.exits)}" if last.exits else "nowhere"
    most = "at most " if kept[0].cut_short else ""
    return (
        f"With exit on in every stage the plan reaches {most}{kept[0].accuracy:.1f} %, which misses the target, "
        f"so exit was switched off in {off}. It is on {on}: {reached}"
    )


def _slower(record: SearchRecord) -> str:
    """Exit can change texts so that they take longer; the search keeps it, and says so."""
    before = record.profiles[-1].chosen_point.seconds if record.profiles else None
    after = record.result.seconds
    if record.options.search_exit or before is None or after is None or after <= before:
        return ""
    return f" But the plan takes {after / before - 1:.1%} longer with exit than without: --no-exit is faster here."
