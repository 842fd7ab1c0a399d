"""The search over stages, on made-up tables."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litestage.core.errors import OptionError
from litestage.search import (
    Candidate,
    ScreenedPolicy,
    SearchOptions,
    SearchRecord,
    Trial,
    TrialResult,
    budget_search,
    budgets,
    hopeless,
    search_budgets,
)

STAGES = ("recall", "analysis", "summary")
PAPER = SearchOptions(use_exit=False)

Outcomes = Callable[[Candidate], list[bool]]
Seconds = Callable[[Candidate], float | list[float]]
"""Seconds a question, or of each question."""


class Table:
    """A made-up model: outcomes and seconds of any candidate; remembers what it was asked."""

    def __init__(
        self, outcomes: Outcomes, seconds: Seconds, chunk: int = 1, cuts: Callable[[], bool] = lambda: True
    ) -> None:
        self.outcomes, self.seconds, self.chunk, self.cuts = outcomes, seconds, chunk, cuts
        self.stage_seconds = {"recall": 0.2, "analysis": 0.7, "summary": 0.1}
        self.asked: list[Trial] = []
        self.told: list[TrialResult] = []

    def __call__(self, trial: Trial) -> TrialResult:
        """Measure in the order asked, a chunk at a time, and stop when it may and ``cuts`` says so."""
        self.asked.append(trial)
        truth, told = self.outcomes(trial.candidate), dict[int, bool]()
        at_least = 0.0
        for start in range(0, len(truth), self.chunk):
            told |= {i: truth[i] for i in trial.order[start : start + self.chunk]}
            at_least = sum(self.each(trial.candidate)[i] for i in told) / len(truth)
            lost = hopeless(sum(told.values()), len(told), len(truth), trial.needed)
            if (lost or trial.is_too_slow(at_least)) and self.cuts():
                break
        whole = len(told) == len(truth)
        self.told.append(
            TrialResult(
                outcomes=tuple(told.get(i) for i in range(len(truth))),
                seconds=self.mean(trial.candidate) if whole else None,
                seconds_at_least=None if whole else at_least,
                stage_seconds=self.stage_seconds if whole else {},
            )
        )
        return self.told[-1]

    def each(self, candidate: Candidate) -> list[float]:
        seconds = self.seconds(candidate)
        return seconds if isinstance(seconds, list) else [seconds] * len(self.outcomes(candidate))

    def mean(self, candidate: Candidate) -> float:
        seconds = self.seconds(candidate)
        return sum(seconds) / len(seconds) if isinstance(seconds, list) else seconds


def first_wrong(count: int, questions: int = 100) -> list[bool]:
    return [i >= count for i in range(questions)]


def by_budget(wrong: dict[str, dict[int, int]]) -> Outcomes:
    """So many questions wrong for each stage's budget; each stage has its own questions to lose."""

    def outcomes(candidate: Candidate) -> list[bool]:
        return first_wrong(10 + sum(wrong.get(stage, {}).get(budget, 0) for stage, budget in candidate.budgets.items()))

    return outcomes


def linear_seconds(candidate: Candidate) -> float:
    return 1.0 - 0.01 * sum(candidate.budgets.values())


def search(table: Table, options: SearchOptions = PAPER, num_blocks: int = 6, questions: int = 100) -> SearchRecord:
    return search_budgets(STAGES, num_blocks, questions, options, table)


def test_slowest_stage_first_with_chosen_stages_fixed_and_later_ones_at_full_depth() -> None:
    table = Table(by_budget({"analysis": {6: 2, 8: 2}, "recall": {2: 1, 4: 1, 6: 2, 8: 2}}), linear_seconds)
    record = search(table)
    assert record.order == ("analysis", "recall", "summary")
    assert record.candidate.budgets == {"recall": 4, "analysis": 4, "summary": 8}
    assert (record.full.accuracy, record.target) == (90, 89)
    assert [trial.candidate.budgets for trial in table.asked] == [
        {"recall": 0, "analysis": 0, "summary": 0},
        *({"recall": 0, "analysis": budget, "summary": 0} for budget in (2, 4, 6, 8)),
        *({"recall": budget, "analysis": 4, "summary": 0} for budget in (2, 4, 6, 8)),
        *({"recall": 4, "analysis": 4, "summary": budget} for budget in (2, 4, 6, 8)),
    ]
    assert record.result.seconds == pytest.approx(1 - 0.16)
    assert record.result.accuracy == 89


