"""``litestage export`` as a user gives it."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Run

SMALL = ("--measure", "6", "--workers", "1")


def test_a_smaller_model_that_every_command_reads(litestage: Run, tmp_path: Path) -> None:
    code, out, err = litestage("export", "--blocks", "5,3", "--out", str(tmp_path / "smaller"), *SMALL)
    assert (code, err.count("Traceback")) == (0, 0)
    text = " ".join(out.split())
    for part in (
        "without blocks 3, 5 of 12",
        "At full depth",
        "while decoding",
        "in prompts as well",
        "of 6 questions",
    ):
        assert part in text
    assert "blocks 3, 5" in (tmp_path / "smaller" / "README.md").read_text().lower()
    code, out, _ = litestage(
        *("evaluate", "--model", str(tmp_path / "smaller"), "--limit", "4", "--json"),
        *("--out", str(tmp_path / "out"), "--workers", "1"),
    )
    assert code == 0
    assert len(json.loads(out)["questions"]) == 4


def test_a_plan_that_differs_by_stage_is_refused(litestage: Run, tmp_path: Path) -> None:
    code, _, err = litestage("export", "--out", str(tmp_path / "x"), *SMALL)
    assert code == 2
    assert "Give --plan, or --blocks" in err
    code, _, err = litestage("export", "--blocks", "5;6", "--out", str(tmp_path / "x"), *SMALL)
    assert code == 2
    assert "--blocks 5;6" in err
    code, _, err = litestage("export", "--blocks", "12", "--out", str(tmp_path / "x"), *SMALL)
    assert code == 2
    assert "12 blocks, 0 to 11" in err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    code, _, err = litestage("export", "--blocks", "5", "--out", str(tmp_path / "full"), *SMALL)
    assert code == 2
    assert "not empty" in err
