"""The spine: stages x branches x votes -> traces."""

from litestage.pipeline.flow import Flow, flow
from litestage.pipeline.prompts import Prompts, header_of
from litestage.pipeline.run import NOBODY, Listener, run, unanswered
from litestage.pipeline.spine import ONCE, Answering, Spine, Votes

__all__ = [
    "NOBODY",
    "ONCE",
    "Answering",
    "Flow",
    "Listener",
    "Prompts",
    "Spine",
    "Votes",
    "flow",
    "header_of",
    "run",
    "unanswered",
]