def test_a_budget_that_costs_time_loses_by_itself() -> None:
    def seconds(candidate: Candidate) -> float:
        return {0: 1.0, 2: 0.9, 4: 0.85, 6: 0.95, 8: 1.1}[candidate.budgets["analysis"]]

    record = search(Table(by_budget({}), seconds))
    assert record.candidate.budgets == {"recall": 0, "analysis": 4, "summary": 0}


def test_equally_slow_stages_keep_task_order() -> None:
    table = Table(by_budget({}), linear_seconds)
    table.stage_seconds = dict.fromkeys(STAGES, 0.3)
    assert search(table).order == STAGES


def test_nothing_feasible_but_full_depth() -> None:
    ruinous = {stage: dict.fromkeys(range(2, 20), 50) for stage in STAGES}
    record = search(Table(by_budget(ruinous), linear_seconds), SearchOptions(max_drop=0, use_exit=False))
    assert record.candidate == Candidate.full_depth(STAGES)
    assert record.result == record.full


def test_profile_ends_after_three_misses_in_a_row_unless_exhaustive() -> None:
    # 4 misses, 6 keeps it, 8 to 12 miss: 14 would keep it, and is only seen by the exhaustive search.
    wrong = {"analysis": {4: 9, 8: 9, 10: 9, 12: 9}}
    record = search(Table(by_budget(wrong), linear_seconds), num_blocks=10)
    analysis = record.profiles[0]
    assert [point.budget for point in analysis.points] == [0, 2, 4, 6, 8, 10, 12]
    assert (analysis.chosen, analysis.left_out, record.spent.points_left_out) == (6, 2, 2)
    whole = search(Table(by_budget(wrong), linear_seconds), PAPER.model_copy(update={"exhaustive": True}), 10)
    assert (whole.profiles[0].chosen, whole.profiles[0].left_out) == (16, 0)


def test_points_that_miss_end_early_and_the_rest_is_counted() -> None:
    table = Table(by_budget({"analysis": {2: 40, 4: 40, 6: 40}}), linear_seconds)
    record = search(table, num_blocks=6)
    cut = record.profiles[0].points[1]
    # The 10 questions that the full model missed come first, so the target is lost after the 12th.
    assert (cut.measured, cut.correct, cut.accuracy, cut.seconds, cut.feasible) == (12, 0, 88, None, False)
    assert record.spent.questions_saved == 3 * 88
    assert record.spent.questions == 100 * record.spent.points - record.spent.questions_saved
    assert record.spent.points == len(table.asked)


def slow_after(budget: int) -> Seconds:
    """Skipping in the analysis pays up to a budget; beyond, the model rambles."""
    return lambda candidate: 5.0 if candidate.budgets["analysis"] > budget else linear_seconds(candidate)


def asked_of_analysis(table: Table) -> list[tuple[int, bool]]:
    """Budgets asked for, and whether being slow was a reason to cut short."""
    asks = [trial for trial in table.asked if trial.stage == "analysis"]
    return [(trial.candidate.budgets["analysis"], trial.too_slow is not None) for trial in asks]


def test_points_slower_than_the_best_end_early() -> None:
    record = search(Table(by_budget({}), slow_after(2)), SearchOptions(use_exit=False, patience=9))
    slow = record.profiles[0].points[2]
    # A budget of 2 takes 0.98 s a question, so 100 questions take 98 s: more than that after 20 questions of 5 s.
    assert (slow.budget, slow.measured, slow.seconds, slow.seconds_at_least) == (4, 20, None, pytest.approx(1.0))
    assert (slow.feasible, slow.accuracy) == (None, 90)
    assert record.profiles[0].chosen == 2
    assert record.spent.questions_saved == 3 * 80


