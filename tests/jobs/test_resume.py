"""``kill -9`` in the middle, then the same command: the same result, at most the questions in flight decoded again."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from litestage.jobs.session import COMPLETIONS
from litestage.jobs.timing import LATENCY_FILE

Run = Callable[..., tuple[int, str, str]]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def stored(out: Path) -> int:
    """Completions that are safe in the cache of a run."""
    if not (out / COMPLETIONS).exists():
        return 0
    try:
        with sqlite3.connect(out / COMPLETIONS) as file:
            return int(file.execute("SELECT count(*) FROM completions").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def replaced(out: Path) -> int:
    """Completions that were stored twice: a replaced row takes a new number."""
    with sqlite3.connect(out / COMPLETIONS) as file:
        last, count = file.execute("SELECT max(rowid), count(*) FROM completions").fetchone()
    return int(last - count)


def killed(arguments: list[str], out: Path, after: int) -> int:
    """Start a command, kill it once ``after`` completions are stored; how many there were then."""
    command = [sys.executable, "-m", "litestage", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    while process.poll() is None and stored(out) < after:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "it was over before it could be killed: ask for more questions"
    return stored(out)


@pytest.mark.parametrize(
    ("name", "arguments", "after"),
    [
        ("evaluate", ["--split", "dev", "--limit", "8", "--batch-size", "8"], 15),
        ("search", ["--limit", "6", "--batch-size", "4", "--certify", "12", "--max-drop", "40", "--step", "10"], 40),
    ],
)
def test_a_killed_run_goes_on(litestage: Run, name: str, arguments: list[str], after: int, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    result = "evaluation.json" if name == "evaluate" else "path.json"
    assert litestage(name, *arguments, "--out", str(whole))[0] == 0
    # Both price with the same numbers: two fits of one machine differ, and the comparison is not about that.
    cut.mkdir()
    (cut / LATENCY_FILE).write_bytes((whole / LATENCY_FILE).read_bytes())
    before = killed([name, *arguments, "--out", str(cut)], cut, after)
    assert 0 < before < stored(whole)
    assert not (cut / result).exists(), "no half-written result"
    assert litestage(name, *arguments, "--out", str(cut))[0] == 0
    assert stored(cut) == stored(whole), "nothing was decoded under another key"
    assert replaced(cut) == 0, "what was stored before the kill was not decoded again"
    assert json.loads((cut / result).read_text()) == json.loads((whole / result).read_text())
    if name == "search":
        plans = [json.loads((folder / "plan.json").read_text()) for folder in (cut, whole)]
        assert plans[0] == plans[1]
