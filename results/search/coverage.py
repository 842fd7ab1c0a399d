"""How often a search breaks its word: resampled from what plans really answer.

    python results/search/coverage.py results/obqa/all-questions 3 > results/search/coverage-obqa.json

A comparison keeps what each of its methods answered, so what each truly loses on its questions is known. A search is
played again and again: questions are drawn for it, the path is put together from what is seen on them, and tested in
order on other questions that are drawn. It breaks its word where a plan that was granted truly loses more than was
asked for, or more than its bound. Beside it the old way: the fastest plan that keeps the points on the questions of the
search itself.
"""

from __future__ import annotations

import json
import random
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

from litestage.core.certificate import DELTA
from litestage.evaluation import Outcomes
from litestage.evaluation.certificate import LOOKS, look_sizes, p_value
from litestage.results import Comparison
from litestage.search.path import BEYOND
from litestage.search.standing import Flips, path_of

SEARCHES = 2_000
SEARCHED, CERTIFIED = 100, 600
SEED = 0


class World(NamedTuple):
    """What is true: full depth first, then plans."""

    names: list[str]
    seconds: list[float]
    right: list[list[bool]]

    def outcomes(self, plan: int, questions: list[int]) -> Outcomes:
        pairs = [(self.right[0][i], self.right[plan][i]) for i in questions]
        return Outcomes(pairs.count((True, False)), pairs.count((False, True)), len(pairs))

    def loss(self, plan: int) -> float:
        """The true loss, in points."""
        seen = self.outcomes(plan, list(range(len(self.right[0]))))
        return 100 * (seen.lost - seen.gained) / seen.n

    def pace(self, plan: int) -> float:
        return self.seconds[plan] / self.seconds[0]


def searched(world: World, points: float, dice: random.Random) -> tuple[list[int], int]:
    """The path, and what the old way chooses, on questions of a search."""
    questions = dice.choices(range(len(world.right[0])), k=SEARCHED)
    places, losses = {}, {0: 0.0}
    for plan in range(1, len(world.names)):
        seen = world.outcomes(plan, questions)
        flips = Flips(seen.lost / seen.n, seen.gained / seen.n, seen.n)
        losses[plan] = flips.loss
        if world.pace(plan) < 1 and flips.loss <= BEYOND * points:
            places[plan] = (world.pace(plan), flips.risk(CERTIFIED))
    old = min((plan for plan, loss in losses.items() if loss <= points), key=world.pace)
    return path_of(places), old


@cache
def refuted(seen: Outcomes, loss: float, look: int) -> bool:
    """Whether a look refutes a loss of so many points."""
    return p_value(seen, loss / 100) <= DELTA * LOOKS[look]


def granted(world: World, path: list[int], points: float, true: list[float], dice: random.Random) -> tuple[int, bool]:
    """The last plan granted, full depth where none is; and whether its bound is below its true loss."""
    questions = dice.choices(range(len(world.right[0])), k=CERTIFIED)
    last, broken = 0, False
    for plan in path:
        seen = [world.outcomes(plan, questions[:size]) for size in look_sizes(CERTIFIED)]
        look = next((look for look, one in enumerate(seen) if refuted(one, points, look)), None)
        if look is None:
            break
        last, broken = plan, true[plan] > 0 and refuted(seen[look], true[plan], look)
    return last, broken


def played(world: World, points: float) -> dict[str, float]:
    """Shares of searches that break their word, and what they come to."""
    dice = random.Random(f"{SEED} {points}")
    true = [world.loss(plan) for plan in range(len(world.names))]
    counts = dict.fromkeys(("granted", "breaks the points", "breaks its bound", "old way breaks the points"), 0)
    speed, old_speed, old_loss = 0.0, 0.0, 0.0
    for _ in range(SEARCHES):
        path, old = searched(world, points, dice)
        plan, broken = granted(world, path, points, true, dice)
        counts["granted"] += plan != 0
        counts["breaks the points"] += plan != 0 and true[plan] >= points
        counts["breaks its bound"] += broken
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


def world_of(folder: Path) -> World:
    """What the methods of a comparison really answer."""
    found = Comparison.load(folder)
    methods = [found.full, *(one for one in found.results if one.name != found.full.name)]
    right = [[a == g for a, g in zip(one.answers, found.gold, strict=True)] for one in methods]
    return World([one.name for one in methods], [1 / one.speedup for one in methods], right)


def main(folder: Path, points: list[float]) -> None:
    world = world_of(folder)
    truth = {
        name: {"pace": round(world.pace(i), 4), "loss": round(world.loss(i), 2)} for i, name in enumerate(world.names)
    }
    found = {
        "comparison": folder.as_posix(),
        "questions": len(world.right[0]),
        "searches": SEARCHES,
        "searched": SEARCHED,
        "certified": CERTIFIED,
        "truth": truth,
    }
    print(json.dumps(found | {"played": [played(world, asked) for asked in points]}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [float(points) for points in sys.argv[2:]] or [3.0])
