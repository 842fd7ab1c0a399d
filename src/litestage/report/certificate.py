"""A certificate in words: what is promised, and what a refused one would need."""

from __future__ import annotations

from litestage.core import Certificate
from litestage.evaluation import would_do
from litestage.report.words import signed

NOT_CERTIFIED = (
    "The plan is not certified: it was chosen by how it did on the questions of its own search, which promises nothing."
)


def points(value: float) -> str:
    """Points of accuracy, as many digits as they need."""
    return f"{value:.2f}".rstrip("0").rstrip(".") + (" point" if value == 1 else " points")


def verdict(certificate: Certificate) -> str:
    """One to three sentences: granted or refused, the bound, and about how many questions would do."""
    sure = f"{100 * (1 - certificate.delta):g} %"
    asked, bound = points(certificate.epsilon), points(certificate.bound)
    if certificate.granted:
        return (
            f"Granted: the loss is below {points(certificate.epsilon)}, with confidence {sure}. The bound is {bound}."
        )
    asked = points(certificate.epsilon)
    found = f"Refused: {asked} cannot be promised. The loss is only known to be below {bound}, with confidence {sure}."
    seen = max(0.0, -certificate.change)
    needed = would_do(certificate)
    if needed is None:
        return f"{found} No number of questions would do: the loss seen is {points(seen)} itself."
    loss = f"a loss of {points(seen)}" if seen else "no loss"
    return f"{found} If what was seen is the truth ({loss}), about {rounded(needed):,} questions would do."


def rounded(count: int) -> int:
    """Two digits: more would claim too much."""
    unit = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // unit) * unit


def facts(certificate: Certificate, what: str, questions: str) -> dict[str, str]:
    """What stands behind the verdict, by name."""
    rows = {
        "changed": what,
        "questions": questions,
        "lost, gained": f"{certificate.lost}, {certificate.gained}",
        "seen": f"{signed(certificate.change)} points",
        "bound": f"{points(certificate.bound)}, with confidence {100 * (1 - certificate.delta):g} %",
    }
    return {name: value for name, value in rows.items() if value}
