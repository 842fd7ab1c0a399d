"""Engines of others that run in environments of their own: by a stand-in whose clock and tokens are known."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from typer.testing import CliRunner

from litestage.benchmarks import peers
from litestage.benchmarks.decode import prompts_of
from litestage.benchmarks.peers import elsewhere
from litestage.benchmarks.peers.elsewhere import APART, OPENVINO, VLLM, ElsewhereEngine, Process, model_folder
from litestage.cli.main import app
from litestage.core import LitestageError, NewText, NewToken, OptionError, Request, Sampling, SkipSchedule, StagePlan
from litestage.models import load_transformers

CPU, GPU = torch.device("cpu"), torch.device("cuda")
STAND_IN = """
import json, sys
import serving

now = 0.0
kept = set()
serving.time.perf_counter = lambda: now

def load(settings):
    print("what a library prints is no answer")
    assert (settings["precision"], settings["threads"]) == ("int8", 2)
    if settings["rows"] > 99:
        sys.exit("out of memory")

    def generate(order):
        global now
        asked.write(json.dumps(order) + "\\n")
        asked.flush()
        fresh = {tuple(ids) for ids in order["prompts"]} - kept
        kept.update(fresh)
        now += 5.0 * len(fresh) + 2.0 * order["tokens"]
        return [[7, 8, *[9] * (order["tokens"] - 2)][: order["tokens"]] if order["whole"] else [7, 8, order["eos"][0]]
                for _ in order["prompts"]]

    asked = open(settings["folder"] + "/asked.jsonl", "a")
    return "1.2", generate

