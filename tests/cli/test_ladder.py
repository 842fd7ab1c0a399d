"""``litestage bench ladder`` and ``all``: the embedded model, few questions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from typer.testing import CliRunner

from litestage.benchmarks.everything import check_tokens
from litestage.cli.main import app
from litestage.core import ModelError, SkipSchedule, StagePlan
from litestage.engine import TorchEngine
from litestage.jobs.progress import SILENT
from litestage.jobs.session import load
from litestage.models import from_transformers, load_model, load_transformers
from litestage.models.packed import choose_packing

RUNGS = ["transformers", "step", "shared prompts", "drafts", "choices", "plan"]


def test_each_rung_has_all_below_it_and_texts_stay_the_same_up_to_the_plan(tmp_path: Path) -> None:
    """Greedy and in fp32. The model writes allowed texts by itself, so that answers by choice change none."""
    plan = load().plan({"analysis": StagePlan(schedule=SkipSchedule.fixed(["3.ffn", "5.attention"]))})
    plan.save_pretrained(tmp_path / "plan")
    arguments = ["bench", "ladder", "--limit", "1", "--warm", "1", "--plan", str(tmp_path / "plan"), "--device", "cpu"]
    result = CliRunner().invoke(app, [*arguments, "--json", "--out", str(tmp_path)], catch_exceptions=False)
    found = json.loads(result.stdout)
    rungs = found["rungs"]
    assert [rung["name"] for rung in rungs] == RUNGS
    assert [rung["same_texts"] for rung in rungs[:-1]] == [1.0] * (len(RUNGS) - 1)
    assert [rung["change_points"] for rung in rungs[:-1]] == [0.0] * (len(RUNGS) - 1)
    assert rungs[0]["ratio"] == 1
    for rung in rungs:
        assert rung["ratio"] == pytest.approx(rungs[0]["seconds"] / rung["seconds"])
        assert rung["low"] <= rung["ratio"] <= rung["high"]
        assert rung["paired"]["n"] == found["questions"] == 1
    drawn = (tmp_path / "ladder.svg").read_text()
    assert all(f"+ {rung['name']}" in drawn for rung in rungs[1:])
    assert json.loads((tmp_path / "ladder.json").read_text()) == found


def test_tokens_are_checked_in_every_form() -> None:
    checks = check_tokens(load(device="cpu"), SILENT).checks
    assert all(check.right and check.same == check.of for check in checks)
    assert {check.quantisation for check in checks} == {"none", "int8", "int4"}
    assert any("as transformers" in check.name for check in checks)


@pytest.mark.slow  # every benchmark there is
def test_all_checks_tokens_and_times_the_rest(tmp_path: Path) -> None:
    arguments = ["bench", "all", "--device", "cpu", "--shapes", "everyday", "--rows", "1", "--prefill", "16"]
    more = ["--limit", "1", "--repeats", "1", "--out", str(tmp_path), "--json"]
    result = CliRunner().invoke(app, [*arguments, *more], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["failed"] == {}
    assert list(found["parts"]) == ["accuracy", "decode:everyday", "pipeline", "ladder"]
    assert all(check["right"] and check["same"] == check["of"] for check in found["checks"])
    assert {check["quantisation"] for check in found["checks"]} == {"none", "int8", "int4"}
    assert any("as transformers" in check["name"] for check in found["checks"])
    assert (tmp_path / "decode-everyday.json").is_file()


def test_a_part_that_fails_costs_no_other(tmp_path: Path) -> None:
    arguments = [
        "bench",
        "all",
        "--device",
        "cpu",
        "--shapes",
        "random:nothing",
        "--minutes",
        "0",
        "--out",
        str(tmp_path),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1, "no token was checked"
    found = json.loads((tmp_path / "all.json").read_text())
    assert "left out" in found["failed"]["decode:random:nothing"]


def test_random_weights_have_a_known_shape() -> None:
    one, tokenizer = load_transformers("random:smollm2-135m", dtype="bf16")
    assert sum(weight.numel() for weight in one.parameters()) == 134_515_008
    assert one.dtype == torch.bfloat16
    assert len(tokenizer) <= one.config.vocab_size
    with pytest.raises(ModelError, match=r"No shape is called 'smollm'\. Did you mean smollm2-135m\?"):
        load_transformers("random:smollm")


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3"])
@pytest.mark.parametrize("quantise", ["int8", "int4"])
def test_weights_stored_in_fewer_bits_are_rounded_from_there(family: str, quantise: str, tmp_path: Path) -> None:
    """No copy of a whole model in fp32 is needed for the very same weights as with one; norms with an offset, too."""
    model = tiny.transformers_model(family).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    packing = choose_packing(quantise, torch.float32, torch.device("cpu"))
    source, tokenizer = load_transformers(str(tmp_path), dtype="fp32")
    whole = from_transformers(source, tokenizer, "whole", device="cpu", packing=packing)
    stored = load_model(str(tmp_path), quantise=quantise, device="cpu")
    requests = tiny.requests([tiny.prompt(n) for n in (3, 9, 20)], max_new_tokens=8)
    assert TorchEngine(stored).generate(requests) == TorchEngine(whole).generate(requests)
