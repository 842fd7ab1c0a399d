"""Which systems are worth having: none other is at least as fast and as accurate, and better in one of the two."""

from __future__ import annotations

from collections.abc import Mapping

from litestage.core.layers import Record
from litestage.evaluation.paired import compare, worse


class FrontierPoint(Record):
    """A system that no other beats in speed and accuracy, and those that the data cannot rank below it."""

    name: str
    speedup: float
    accuracy: float
    rivals: tuple[str, ...]
    """Systems as fast (`as_fast`) that are not less accurate beyond chance; some may be on the frontier themselves."""


AS_FAST = 0.05
"""Share by which a system may be slower and still count as as fast: prices cannot tell less."""


def as_fast(speedup: float, other: float) -> bool:
    """Whether ``speedup`` is at least ``other``, as far as prices tell."""
    return speedup >= (1 - AS_FAST) * other


def frontier(speedups: Mapping[str, float], scores: Mapping[str, Mapping[str, float]]) -> tuple[FrontierPoint, ...]:
    """The frontier from the slowest to the fastest; scores (0 to 1) by system and question id, paired.

    Of systems that are equal in both, the first has the place, and the others are its rivals.
    """
    accuracy = {name: 100 * sum(scores[name].values()) / len(scores[name]) for name in speedups}
    at = {name: (speedups[name], accuracy[name]) for name in speedups}
    first = {place: name for name, place in reversed(at.items())}
    best = [name for place, name in first.items() if not any(_beats(other, place) for other in first)]
    return tuple(
        FrontierPoint(
            name=name,
            speedup=speedups[name],
            accuracy=accuracy[name],
            rivals=tuple(
                other
                for other in speedups
                if other != name
                and as_fast(speedups[other], speedups[name])
                and not worse(compare(scores[name], scores[other]))
            ),
        )
        for name in sorted(best, key=lambda name: speedups[name])
    )


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether one (speedup, accuracy) is as good in both, and another."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
