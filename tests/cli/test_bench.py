"""``litestage bench``: every kind on the embedded model, small, with transformers beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from typer.testing import CliRunner

from litestage.benchmarks import peers
from litestage.benchmarks.decode import STEPS, Subject, _ours, _records, _times, forms_on, prompts_of, skip_sets
from litestage.benchmarks.decode import _warm_up as warm_up_steps
from litestage.benchmarks.options import DecodeBenchOptions
from litestage.benchmarks.peers import of_transformers
from litestage.benchmarks.pipeline import System, _systems
from litestage.benchmarks.pipeline import _warm_up as warm_up_systems
from litestage.cli.main import app
from litestage.core import Decode, Machine, OptionError, Prefill, Request, Sampling, StagePlan
from litestage.engine import TorchEngine, step_times
from litestage.jobs.progress import SILENT, Silent
from litestage.jobs.session import load
from litestage.models import load_transformers
from litestage.models.catalog import cache_folder
from litestage.pipeline import run
from litestage.report.benchmarks import full_depth
from litestage.results import DecodeBench

Run = Callable[..., tuple[int, str, str]]
CPU, GPU = torch.device("cpu"), torch.device("cuda")


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
        *("--peers", "transformers", "--compensation", "affine,lowrank:2", "--out", str(tmp_path), "--device", "cpu"),
    )
    steps = found["steps"]
    assert found["conditions"]["device"] == "cpu"
    assert found["conditions"]["hardware"]
    assert "cuda" not in found["conditions"]["versions"]
    assert {"engine", "rows", "dtype", "quantisation", "skipped", "ms_per_step", "tokens_per_s"} <= steps[0].keys()
    ours = [step for step in steps if step["engine"] == "litestage"]
    kinds = [*skip_sets(12), "6 blocks", "6 blocks"]
    forms = [("fp32", "none"), ("bf16", "none"), ("bf16", "int8"), ("bf16", "int4")]
    assert [(s["dtype"], s["quantisation"], s["rows"], s["skipped"]) for s in ours] == [
        (*form, rows, kind) for form in forms for rows in (1, 2) for kind in kinds
    ]
    assert [s["compensation"] for s in ours[4:6]] == ["affine", "lowrank:2"]
    peer = [(s["engine"], s["rows"], s["dtype"]) for s in steps if s["engine"] != "litestage"]
    assert len(peer) == len(set(peer)) == 8
    for step in steps:
        assert step["tokens_per_s"] == pytest.approx(1000 * step["rows"] / step["ms_per_step"])
        assert (step["efficiency"] is None) == (step["skipped"] == "nothing")
    assert json.loads((tmp_path / "decode.json").read_text()) == found
    assert (tmp_path / "decode.svg").read_text().startswith("<svg")
    assert "2 rows on cpu" in (tmp_path / "decode.svg").read_text()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_decode_on_a_gpu(tmp_path: Path) -> None:
    found = records(
        *("decode", "--model", "everyday", "--device", "cuda", "--rows", "1,4", "--repeats", "2"),
        *("--out", str(tmp_path)),
    )
    conditions, steps = found["conditions"], found["steps"]
    assert conditions["device"] == "cuda"
    assert conditions["hardware"] == torch.cuda.get_device_name()
    assert conditions["versions"]["cuda"] == torch.version.cuda
    forms = {(dtype, quantisation) for dtype, quantisation in forms_on(GPU, Silent())}
    assert {("fp32", "none"), ("bf16", "none")} <= forms
    ours = [step for step in steps if step["engine"] == "litestage"]
    assert len(ours) == len(forms) * 2 * len(skip_sets(12))
    assert {(step["dtype"], step["quantisation"]) for step in ours} == forms
    assert {step["rows"] for step in steps} == {1, 4}
    assert {step["engine"].split(",")[0] for step in steps} == {"litestage", "transformers"}
    assert all(0 < step["ms_per_step"] < 100 and step["samples"] == 2 for step in steps)
    assert all(0 < step["bound_share"] < 2 for step in ours)
    assert conditions["hardware"] in (full_depth(DecodeBench.model_validate(found)).note or "")


def test_a_mistyped_device_is_refused_before_anything_is_loaded(litestage: Run) -> None:
    for kind in ("decode", "pipeline", "accuracy"):
        code, _, err = litestage("bench", kind, "--device", "gpu")
        assert code == 2
        assert "--device gpu is not usable here. Try auto or cpu." in err


def test_steps_need_room_behind_the_context(litestage: Run) -> None:
    code, _, err = litestage("bench", "decode", "--model", "everyday", "--device", "cpu", "--context", "505")
    assert code == 2
    assert "--context must leave room" in err
    assert "everyday takes 512" in err


def test_what_works_behind_is_waited_for_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step's time is the mean there; a CPU's is the median without the first."""
    waited: list[int] = []
    ticks = iter([0.0, 4.0, 5.0, 6.0, 16.0] * 2)
    monkeypatch.setattr(step_times, "synchronise", lambda device: waited.append(len(on_device.times)))
    monkeypatch.setattr(step_times.time, "perf_counter", lambda: next(ticks))
    for device, seconds in ((GPU, 4.0), (CPU, 1.0)):
        on_device = step_times.StepTimes(device, 4)
        on_device.start()
        for _ in range(4):
            on_device.note()
        assert on_device.step == seconds
    assert waited == [0, 4] * 2