serving.serve(load)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a stand-in for OpenVINO runs in this python: a token takes it 2 seconds, an unknown prompt 5."""
    workers = tmp_path / "workers"
    workers.mkdir()
    shutil.copy(elsewhere.WORKERS / "serving.py", workers)
    (workers / "run_openvino.py").write_text(STAND_IN)
    monkeypatch.setattr(elsewhere, "WORKERS", workers)
    monkeypatch.setenv("LITESTAGE_PEER_OPENVINO", sys.executable)
    model = tmp_path / "model"
    model.mkdir()
    return model


def start(folder: Path, rows: int = 4) -> Process:
    return Process(OPENVINO, folder, "int8", rows, 64, 2)


def test_a_step_is_the_difference_of_two_generations_behind_kept_prompts(folder: Path) -> None:
    process = start(folder)
    try:
        assert process.title == "openvino 1.2"
        assert process.form == ("u8", "int8")
        seconds, tokens = process.generate([(5, 6)], 3)
        assert (seconds, tokens) == (5.0 + 3 * 2.0, [[7, 8, 9]])
        assert process.steps([(5, 6), (7, 8)])(4) == 2.0
        asked = [json.loads(line) for line in (folder / "asked.jsonl").read_text().splitlines()]
        assert [order["tokens"] for order in asked] == [3, 1, 5, 1]
        assert all(order["whole"] and order["sampling"] is None for order in asked)
    finally:
        process.close()


def test_whole_questions_go_to_it_at_once(folder: Path) -> None:
    process = start(folder)
    try:
        engine = ElsewhereEngine(process, tiny.engine())
        heard: list[object] = []
        drawn = Sampling(temperature=0.7, top_k=5, top_p=0.9)
        requests = [
            *tiny.requests([tiny.prompt(9), tiny.prompt(4)], max_new_tokens=6),
            Request(prompt_ids=tiny.prompt(5), max_new_tokens=6, sampling=drawn, stop=("x",)),
        ]
        done = engine.generate(requests, heard.append)
        end = tiny.tokenizer().eos_token_id
        assert [one.token_ids for one in done] == [(7, 8, end)] * 3
        assert {one.text for one in done} == {engine.decode((7, 8))}
        assert {one.finish_reason for one in done} == {"eos"}
        assert sum(isinstance(event, NewToken) for event in heard) == 9
        assert sum(isinstance(event, NewText) for event in heard) == 3
        asked = [json.loads(line) for line in (folder / "asked.jsonl").read_text().splitlines()]
        assert [len(order["prompts"]) for order in asked] == [2, 1], "a call for each kind of request"
        assert asked[1]["sampling"] == {"temperature": 0.7, "top_k": 5, "top_p": 0.9}
        assert (asked[1]["stop"], asked[1]["eos"]) == (["x"], [end])
        plan = StagePlan(schedule=SkipSchedule.fixed(["1.ffn"]))
        with pytest.raises(OptionError, match="openvino decodes at full depth"):
            engine.add(Request(prompt_ids=(1, 2), stage_plan=plan))
        with pytest.raises(OptionError, match="openvino knows no answers by choice"):
            engine.add(Request(prompt_ids=(1, 2), choices=((3, end),)))
    finally:
        process.close()


def test_one_that_ends_says_where_its_words_are(folder: Path) -> None:
    with pytest.raises(LitestageError, match="openvino ended with code 1; what it said is in ") as error:
        start(folder, rows=100)
    log = Path(str(error.value).split(" is in ")[1].split(". Leave")[0])
    assert "out of memory" in log.read_text()


def test_decode_times_one_beside_us(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LITESTAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(peers, "APART", (replace(OPENVINO, precisions=("int8",)),))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    arguments = ("decode", "--model", "everyday", "--device", "cpu", "--rows", "2", "--context", "16", "--repeats", "2")
    more = ("--peers", "openvino", "--precisions", "int8,fp32", "--full-depth", "--prefill", "40", "--json")
    result = CliRunner().invoke(app, ["bench", *arguments, *more], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert [(s["engine"], s["dtype"], s["quantisation"], s["skipped"]) for s in found["steps"]] == [
        ("litestage", "fp32", "none", "nothing"),
        ("litestage", "bf16", "int8", "nothing"),
        ("openvino 1.2", "u8", "int8", "nothing"),
    ]
    assert found["steps"][-1]["ms_per_step"] == 2000
    assert [(p["engine"], p["tokens"], p["samples"]) for p in found["prefills"]] == [
        ("litestage", 40, 2),
        ("litestage", 40, 2),
        ("openvino 1.2", 40, 2),
    ]
    assert found["prefills"][-1]["ms"] == 7000, "of a prompt that it has not seen, with the token that it decides"


def test_whole_questions_are_timed_beside_us(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LITESTAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    how = ("--dtype", "bf16", "--quantise", "int8", "--limit", "2", "--at-once", "2", "--device", "cpu")
    asked = ("pipeline", *how, "--peer-questions", "0", "--whole", "--peers", "openvino", "--json")
    result = CliRunner().invoke(app, ["bench", *asked], catch_exceptions=False)
    ours, theirs = json.loads(result.stdout)["systems"]
    assert (ours["system"], theirs["system"]) == ("litestage: and refilled rows", "openvino 1.2")
    assert theirs["questions"] == ours["questions"] == 2
    assert theirs["tokens"] == 2 * 3 * (1 + 4 + 1), "three tokens for each of a question's texts"
    with pytest.raises(OptionError, match="does not answer whole questions in fp32"):
        CliRunner().invoke(app, ["bench", *asked[:1], "--peers", "openvino"], catch_exceptions=False)


def test_peers_that_cannot_run_say_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LITESTAGE_CACHE", str(tmp_path))
    with pytest.raises(OptionError, match=r"--peers exl is not known\. Choose from transformers, llama\.cpp, openvino"):
        peers.usable_peers("exl", "everyday", CPU)
    assert peers.usable_peers("none", "everyday", CPU) == []
    monkeypatch.setattr(peers, "find_spec", lambda name: object())
    with pytest.raises(OptionError, match="it reads GGUF files, and everyday is none"):
        peers.usable_peers("llama.cpp", "everyday", CPU)
    for one in APART:
        with pytest.raises(
            OptionError, match=f"an environment of its own, and there is no {tmp_path}/peers/{one.name}"
        ):
            peers.usable_peers(one.name, "everyday", CPU)
        assert all(package in one.install("cpu") for package in one.packages)
    with pytest.raises(OptionError, match="openvino cannot run: it is timed on the CPU alone"):
        peers.usable_peers("openvino", "everyday", GPU)
    with pytest.raises(OptionError, match=r"install 'vllm'"):
        peers.usable_peers("vllm", "everyday", GPU)
    assert "uninstall -y torchvision" in VLLM.install("cpu")
    monkeypatch.setenv("LITESTAGE_PEER_VLLM", sys.executable)
    assert peers.usable_peers("transformers,vllm", "everyday", CPU) == ["transformers", "vllm"]
    assert peers.usable_peers("all", "everyday", CPU) == ["transformers"], "it takes minutes to start"
    monkeypatch.setattr(peers.catalog, "resolve", lambda name: Path("model.gguf"))
    assert peers.usable_peers("all", "model.gguf", CPU) == ["transformers", "llama.cpp"]
    assert peers.usable_peers("all", "model.gguf", GPU) == ["transformers"]
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match="llama-cpp-python is not installed"):
        peers.usable_peers("llama.cpp", "everyday", CPU)


def test_others_read_the_very_same_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LITESTAGE_CACHE", str(tmp_path))
    model, tokenizer = load_transformers("everyday")
    folder = model_folder(model, tokenizer)
    again, _ = load_transformers(str(folder))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert model_folder(again, tokenizer) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written, "once"
    assert len(prompts_of(2, 3, 99)) == 2
