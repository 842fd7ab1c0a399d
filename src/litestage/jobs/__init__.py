"""One file a job: they wire the rooms, resume and time. This is the Python API."""

from litestage.jobs.evaluate import evaluate
from litestage.jobs.rankings import compare_rankings
from litestage.jobs.search import Found, search
from litestage.jobs.session import Options, Session
from litestage.results import Evaluation

__all__ = ["Evaluation", "Found", "Options", "Session", "compare_rankings", "evaluate", "search"]
