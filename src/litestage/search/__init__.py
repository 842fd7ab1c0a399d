"""Step 2: which budget each stage gets. Strategy alone; whoever calls it measures."""

from litestage.search.asked import Search, Strategy, one_by_one
from litestage.search.effort import Estimate, Spent, estimate_effort
from litestage.search.greedy import ExitCheck, SearchOutcome, SearchRecord, budget_search, search_budgets
from litestage.search.path import PathFound, PathOptions, Tried, path_search
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
    "PathFound",
    "PathOptions",
    "Profile",
    "ProfilePoint",
    "Screen",
    "ScreenedPolicy",
    "Search",
    "SearchOptions",
    "SearchOutcome",
    "SearchRecord",
    "Spent",
    "StageCandidate",
    "Strategy",
    "Trial",
    "TrialResult",
    "TrialSummary",
    "Tried",
    "Verdict",
    "budget_search",
    "budgets",
    "choose",
    "estimate_effort",
    "hopeless",
    "needed_correct",
    "one_by_one",
    "path_search",
    "search_budgets",
]
