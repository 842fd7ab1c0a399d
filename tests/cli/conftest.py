from __future__ import annotations

from collections.abc import Callable

import pytest

from litestage.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def litestage(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command as a user would: exit code, output, errors (in one line, however the terminal folds them)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["litestage", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capfd.readouterr()
        code = stopped.value.code
        return int(code or 0), out, " ".join(err.split())

    return run
