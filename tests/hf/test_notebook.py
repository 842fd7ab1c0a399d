"""The notebook of docs/, cell by cell, as a reader runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "transformers.ipynb"


QUICK = 'preset="paper", max_drop=3.0, step=6'
"""The paper's search: it needs no questions for a certificate."""


def on_fewer(source: str) -> str:
    return source.replace("limit=60", "limit=12").replace("max_drop=3.0", QUICK).replace("(8)", "(3)")


def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On fewer questions: what is found is of no interest here, what is written is the engine's."""
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(sources) == 5
    names: dict[str, object] = {}
    for source in sources:
        exec(compile(on_fewer(source), NOTEBOOK.name, "exec"), names)
    out = capsys.readouterr().out
    assert "times as fast with the plan" in out
    assert (tmp_path / "runs" / "notebook" / "plan.json").is_file()
