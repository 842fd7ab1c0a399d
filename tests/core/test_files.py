from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from litestage.core import LitestageError, UserError
from litestage.core.files import read_kept, write_bytes, write_text


def test_text_is_written_with_the_folders_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "text.md"
    write_text(path, "one — two\n")
    assert path.read_bytes() == "one — two\n".encode()
    assert oct(path.stat().st_mode)[-3:] == "644"
    write_text(path, "shorter")
    assert path.read_text() == "shorter"
    assert [p.name for p in path.parent.iterdir()] == ["text.md"]


def test_what_cannot_be_read_is_as_good_as_nothing(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    assert read_kept(path, json.loads) is None
    for damaged in (b"", b'{"a": ', b"\xff\xfe"):
        path.write_bytes(damaged)
        assert read_kept(path, json.loads) is None
    path.write_text('{"a": 1}')
    assert read_kept(path, json.loads) == {"a": 1}


FULL_DISK = """
import resource, sys
from pathlib import Path
from litestage.core import LitestageError
from litestage.core.files import write_text
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_text(Path(sys.argv[1]), "new" * 1000)
except LitestageError as error:
    print(error.exit_code, error)
"""


def test_a_disk_without_room_changes_nothing(tmp_path: Path) -> None:
    """A limit on file sizes stops the write in the middle, as a full disk does."""
    path = tmp_path / "result.json"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"1 {path} could not be written (")
    assert "nothing was changed there" in done.stdout
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_a_target_that_cannot_be_replaced_is_a_failure_and_no_mistake_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "plan.json").mkdir()
    with pytest.raises(LitestageError, match=r"plan\.json could not be written.*another folder") as error:
        write_bytes(tmp_path / "plan.json", b"x")
    assert not isinstance(error.value, UserError)
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LitestageError, match=r"file/plan\.json could not be written \((Not a directory|File exists)\)"):
        write_text(tmp_path / "file" / "plan.json", "x")


def test_an_interrupt_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between writing and renaming."""
    path = tmp_path / "result.json"
    path.write_text("old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
