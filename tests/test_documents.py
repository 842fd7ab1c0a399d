"""The commands of the README and of docs/ are run, as they stand there."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.main import get_command

from litestage.cli import app
from litestage.jobs.answer import EXAMPLE, answer, caution, read_question, sample
from litestage.jobs.options import PlanOptions
from litestage.jobs.session import load
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
    return re.sub(r"(--(?:limit|validation|repeats)) (\d+)", lambda m: f"{m[1]} {max(2, int(m[2]) // 4)}", command)


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
    assert len(found) == 7
    codes = [typed(command) for command in found]
    assert codes == [2, 0, 0, 0, 0, 0, 2], list(zip(found, codes, strict=True))
    assert (checkout / "runs" / "own-plan" / "plan.json").is_file()


def test_the_task_for_chat_models_is_the_one_shown_and_says_what_it_says(litestage: Run, checkout: Path) -> None:
    text = (ROOT / "docs" / "own-task.md").read_text(encoding="utf-8")
    shown = [block for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "extends" in block]
    assert [block in (ROOT / "docs/examples/own_task_chat.toml").read_text(encoding="utf-8") for block in shown] == [
        True
    ]
    _, _, err = litestage(*shlex.split(commands("docs/own-task.md")[-1])[1:])
    refusal = " ".join(err.split())
    assert refusal[refusal.index("litestage: ") :] in " ".join(text.split())


def test_fine_tuning_and_votes_run(typed: Typed, checkout: Path) -> None:
    found = commands("docs/finetune.md")
    assert [typed(on_fewer(command)) for command in found] == [0] * 7
    assert (checkout / "runs" / "adapter" / "training.png").is_file()
    assert (checkout / "runs" / "healed" / "plan.json").is_file()


def test_the_benchmarks_run(typed: Typed, checkout: Path) -> None:
    found = commands("docs/speed.md")
    assert [typed(on_fewer(command)) for command in found] == [0] * 5


def test_the_guide_to_transformers_runs(typed: Typed, checkout: Path) -> None:
    """Its notebook has a test of its own (`hf/test_notebook.py`)."""
    assert [typed(command) for command in commands("docs/transformers.md")] == [0]
    assert (checkout / "runs" / "smaller" / "config.json").is_file()


def test_the_python_of_the_readme_runs(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(code.replace("limit=150", "limit=8").replace("certify=400", "certify=60"), "README.md", "exec"), {})
    assert re.fullmatch(r"So the answer is option [A-D]\.", capsys.readouterr().out.strip())


def test_the_make_targets_of_the_readme_exist() -> None:
    named = set(re.findall(r"\bmake (\w+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert {"quickstart", "install"} <= named
    assert named <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.slow
def test_the_search_on_real_weights_runs(typed: Typed, checkout: Path) -> None:
    if not DATA.is_dir() or not (cache_folder() / "smollm2-135m").is_dir():
        pytest.skip(f"needs {DATA} and `litestage models pull {next(iter(PULLABLE))}`")
    (checkout.parent / "shared").symlink_to(ROOT.parent / "shared")
    _, search = commands("docs/smollm2.md")
    # The search as it stands takes over an hour: fewer questions and budgets here.
    assert typed(search.replace("--limit 20", "--limit 4 --step 28")) == 0


def test_the_command_that_a_search_prints_measures_its_plan(litestage: Run, typed: Typed, checkout: Path) -> None:
    """With every option that made the plan what it is, for whoever copies the line."""
    searched = "search --shots 1 --dtype bf16 --limit 3 --step 12 --certify 12 --out 'runs/a plan'"
    code, _, told = litestage(*shlex.split(searched))
    assert code == 0
    printed = told[told.rindex("litestage evaluate") :]
    assert printed == "litestage evaluate --dtype bf16 --shots 1 --plan 'runs/a plan' --split test"
    assert typed(f"{printed} --limit 2") == 0


def shown_plan() -> PlanOptions:
    """The plan that README's quickstart ends with."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^(\w+) +[·■]+  (.+)$", text, re.MULTILINE)
    assert [stage for stage, _ in lines] == ["recall", "analysis", "summary"]
    return PlanOptions(skip=tuple(f"{stage}={','.join(layers(names))}" for stage, names in lines if names != "nothing"))


