"""The embedded everyday question set: small, offline and the same on every machine."""

from litestage.tasks.everyday.familiar import unfamiliar
from litestage.tasks.everyday.generate import knowledge, questions

__all__ = ["knowledge", "questions", "unfamiliar"]
