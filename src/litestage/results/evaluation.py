"""What an evaluation leaves: accuracy, tokens and latency of one plan on one split, with every text."""

from __future__ import annotations

from litestage.core import Conditions, Plan, Trace
from litestage.core.layers import Record
from litestage.core.shown import Shown
from litestage.evaluation import Accuracy, Price, StoppedVotes, Usage, VoteAccuracy
from litestage.results.performance import Performance


class Evaluation(Record, Shown):
    """What one plan reached on one set of questions."""

    accuracy: float
    """Percent, 0 to 100; the mean over votes when there are several."""
    interval: Accuracy
    """With several votes over all runs, and clustered by question; of the majority where votes were left undrawn."""
    votes: VoteAccuracy | StoppedVotes | None
    none_rate: float
    """Share of answers that did not parse, 0 to 1."""
    usage: Usage
    price: Price
    """Seconds a question; with several votes seconds a run, as if it ran alone."""
    wall_seconds: float | None
    """Mean seconds a question by the wall clock, one question at a time with all its votes; None unless asked for."""
    plan: Plan
    conditions: Conditions
    questions: tuple[Trace, ...]

    @property
    def performance(self) -> Performance:
        return Performance.of(self.interval, self.usage, self.price, self.wall_seconds)
