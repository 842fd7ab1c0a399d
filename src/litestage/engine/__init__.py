"""The engine: requests in, completions out, at any skip schedule."""

from litestage.engine.engine import TorchEngine
from litestage.engine.timing import time_passes

__all__ = ["TorchEngine", "time_passes"]
