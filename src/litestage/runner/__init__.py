"""The spine: stages x branches x votes -> traces."""

from litestage.runner.cache import CachedEngine
from litestage.runner.prompts import Prompts, header_of
from litestage.runner.run import run

__all__ = ["CachedEngine", "Prompts", "header_of", "run"]
