"""The commands of the README and of docs/ are run, as they stand there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from litestage.models.catalog import PULLABLE, cache_folder

Run = Callable[..., tuple[int, str, str]]
Typed = Callable[[str], int]
ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data" / "obqa"


def commands(document: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [
        line[2:].split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.startswith("$ ")
    ]


@pytest.fixture
def typed(litestage: Run) -> Typed:
    """Type a whole line: its exit code."""
    return lambda line: litestage(*shlex.split(line)[1:])[0]


def on_fewer(command: str) -> str:
    """The same command on a quarter of the questions: what it prints is of no interest here."""
    return re.sub(r"(--(?:limit|validation)) (\d+)", lambda m: f"{m[1]} {max(2, int(m[2]) // 4)}", command)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that has what the documents refer to, so that nothing is written into the real one."""
    here = tmp_path / "litestage"
    here.mkdir()
    (here / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(here)
    return here


def test_the_guide_to_an_own_task_runs(typed: Typed, checkout: Path) -> None:
    found = commands("docs/own-task.md")
    assert len(found) == 6
    codes = [typed(command) for command in found]
    assert codes == [2, 0, 0, 0, 0, 0], list(zip(found, codes, strict=True))
    assert (checkout / "runs" / "own-plan" / "plan.json").is_file()


def test_fine_tuning_and_votes_run(typed: Typed, checkout: Path) -> None:
    found = commands("docs/finetune.md")
    assert [typed(on_fewer(command)) for command in found] == [0] * 7
    assert (checkout / "runs" / "adapter" / "training.png").is_file()
    assert (checkout / "runs" / "healed" / "plan.json").is_file()


def test_the_benchmarks_run(typed: Typed, checkout: Path) -> None:
    found = commands("docs/speed.md")
    assert [typed(on_fewer(command)) for command in found] == [0] * 5


def test_the_python_of_the_readme_runs(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(code.replace("limit=150", "limit=8"), "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() in ("a cork", "a stone", "a key", "a fork")


def test_the_make_targets_of_the_readme_exist() -> None:
    named = {command.split()[1] for command in commands("README.md") if command.startswith("make ")}
    assert {"quickstart", "test"} <= named
    assert named <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.slow
def test_the_real_model_of_the_readme_runs_on_real_questions(typed: Typed, checkout: Path) -> None:
    if not DATA.is_dir() or not (cache_folder() / "smollm2-135m").is_dir():
        pytest.skip(f"needs {DATA} and `litestage models pull {next(iter(PULLABLE))}`")
    (checkout.parent / "shared").symlink_to(ROOT.parent / "shared")
    evaluate, search = (command for command in commands("README.md") if "obqa" in command)
    # The search as it stands takes over an hour: fewer questions and budgets here.
    assert typed(evaluate) == typed(search.replace("--limit 20", "--limit 4 --step 28")) == 0


def test_the_command_that_a_search_prints_measures_its_plan(litestage: Run, typed: Typed, checkout: Path) -> None:
    """With every option that made the plan what it is, for whoever copies the line."""
    searched = "search --shots 1 --dtype bf16 --limit 3 --step 12 --out 'runs/a plan'"
    code, _, told = litestage(*shlex.split(searched))
    assert code == 0
    printed = told[told.rindex("litestage evaluate") :]
    assert printed == "litestage evaluate --shots 1 --dtype bf16 --plan 'runs/a plan' --split test"
    assert typed(f"{printed} --limit 2") == 0
