"""Two systems on the same questions: what differs, and whether the data can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import binomtest

from litestage.core.errors import DataError
from litestage.core.layers import Record

INTERVAL = (0.025, 0.975)


class Paired(Record):
    """The difference between a system and its baseline, in points of accuracy, paired by question."""

    n: int
    baseline_percent: float
    percent: float
    difference: float
    """System minus baseline, in points."""
    low: float
    high: float
    """Ends of the 95 % interval, by a bootstrap over questions."""
    gained: int
    lost: int
    """Questions on which the system does better, and worse."""
    p_value: float
    """Exact McNemar test on gained against lost (with votes: the sign test over questions)."""
    can_tell: bool
    """Whether these questions settle which is better: the interval excludes 0 and the test agrees at 5 %.

    Both, because a bootstrap over a handful of changed questions is too sure of itself.
    """


def compare(
    baseline: Mapping[str, float], system: Mapping[str, float], seed: int = 0, resamples: int = 10_000
) -> Paired:
    """Compare scores (0 to 1, one a question) by question id; raises `DataError` when the ids differ."""
    check_paired(baseline, system)
    differences = np.array([float(system[question]) - float(baseline[question]) for question in sorted(baseline)])
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    low, high = _bootstrap(differences, seed, resamples)
    n = len(differences)
    return Paired(
        n=n,
        baseline_percent=100 * sum(baseline.values()) / n,
        percent=100 * sum(system.values()) / n,
        difference=100 * float(differences.mean()),
        low=100 * low,
        high=100 * high,
        gained=gained,
        lost=lost,
        p_value=p_value,
        can_tell=bool((low > 0 or high < 0) and p_value < 0.05),
    )


def worse(paired: Paired) -> bool:
    """Whether the system is less accurate than its baseline beyond chance."""
    return paired.can_tell and paired.difference < 0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: below 5 % together, the chance that any of them is a false alarm is below 5 %."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = least
    return adjusted


def check_paired(baseline: Mapping[str, float], system: Mapping[str, float]) -> None:
    """Raise `DataError` unless both have the same questions, at least one."""
    alone = [("the baseline", sorted(baseline.keys() - system.keys())), ("the other", sorted(system.keys() - baseline))]
    if missing := [f"{len(ids)} only in {name} (such as {ids[0]})" for name, ids in alone if ids]:
        raise DataError(
            f"The two systems did not answer the same questions: {' and '.join(missing)}. Their difference would mix "
            "the systems with the questions. Run both with the same --data, --split and --limit."
        )
    if not baseline:
        raise DataError("There is no question to compare on. Give at least one with --data, --split and --limit.")


def _bootstrap(values: np.ndarray, seed: int, resamples: int) -> tuple[float, float]:
    """Percentile interval of the mean. Resampling questions is a multinomial draw over the distinct values."""
    distinct, counts = np.unique(values, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=resamples)
    low, high = np.quantile(draws @ distinct / len(values), INTERVAL)
    return float(low), float(high)
