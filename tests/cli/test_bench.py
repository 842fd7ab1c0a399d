"""``litestage bench``: every kind on the embedded model, small, with transformers beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from litestage.cli.main import app
from litestage.core import OptionError
from litestage.workflows import peers
from litestage.workflows.bench import skip_sets


def bench(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["bench", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def records(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bench(*arguments, "--json"))
    return found


def test_decode_times_every_form_and_peer_in_one_record_each(tmp_path: Path) -> None:
    found = records(
        *("decode", "--model", "everyday", "--rows", "2,1", "--context", "24", "--repeats", "2"),
        *("--peers", "transformers", "--compensation", "affine,lowrank:2", "--out", str(tmp_path)),
    )
    steps = found["steps"]
    assert {"engine", "rows", "dtype", "quantisation", "skipped", "ms_per_step", "tokens_per_s"} <= steps[0].keys()
    ours = [step for step in steps if step["engine"] == "litestage"]
    kinds = [*skip_sets(12), "6 blocks, affine", "6 blocks, lowrank:2"]
    forms = [("fp32", "none"), ("bf16", "none"), ("bf16", "int8"), ("bf16", "int4")]
    assert [(s["dtype"], s["quantisation"], s["rows"], s["skipped"]) for s in ours] == [
        (*form, rows, kind) for form in forms for rows in (1, 2) for kind in kinds
    ]
    peer = [(s["engine"], s["rows"], s["dtype"]) for s in steps if s["engine"] != "litestage"]
    assert len(peer) == len(set(peer)) == 8
    for step in steps:
        assert step["tokens_per_s"] == pytest.approx(1000 * step["rows"] / step["ms_per_step"])
        assert (step["efficiency"] is None) == (step["skipped"] == "nothing")
    assert json.loads((tmp_path / "decode.json").read_text()) == found
    assert (tmp_path / "decode.svg").read_text().startswith("<svg")


def test_half_of_the_sub_layers_is_half_of_the_bytes() -> None:
    sets = skip_sets(30)
    assert {name: len(layers) for name, layers in sets.items()} == {
        "nothing": 0,
        "15 blocks": 30,
        "15 attentions": 15,
        "15 FFNs": 15,
    }
    assert sets["15 blocks"] == sets["15 attentions"] | sets["15 FFNs"]


def test_all_systems_write_the_same_texts(tmp_path: Path) -> None:
    """Greedy and in fp32: transformers, and the engine with and without what makes it fast."""
    found = records("pipeline", "--limit", "3", "--at-once", "2", "--peer-questions", "2", "--out", str(tmp_path))
    systems = found["systems"]
    assert [system["same_texts"] for system in systems] == [1.0] * 4
    assert [system["questions"] for system in systems] == [2, 2, 2, 3]
    assert systems[0]["ratio"] == 1
    assert all(s["questions_per_s"] == pytest.approx(s["questions"] / s["seconds"]) for s in systems)


def test_votes_are_drawn_by_all_systems() -> None:
    found = records("pipeline", "--limit", "1", "--votes", "2", "--peer-questions", "1", "--dtype", "bf16")
    assert found["votes"] == 2
    assert all(system["tokens"] > 2 * 3 * 5 for system in found["systems"])


def test_fewer_bits_are_compared_with_fp32() -> None:
    forms = records("accuracy", "--limit", "6")["forms"]
    assert (forms[0]["dtype"], forms[0]["quantisation"]) == ("fp32", "none")
    assert forms[0]["agreement"] == 1
    assert forms[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert all(form["agreement"] > 0.97 for form in forms)
    assert 0 < forms[1]["kl"] < forms[3]["kl"] < 0.1


def test_a_search_is_timed_in_every_form() -> None:
    found = records("search", "--limit", "3", "--step", "12")
    assert len(found["forms"]) == 4
    assert all(set(form["skipped"]) == {"recall", "analysis", "summary"} for form in found["forms"])
    assert all(form["answered"] >= form["settings"] > 3 for form in found["forms"])
    assert found["forms"][0]["skipped"] == found["forms"][1]["skipped"]


def test_memory_is_told_apart() -> None:
    """In a process of its own, whose memory no other test has filled or freed."""
    command = [sys.executable, "-m", "litestage", "bench", "memory", "--limit", "2", "--rounds", "2", "--json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found["imported_mb"] <= found["after_rounds_mb"][0]
    assert len(found["after_rounds_mb"]) == 2
    assert 5 < found["weights_mb"] < 20
    assert found["cache_mb"] > 1
    assert "Together, after the last round" in bench("memory", "--limit", "1", "--rounds", "1")


def test_peers_that_cannot_run_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        OptionError, match=r"--peers vllm is not known\. Choose from transformers, llama\.cpp; all; or none"
    ):
        peers.usable_peers("vllm", "everyday")
    assert peers.usable_peers("none", "everyday") == []
    monkeypatch.setattr(peers, "find_spec", lambda name: object())
    with pytest.raises(OptionError, match="it reads GGUF files, and everyday is none"):
        peers.usable_peers("llama.cpp", "everyday")
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match="llama-cpp-python is not installed"):
        peers.usable_peers("llama.cpp", "everyday")
    assert peers.usable_peers("all", "everyday") == ["transformers"]