def test_a_slow_point_with_enough_right_answers_keeps_the_target_for_certain() -> None:
    options = SearchOptions(use_exit=False, max_drop=80)
    record = search(Table(by_budget({}), slow_after(2)), options)
    points = record.profiles[0].points
    assert [(point.feasible, point.cut_short) for point in points[2:]] == [(True, True)] * 3


def test_slow_points_are_finished_only_where_patience_hangs_on_them() -> None:
    # From 4 on all are slow. 8, the newest of the first three, misses the target; 6 keeps it, so 4 stays open. Then 12,
    # 10 and 8 are three misses in a row, each by questions that no other one missed.
    misses = {8: range(91, 100), 10: range(82, 91), 12: range(73, 82)}

    def outcomes(candidate: Candidate) -> list[bool]:
        return [i >= 10 and i not in misses.get(candidate.budgets["analysis"], ()) for i in range(100)]

    table = Table(outcomes, slow_after(2))
    analysis = search(table, num_blocks=10).profiles[0]
    assert asked_of_analysis(table) == [
        *((budget, True) for budget in (2, 4, 6, 8)),
        *((budget, False) for budget in (8, 6)),
        *((budget, True) for budget in (10, 12)),
        *((budget, False) for budget in (12, 10)),
    ]
    assert [point.feasible for point in analysis.points] == [True, True, None, True, False, False, False]
    assert (analysis.chosen, analysis.left_out) == (2, 2)
    again = next(trial for trial in table.asked if trial.candidate.budgets["analysis"] == 8 and trial.too_slow is None)
    first = next(t for a, t in zip(table.asked, table.told, strict=True) if a.candidate == again.candidate)
    assert {i for i, outcome in enumerate(first.outcomes) if outcome is not None} == set(again.order[: first.measured])


def test_no_slow_point_is_finished_when_no_budget_is_left() -> None:
    table = Table(by_budget({}), slow_after(2))
    search(table, num_blocks=6)
    assert asked_of_analysis(table) == [(2, True), (4, True), (6, True), (8, True)]


def test_being_slow_is_no_reason_to_cut_when_the_whole_profile_is_drawn_or_points_do_not_end_early() -> None:
    for more in ({"exhaustive": True}, {"end_points_early": False}):
        table = Table(by_budget({}), slow_after(2))
        record = search(table, PAPER.model_copy(update=more))
        assert all(trial.too_slow is None for trial in table.asked)
        assert all(point.seconds for profile in record.profiles for point in profile.points)


def test_questions_missed_so_far_are_asked_first() -> None:
    def outcomes(candidate: Candidate) -> list[bool]:
        wrong = {90, 95} | ({50} if candidate.budgets["analysis"] else set())
        return [i not in wrong for i in range(100)]

    table = Table(outcomes, linear_seconds)
    search(table, SearchOptions(max_drop=5, use_exit=False))
    assert table.asked[0].order == tuple(range(100))
    assert table.asked[1].order[:3] == (90, 95, 0)
    assert table.asked[2].order[:4] == (90, 95, 50, 0)
    assert all(sorted(trial.order) == list(range(100)) for trial in table.asked)


# --- Exit, added when the budgets are chosen ---------------------------------------------------------------------


def with_exit_harm(harm: dict[str, int], base: int = 10) -> Outcomes:
    return lambda candidate: first_wrong(base + sum(harm[stage] for stage in candidate.exits))


def test_exit_stays_on_where_the_plan_keeps_its_target() -> None:
    def seconds(candidate: Candidate) -> float:
        return linear_seconds(candidate) - 0.1 * len(candidate.exits)

    record = search(Table(with_exit_harm({"recall": 1, "analysis": 0, "summary": 0}), seconds), SearchOptions())
    assert record.candidate.exits == STAGES
    assert [check.exits for check in record.exit_checks] == [STAGES]
    assert record.exit_note == "Exit is on in every stage: 89.0 % keeps the target of 89.0 %."
    assert record.result.seconds == pytest.approx(1 - 0.24 - 0.3)


