"""The harness's own code asks a plan: at full depth it gets what its own transformers model says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from litestage.core import OptionError, Plan, SkipSchedule, StagePlan, SubLayer
from litestage.models.convert import fingerprint

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
TASK = """
task: floats
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
target_delimiter: ""
metric_list: [{metric: acc}]
"""
WRITING = (
    TASK.replace("task: floats", "task: writes")
    .replace("multiple_choice", "generate_until")
    .replace('doc_to_choice: "{{choices}}"\n', "generation_kwargs: {until: ['.'], max_gen_toks: 8, do_sample: false}\n")
    .replace("metric: acc", "metric: exact_match")
)
QUESTIONS = [
    {"question": "Which of these floats on water?", "choices": [" a cork", " a stone", " an anvil"], "label": 0},
    {"question": "What gives light?", "choices": [" a candle", " a key and more words"], "label": 0},
    {"question": "Recall:", "choices": [" cork is light.", " stones sink"], "label": 1},
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder, tasks and their questions."""
    folder = tmp_path_factory.mktemp("harness")
    model = tiny.transformers_model("llama")
    model.save_pretrained(folder / "model")
    tiny.tokenizer().save_pretrained(folder / "model")
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    for name, text in (("floats", TASK), ("writes", WRITING)):
        (folder / f"{name}.yaml").write_text(text.replace("DATA", str(data)))
    identity = tiny.loaded("llama").identity.model_copy(update={"fingerprint": fingerprint(model)})
    plan = StagePlan(schedule=SkipSchedule.fixed(["0.attention", "2.ffn"]))
    Plan(model=identity, task="t", task_fingerprint="0", stages={"s": plan}).save_pretrained(folder / "plan")
    return folder


def asked(place: Path, model: str, arguments: str) -> dict[str, list[Any]]:
    """What each task's documents got, by name of the task."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    import litestage.hf.harness  # noqa: F401  that registers the model

    done = simple_evaluate(
        model=model,
        model_args=arguments,
        tasks=["floats", "writes"],
        task_manager=TaskManager(include_path=str(place), include_defaults=False),
        device="cpu",
        batch_size=2,
        bootstrap_iters=0,
        log_samples=True,
    )
    return {task: [sample["resps"] for sample in samples] for task, samples in done["samples"].items()}


def test_full_depth_is_the_harness_own_model(place: Path) -> None:
    ours = asked(place, "litestage", f"pretrained={place / 'model'}")
    assert ours == asked(place, "hf", f"pretrained={place / 'model'},dtype=float32")
    assert len(ours["floats"]) == len(QUESTIONS)


def test_a_plan_decodes_what_is_scored(place: Path) -> None:
    """Log-probabilities by the slow way, without a cache and with hooks; texts by the engine."""
    got = asked(place, "litestage", f"pretrained={place / 'model'},plan={place / 'plan'},stage=s")
    schedule = SkipSchedule.fixed([SubLayer(0, "attention"), SubLayer(2, "ffn")])
    encode = lambda text: tiny.tokenizer().encode(text, add_special_tokens=False)  # noqa: E731
    for question, answers in zip(QUESTIONS, got["floats"], strict=True):
        for choice, ((score, greedy),) in zip(question["choices"], answers, strict=True):
            context = encode(question["question"])
            text = encode(question["question"] + choice)
            logits = tiny.raw_logits("llama", text[:-1], len(context), schedule).log_softmax(-1)[len(context) - 1 :]
            wanted = torch.tensor(text[len(context) :])
            assert float(score) == pytest.approx(float(logits.gather(1, wanted[:, None]).sum()), rel=1e-4)
            assert str(greedy) == str(bool((logits.argmax(-1) == wanted).all()))
    full = asked(place, "litestage", f"pretrained={place / 'model'}")
    assert got != full
    assert got["writes"] != full["writes"]


def test_a_plan_needs_a_stage(place: Path) -> None:
    with pytest.raises(OptionError, match="stage=NAME"):
        asked(place, "litestage", f"pretrained={place / 'model'},plan={place / 'plan'}")


def test_the_command_knows_the_model(place: Path) -> None:
    command = [sys.executable, "-m", "litestage.hf.harness", "run", "--model", "litestage", "--device", "cpu"]
    command += ["--model_args", f"pretrained={place / 'model'}", "--tasks", "floats", "--include_path", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "floats" in done.stdout
