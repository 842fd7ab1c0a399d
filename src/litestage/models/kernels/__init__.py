"""Our own CPU kernels: products with packed weights, attention over the cache, the most probable token."""

from litestage.models.kernels.build import build_kernels
from litestage.models.kernels.kernels import Kernels, find_kernels

__all__ = ["Kernels", "build_kernels", "find_kernels"]