def test_the_most_harmful_exit_goes_first_until_the_target_holds() -> None:
    table = Table(with_exit_harm({"recall": 3, "analysis": 5, "summary": 1}), linear_seconds)
    record = search(table, SearchOptions())
    assert record.candidate.exits == ("summary",)
    kept = [(check.without, check.exits) for check in record.exit_checks if check.kept]
    assert kept == [(None, STAGES), ("analysis", ("recall", "summary")), ("recall", ("summary",))]
    assert [check.without for check in record.exit_checks] == [None, *STAGES, "recall", "summary"]
    assert not any(trial.candidate.exits for trial in table.asked if trial.purpose == "profile")
    assert record.exit_note == (
        "With exit on in every stage the plan reaches at most 88.0 %, which misses the target, so exit was switched "
        "off in analysis, then recall. It is on in summary: 89.0 % keeps the target of 89.0 %."
    )


def test_equally_harmful_exits_keep_the_faster_plan() -> None:
    def seconds(candidate: Candidate) -> float:
        return linear_seconds(candidate) - (0.2 if "recall" in candidate.exits else 0)

    harm = with_exit_harm({"recall": 4, "analysis": 4, "summary": 0})
    record = search(Table(harm, seconds), SearchOptions(max_drop=4))
    assert record.candidate.exits == ("recall", "summary")


def test_every_exit_may_have_to_go() -> None:
    table = Table(with_exit_harm(dict.fromkeys(STAGES, 4)), linear_seconds)
    record = search(table, SearchOptions())
    assert record.candidate.exits == ()
    assert "It is on nowhere: 90.0 % keeps the target" in record.exit_note
    without_exit = search(Table(with_exit_harm(dict.fromkeys(STAGES, 4)), linear_seconds))
    assert record.candidate == without_exit.candidate
    assert record.result == without_exit.result


def test_an_exit_that_costs_time_is_kept_and_said() -> None:
    def seconds(candidate: Candidate) -> float:
        return linear_seconds(candidate) * (1.05 if candidate.exits else 1)

    record = search(Table(with_exit_harm(dict.fromkeys(STAGES, 0)), seconds), SearchOptions())
    assert record.candidate.exits == STAGES
    assert "5.0% longer with exit than without: --no-exit" in record.exit_note


def test_search_exit_profiles_with_exit_on() -> None:
    table = Table(with_exit_harm({"recall": 0, "analysis": 0, "summary": 0}), linear_seconds)
    record = search(table, SearchOptions(search_exit=True))
    assert all(trial.candidate.exits == STAGES for trial in table.asked if trial.purpose == "profile")
    assert table.asked[0].candidate.exits == ()
    assert record.target == 89
    assert record.candidate.exits == STAGES
    assert len(table.asked) == 1 + 5 + 4 + 4  # exit on is not the full model; the last profile is the exit check


def test_search_exit_falls_back_to_full_depth_when_exit_ruins_every_point() -> None:
    table = Table(with_exit_harm(dict.fromkeys(STAGES, 9)), linear_seconds)
    record = search(table, SearchOptions(search_exit=True))
    assert record.candidate == Candidate.full_depth(STAGES)


def measured(told: TrialResult) -> list[int]:
    return [i for i, outcome in enumerate(told.outcomes) if outcome is not None]


# --- Properties over random tables --------------------------------------------------------------------------------


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Outcomes, Seconds, int, dict[str, float]]:
    """Any outcomes and (often tied) seconds for any candidate, drawn when first asked for."""
    questions = draw(st.integers(1, 12))
    random = draw(st.randoms(use_true_random=False))
    hardness = draw(st.sampled_from([0.05, 0.2, 0.5]))
    known: dict[Candidate, tuple[list[bool], list[float]]] = {}

    def world(candidate: Candidate) -> tuple[list[bool], list[float]]:
        if candidate not in known:
            pace = random.choice([0.5, 1, 1, 1, 3])
            known[candidate] = (
                [random.random() > hardness for _ in range(questions)],
                [pace * random.choice([0.1, 0.2, 0.3]) for _ in range(questions)],
            )
        return known[candidate]

    stage_seconds = {stage: random.choice([0.1, 0.2, 0.3]) for stage in STAGES}
    return (lambda candidate: world(candidate)[0]), (lambda candidate: world(candidate)[1]), questions, stage_seconds


