from __future__ import annotations

from pathlib import Path

import pytest

from litestage.jobs.session import Session, load
from litestage.models.catalog import EMBEDDED, embedded_folder


@pytest.fixture(scope="session")
def session() -> Session:
    """The embedded model on its own questions."""
    return load()


@pytest.fixture(scope="session")
def embedded() -> Path:
    return embedded_folder() / EMBEDDED
