"""A path of plans as results keep it: what was found, what is promised of each plan, and what was tried besides."""

from __future__ import annotations

from typing import Literal

from litestage.core import Certificate
from litestage.core.layers import Record
from litestage.results.performance import Split
from litestage.search import PathOptions, Tried


class PathPlan(Record):
    """A plan on the path."""

    tried: Tried
    certificate: Certificate | None = None
    """None where the test did not come so far."""


class PathSearch(Record):
    """How a path was found and how far down it the certify questions allow one to go."""

    options: PathOptions
    searched_on: Split
    certified_on: Split
    latency: Literal["priced", "wall"]
    full_correct: int
    full_seconds: float
    """A question."""
    plans: tuple[PathPlan, ...]
    """From the safest to the fastest."""
    chosen: int | None
    """Which of them is the plan; None where that is full depth."""
    tried: tuple[Tried, ...]
    """Everything that was tried, the path's plans among it."""
    answers: int
    tokens: int
    """Decoded by the search, besides full depth's."""
    full_tokens: int
    """Decoded at full depth on the search's questions."""
    certify_answers: int
    """Questions answered for the certificates, full depth's among them."""

    @property
    def plan(self) -> PathPlan | None:
        """The plan that was chosen."""
        return None if self.chosen is None else self.plans[self.chosen]

    @property
    def refused(self) -> PathPlan | None:
        """The plan that ended the test."""
        return next((one for one in self.plans if one.certificate and not one.certificate.granted), None)
