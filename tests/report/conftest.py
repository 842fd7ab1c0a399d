"""Made-up results: a fixture, not a measurement."""

from __future__ import annotations

from pathlib import Path

import pytest

from litestage.results import PlanResult

MADE_UP = Path(__file__).with_name("made_up_results.json")


@pytest.fixture(scope="session")
def results() -> PlanResult:
    """16 blocks, three stages, a search that skips 14, 10 and 2 sub-layers."""
    return PlanResult.load(MADE_UP)
