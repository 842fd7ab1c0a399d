"""litestage: skip the sub-layers that a reasoning stage does not need.

``load`` gives a session; ``search``, ``evaluate``, ``answer`` and the other jobs work with it. All are found when they
are first asked for, so that importing the package loads no model library; `litestage.api` lists them.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

TYPE_CHECKING = False  # as type checkers read it, without the module of that name
if TYPE_CHECKING:
    from typing import Any

    from litestage.api import *  # noqa: F403

__version__ = "0.1.0"


class _Package(ModuleType):
    """The package, whose API is loaded at first use."""

    def __getattr__(self, name: str) -> Any:
        from importlib.util import find_spec

        if not name.startswith("_") and (name == "search" or find_spec(f"{__name__}.{name}") is None):
            api = import_module("litestage.api")
            if name in api.__all__:
                return getattr(api, name)
        raise AttributeError(f"module 'litestage' has no attribute {name!r}")  # rooms are imported by their names

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *import_module("litestage.api").__all__]

    def __setattr__(self, name: str, value: object) -> None:
        """``litestage.search`` is the job, whoever imports the room of that name."""
        if name != "search":
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
