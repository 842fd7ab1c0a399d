"""How much faster one of two was on the same questions: by the clock, or by their prices."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median

import numpy as np
from pydantic import Field
from scipy.stats import t as student_t

from litestage.core.errors import OptionError
from litestage.core.layers import Record
from litestage.evaluation.paired import LEVEL, check_paired

JITTER = 0.02
"""Share by which times of one question are taken to differ at least: ratios that agree better agree by chance."""


class Sample(Record):
    """One timed question. Systems take turns on each question, so that a drift of the machine hits them alike."""

    system: str
    question_id: str
    seconds: float
    """Of the whole question, all its votes together."""
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    """Of each of its stages."""
    turn: int = 0
    """Every question is timed once a turn."""


class Speedup(Record):
    """How many times faster than a named baseline, over the same questions."""

    baseline: str
    n: int
    baseline_seconds: float
    seconds: float
    """Seconds a question."""
    speedup: float
    """Baseline's total seconds over the system's."""
    low: float
    high: float
    """Ends of the 95 % interval of a ratio of means over questions (Student's t on its logarithm, so that neither is
    negative); both are the speedup for one question, which tells no interval."""
    can_tell: bool
    """Whether the interval excludes 1."""
    turns: tuple[float, ...] = ()
    """The speedup that each turn shows by itself: how far the clock agrees with itself."""


class PriceError(Record):
    """Priced seconds against measured ones, as shares: 0.05 is 5 %."""

    total: float
    """Signed error of the total: positive where the price is too high."""
    median: float
    max: float
    """Absolute errors of single questions."""


def medians(samples: Iterable[Sample]) -> dict[str, dict[str, float]]:
    """Each system's median seconds by question id, over its turns."""
    turns: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        turns[sample.system][sample.question_id].append(sample.seconds)
    return {
        system: {question: median(seconds) for question, seconds in questions.items()}
        for system, questions in turns.items()
    }


def speedup(
    baseline: Mapping[str, float],
    system: Mapping[str, float],
    *,
    baseline_name: str,
    jitter: float = JITTER,
    turns: Sequence[float] = (),
) -> Speedup:
    """Compare seconds by question id; raises `DataError` when the ids differ.

    A bootstrap over the few questions that are timed would be too sure of itself. Prices have no ``jitter``: what is
    left is which questions were asked.
    """
    check_paired(baseline, system)
    questions = sorted(baseline)
    before = np.array([baseline[question] for question in questions])
    after = np.array([system[question] for question in questions])
    ratio, n = float(before.sum() / after.sum()), len(questions)
    spread = float(np.std(before - ratio * after, ddof=1) / after.mean()) if n > 1 else 0.0
    error = max(spread, jitter * ratio) / math.sqrt(n)
    factor = math.exp(float(student_t.ppf((1 + LEVEL) / 2, n - 1)) * error / ratio) if n > 1 else 1.0
    return Speedup(
        baseline=baseline_name,
        n=n,
        baseline_seconds=fmean(before),
        seconds=fmean(after),
        speedup=ratio,
        low=ratio / factor,
        high=ratio * factor,
        can_tell=n > 1 and max(ratio, 1 / ratio) > factor,
        turns=tuple(turns),
    )


def timed_speedup(samples: Sequence[Sample], baseline: str, system: str, *, baseline_name: str) -> Speedup:
    """Of two systems that took turns, by their medians; with what each turn shows by itself, where there are several.

    Raises `DataError` where they did not run the same questions.
    """
    both = medians(samples)
    turns = []
    for turn in sorted({sample.turn for sample in samples}):
        alone = medians(sample for sample in samples if sample.turn == turn)
        turns.append(sum(alone[baseline].values()) / sum(alone[system].values()))
    return speedup(both[baseline], both[system], baseline_name=baseline_name, turns=turns if len(turns) > 1 else ())


def priced_speedup(baseline: Mapping[str, float], system: Mapping[str, float], *, baseline_name: str) -> Speedup:
    """Of two systems by the prices of the same questions, paired."""
    return speedup(baseline, system, baseline_name=baseline_name, jitter=0.0)


def price_error(priced: Sequence[float], measured: Sequence[float]) -> PriceError:
    """Compare prices and measured seconds, one a question in the same order."""
    errors = [abs(price / seconds - 1) for price, seconds in zip(priced, measured, strict=True)]
    return PriceError(total=sum(priced) / sum(measured) - 1, median=median(errors), max=max(errors))


def skip_efficiency(full_step_seconds: float, step_seconds: float, share_of_bytes_skipped: float) -> float:
    """Time saved / (full step time x share of weight bytes skipped): 1 is all that the skipped bytes could save."""
    if not 0 < share_of_bytes_skipped <= 1:
        raise OptionError(
            f"Skip efficiency is undefined when {share_of_bytes_skipped:.0%} of the weight bytes are skipped. "
            "Skip at least one sub-layer."
        )
    return (full_step_seconds - step_seconds) / (full_step_seconds * share_of_bytes_skipped)
