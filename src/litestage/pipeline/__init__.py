"""The spine: stages x branches x votes -> traces."""

from litestage.pipeline.prompts import Prompts, header_of
from litestage.pipeline.run import NOBODY, Listener, run
from litestage.pipeline.spine import ONCE, Answering, Spine, Votes

__all__ = ["NOBODY", "ONCE", "Answering", "Listener", "Prompts", "Spine", "Votes", "header_of", "run"]
