"""What a job leaves: records, read and written once. A report draws them and computes nothing new."""

from litestage.results.results import (
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
]