options = st.builds(
    SearchOptions,
    max_drop=st.sampled_from([0.0, 1.0, 10.0, 25.0, 100.0]),
    step=st.integers(1, 3),
    patience=st.integers(1, 4),
    exhaustive=st.booleans(),
    search_exit=st.booleans(),
)


def run(
    world: tuple[Outcomes, Seconds, int, dict[str, float]],
    options: SearchOptions,
    chunk: int = 1,
    cuts: Callable[[], bool] = lambda: True,
    num_blocks: int = 5,
) -> tuple[SearchRecord, Table]:
    outcomes, seconds, questions, stage_seconds = world
    table = Table(outcomes, seconds, chunk, cuts)
    table.stage_seconds = stage_seconds
    return search_budgets(STAGES, num_blocks, questions, options, table), table


@given(worlds(), options, st.integers(1, 5), st.sampled_from([1.0, 0.7, 0.2]), st.integers(0, 99))
@settings(deadline=None, max_examples=400)
def test_ending_points_early_never_changes_the_choice(
    world, options: SearchOptions, chunk: int, often: float, seed: int
) -> None:
    dice = random.Random(seed)
    early, table = run(world, options, chunk, cuts=lambda: dice.random() < often)
    whole, _ = run(world, options.model_copy(update={"end_points_early": False}))
    assert early.candidate == whole.candidate
    assert early.result == whole.result
    for a, b in zip(early.profiles, whole.profiles, strict=True):
        assert (a.stage, a.chosen, a.left_out) == (b.stage, b.chosen, b.left_out)
        for p, q in zip(a.points, b.points, strict=True):
            assert p.budget == q.budget
            assert p.feasible in (None, q.feasible)
            assert p.accuracy >= q.accuracy
            assert p.seconds in (None, q.seconds)
            assert q.seconds is not None
            assert p.seconds_at_least is None or p.seconds_at_least <= q.seconds * (1 + 1e-9)
            assert p.seconds is not None or p.feasible is False or p.seconds_at_least is not None
    assert [(c.exits, c.kept) for c in early.exit_checks] == [(c.exits, c.kept) for c in whole.exit_checks]
    assert whole.spent.questions_saved == 0
    assert early.spent.points == whole.spent.points
    asked = {(trial.candidate, i) for trial, told in zip(table.asked, table.told, strict=True) for i in measured(told)}
    assert early.spent.questions == len(asked) <= whole.spent.questions
    if options.exhaustive:
        assert early.spent.questions <= whole.spent.questions


@given(worlds(), options)
@settings(deadline=None, max_examples=150)
def test_same_plan_as_a_slow_and_obvious_search(world, options: SearchOptions) -> None:
    outcomes, _, questions, stage_seconds = world
    record, table = run(world, options)
    full = sum(outcomes(Candidate.full_depth(STAGES)))

    def keeps(candidate: Candidate) -> bool:
        return 100 * sum(outcomes(candidate)) / questions >= 100 * full / questions - options.max_drop - 1e-9

    seconds = table.mean
    current = Candidate.full_depth(STAGES, exits=options.search_exit)
    for stage in sorted(STAGES, key=lambda stage: (-stage_seconds[stage], STAGES.index(stage))):
        feasible, misses = [], 0
        for budget in budgets(5, options.step):
            tried = current.with_budget(stage, budget)
            misses = 0 if keeps(tried) else misses + 1
            feasible += [(seconds(tried), budget)] if keeps(tried) else []
            if misses == options.patience and not options.exhaustive:
                break
        current = current.with_budget(stage, min(feasible)[1] if feasible else 0)
    exits = list(STAGES)
    while True:
        for stage in STAGES:
            current = current.with_exit(stage, stage in exits)
        if keeps(current):
            break
        off = {stage: current.with_exit(stage, False) for stage in exits}
        exits.remove(max(exits, key=lambda stage: (sum(outcomes(off[stage])), -seconds(off[stage]))))

    assert record.candidate == current
    assert record.result.feasible
    assert record.result.seconds == seconds(current)
    assert record.result.correct == sum(outcomes(current))
    whole = [trial.candidate for trial, told in zip(table.asked, table.told, strict=True) if not told.cut_short]
    assert len(whole) == len(set(whole))


