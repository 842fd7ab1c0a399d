from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
settings.register_profile("litestage", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("litestage")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny models are bound by overhead: more threads only disturb whoever else is at work."""
    torch.set_num_threads(1)
