"""What a finished search's plans take here, or in another batch."""

from __future__ import annotations

from litestage.core import Conditions
from litestage.core.layers import Record
from litestage.core.shown import Shown
from litestage.evaluation import FitError


class PlanPrice(Record):
    """One plan of a search."""

    name: str
    """``full``, or its place on the path."""
    skipped: dict[str, int]
    exits: tuple[str, ...]
    left_out: tuple[str, ...]
    seconds: float
    """A question, ``questions_at_once`` going through each stage together."""
    speedup: float
    """Over full depth."""
    chosen: bool


class Prices(Record, Shown):
    """All plans of a search, by the counts that it left and a cost model fitted to this machine."""

    questions: int
    questions_at_once: int
    plans: tuple[PlanPrice, ...]
    decode_fit: FitError
    prefill_fit: FitError
    conditions: Conditions
