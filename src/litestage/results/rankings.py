"""What a comparison of rankings leaves: the order that each gives, and the tokens and answers that are kept."""

from __future__ import annotations

from litestage.core import Conditions, Ranking, SubLayer
from litestage.core.layers import Record, SubLayerField
from litestage.evaluation import Accuracy, Paired

INDISPENSABLE = 0.5
"""Agreement below which a sub-layer must never go: alone it changes every second token."""


class BudgetEffect(Record):
    """What a budget does to the tokens of questions that nothing was fitted on."""

    budget: int
    agreement: float
    """Share of tokens, 0 to 1, whose likeliest successor stays the full model's."""
    kl: float
    """Nats a token."""
    tokens: int


class PolicyRecord(Record):
    """How sub-layers are left out: a ranking says which, a compensation what stands in for them."""

    ranking: str
    compensation: str

    def __str__(self) -> str:
        return f"{self.ranking} + {self.compensation}"


class PolicyEffects(PolicyRecord):
    """A policy's effect on tokens by budget, until it changes too many."""

    points: tuple[BudgetEffect, ...]

    def agreement(self, budget: int) -> float | None:
        """None for a budget that was not judged."""
        return next((point.agreement for point in self.points if point.budget == budget), None)


class StageRankings(Record):
    """One stage's rankings by name, the effects of its policies, and what must never go."""

    stage: str
    rankings: dict[str, Ranking]
    """By name; of a greedy one that knows several compensations, the order with the first of them in place."""
    curves: tuple[PolicyEffects, ...]
    indispensable: tuple[SubLayerField, ...]
    """Sub-layers that change more than every second token when they alone are left out; empty without a probe."""


class BudgetAnswers(Record):
    """Answers with a budget left out of every stage, on the questions that nothing was fitted on."""

    budget: int
    accuracy: Accuracy
    against_full: Paired
    right: tuple[str, ...] = ()
    """Questions answered right, by id: policies can be paired with each other."""


class PolicyAnswers(PolicyRecord):
    """A policy's answers by budget, until more are lost than chance explains."""

    points: tuple[BudgetAnswers, ...]


class Rankings(Record):
    """All stages, on one set of questions."""

    questions: int
    inputs: str = ""
    """A name for the model, its precision, the task and the questions."""
    conditions: Conditions | None = None
    stages: tuple[StageRankings, ...]
    answers: tuple[PolicyAnswers, ...] = ()
    """One a policy, where questions were answered at all."""

    @property
    def one_compensation(self) -> bool:
        """Whether all policies share one, so that a ranking's name is name enough."""
        return len({policy.compensation for stage in self.stages for policy in stage.curves}) == 1


def indispensable(probed: Ranking) -> tuple[SubLayer, ...]:
    """Of a probed ranking, from the worst to lose on."""
    return tuple(s.layer for s in reversed(probed.scores) if s.agreement is not None and s.agreement < INDISPENSABLE)
