"""Two systems on the same questions: what differs, and whether the data can tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from scipy.stats import binomtest
from scipy.stats import t as student_t

from litestage.core.errors import DataError
from litestage.core.layers import Record
from litestage.evaluation import tango

LEVEL = 0.95


class Paired(Record):
    """The difference between a system and its baseline, in points of accuracy, paired by question."""

    n: int
    baseline_percent: float
    percent: float
    difference: float
    """System minus baseline, in points."""
    low: float
    high: float
    """Ends of the 95 % interval: Tango's score; of several votes a question by Student's t over questions."""
    gained: int
    lost: int
    """Questions on which the system does better, and worse."""
    p_value: float
    """Exact McNemar test on gained against lost (with votes: the sign test over questions)."""
    can_tell: bool
    """Whether these questions settle which is better: the interval excludes 0 and the exact test agrees at 5 %."""


def compare(baseline: Mapping[str, float], system: Mapping[str, float]) -> Paired:
    """Compare scores (0 to 1, one a question) by question id; raises `DataError` when the ids differ."""
    check_paired(baseline, system)
    differences = [float(system[question]) - float(baseline[question]) for question in sorted(baseline)]
    gained, lost = sum(change > 0 for change in differences), sum(change < 0 for change in differences)
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    low, high = _interval(differences, lost, gained)
    n = len(differences)
    return Paired(
        n=n,
        baseline_percent=100 * sum(baseline.values()) / n,
        percent=100 * sum(system.values()) / n,
        difference=100 * fmean(differences),
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


def _interval(differences: Sequence[float], lost: int, gained: int) -> tuple[float, float]:
    """Ends of the 95 % interval of the mean difference.

    Votes make differences between whole ones. Their interval is Student's t, which believes in no other difference than
    it saw, so it is no narrower to either side than Tango's where nothing changes.
    """
    n = len(differences)
    if all(change in (-1, 0, 1) for change in differences):
        low, high = tango.interval(lost, gained, n, LEVEL)
        return -high, -low
    mean, least = fmean(differences), tango.interval(0, 0, n, LEVEL)[1]
    error = stdev(differences) / math.sqrt(n) if n > 1 else 0.0
    margin = max(least, float(student_t.ppf((1 + LEVEL) / 2, n - 1)) * error if n > 1 else 2.0)
    return max(-1.0, mean - margin), min(1.0, mean + margin)
