"""How often a search breaks its word: resampled from what plans really answer.

    python results/search/coverage.py results/search/outcomes.json 3 > results/search/coverage-everyday.json
    python results/search/coverage.py results/obqa/all-questions 3 > results/search/coverage-obqa.json

What each plan answered is known for every question: from outcomes.py, or from a comparison. So what it truly loses on
them is known as well. A search is played again and again: questions are drawn for it, the path is put together from
what is seen on them, and tested in order on other questions that are drawn, by the code that a search runs. It breaks
its word where the plan that was granted truly loses more than its bound, or as much as was asked for. Beside it the old
way: the fastest plan that keeps the points on the questions of the search itself.
"""

from __future__ import annotations

import json
import random
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

from litestage.core import Certificate
from litestage.evaluation import Outcomes, down_path, look_early
from litestage.results import Comparison
from litestage.search.path import BEYOND
from litestage.search.standing import Flips, path_of

SEARCHES = 2_000
SEARCHED, CERTIFIED = 100, 600
"""Questions of each, where the outcomes do not say."""
SEED = 0


class World(NamedTuple):
    """What is true: full depth first, then plans."""

    names: list[str]
    seconds: list[float]
    right: list[list[bool]]
    searched: int = SEARCHED
    certified: int = CERTIFIED

    def outcomes(self, plan: int, questions: list[int]) -> Outcomes:
        pairs = [(self.right[0][i], self.right[plan][i]) for i in questions]
        return Outcomes(pairs.count((True, False)), pairs.count((False, True)), len(pairs))

    def loss(self, plan: int) -> float:
        """The true loss, in points."""
        seen = self.outcomes(plan, list(range(len(self.right[0]))))
        return 100 * (seen.lost - seen.gained) / seen.n

    def pace(self, plan: int) -> float:
        return self.seconds[plan] / self.seconds[0]

    def drawn(self, count: int, dice: random.Random) -> list[int]:
        return dice.choices(range(len(self.right[0])), k=count)


def searched(world: World, points: float, dice: random.Random) -> tuple[list[int], int]:
    """The path, and what the old way chooses, on questions of a search."""
    questions = world.drawn(world.searched, dice)
    places, losses = {}, {0: 0.0}
    for plan in range(1, len(world.names)):
        seen = world.outcomes(plan, questions)
        flips = Flips(seen.lost / seen.n, seen.gained / seen.n, seen.n)
        losses[plan] = flips.loss
        if world.pace(plan) < 1 and flips.loss <= BEYOND * points:
            places[plan] = (world.pace(plan), flips.risk(world.certified))
    old = min((plan for plan, loss in losses.items() if loss <= points), key=world.pace)
    return path_of(places), old


def granted(world: World, path: list[int], points: float, dice: random.Random) -> tuple[int, float]:
    """The last plan granted and its bound; full depth, which loses nothing, where none is."""
    questions = world.drawn(world.certified, dice)

    def test(plan: int) -> Certificate:
        return look_early(lambda first: world.outcomes(plan, questions[:first]), len(questions), points)

    tested = down_path((plan, partial(test, plan)) for plan in path)
    return next(((plan, one.bound) for plan, one in reversed(tested.items()) if one.granted), (0, 0.0))


def played(world: World, points: float) -> dict[str, float]:
    """Shares of searches that break their word, and what they come to."""
    dice = random.Random(f"{SEED} {points}")
    true = [world.loss(plan) for plan in range(len(world.names))]
    counts = dict.fromkeys(("granted", "breaks the points", "breaks its bound", "old way breaks the points"), 0)
    speed, old_speed, old_loss = 0.0, 0.0, 0.0
    for _ in range(SEARCHES):
        path, old = searched(world, points, dice)
        plan, bound = granted(world, path, points, dice)
        counts["granted"] += plan != 0
        counts["breaks the points"] += plan != 0 and true[plan] >= points
        counts["breaks its bound"] += true[plan] > bound
        counts["old way breaks the points"] += old != 0 and true[old] > points
        speed += 1 / world.pace(plan)
        old_speed += 1 / world.pace(old)
        old_loss += true[old]
    shares = {name: round(count / SEARCHES, 4) for name, count in counts.items()}
    return {
        "points": points,
        **shares,
        "speedup": round(speed / SEARCHES, 3),
        "old way's speedup": round(old_speed / SEARCHES, 3),
        "old way's true loss": round(old_loss / SEARCHES, 2),
    }


def world_of(place: Path) -> World:
    """What plans really answer: of outcomes.py, or the methods of a comparison."""
    if place.is_dir():
        found = Comparison.load(place)
        methods = [found.full, *(one for one in found.results if one.name != found.full.name)]
        right = [[a == g for a, g in zip(one.answers, found.gold, strict=True)] for one in methods]
        return World([one.name for one in methods], [1 / one.speedup for one in methods], right)
    kept = json.loads(place.read_text())
    plans = kept["plans"]
    right = [[bit == "1" for bit in plan["right"]] for plan in plans.values()]
    return World(list(plans), [plan["seconds"] for plan in plans.values()], right, kept["searched"], kept["certified"])


def main(place: Path, points: list[float]) -> None:
    world = world_of(place)
    truth = {
        name: {"pace": round(world.pace(i), 4), "loss": round(world.loss(i), 2)} for i, name in enumerate(world.names)
    }
    found = {
        "outcomes": place.as_posix(),
        "questions": len(world.right[0]),
        "searches": SEARCHES,
        "searched": world.searched,
        "certified": world.certified,
        "truth": truth,
    }
    print(json.dumps(found | {"played": [played(world, asked) for asked in points]}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [float(points) for points in sys.argv[2:]] or [3.0])