def layers(names: str) -> list[str]:
    """``attention 9; FFN 1–3`` as sub-layers."""
    found = []
    for part in names.split("; "):
        kind, _, blocks = part.partition(" ")
        for some in blocks.split(", "):
            first, _, last = some.partition("–")
            found += [f"{block}.{kind.lower()}" for block in range(int(first), int(last or first) + 1)]
    return found


def test_the_examples_shown_are_answered_right_at_full_depth_and_under_the_plan_shown(litestage: Run) -> None:
    """Those of README, of the help of `run` and of its error, and the question that it takes by itself."""
    session = load()
    known = {(one.question, one.choices): one for one in session.questions("test")}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r'question = "(.+)"\nchoices = "(.+)"\n', readme)
    (example,) = re.findall(r'litestage run "([^"]+)"', " ".join(litestage("run", "--help")[1].split()))
    typed = [" ".join(code), example, EXAMPLE, *re.findall(r'litestage run "([^"]+)"', readme)]
    asked = [read_question(text, ()) for text in typed]
    questions = [known[one.question, one.choices] for one in asked] + [sample(session, 1)]
    for plan in (session.full_plan(), session.chosen_plan(shown_plan())):
        for question in questions:
            assert answer(session, question, plan).correct, question
            assert not caution(session, question)


def test_a_question_about_things_never_seen_says_so_and_names_the_real_model(litestage: Run) -> None:
    code, out, err = litestage("run", "Which of these floats? (A) a cork (B) a stone (C) a key", "--json")
    assert code == 0
    assert json.loads(out)["question_id"] == "typed"
    assert "a cork" in err
    assert "a key" not in err
    assert "litestage models pull smollm2-135m" in err
    _, _, err = litestage("run", "Which of these do you like? (A) a lantern (B) a glove")
    assert "never seen a question put like this" in err


def test_the_table_of_commands_names_them_all() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| \[.*?\]\(.*?\) \| (`.*?`) \|", text, re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == set(get_command(app).commands)


def test_the_readme_and_the_tutorial_run_and_quickstart_prints_what_is_shown(
    litestage: Run, typed: Typed, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its titles, columns and plan map, in this order, whatever the figures are; then what is done with the plan."""
    monkeypatch.setattr("sys.stdin", None)  # nothing is piped in
    _, with_plan = commands("README.md")
    look, find, use, certify = commands("docs/tutorial.md")
    assert typed(look) == 0
    code, out, _ = litestage(*shlex.split(f"{find} --search-limit 8 --certify 60 --limit 8 --wall 2 --step 10")[1:])
    assert code == 0
    (shown,) = re.findall(r"ends:\n\n```\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    expected = [heading(line) for line in shown.splitlines() if heading(line)]
    assert len(expected) == 13
    printed = map(heading, out.splitlines())
    assert [one for one in expected if one not in printed] == []
    assert [typed(line) for line in (with_plan, use, certify.replace("--limit 400", "--limit 6"))] == [0, 0, 0]


def heading(line: str) -> str:
    """What a line of a table begins with, or its title without figures; nothing for prose."""
    if line.startswith(("Full depth against", "Skipped while decoding")):
        return re.sub(r"\d+", "N", line.strip())
    if line.startswith(" ") and "Full depth" in line:
        return " ".join(line.split())
    found = re.match(r"(\S+(?: \S+)*?)(?=  +\S)", line)
    return re.sub(r"[\d·■]+", "", found[1]).strip() if found and not line.startswith(" ") else ""


def test_without_a_question_run_takes_one_of_the_embedded_set(litestage: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    first, third = load().questions("test", 3)[::2]
    code, out, err = litestage("run")
    assert code == 0
    assert first.question in err
    assert "Question 1 of the embedded test set" in err
    assert out.rstrip().endswith("(right)")
    code, _, err = litestage("run", "--sample", "3")
    assert third.question in err
    for arguments, says in (
        (["--sample", "601"], "has 600 questions"),
        (["--sample", "1", "--task", "obqa"], "Task obqa has no questions here"),
        (["--sample", "1", "Which? (A) a (B) b"], "Leave one out"),
    ):
        code, _, err = litestage("run", *arguments)
        assert (code, says in err) == (2, True), err
