"""The exact paired test behind a certificate (docs/certificate.md), its bound, and how many questions it needs.

Of n questions ``lost`` turn wrong and ``gained`` turn right, so that D, right before minus right now, is -1, 0 or 1.
What is to be refuted is that the true loss E[D] is ``loss`` or more. Outcomes are ordered by Tango's score. p is the
largest probability of an outcome ordered no later than the one seen, over all rates at which questions may flip. Rates
that the flips seen speak against are left out at a price of `BETA` (Berger and Boos, JASA 89 (1994), 1012-1016).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import lru_cache
from math import ceil, log, log1p, sqrt
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.special import bdtr, gammaln, xlog1py, xlogy
from scipy.stats import beta, binom, norm

from litestage.core.certificate import DELTA, Certificate
from litestage.core.plan import content_hash
from litestage.evaluation.paired import check_paired
from litestage.evaluation.tango import Floats, interval, restricted_gain, score

Place = TypeVar("Place", bound=Hashable)

BETA = 1e-4
"""Share of p that pays for leaving unlikely flip rates out."""
LOOKS = (0.2, 0.3, 0.5)
"""Shares of delta that three looks spend: 0.01, 0.015 and 0.025 of 0.05."""
STEP = 1e-4
"""A bound is rounded up to a hundredth of a point."""
POWER = 0.8
_GRID = (25, 9, 9)
"""Flip rates tried, and about the best of them."""
_TAIL = 1e-13
"""Probability of flip counts that are not summed over; p is raised by as much."""
_FEW = 60
"""Questions of which thirds tell nothing."""
_ABOVE = 5
"""Steps beyond a crossing that are looked at."""
_TIE = 1e-9


class Outcomes(NamedTuple):
    """What became of n questions."""

    lost: int
    gained: int
    n: int

    @property
    def flipped(self) -> int:
        return self.lost + self.gained


def outcomes(baseline: Mapping[str, bool], system: Mapping[str, bool]) -> Outcomes:
    """Count right (True) and wrong by question id; raises `DataError` for different questions."""
    check_paired(baseline, system)
    pairs = [(baseline[question], system[question]) for question in baseline]
    return Outcomes(pairs.count((True, False)), pairs.count((False, True)), len(pairs))


def questions_hash(ids: Iterable[str]) -> str:
    """A name for a set of questions, whatever their order."""
    return content_hash(sorted(ids))


def p_value(seen: Outcomes, loss: float) -> float:
    """The chance, at most, to see as little loss as this where the true loss is ``loss`` (a share) or more."""
    least, most = _likely_rates(seen)
    least = max(least, loss)
    if least > most:  # so much loss needs more flips than these questions leave likely
        return BETA
    region = _Region(seen, loss, least, most)
    return min(1.0, region.highest_chance(least, most) + BETA + _TAIL)


@lru_cache(maxsize=4096)
def bound(seen: Outcomes, delta: float = DELTA) -> float:
    """The smallest loss, in points, that is refuted at ``delta``, as all larger ones are: a one-sided limit."""

    def refuted(steps: int) -> bool:
        return p_value(seen, steps * STEP) <= delta

    whole = round(1 / STEP)
    guess = ceil(interval(*seen, level=1 - 2 * delta)[1] / STEP)
    low = high = min(max(1, guess), whole)
    width = 4
    while high < whole and not refuted(high):
        low, high, width = high, min(whole, high + width), 2 * width
    while low and refuted(low):
        low, high, width = max(0, low - width), low, 2 * width
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if refuted(middle) else (middle, high)
    # p falls as the loss rises. Should it not, the limit lies above the last loss that is not refuted.
    last = max((step for step in range(high, min(whole, high + _ABOVE)) if not refuted(step)), default=high - 1)
    return round(100 * (last + 1) * STEP, 2)


def certify(
    seen: Outcomes, epsilon: float, *, delta: float = DELTA, spent: float | None = None, questions: str | None = None
) -> Certificate:
    """What the outcomes promise, against a loss of ``epsilon`` points asked for."""
    spent = delta if spent is None else spent
    return Certificate(
        epsilon=epsilon,
        delta=delta,
        spent=spent,
        lost=seen.lost,
        gained=seen.gained,
        n=seen.n,
        bound=bound(seen, spent),
        questions=questions,
    )


def questions_needed(
    epsilon: float, flips: float, *, loss: float = 0.0, delta: float = DELTA, power: float = POWER
) -> int | None:
    """Questions that grant ``epsilon`` points with chance ``power`` where the truth is a loss of ``loss`` points.

    ``flips`` is the share of questions that turn right or wrong. By the normal limit of the score; None where no number
    would do, because the loss is not below ``epsilon``.
    """
    if loss >= epsilon:
        return None
    asked, true = epsilon / 100, loss / 100
    flips = max(flips, abs(true))
    under_null = 2 * float(restricted_gain((flips + true) / 2, (flips - true) / 2, 1, asked)) + asked * (1 - asked)
    seen = flips - true * true
    distance = float(norm.isf(delta)) * sqrt(under_null) + float(norm.ppf(power)) * sqrt(seen)
    without_flips = ceil(log(delta - BETA) / log1p(-asked)) if asked < 1 else 1
    return max(ceil((distance / (asked - true)) ** 2), without_flips)


def would_do(certificate: Certificate) -> int | None:
    """About how many questions would grant what was refused, if the truth is what was seen; None where none would do.

    A gain seen counts as no loss: it is more likely luck than a promise.
    """
    needed = questions_needed(
        certificate.epsilon,
        (certificate.lost + certificate.gained) / certificate.n,
        loss=max(0.0, -certificate.change),
        delta=certificate.delta if certificate.spent == certificate.delta else certificate.delta * LOOKS[-1],
    )
    return needed if needed is None or certificate.granted else max(needed, certificate.n + 1)


def look_sizes(n: int) -> tuple[int, ...]:
    """Questions after which a test of ``n`` looks: at each third. Few questions are looked at once."""
    return (n,) if n < _FEW else (n // 3, 2 * n // 3, n)


def look_early(first: Callable[[int], Outcomes], n: int, epsilon: float, *, delta: float = DELTA) -> Certificate:
    """A certificate of at most ``n`` questions, from fewer where they settle it.

    ``first(k)`` are the outcomes of the first k questions, whose order must be a matter of chance. Each look spends its
    share of ``delta`` (`LOOKS`), so that all together err no more often than one. A look that grants ends the test, and
    so does one after which the last could grant only if gains came more often than so far; this errs on neither side.
    """
    sizes = look_sizes(n)
    shares = LOOKS if len(sizes) == len(LOOKS) else (1.0,)
    for size, share in zip(sizes, shares, strict=True):
        seen = first(size)
        certificate = certify(seen, epsilon, delta=delta, spent=round(delta * share, 12))
        at_best = Outcomes(seen.lost, seen.gained * n // seen.n, n)
        if certificate.granted or bound(at_best, round(delta * shares[-1], 12)) > epsilon:
            break
    return certificate


def down_path(path: Iterable[tuple[Place, Callable[[], Certificate]]]) -> dict[Place, Certificate]:
    """Test plans in a fixed order, from safest to fastest, until one is refused: what it was is the last.

    The order must not depend on the questions of the tests. Then the chance of granting any plan that loses what is
    asked, or more, is ``delta`` at most: only the first such plan can be granted by mistake, and what follows needs
    that mistake. Plans behind a refused one are never asked for.
    """
    tested: dict[Place, Certificate] = {}
    for place, test in path:
        tested[place] = test()
        if not tested[place].granted:
            break
    return tested


def _likely_rates(seen: Outcomes) -> tuple[float, float]:
    """Rates of flips that the number seen does not speak against: an exact interval of level 1 - `BETA`."""
    n, flipped = seen.n, seen.flipped
    least = float(beta.ppf(BETA / 2, flipped, n - flipped + 1)) if flipped else 0.0
    most = float(beta.isf(BETA / 2, flipped + 1, n - flipped)) if flipped < n else 1.0
    return least, most


class _Region:
    """Outcomes ordered no later than the one seen: of m flips, those with at most ``most_lost[m]`` lost."""

    def __init__(self, seen: Outcomes, loss: float, least: float, most: float) -> None:
        """For rates of flips from ``least`` to ``most``."""
        self.n, self.loss = seen.n, loss
        first, last = binom.ppf(_TAIL / 2, seen.n, least), binom.isf(_TAIL / 2, seen.n, most)
        self.flips = np.arange(max(0, int(first)), int(last) + 1)
        self.most_lost = self._most_lost(float(score(seen.lost, seen.gained, seen.n, loss)))
        self.ways = gammaln(seen.n + 1) - gammaln(self.flips + 1) - gammaln(seen.n - self.flips + 1)

    def _most_lost(self, least: float) -> np.ndarray:
        """By bisection: of so many flips the score rises with those that are lost. -1 where none is extreme enough."""
        low, high = np.full(len(self.flips), -1), self.flips + 1
        while np.any(high - low > 1):
            middle = (low + high) // 2
            inside = score(middle, self.flips - middle, self.n, self.loss) <= least + _TIE
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        return low

    def highest_chance(self, least: float, most: float) -> float:
        """The largest `chance` at any rate: a grid, and finer ones about its best place."""
        best = 0.0
        for size in _GRID:
            rates = np.linspace(least, most, size)
            chances = self.chance(rates)
            place = int(chances.argmax())
            best = max(best, float(chances[place]))
            least, most = rates[max(0, place - 1)], rates[min(size - 1, place + 1)]
        return best

    def chance(self, rates: Floats) -> Floats:
        """Probability of the region at each rate of flips, at a true loss of ``loss``."""
        rate, flips = rates[:, None], self.flips[None, :]
        of_flips = np.exp(self.ways + xlogy(flips, rate) + xlog1py(self.n - flips, -rate))
        # bdtr gives nonsense below 0 and beyond n.
        share = np.minimum((1 + self.loss / rate) / 2, 1.0)
        below = bdtr(np.clip(self.most_lost, 0, self.flips).astype(np.float64), self.flips, share)
        return np.asarray((of_flips * np.where(self.most_lost < 0, 0.0, below)).sum(axis=1))
