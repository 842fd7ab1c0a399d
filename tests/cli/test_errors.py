"""What a tired user would mistype: each gets a sentence that helps, its exit code, and loses nothing."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import litestage.__main__
from litestage import __version__, training
from litestage.core import ModelIdentity, Plan
from litestage.tasks import load_task

Run = Callable[..., tuple[int, str, str]]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
CACHE_FILES = {"completions.sqlite", "completions.sqlite-wal", "completions.sqlite-shm"}
GOOD = {"id": "q", "question": "Which floats?", "choices": ["a cork", "a stone"], "answer": 0}


def data(folder: Path, *lines: object) -> str:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "dev.jsonl").write_text(text + "\n")
    return str(folder)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "--model", "everday"], "Did you mean everyday"),
        (["evaluate", "--model", "./nowhere"], "no model at ./nowhere"),
        (["evaluate", "--task", "evryday"], "everyday"),
        (["evaluate", "--split", "tset"], "tset"),
        (["evaluate", "--limit", "0"], "limit"),
        (["evaluate", "--batch-size", "0"], "--batch-size 0"),
        (["evaluate", "--dtype", "fp8"], "--dtype fp8 is not known. Choose fp32 or bf16."),
        (["evaluate", "--device", "gpu"], "--device gpu"),
        (["evaluate", "--data", "no-such-folder", "--split", "dev"], "no-such-folder"),
        (["evaluate", "--plan", "no-such-plan"], "No plan at no-such-plan"),
        (["evaluate", "--exit", "5"], "--exit 5"),
        (["evaluate", "--exit", "5,0.5", "--no-exit"], "contradict"),
        (["evaluate", "--skip", "recal=7.ffn"], "recall"),
        (["evaluate", "--skip", "recall=7.mlp"], "--skip recall=7.mlp: '7.mlp' is not a sub-layer"),
        (["evaluate", "--skip", "recall=99.ffn"], "--skip recall=99.ffn: 99.ffn cannot be skipped"),
        (["evaluate", "--skip", "recall=1.ffn,,2.ffn"], "--skip recall=1.ffn,,2.ffn: '' is not a sub-layer"),
        (["evaluate", "--skip", "recall=1.ffn,1.ffn"], "1.ffn is given twice"),
        (
            ["evaluate", "--skip", "recall=1.ffn", "--skip", "recall=2.ffn"],
            "recall is given twice; put its sub-layers in",
        ),
        (["evaluate", "--skip", "recall="], "write a stage, = and sub-layers"),
        (["evaluate", "--adapter", "nope"], "No adapter is called"),
        (["evaluate", "--device", "meta"], "--device meta is not usable here"),
        (["evaluate", "--shots", "99"], "99"),
        (
            ["evaluate", "--limt", "3"],
            "No such option: --limt (Possible options: --exit, --limit, --split). See `litestage evaluate --help`.",
        ),
        (["evaluate", "--limit"], "Option '--limit' requires an argument."),
        (["evaluate", "--limit", "1e3"], "--limit 1e3: it should be a whole number. See `litestage evaluate --help`."),
        (["search", "--max-drop=abc"], "--max-drop abc: it should be a number."),
        (["evaluate", "--seed", "-1"], "--seed -1: it should be greater than or equal to 0."),
        (["evaluate", "--plan", ""], "--plan is empty; give it a value"),
        (["evaluate", "--exit="], "--exit is empty;"),
        (["evaluate", "--data", "", "--model", "x"], "--data is empty;"),
        (["search", "--out", ""], "--out is empty;"),
        (["evalute"], "No such command 'evalute'. Did you mean 'evaluate'? See `litestage --help`."),
        (["finetune", "--out", "x"], "Recipe lora fine-tunes a model. Say which one with --model."),
        (
            ["finetune", "--init", "everyday", "--recipe", "lora", "--out", "x"],
            "both name a recipe. Give one",
        ),
        (["evaluate", "--votes", "0"], "--votes 0: it should be greater than or equal to 1."),
        (["evaluate", "--votes-stop", "decided"], "--votes-stop decided needs several votes to stop."),
        (
            ["evaluate", "--votes", "9", "--votes-stop", "likly"],
            "likly is not known. Did you mean likely?",
        ),
        (["evaluate", "--votes", "9", "--votes-confidence", "0.9"], "--votes-confidence is for --votes-stop likely."),
        (["evaluate", "--out", "both.jsonl"], "--out both.jsonl: both.jsonl is a file"),
        (["search", "--out", "both.jsonl/x/y"], "both.jsonl is a file, and results need a folder"),
        (["quickstart", "--out", "both.jsonl"], "--out both.jsonl: both.jsonl is a file"),
        (["finetune", "--init", "everyday", "--out", "both.jsonl/x"], "--out both.jsonl/x: "),
        (["finetune", "--init", "everyday", "--out", "x", "--threads", "0"], "--threads 0: it should be greater"),
        (["search", "--max-drop", "-1"], "--max-drop -1"),
        (["search", "--step", "0"], "--step 0"),
        (
            ["search", "--step", "100", "--limit", "2"],
            "--step 100 would try nothing: with 12 blocks, budgets end at 20",
        ),
        (["search", "--latency", "clock", "--limit", "2"], "priced or wall"),
        (["evaluate", "--latency", "clock", "--limit", "2"], "priced or wall"),
        (["search", "--search-exit", "--no-exit"], "contradict"),
        (["search", "--compensation", "median", "--limit", "2"], "'median' is not known. Choose none, norm_ratio"),
        (["search", "--ranking", "cosin", "--limit", "2"], "--ranking cosin is not known. Choose from cosine"),
        (["rank", "--ranking", "cosin", "--limit", "2"], "--ranking cosin is not known. Choose from cosine"),
        (
            ["search", "--preset", "papers", "--limit", "2"],
            "--preset papers is not known. Did you mean paper? Choose path, paper or probed.",
        ),
        (["search", "--max-drop", "0"], "--max-drop 0: no number of questions shows"),
        (["search", "--preset", "paper", "--certify", "50"], "--certify is for --preset path"),
        (["search", "--preset", "paper", "--latency-target", "80ms"], "--latency-target is for --preset path"),
        (["search", "--latency-target", "fast"], "--latency-target fast: write a time a question"),
        (["search", "--certify", "1.5"], "--certify 1.5: write a number of questions (250), or a share"),
        (["search", "--levers", "exits"], "--levers exits is not known. Did you mean exit?"),
        (["search", "--split", "certify"], "for certificates alone. Search on dev."),
        (["price", "--plan", "nowhere"], "No plan at nowhere"),
        (["quickstart", "--search-limit", "0"], "--search-limit 0"),
        (["quickstart", "--limit", "-5"], "--limit -5"),
        (["quickstart", "--exit", "5,0.5", "--no-exit"], "contradict"),
        (["quickstart", "--data", "both.jsonl"], "in dev and in test"),
        (["evaluate", "--data", "bot.jsonl"], "bot.jsonl is not there. Did you mean both.jsonl?"),
        (["evaluate", "--data", "[/tmp]", "--split", "dev"], "[/tmp]"),
        (["evaluate", "--task", "obqa", "--data", "hub:nope"], "hub:nope"),
        (["run", "Which floats?"], "needs its choices"),
        (["run", "caf\udce9 (A) a (B) b"], "The question has half a character at 3, \\udce9. Type it again"),
        (["rank", "--step", "0"], "--step 0: it should be greater"),
        (["rank", "--step", "99", "--limit", "2"], "--step 99 would try nothing"),
        (["rank", "--compensation", "lowrank:0"], "--compensation: compensation 'lowrank:0' is not known."),
        (["rank", "--ranking", ","], "--ranking '' is not known."),
        (["rank", "--ranking", "cosine, prob"], "--ranking prob is not known."),
        (["rank", "--compensation", "lowrank:016"], "'lowrank:016' is not known."),
        (["rank", "--compensation", "lowrank:" + "9" * 5000], "compensation 'lowrank:9999"),
        (["bench", "decode", "--rows", str(10**21)], "write numbers above 0, up to a million, with commas"),
        (["finetune", "--model", "everyday", "--skip", "recal=7.ffn", "--out", "x"], "recall"),
        (["evaluate", "--quantise", "int3"], "Choose none, int8 or int4."),
        (["run", "Which? (A) a cork (C) a stone"], "lettered A, C"),
        (["run", "Which floats? (A) a cork"], "needs two choices or more, but this one has only 'a cork'"),
        (["run", "Which? (A) a cork (B) a stone", "--choice", "a key"], "Give them in one way"),
        (["run", "very " * 600 + "long? (A) a cork (B) a stone"], "litestage: Question typed: its recall prompt has"),
        (["run", "Which? (A) a (B) b", "--model", "org/name"], "the Hugging Face hub could not be reached"),
        (["finetune", "--init", "nope", "--out", "x"], "No recipe at nope"),
        (["models", "pull", "gpt-5"], "cannot be pulled"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_a_mistake_gets_its_sentence(
    litestage: Run, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "both.jsonl").write_text(json.dumps(GOOD) + "\n")
    code, out, err = litestage(*arguments)
    assert code == 2
    assert said in err
    assert "Traceback" not in err + out
    assert not [file for file in tmp_path.rglob("*") if file.name in ("plan.json", "evaluation.json")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "q2", "question": ', "line 2"),
        (GOOD | {"id": "q2", "answer": 2}, "answer"),
        ({"id": "q2", "question": "Which?"}, "choices"),
        (GOOD, "q"),
        (GOOD | {"id": "long", "question": "very " * 600 + "long?"}, "Question long"),
    ],
    ids=["broken line", "answer out of range", "missing field", "repeated id", "longer than the context"],
)
def test_a_bad_question_is_named(litestage: Run, line: object, said: str, tmp_path: Path) -> None:
    folder = data(tmp_path, GOOD, line)
    code, _, err = litestage("evaluate", "--data", folder, "--split", "dev", "--out", str(tmp_path / "out"))
    assert code == 2
    assert said in err
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_brackets_are_no_markup(litestage: Run) -> None:
    code, out, _ = litestage("run", "Which of these can float? (A) a [hub] cork (B) a [/x] stone", "--explain")
    assert code == 0
    assert "Answer: (A) a [hub] cork" in out or "Answer: (B) a [/x] stone" in out


def test_a_plan_of_another_model_is_refused(litestage: Run, tmp_path: Path) -> None:
    task = load_task("everyday")
    other = ModelIdentity(id="other-model", fingerprint="0" * 64, num_blocks=12)
    Plan.full_depth(other, task.name, task.fingerprint).save_pretrained(tmp_path)
    code, _, err = litestage("evaluate", "--plan", str(tmp_path), "--limit", "2")
    assert code == 2
    assert "searched on other-model" in err


def test_a_family_that_is_not_known_is_refused(litestage: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}))
    code, _, err = litestage("evaluate", "--model", str(tmp_path))
    assert code == 2
    assert "'gpt2' is not supported. Supported: gemma2, gemma3_text, granite, llama," in err


def test_a_folder_that_cannot_be_written_is_refused_before_work(
    litestage: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    for arguments in (["evaluate"], ["search", "--out", "new/folder"], ["quickstart"]):
        code, _, err = litestage(*arguments)
        assert code == 2
        assert f"nothing may be written in {tmp_path}. Choose another --out." in err
        assert "kept" not in err


def test_a_folder_of_a_search_is_its_own(litestage: Run, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    for command in ("rank", "evaluate"):
        code, _, err = litestage(command, "--limit", "2", "--out", str(tmp_path))
        assert (code, err) == (
            2, f"litestage: {tmp_path} holds a search, and this would change what it goes on with. "
            f"Choose another --out, such as {tmp_path}/test.",
        )  # fmt: skip


def test_an_evaluation_says_where_prompts_had_no_room(litestage: Run, tmp_path: Path) -> None:
    """The three-stage examples of another task, behind which this model has no room for what it writes."""
    folder = data(tmp_path, *[GOOD | {"id": f"q{i}"} for i in range(2)])
    code, shown, _ = litestage("evaluate", "--task", "obqa", "--data", folder, "--split", "dev", "--out", str(tmp_path))
    assert code == 0
    assert "With 2 of 2 answers some texts grew so long" in " ".join(shown.split())
    assert "Fewer worked examples (--shots)" in " ".join(shown.split())


@pytest.mark.parametrize("command", ["rank", "search"])
def test_a_stage_whose_prompts_all_have_no_room_cannot_be_ranked(litestage: Run, tmp_path: Path, command: str) -> None:
    options = ("--limit", "2", "--step", "12", "--shots", "3")
    code, _, err = litestage(command, *options, "--out", str(tmp_path))
    assert code == 2
    assert "No prompt of stage " in err
    assert "fits the 512 tokens that everyday reads, so its sub-layers cannot be ranked" in err
    assert "Give fewer worked examples than --shots 3, or shorter questions." in err


def test_an_adapter_of_another_model_is_refused(litestage: Run) -> None:
    code, _, err = litestage("evaluate", "--limit", "2", "--adapter", "obqa")
    assert code == 2
    assert re.search(r"obqa holds the tensor \S+lora_A\.weight: its size is 6 x 1536, .* trained on another one", err)


def test_a_plan_that_lacks_a_stage_is_refused(litestage: Run, tmp_path: Path) -> None:
    from litestage.jobs.session import load

    plan = load().full_plan()
    del plan.stages["analysis"]
    plan.save_pretrained(tmp_path)
    code, _, err = litestage("evaluate", "--plan", str(tmp_path), "--limit", "2")
    assert code == 2
    assert "lacks stage analysis of task everyday" in err


def test_dev_questions_too_long_for_a_new_model_are_named_before_training(litestage: Run, tmp_path: Path) -> None:
    """A tokenizer that saw few questions makes many tokens of the others."""
    recipe = (Path(training.__file__).parent / "recipes" / "everyday.toml").read_text(encoding="utf-8")
    (tmp_path / "short.toml").write_text(
        re.sub(r"max_position_embeddings = \d+", "max_position_embeddings = 8", recipe)
    )
    arguments = ("finetune", "--init", str(tmp_path / "short.toml"), "--limit", "2", "--out", str(tmp_path / "out"))
    code, _, err = litestage(*arguments)
    assert code == 2
    assert re.search(r"Dev question \S+: its recall prompt has \d+ tokens, .* reads 8 .* larger --limit", err)
    assert not (tmp_path / "out").exists()


def test_ctrl_c_is_130(litestage: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("litestage.cli.spelling.open_session", interrupted)
    code, _, err = litestage("evaluate", "--limit", "2")
    assert code == 130
    assert err == "What was done is kept: run the same command again to go on. litestage: stopped."


def test_ctrl_c_while_others_load_says_so_in_a_line(tmp_path: Path) -> None:
    """A terminal sends it to every process of the command."""
    command = [sys.executable, "-m", "litestage", "evaluate", "--limit", "200", "--workers", "2", "--out", "out"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=_hear_ctrl_c,
    )  # fmt: skip
    while process.poll() is None and len(_children(process.pid)) < 2:  # the keeper of shared resources, a worker
        time.sleep(0.05)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-2:] == [
        "What was done is kept: run the same command again to go on.",
        "litestage: stopped.",
    ]


def _hear_ctrl_c() -> None:
    """A shell's background jobs ignore it, and so would what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _children(process: int) -> list[str]:
    path = Path(f"/proc/{process}/task/{process}/children")
    return path.read_text().split() if path.exists() else []


