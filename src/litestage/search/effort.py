"""What a search costs: said beforehand, and counted afterwards."""

from __future__ import annotations

from litestage.core.layers import Record
from litestage.search.profile import budgets


class Estimate(Record):
    """The full profile, before anything is saved."""

    points: int
    """Passes over the questions."""
    questions: int
    """Questions to answer in all."""
    seconds: float


class Spent(Record):
    """What the search did."""

    points: int
    """Candidates measured, the full model and the exit checks included."""
    questions: int
    """Questions answered in all."""
    questions_saved: int
    """Questions left out of points that could not be chosen any more."""
    points_left_out: int
    """Budgets left out after several in a row that missed the target."""


def estimate_effort(
    num_stages: int, num_blocks: int, step: int, num_questions: int, seconds_per_question: float
) -> Estimate:
    """The paper's cost (A.2): every budget of every stage, each at the full model's time over all questions."""
    points = num_stages * len(budgets(num_blocks, step))
    return Estimate(
        points=points,
        questions=points * num_questions,
        seconds=points * num_questions * seconds_per_question,
    )
