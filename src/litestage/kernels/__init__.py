"""Our own kernels: products with packed weights, attention over the cache, the most probable token."""

from litestage.kernels.build import build_kernels
from litestage.kernels.cpu import CpuKernels, find_kernels
from litestage.kernels.gpu import GpuKernels, find_gpu_kernels
from litestage.kernels.kernels import Kernels, SharedPrefixes, inverted
from litestage.kernels.rounding import round_weight

__all__ = [
    "CpuKernels",
    "GpuKernels",
    "Kernels",
    "SharedPrefixes",
    "build_kernels",
    "find_gpu_kernels",
    "find_kernels",
    "inverted",
    "round_weight",
]
