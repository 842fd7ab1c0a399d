from __future__ import annotations

from pathlib import Path

import pytest
import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder as transformers saves it."""
    return tiny.saved(tmp_path / "model")