def test_no_step_is_left_to_be_made_while_others_are_timed() -> None:
    """Of fixed shapes, as on a GPU, which captures each; a larger cache would take the place of those made before."""
    engine = TorchEngine(replace(tiny.loaded("llama"), eos_ids=(-1,)), batch_size=4, fixed_steps=True)
    subjects = list(_ours("fp32", "none", engine, DecodeBenchOptions(rows=(1, 4), context=8, compensation=())))
    warm_up_steps(subjects, STEPS, SILENT)
    assert engine.steps is not None
    made = dict(engine.steps.made)
    assert {(key.rows, key.skipped) for key in made} == {
        (n, skipped) for n in (1, 4) for skipped in skip_sets(4).values()
    }
    _times(subjects, STEPS, 1, SILENT)
    assert engine.steps.made == made, "the very same steps"


def test_forms_that_a_device_does_not_run_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    progress = Silent()
    monkeypatch.setattr(progress, "say", said.append)

    def refuse(quantise: str, dtype: torch.dtype, device: torch.device) -> None:
        if quantise == "int4":
            raise OptionError("--quantise int4 runs elsewhere.")

    monkeypatch.setattr("litestage.benchmarks.decode.choose_packing", refuse)
    assert forms_on(GPU, progress) == [("fp32", "none"), ("bf16", "none"), ("bf16", "int8")]
    assert said == ["int4 is left out. --quantise int4 runs elsewhere."]


def test_half_of_the_sub_layers_is_half_of_the_bytes() -> None:
    sets = skip_sets(30)
    assert {name: len(layers) for name, layers in sets.items()} == {
        "nothing": 0,
        "15 blocks": 30,
        "15 attentions": 15,
        "15 FFNs": 15,
    }
    assert sets["15 blocks"] == sets["15 attentions"] | sets["15 FFNs"]


def test_half_of_the_blocks_is_half_of_their_bytes() -> None:
    """By the sizes of tiny matrices, as they come from transformers; the head is read in every step."""
    model = tiny.transformers_model("llama")
    blocks = [sum(w.nbytes for w in block.parameters() if w.dim() == 2) for block in model.model.layers]
    head = model.lm_head.weight.nbytes
    engine = TorchEngine(tiny.loaded("llama"), batch_size=2)
    decoder, seen = engine.model.decoder, 9
    asked = DecodeBenchOptions(rows=(2,), context=seen - 1, compensation=())
    subjects = {one.skipped: one for one in _ours("fp32", "none", engine, asked)}
    all_of_it = sum(blocks) + head
    assert subjects["nothing"].share_skipped == 0
    half = subjects[f"{len(blocks) // 2} blocks"]
    assert half.share_skipped == pytest.approx(sum(blocks[1::2]) / all_of_it)
    slot = 2 * decoder.shape.kv_heads * decoder.shape.head_size * 4
    saved = subjects["nothing"].bytes_read - half.bytes_read
    assert saved == pytest.approx(sum(blocks[1::2]) + len(blocks[1::2]) * 2 * seen * slot, rel=0.05)