def test_ctrl_c_while_libraries_load_says_so_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("litestage.cli.main", interrupted)
    with pytest.raises(SystemExit) as stopped:
        litestage.__main__.main()
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "litestage: stopped.\n"


def test_a_reader_that_goes_away_is_no_failure(tmp_path: Path) -> None:
    for arguments in ("tasks", "models"):
        command = f"{sys.executable} -m litestage {arguments}"
        done = subprocess.run(
            ["bash", "-c", f"(sleep 0.1; {command}; echo code $? >&2) | true"],
            cwd=tmp_path,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
        )
        assert done.stderr == "code 141\n"


def test_version(litestage: Run) -> None:
    assert litestage("--version")[:2] == (0, f"litestage {__version__}\n")


def test_paths_of_models_are_not_cut(litestage: Run) -> None:
    _, out, _ = litestage("models")
    assert "…" not in out


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """No file may grow beyond 20 kB: the completions cannot be kept, and nothing half-written is left."""
    command = [
        sys.executable,
        "-m",
        "litestage",
        "evaluate",
        "--limit",
        "4",
        "--out",
        "out",
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    said = " ".join(done.stderr.split())
    assert done.returncode == 1, said
    assert "Traceback" not in said
    assert "again" in said
    assert {file.name for file in (tmp_path / "out").iterdir()} <= {
        "completions.sqlite",
        "completions.sqlite-wal",
        "completions.sqlite-shm",
    }
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=ENVIRONMENT)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "out" / "evaluation.json").is_file()


def test_json_is_one_document_with_accuracy_on_top(litestage: Run, tmp_path: Path) -> None:
    code, out, _ = litestage("evaluate", "--limit", "3", "--json", "--out", str(tmp_path / "out"))
    assert code == 0
    document = json.loads(out)
    assert 0 <= document["accuracy"] <= 100
    stage = document["questions"][0]["stages"][1]
    assert len(stage["prompts"]) == len(stage["completions"]) == 4
    assert {"token_ids", "text", "confidences", "finish_reason", "counts"} <= set(stage["completions"][0])


def test_help_fits_a_newcomer(litestage: Run) -> None:
    for command in ("quickstart", "search", "evaluate", "run", "rank", "finetune", "models", "tasks"):
        code, out, _ = litestage(command, "--help")
        assert code == 0
        assert command in out
        assert "<bool>" not in out, "flags take no value"
