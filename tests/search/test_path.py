"""The search for a path of plans, on a made-up model whose losses and prices are known."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litestage.search import (
    Candidate,
    PathFound,
    PathOptions,
    ScreenedPolicy,
    Trial,
    TrialResult,
    one_by_one,
    path_search,
)

STAGES = ("recall", "analysis", "summary")
SHARE = {"recall": 0.2, "analysis": 0.7, "summary": 0.1}
BLOCKS = 12
RULES = {"calm": 0.95, "bold": 0.8}
"""Exit rules, and how much of a stage's time each leaves; the bold one ends texts that were needed."""
EXITS = dict.fromkeys(STAGES, tuple(RULES))


class Made:
    """Each stage bears so many sub-layers for free, and then loses points with each more; one question a token."""

    def __init__(self, questions: int = 160, free: Sequence[int] = (4, 8, 12), seed: int = 0) -> None:
        self.questions, self.free, self.seed = questions, dict(zip(STAGES, free, strict=True)), seed
        self.asked: list[Trial] = []

    def harm(self, candidate: Candidate) -> float:
        """The true share of questions lost."""
        total = 0.0
        for stage in candidate.stages:
            over = max(0, stage.budget - self.free[stage.stage])
            total += 0.02 * over + 0.02 * (stage.exit and stage.stage == "recall") + 0.5 * stage.left_out
            total += 0.3 * (stage.rule == "bold")
        return min(1.0, total)

    def pace(self, candidate: Candidate) -> float:
        return sum(
            0.0 if stage.left_out else SHARE[stage.stage] * (1 - stage.budget / 40) * RULES.get(stage.rule, 1)
            for stage in candidate.stages
        )

    def __call__(self, trial: Trial) -> TrialResult:
        self.asked.append(trial)
        harm = self.harm(trial.candidate)
        dice = [random.Random(f"{self.seed} {i}") for i in range(self.questions)]
        right = [one.random() < 0.9 and one.random() >= harm for one in dice]
        asked = set(trial.order)
        return TrialResult(
            outcomes=tuple(right[i] if i in asked else None for i in range(self.questions)),
            question_seconds=tuple(self.pace(trial.candidate) if i in asked else None for i in range(self.questions)),
            stage_seconds=SHARE,
            tokens=10 * len(asked),
        )

    def screen(self, stage: str, budget: int) -> ScreenedPolicy:
        return ScreenedPolicy(policy="p", agreement=1 - 0.012 * budget - 0.02 * max(0, budget - self.free[stage]))

    def search(self, **options: object) -> PathFound:
        wanted = PathOptions.model_validate({"left_out": STAGES[:-1], "exits": EXITS, **options})
        return one_by_one(path_search(STAGES, BLOCKS, self.questions, wanted, self.screen), self)


def test_the_path_goes_from_the_safest_to_the_fastest_without_dominated_plans() -> None:
    found = Made().search()
    assert found.path
    assert [one.pace for one in found.path] == sorted((one.pace for one in found.path), reverse=True)
    assert all(a.risk < b.risk for a, b in itertools.pairwise(found.path))
    assert all(one.questions == 160 and one.on_path for one in found.path)
    whole = [one for one in found.tried if one.questions == 160]
    assert not any(a.pace < b.pace and a.risk < b.risk for a in whole for b in found.path)


def test_it_finds_what_is_free_in_few_answers() -> None:
    """4, 8 and 12 sub-layers and the exits of two stages cost nothing: near that is where the path must lead."""
    made = Made()
    found = made.search(exits=dict.fromkeys(STAGES, ("calm",)))
    free = sum(SHARE[stage] * (1 - made.free[stage] / 40) for stage in STAGES)
    safe = [one for one in found.path if made.harm(one.candidate) <= 0.02]
    assert min(one.pace for one in safe) <= free
    every = len(STAGES) * 10 * made.questions
    assert found.answers <= every / 2
    assert found.tokens == 10 * found.answers


def test_what_surely_loses_is_asked_no_more_than_a_quarter() -> None:
    made = Made(free=(0, 0, 0))
    found = made.search(max_drop=1)
    worst = [one for one in found.tried if made.harm(one.candidate) > 0.3]
    assert worst
    assert all(one.questions <= 40 for one in worst)
    assert min(one.questions for one in worst) == 8


def test_within_a_latency_the_safest_comes_first() -> None:
    made = Made()
    found = made.search(latency=0.8)
    within = [one for one in found.path if one.seconds <= 0.8]
    assert within
    assert made.harm(within[0].candidate) <= 0.02


def test_levers_that_are_not_wanted_are_not_tried() -> None:
    found = Made().search(exits={}, left_out=())
    assert not any(stage.exit or stage.left_out for one in found.tried for stage in one.candidate.stages)


def test_every_exit_rule_is_tried_in_every_stage_and_the_harmless_one_is_kept() -> None:
    found = Made().search()
    alone = [
        one for one in found.tried if str(one.candidate).count("exit") == 1 and not any(one.candidate.budgets.values())
    ]
    assert {str(one.candidate) for one in alone} >= {f"{stage} exit {rule}" for stage in STAGES for rule in RULES}
    kept = {stage.rule for one in found.path for stage in one.candidate.stages if stage.exit}
    assert kept == {"calm"}


@given(st.integers(0, 50), st.integers(24, 90), st.lists(st.integers(0, 20), min_size=3, max_size=3), st.booleans())
@settings(deadline=None, max_examples=6)
def test_any_order_of_results_finds_the_same(seed: int, questions: int, free: list[int], late: bool) -> None:
    made = Made(questions, free, seed)
    alone = made.search()
    dice = random.Random(seed)
    search = path_search(STAGES, BLOCKS, questions, PathOptions(left_out=STAGES[:-1], exits=EXITS), made.screen)
    while not search.is_over:
        trial = dice.choice(search.wanted)
        search.tell(trial, made(trial))
    assert search.outcome == alone
    assert PathFound.model_validate_json(alone.model_dump_json()) == alone


def test_a_trial_that_leaves_a_question_out_is_refused() -> None:
    search = path_search(STAGES, BLOCKS, 40, PathOptions(), Made(40).screen)
    (trial,) = search.wanted
    told = Made(40)(trial)
    with pytest.raises(ValueError, match="told nothing of 3"):
        search.tell(trial, told.model_copy(update={"outcomes": (*told.outcomes[:3], None, *told.outcomes[4:])}))


def test_a_task_of_many_stages_is_searched_as_well() -> None:
    """Of eight stages of 32 blocks no search could look at every plan."""
    stages = tuple(f"stage {i}" for i in range(8))

    def told(trial: Trial) -> TrialResult:
        asked = set(trial.order)
        pace = 1 - sum(trial.candidate.budgets.values()) / 1000
        return TrialResult(
            outcomes=tuple(True if i in asked else None for i in range(24)),
            question_seconds=tuple(pace if i in asked else None for i in range(24)),
        )

    options = PathOptions(exits=dict.fromkeys(stages, ("calm", "bold")), left_out=stages[:-1])
    screen = Made().screen
    found = one_by_one(path_search(stages, 32, 24, options, lambda _, budget: screen("summary", budget)), told)
    assert min(one.pace for one in found.path) < 0.9
