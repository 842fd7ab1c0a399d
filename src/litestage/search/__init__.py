"""Step 2: which budget each stage gets. Strategy alone; whoever calls it measures."""

from litestage.search.cost import Estimate, Spent, estimate_cost
from litestage.search.greedy import ExitCheck, SearchOutcome, SearchRecord, search_budgets
from litestage.search.profile import Profile, ProfilePoint, TrialSummary, Verdict, budgets, choose, needed_correct
from litestage.search.trial import (
    Candidate,
    Measure,
    Screen,
    ScreenedPolicy,
    SearchOptions,
    StageCandidate,
    Trial,
    TrialResult,
    hopeless,
)

__all__ = [
    "Candidate",
    "Estimate",
    "ExitCheck",
    "Measure",
    "Profile",
    "ProfilePoint",
    "Screen",
    "ScreenedPolicy",
    "SearchOptions",
    "SearchOutcome",
    "SearchRecord",
    "Spent",
    "StageCandidate",
    "Trial",
    "TrialResult",
    "TrialSummary",
    "Verdict",
    "budgets",
    "choose",
    "estimate_cost",
    "hopeless",
    "needed_correct",
    "search_budgets",
]
