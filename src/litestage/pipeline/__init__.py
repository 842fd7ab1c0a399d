"""The spine: stages x branches x votes -> traces."""

from litestage.pipeline.prompts import Prompts, header_of
from litestage.pipeline.run import run

__all__ = ["Prompts", "header_of", "run"]
