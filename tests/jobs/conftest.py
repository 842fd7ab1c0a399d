from __future__ import annotations

from pathlib import Path

import pytest

from litestage.jobs import Options, Workbench
from litestage.models.catalog import EMBEDDED, embedded_folder


@pytest.fixture(scope="session")
def bench() -> Workbench:
    """The embedded model on its own questions."""
    return Workbench(Options())


@pytest.fixture(scope="session")
def embedded() -> Path:
    return embedded_folder() / EMBEDDED
