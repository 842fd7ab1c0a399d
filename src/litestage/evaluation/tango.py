"""Tango's score for a difference of paired shares, and the interval that it gives.

Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
Statistics in Medicine 17 (1998), 891-908. ``lost`` questions were right before and are wrong now, ``gained`` the other
way round; the rest count for nothing but ``n``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import norm

Floats = NDArray[np.float64]


def restricted_gain(lost: ArrayLike, gained: ArrayLike, n: ArrayLike, loss: ArrayLike) -> Floats:
    """The likeliest rate of gains where the rate of losses is higher by ``loss`` (a share, -1 to 1)."""
    lost, gained, n, loss = (np.asarray(value, dtype=np.float64) for value in (lost, gained, n, loss))
    linear = (2 * n - lost + gained) * loss - lost - gained
    constant = -gained * loss * (1 - loss)
    root = np.sqrt(np.maximum(linear * linear - 8 * n * constant, 0.0))
    # The larger root of 2n q^2 + linear q + constant; written so that nothing cancels.
    low = np.where(linear > 0, -2 * constant / np.where(linear > 0, linear + root, 1.0), (root - linear) / (4 * n))
    return np.asarray(np.maximum(low, np.maximum(0.0, -loss)))


def score(lost: ArrayLike, gained: ArrayLike, n: ArrayLike, loss: ArrayLike) -> Floats:
    """How many standard errors the loss seen lies above ``loss``; far below 0 speaks for a smaller loss."""
    lost, gained, n, loss = (np.asarray(value, dtype=np.float64) for value in (lost, gained, n, loss))
    variance = n * (2 * restricted_gain(lost, gained, n, loss) + loss * (1 - loss))
    distance = lost - gained - n * loss
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(distance == 0, 0.0, distance / np.sqrt(np.maximum(variance, 0.0))))


def interval(lost: int, gained: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Ends of the two-sided interval of the loss, as shares: all losses that the score does not refuse."""
    critical = float(norm.ppf((1 + level) / 2))
    seen = (lost - gained) / n

    def end(bound: float, sign: int) -> float:
        def beyond(loss: float) -> float:
            return sign * float(score(lost, gained, n, loss)) + critical

        if beyond(bound) >= 0:  # every question changed the same way
            return bound
        return float(brentq(beyond, seen, bound, xtol=1e-12))

    return end(-1.0, -1), end(1.0, 1)