def test_records_say_what_times_mean() -> None:
    """Two engines, of which one leaves a quarter of its bytes out and saves a fifth of its time."""
    common = {"rows": 4, "dtype": "fp32", "quantisation": "none", "steps": lambda count: 0.0}
    subjects = [
        Subject(engine="ours", skipped="nothing", bytes_read=1000, **common),
        Subject(engine="ours", skipped="half", bytes_read=750, share_skipped=0.25, **common),
        Subject(engine="peer", skipped="nothing", **common),
    ]
    times = [[0.010, 0.020, 0.010], [0.008, 0.016, 0.009], [0.1, 0.1, 0.1]]
    full, half, peer = _records(subjects, times, gigabytes=1e-3)
    assert (full.ms_per_step, full.tokens_per_s, full.samples) == (10, 400, 3)
    assert full.bound_share == pytest.approx(1000 / 1e6 / 0.010)
    assert half.bound_share == pytest.approx(750 / 1e6 / 0.009)
    assert half.efficiency == pytest.approx(0.2 / 0.25), "each step against its neighbour: 0.8, 0.8 and 0.4"
    assert full.efficiency is peer.efficiency is peer.bound_share is None


def test_transformers_draws_as_it_is_asked_to() -> None:
    drawn = Request(prompt_ids=(1,), sampling=Sampling(temperature=0.7, top_k=5, top_p=0.9))
    assert of_transformers._sampling(drawn) == {"do_sample": True, "temperature": 0.7, "top_k": 5, "top_p": 0.9}
    assert of_transformers._sampling(Request(prompt_ids=(1,))) == {"do_sample": False}


def test_questions_of_a_group_are_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    generate = TorchEngine.generate

    def counted(engine: TorchEngine, requests: Any, *more: Any, **named: Any) -> Any:
        calls.append(len(requests))
        return generate(engine, requests, *more, **named)

    monkeypatch.setattr(TorchEngine, "generate", counted)
    found = records("pipeline", "--limit", "20", "--at-once", "20", "--peer-questions", "0", "--batch-size", "80")
    systems = found["systems"]
    assert found["at_once"] == 20
    assert calls.count(20) == 2 * len(systems), "recall and summary"
    assert calls.count(80) == len(systems), "four analyses a question"
    assert all(sum(turn["tokens"] for turn in s["turns"]) == s["tokens"] for s in systems)


def test_all_systems_write_the_same_texts(tmp_path: Path) -> None:
    """Greedy and in fp32: transformers, and the engine with and without what makes it fast."""
    peer = ("--peer-questions", "2", "--peer-batch-size", "3")
    found = records("pipeline", "--limit", "3", "--at-once", "2", *peer, "--out", str(tmp_path))
    systems = found["systems"]
    assert [system["batch_size"] for system in systems] == [3, 32, 32, 32]
    assert [system["same_texts"] for system in systems] == [1.0] * 4
    assert [system["questions"] for system in systems] == [2, 2, 2, 3]
    assert systems[0]["ratio"] == 1
    assert all(s["questions_per_s"] == pytest.approx(s["questions"] / s["seconds"]) for s in systems)


def test_what_warms_up_keeps_nothing_of_its_prompts() -> None:
    """A question that warmed up a system takes it the forwards that it takes one that is new."""
    workbench = load()
    (question,) = workbench.questions("test", 1)

    def held_and_run(system: System) -> tuple[int, list[Prefill | Decode]]:
        """The bytes of the system's cache, and the forwards of the question."""
        assert isinstance(system.engine, TorchEngine)
        held, done = system.engine.cache_bytes, []
        system.engine.on_pass = done.append
        run(system.engine, workbench.task, [question], system.plan)
        return held, done

    warm, new = (list(_systems(workbench, None, 1, 0)) for _ in range(2))
    warm_up_systems(warm, workbench, [question], None, SILENT)
    assert len(warm) == 3
    for one, other in zip(map(held_and_run, warm), map(held_and_run, new), strict=True):
        assert one[0] > other[0] == 0, "it did warm up"
        assert one[1] == other[1]


