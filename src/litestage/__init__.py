"""litestage: skip the sub-layers that a reasoning stage does not need."""

__version__ = "0.1.0"
