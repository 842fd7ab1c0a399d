"""Results for people: figure and table data, charts, one page, and the terminal. It computes nothing new."""

from litestage.report.plan_report import write_report
from litestage.report.results import (
    Example,
    Group,
    Provenance,
    RankedLayer,
    Results,
    Search,
    Split,
    StageCost,
    System,
)

__all__ = [
    "Example",
    "Group",
    "Provenance",
    "RankedLayer",
    "Results",
    "Search",
    "Split",
    "StageCost",
    "System",
    "write_report",
]
