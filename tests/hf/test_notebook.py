"""The notebook of docs/, cell by cell, as a reader runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "transformers.ipynb"


def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On fewer questions: what is found is of no interest here, what is written is the engine's."""
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(sources) == 5
    names: dict[str, object] = {}
    for source in sources:
        exec(compile(source.replace("limit=60", "limit=12"), NOTEBOOK.name, "exec"), names)
    out = capsys.readouterr().out
    assert "times as fast with the plan" in out
    assert (tmp_path / "runs" / "notebook" / "plan.json").is_file()