@given(worlds(), options)
@settings(deadline=None, max_examples=50)
def test_replaying_stored_measurements_resumes_to_the_same_record(world, options: SearchOptions) -> None:
    record, first = run(world, options)
    for killed_after in {0, 1, len(first.asked) // 2, len(first.asked)}:
        table = Table(first.outcomes, first.seconds)
        table.stage_seconds = first.stage_seconds
        replay = iter(
            [(trial.candidate, told) for trial, told in zip(first.asked, first.told, strict=True)][:killed_after]
        )

        def measure(trial: Trial, replay=replay, table: Table = table) -> TrialResult:
            stored = next(replay, None)
            assert stored is None or stored[0] == trial.candidate
            return stored[1] if stored else table(trial)

        outcome = search_budgets(STAGES, 5, world[2], options, measure)
        assert outcome == record
    assert SearchRecord.model_validate_json(record.model_dump_json()) == record


@given(worlds())
@settings(deadline=None, max_examples=50)
def test_each_stage_only_gains(world) -> None:
    """Budget 0 is among the choices, so no stage makes the plan slower, and the accuracy target never moves."""
    record, _ = run(world, PAPER)
    chosen = [next(p for p in profile.points if p.budget == profile.chosen) for profile in record.profiles]
    times = [record.full.seconds, *(point.seconds for point in chosen)]
    assert all(b <= a for a, b in itertools.pairwise(times))
    assert all(point.accuracy >= record.target - 1e-9 for point in chosen)


@given(worlds(), options, st.integers(1, 6), st.integers(0, 99))
@settings(deadline=None, max_examples=200)
def test_trials_side_by_side_in_any_order_choose_what_one_machine_chooses(
    world, options: SearchOptions, side_by_side: int, seed: int
) -> None:
    alone, _ = run(world, options)
    outcomes, seconds, questions, stage_seconds = world
    dice, table, most = random.Random(seed), Table(outcomes, seconds), 0
    table.stage_seconds = stage_seconds
    search = budget_search(STAGES, 5, questions, options, side_by_side=side_by_side)
    while not search.is_over:
        most = max(most, len(search.wanted))
        trial = dice.choice(search.wanted)
        told = table(trial)
        for _ in range(dice.randint(1, 2)):  # a worker that was thought lost may tell it, too
            search.tell(trial, told)
    together = search.outcome
    assert (together.candidate, together.result, together.full) == (alone.candidate, alone.result, alone.full)
    assert [p.chosen for p in together.profiles] == [p.chosen for p in alone.profiles]
    assert [p.left_out for p in together.profiles] == [p.left_out for p in alone.profiles]
    assert {t.candidate for t in table.asked} == {t.candidate for t in run(world, options)[1].asked}
    assert most <= side_by_side
    if side_by_side == 1:
        assert together == alone


def test_what_does_not_depend_on_each_other_is_wanted_at_once() -> None:
    search = budget_search(STAGES, 6, 100, SearchOptions(), side_by_side=8)
    table, sizes = Table(by_budget({}), linear_seconds), []
    while not search.is_over:
        sizes.append(len(search.wanted))
        for trial in reversed(search.wanted):
            search.tell(trial, table(trial))
    # Three misses end a profile: so many budgets are sure to be needed, and 0 is known in each stage.
    assert sizes == [1, 2, 2, 2, 2, 2, 2, 1]


def test_a_search_hears_only_of_what_it_asked_for() -> None:
    search = budget_search(STAGES, 5, 3, PAPER)
    (trial,) = search.wanted
    told = TrialResult(outcomes=(True,) * 3, seconds=1.0, stage_seconds=dict.fromkeys(STAGES, 0.3))
    with pytest.raises(ValueError, match="not asked for"):
        search.tell(trial.model_copy(update={"needed": 7}), told)
    with pytest.raises(ValueError, match="not over: 1 trials"):
        _ = search.outcome
    search.tell(trial, told)
    after = search.wanted
    search.tell(trial, told)
    assert search.wanted == after != (trial,)


# --- What cannot work ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"max_drop": -0.5}, "--max-drop -0.5 cannot be"),
        ({"max_drop": float("nan")}, "--max-drop nan cannot be"),
        ({"max_drop": 101}, "Give 0 .lose nothing. to 100"),
        ({"step": 0}, "--step 0 would never end"),
        ({"patience": 0}, "patience 0 would never end"),
        ({"use_exit": False, "search_exit": True}, "--search-exit and --no-exit contradict"),
    ],
)
def test_options_that_cannot_work_are_refused(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence):
        SearchOptions(**wrong)


