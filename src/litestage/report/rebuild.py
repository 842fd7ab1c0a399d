"""A report again from results alone, whatever job they are of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from litestage.core import DataError
from litestage.report import comparison_report, diagnosis_report, plan_report
from litestage.results import RESULTS_FILE, Comparison, Diagnosis, PlanResult

KINDS: dict[str, Callable[[Path], Path]] = {
    "plan": lambda folder: plan_report.write_report(PlanResult.load(folder), folder),
    "comparison": lambda folder: comparison_report.write_report(Comparison.load(folder), folder),
    "diagnosis": lambda folder: diagnosis_report.write_report(Diagnosis.load(folder), folder),
}
"""What reads and draws each kind of results."""


def rebuild(folder: Path) -> Path:
    """Draw ``report.html`` and ``figures/`` from a folder's ``results.json``; returns the page's path."""
    kind = _kind(folder / RESULTS_FILE)
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(
            f"{folder / RESULTS_FILE} has results of kind {kind!r}; reports are drawn of {', '.join(KINDS)}. "
            "Give the folder that quickstart, compare or diagnose wrote."
        )
    return KINDS[kind](folder)


def _kind(path: Path) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"No results at {path} ({error.strerror}). Give the folder that quickstart, compare or diagnose wrote."
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}). Run the job again.") from None
    return content.get("kind") if isinstance(content, dict) else None
