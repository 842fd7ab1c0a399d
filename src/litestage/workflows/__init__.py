"""One file a job: they wire the rooms, resume and time. This is the Python API."""

from litestage.workflows.evaluate import Evaluation, evaluate
from litestage.workflows.rankings import compare_rankings
from litestage.workflows.search import Found, search
from litestage.workflows.workbench import Options, Workbench

__all__ = ["Evaluation", "Found", "Options", "Workbench", "compare_rankings", "evaluate", "search"]
