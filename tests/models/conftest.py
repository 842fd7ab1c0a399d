from __future__ import annotations

from pathlib import Path

import pytest
import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder as transformers saves it."""
    return saved(tmp_path / "model")


def saved(place: Path, family: str = "llama") -> Path:
    tiny.transformers_model(family).save_pretrained(place)
    tiny.tokenizer().save_pretrained(place)
    return place