def test_votes_are_drawn_by_all_systems() -> None:
    found = records("pipeline", "--limit", "1", "--votes", "2", "--peer-questions", "1", "--dtype", "bf16")
    assert found["votes"] == 2
    first, *rest = found["systems"]
    assert all(system["tokens"] > 2 * 3 * 5 for system in found["systems"])
    for one in rest:
        a_token = one["ratio"] * one["tokens"] / first["tokens"]
        assert one["token_ratio"] == pytest.approx(a_token), "of one question it can be worked out"


def test_a_peers_text_ends_where_its_row_did() -> None:
    """Not with what `generate` fills up a batch with, until its last row has ended."""
    bench = load()
    model, _ = load_transformers("everyday")
    peer = peers.TransformersEngine(model, bench.engine, 8)
    (question,) = bench.questions("test", 1)
    prompt = bench.engine.encode(bench.task.prompts(bench.task.stages[0], question, {})[0], bench.task.chat)
    (whole,) = bench.engine.generate([Request(prompt_ids=prompt, stage_plan=StagePlan(), max_new_tokens=12)])
    mark = whole.text.split()[2]
    requests = [
        Request(prompt_ids=prompt, stage_plan=StagePlan(), max_new_tokens=12, stop=(mark,)),
        Request(prompt_ids=prompt[:-3], stage_plan=StagePlan(), max_new_tokens=12, stop=(mark,)),
    ]
    theirs, ours = peer.generate(requests), bench.engine.generate(requests)
    for one, other in zip(theirs, ours, strict=True):
        assert (one.token_ids, one.text, one.finish_reason) == (other.token_ids, other.text, other.finish_reason)
    assert theirs[0].finish_reason == "stop"


def test_rows_that_are_timed_have_no_beginning_in_common() -> None:
    rows = prompts_of(8, 16, 2048)
    assert len({prompt[:1] for prompt in rows}) > 1
    assert len(set(rows)) == 8
    assert {len(prompt) for prompt in rows} == {16}
    assert prompts_of(3, 16, 2048) == rows[:3]


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


@pytest.mark.slow  # it loads five models, each in a process of its own
def test_a_plan_in_transformers_is_timed_beside_the_engine() -> None:
    found = records("drop-in", "--model", "everyday", "--rows", "1", "--context", "8", "--repeats", "1")
    systems = {(one["engine"], one["dtype"], one["quantisation"]) for one in found["memory"]}
    assert {engine for engine, *_ in systems} == {"generate", "litestage"}
    assert [(step["engine"], step["skipped"]) for step in found["steps"]] == [
        (one["engine"] if one["engine"] == "litestage" or skipped == "nothing" else "apply_plan", skipped)
        for one in found["memory"]
        for skipped in ("nothing", "half of the blocks")
    ]
    assert all(100 < one["loaded_mb"] <= one["peak_mb"] for one in found["memory"])


def test_a_table_says_where_it_was_measured() -> None:
    bare = DecodeBench(model="m", context=1, repeats=1, bandwidth=1.0, steps=())
    assert "Measured" not in (full_depth(bare).note or "")
    known = bare.model_copy(update={"conditions": Machine(hardware="Card X", device="cuda", threads=1, versions={})})
    assert (full_depth(known).note or "").endswith("Measured on Card X (cuda).")


@pytest.mark.slow
def test_llama_cpp_decodes_beside_us() -> None:
    pytest.importorskip("llama_cpp")
    if not (cache_folder() / "smollm2-135m").is_dir():
        pytest.skip("needs real weights: litestage models pull smollm2-135m")
    shown = bench(
        "decode", "--model", "smollm2-135m", "--rows", "2", "--repeats", "2", "--peers", "llama.cpp", "--json"
    )
    steps = [step for step in json.loads(shown)["steps"] if step["engine"] == peers.LLAMA_CPP]
    assert [(step["rows"], step["samples"]) for step in steps] == [(2, 2)]
    assert 0 < steps[0]["ms_per_step"] < 1000
