"""Step 2: which budget each stage gets. Strategy alone; whoever calls it measures."""

from litestage.search.cost import Estimate, Spent, estimate_cost
from litestage.search.greedy import ExitCheck, SearchRecord, search_budgets
from litestage.search.profile import Point, Profile, Result, budgets, choose, needed_correct
from litestage.search.setting import (
    Ask,
    Measure,
    Measurement,
    Screen,
    Screened,
    SearchOptions,
    Setting,
    StageSetting,
    hopeless,
)

__all__ = [
    "Ask",
    "Estimate",
    "ExitCheck",
    "Measure",
    "Measurement",
    "Point",
    "Profile",
    "Result",
    "Screen",
    "Screened",
    "SearchOptions",
    "SearchRecord",
    "Setting",
    "Spent",
    "StageSetting",
    "budgets",
    "choose",
    "estimate_cost",
    "hopeless",
    "needed_correct",
    "search_budgets",
]
