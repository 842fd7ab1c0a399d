"""Every figure that results/figures.toml declares is what its file says, and a wrong one is found."""

from __future__ import annotations

from pathlib import Path

import page_figures as figures
import pytest


@pytest.mark.parametrize("page", figures.declared(), ids=lambda page: str(page["page"]))
def test_the_figures_of_a_page_are_those_of_its_files(page: dict[str, object]) -> None:
    assert list(figures.faults(page)) == []


def test_another_figure_and_one_without_a_file_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made.json").write_text(
        '{"systems": {"a": {"right": ["1", "2"]}, "b": {"right": ["1"]}}, "questions": 4}'
    )
    (tmp_path / "page.md").write_text("# One\n\n| a | **50.0** | -1 |\n| b | 25.0 |\n\n## Other\n\n| c | 7.5 |\n")
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    figures.file.cache_clear()
    page = {"page": "page.md", "files": {"m": "made.json"}, "lines": ["| a | {m a/accuracy/percent|.1f} |"]}
    assert list(figures.faults(page)) == [
        "page.md, One: no file is named for | b | 25.0 |",
        "page.md, Other: no file is named for | c | 7.5 |",
    ]
    page |= {"lines": [*page["lines"], "| b | {m b <- a|change} |"], "without_a_file": ["Other"]}
    missing, unnamed = figures.faults(page)
    assert "| b | −25.0 |" in missing
    assert "| b | 25.0 |" in unnamed
    figures.file.cache_clear()
