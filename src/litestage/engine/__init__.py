"""The engine: requests in, completions out, at any skip schedule; and the engines around it."""

from litestage.engine.engine import TorchEngine
from litestage.engine.stored import CachedEngine
from litestage.engine.timing import time_passes

__all__ = ["CachedEngine", "TorchEngine", "time_passes"]