def test_a_measurement_cut_short_while_it_could_still_succeed_is_refused() -> None:
    def measure(trial: Trial) -> TrialResult:
        return TrialResult(outcomes=(True, None, True), seconds=None)

    with pytest.raises(ValueError, match="cut short though it could reach 3"):
        search_budgets(STAGES, 5, 3, PAPER, measure)


@pytest.mark.parametrize(
    ("at_least", "more"),
    [
        (None, {}),
        (0.9, {}),
        (1.0, {}),
        (1 + 1e-12, {}),
        (9.0, {"exhaustive": True}),
        (9.0, {"end_points_early": False}),
    ],
)
def test_a_measurement_cut_short_while_it_could_still_be_the_fastest_is_refused(at_least, more) -> None:
    def measure(trial: Trial) -> TrialResult:
        if any(trial.candidate.budgets.values()):
            return TrialResult(outcomes=(True, None, True), seconds_at_least=at_least)
        return TrialResult(outcomes=(True,) * 3, seconds=1.0, stage_seconds=dict.fromkeys(STAGES, 0.3))

    with pytest.raises(ValueError, match="could reach 3 right answers"):
        search_budgets(STAGES, 5, 3, PAPER.model_copy(update=more), measure)


def test_no_exit_check_is_cut_short_for_being_slow() -> None:
    table = Table(with_exit_harm({"recall": 3, "analysis": 5, "summary": 1}), slow_after(2))
    search(table, SearchOptions())
    assert {trial.too_slow is not None for trial in table.asked if trial.purpose == "profile"} == {True}
    assert not any(trial.too_slow for trial in table.asked if trial.purpose != "profile")


def test_each_budget_is_measured_in_the_way_that_the_screen_picks() -> None:
    """The screen is asked before a budget is measured, and its choice goes on into the later stages' settings."""
    screened: list[tuple[str, int]] = []

    def screen(stage: str, budget: int) -> ScreenedPolicy:
        screened.append((stage, budget))
        return ScreenedPolicy(policy="good" if budget <= 4 else "bad", agreement=1 - budget / 100)

    def outcomes(candidate: Candidate) -> list[bool]:
        wrong = sum(stage.budget if stage.policy == "bad" else 0 for stage in candidate.stages)
        return [i >= wrong for i in range(20)]

    table = Table(outcomes, lambda candidate: 1 - sum(candidate.budgets.values()) / 200)
    record = search_budgets(STAGES, 8, 20, SearchOptions(use_exit=False), table, screen)
    assert {stage.policy for stage in record.candidate.stages} == {"good"}
    assert record.candidate.budgets == dict.fromkeys(STAGES, 4)
    points = [point for profile in record.profiles for point in profile.points]
    assert {(point.policy, point.agreement) for point in points if point.budget == 4} == {("good", 0.96)}
    assert {(point.policy, point.agreement) for point in points if point.budget == 0} == {("", None)}
    assert all(budget > 0 for _, budget in screened)
    assert len(screened) == len(set(screened))
