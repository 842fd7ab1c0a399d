"""``litestage finetune`` as a user runs it: killed and resumed, an adapter that loads, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from litestage.core import (
    DataError,
    LitestageError,
    MeanConfidence,
    OptionError,
    Plan,
    PlanError,
    Segment,
    SkipSchedule,
    StagePlan,
    SubLayer,
)
from litestage.jobs.finetune import finetune, generated_validation
from litestage.jobs.healing import Healed
from litestage.jobs.options import TrainingOptions
from litestage.jobs.policies import Policies, Policy
from litestage.jobs.session import Session, load
from litestage.models import load_model
from litestage.models.catalog import EMBEDDED, embedded_folder
from litestage.pipeline import run
from litestage.tasks import load_questions, load_task
from litestage.training.checkpoint import CHECKPOINT

Run = Callable[..., tuple[int, str, str]]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
LITESTAGE = [sys.executable, "-m", "litestage"]
LORA = """
[lora]
rank = 4
alpha = 8
[training]
epochs = 4
batch_size = 4
learning_rate = 0.01
save_dtype = "float32"
"""
FULL = LORA.replace("[lora]\nrank = 4\nalpha = 8\n", "").replace('"float32"', '"bfloat16"')


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with the embedded model's tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder() / EMBEDDED)
    config = AutoConfig.for_model(
        "qwen2",
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    path = tmp_path / "lora.toml"
    path.write_text(LORA)
    return path


def killed(arguments: list[str], out: Path) -> None:
    """Start a command and kill it as soon as it left a checkpoint."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    while process.poll() is None and not (out / CHECKPOINT).exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "it was over before it could be killed"


def test_killed_and_resumed_it_ends_with_the_same_weights(
    litestage: Run, model: Path, lora: Path, tmp_path: Path
) -> None:
    options = ["--model", str(model), "--recipe", str(lora), "--limit", "16", "--validation", "2"]
    command = ["finetune", *options, "--checkpoint-every", "3", "--out"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    code, out, _ = litestage(*command, str(whole))
    assert code == 0
    assert "The adapter is in" in out
    killed([*LITESTAGE, *command, str(cut)], cut)
    assert not (cut / "adapter_model.safetensors").exists()
    assert litestage(*command, str(cut))[0] == 0
    assert (cut / "adapter_model.safetensors").read_bytes() == (whole / "adapter_model.safetensors").read_bytes()
    first, second = (json.loads((out / "training.json").read_text()) for out in (whole, cut))
    assert (first["curve"], first["steps"], first["adapter"]) == (second["curve"], 16, True)
    assert not (cut / CHECKPOINT).exists()
    assert "Generated dev accuracy" in (cut / "training.svg").read_text()


def test_two_processes_learn_what_one_does(litestage: Run, model: Path, lora: Path, tmp_path: Path) -> None:
    options = ["--model", str(model), "--recipe", str(lora), "--limit", "8", "--validation", "1", "--device", "cpu"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert litestage("finetune", *options, "--out", str(one))[0] == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--no-python"]
    command = [*launch, *LITESTAGE, "finetune", *options, "--out", str(two)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stdout.count("The adapter is in") == 1, "one of them talks"
    first, second = (json.loads((out / "training.json").read_text()) for out in (one, two))
    assert first["steps"] == second["steps"] == 8
    assert [point["loss"] for point in second["curve"]] == pytest.approx(
        [point["loss"] for point in first["curve"]], rel=1e-3
    )


def test_an_adapter_is_small_and_loads_where_its_model_does(model: Path, lora: Path, tmp_path: Path) -> None:
    out = tmp_path / "adapter"
    report = finetune(TrainingOptions(recipe=str(lora), model=str(model), limit=8, validation=0, epochs=1), out)
    assert {file.name for file in out.iterdir()} <= {
        "adapter_config.json",
        "generation_config.json",
        "adapter_model.safetensors",
        "training.json",
        "training.svg",
        "training.png",
        "README.md",
    }
    assert report.trained_parameters < 0.2 * report.parameters
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == str(model)
    session = load(model=str(model), adapter=str(out))
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] in session.engine.model.eos_ids
    assert session.task.shots == (), "a model trained on the task needs no worked examples"
    assert session.engine.identity.fingerprint != load(model=str(model)).engine.identity.fingerprint


def test_the_card_counts_the_dev_questions_that_there_are(model: Path, lora: Path, tmp_path: Path) -> None:
    task, data, out = load_task("everyday"), tmp_path / "data", tmp_path / "out"
    data.mkdir()

    def write(split: str, first: int, last: int) -> None:
        questions = load_questions(task, split, limit=last)[first:]
        lines = [json.dumps(q.model_dump(mode="json", exclude={"targets"}) | q.targets) for q in questions]
        (data / f"{split}.jsonl").write_text("\n".join(lines))

    write("train", 0, 8)
    write("dev", 0, 3)
    options = TrainingOptions(recipe=str(lora), model=str(model), data=str(data), validation=250, epochs=1)
    report = finetune(options, out)
    assert report.validation_questions == 3
    card = (out / "README.md").read_text()
    assert " %; 3 questions, greedy" in card.replace(f" (step {report.best_step})", "")
    assert finetune(replace(options, validation=3), out) == report, "the same questions"
    write("dev", 1, 4)
    for changed in (options, replace(options, validation=2), replace(options, validation=0)):
        with pytest.raises(OptionError, match=r"holds a finished run .*those of --validation count too"):
            finetune(changed, out)
    assert (out / "README.md").read_text() == card


def test_all_weights_learn_without_lora(model: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "full.toml"
    recipe.write_text(FULL)
    out = tmp_path / "model"
    report = finetune(
        TrainingOptions(recipe=str(recipe), model=str(model), limit=8, validation=0, epochs=1, order="cycles"), out
    )
    assert report.trained_parameters == report.parameters
    assert report.recipe.order == "cycles"
    assert load(model=str(out)).task.shots == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"recipe": "everyday"}, "makes a model from scratch, so --model"),
        ({"model": None}, "Say which one with --model"),
        ({"recipe": "lorra"}, "No recipe at lorra .*lora"),
        ({"validation": -1}, "--validation -1: give 0 for none"),
        ({"epochs": 0.0}, "cannot be run so: .*epochs should be greater than 0"),
        ({"order": "packt"}, r"--order packt is not known\. Did you mean packed\?"),
        ({"model": "smollm"}, "No model is called 'smollm'"),
    ],
)
def test_what_cannot_be_trained(change: dict[str, object], says: str, model: Path, tmp_path: Path) -> None:
    options = {"recipe": "lora", "model": str(model), "validation": 0} | change
    with pytest.raises(Exception, match=says) as error:
        finetune(TrainingOptions(**options), tmp_path / "out")
    assert isinstance(error.value, LitestageError)


def test_questions_without_any_text_to_learn(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text(json.dumps({"id": "1", "question": "Is it?", "choices": ["a", "b"], "answer": 0}) + "\n")
    with pytest.raises(DataError, match="None of the 1 training questions says what every stage should write"):
        finetune(
            TrainingOptions(recipe="lora", model=str(model), task="three_stage", data=str(tmp_path), validation=0),
            tmp_path / "out",
        )


def test_modules_that_the_model_lacks(model: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(LORA.replace("alpha = 8", 'alpha = 8\nmodules = ["w_proj"]'))
    with pytest.raises(OptionError, match="The recipe's adapter does not fit"):
        finetune(TrainingOptions(recipe=str(recipe), model=str(model), limit=8, validation=0), tmp_path / "out")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of the embedded model's that costs it much: half of its sub-layers, one kind of stand-in."""
    folder = tmp_path_factory.mktemp("plan")
    session = load(model=EMBEDDED)
    traces = run(session.engine, session.task, session.questions("dev", 4), session.full_plan())
    policies = Policies(session.at(folder), traces, [Policy("cosine", "mean")])
    skipped = SkipSchedule.fixed(policies.skip_set("recall", 12, policies.policies[0]))
    recall = StagePlan(schedule=skipped, compensation=policies.compensation("recall", "mean"))
    analysis = StagePlan(schedule=skipped, exit=MeanConfidence())
    session.plan({"recall": recall, "analysis": analysis, "summary": StagePlan(schedule=skipped)}).save_pretrained(
        folder
    )
    return folder


HEALING = LORA.replace("epochs = 4\nbatch_size = 4", "steps = 12\nbatch_size = 8")


def test_healing_teaches_a_model_to_live_with_its_plan(plan: Path, tmp_path: Path) -> None:
    recipe, out = tmp_path / "healing.toml", tmp_path / "healed"
    recipe.write_text(HEALING)
    options = TrainingOptions(recipe=str(recipe), model=EMBEDDED, plan=str(plan), limit=96, validation=24)
    report = finetune(options, out)
    before = load(model=EMBEDDED)
    questions = before.questions("dev", 24)

    def right(session: Session, folder: Path) -> int:
        return sum(trace.correct for trace in run(session.engine, session.task, questions, session.load_plan(folder)))

    healed = load(model=EMBEDDED, adapter=str(out))
    assert right(healed, out) > right(before, plan) + 2
    assert report.best_accuracy == pytest.approx(100 * right(healed, out) / 24), "validation decodes with the plan"
    assert report.curve[-1].loss < 1
    with pytest.raises(PlanError, match="its sub-layers would be the wrong ones"):
        healed.load_plan(plan)
    kept = Plan.from_pretrained(out)
    assert kept.stages == Plan.from_pretrained(plan).stages
    assert kept.evidence["healed_from"]["id"] == EMBEDDED
    assert (kept.evidence["split"], kept.evidence["n"]) == ("dev", 24)
    assert kept.evidence["best_accuracy"] == report.best_accuracy
    assert "with the plan" in (out / "README.md").read_text()


def test_a_set_by_hand_is_healed_as_well(tmp_path: Path) -> None:
    recipe, out = tmp_path / "healing.toml", tmp_path / "healed"
    recipe.write_text(HEALING)
    by_hand = ("recall=3.attention,7.ffn", "summary=5.ffn")
    finetune(TrainingOptions(recipe=str(recipe), model=EMBEDDED, skip=by_hand, limit=4, validation=0, epochs=1), out)
    kept = load(model=EMBEDDED, adapter=str(out)).load_plan(out)
    assert {name: sorted(map(str, stage.schedule.at(0))) for name, stage in kept.stages.items()} == {
        "recall": ["3.attention", "7.ffn"],
        "analysis": [],
        "summary": ["5.ffn"],
    }
    assert "--skip recall=3.attention,7.ffn --skip summary=5.ffn" in (out / "README.md").read_text()


def test_accuracies_with_another_exit_rule_are_not_compared(plan: Path) -> None:
    """Training alone does not depend on it."""
    session = load(model=EMBEDDED)
    healed = Healed.load(TrainingOptions(plan=str(plan)), session.engine, session.task)
    patient = {name: stage.model_copy(update={"exit": None}) for name, stage in healed.plan.stages.items()}
    other = replace(healed, plan=healed.plan.model_copy(update={"stages": patient}))
    assert healed.healing == other.healing
    judges = [
        generated_validation(session.engine.model.tokenizer, session.task, session.questions("dev", count), one)
        for count, one in ((4, healed), (4, other), (4, None), (3, None))
    ]
    assert len({judge.content for judge in judges}) == 4
    assert [judge.questions for judge in judges] == [4, 4, 4, 3]


def test_an_adapter_learns_on(plan: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "lora.toml"
    recipe.write_text(LORA)
    first, second, other = tmp_path / "first", tmp_path / "second", tmp_path / "other"
    some = TrainingOptions(recipe=str(recipe), model=EMBEDDED, limit=8, validation=0, epochs=1)
    finetune(some, first)
    own = load_model(EMBEDDED, device="cpu").tokenizer
    own.chat_template = "{{ messages[-1].content }}"
    own.save_pretrained(first)
    finetune(replace(some, adapter=str(first)), second)
    kept = load_model(EMBEDDED, adapter=str(second), device="cpu").tokenizer
    assert kept.chat_template == own.chat_template, "what it learnt its prompts with goes on as well"
    weights = [load_file(folder / "adapter_model.safetensors") for folder in (first, second)]
    assert weights[0].keys() == weights[1].keys()
    moved = max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0])
    assert 0 < moved < 0.2, "it goes on from where it was"
    finetune(replace(some, adapter=str(first)), second)
    with pytest.raises(OptionError, match="holds a finished run with another"):
        finetune(replace(some, adapter=str(second)), second)
    with pytest.raises(PlanError, match="its sub-layers would be the wrong ones"):
        finetune(replace(some, adapter=str(first), plan=str(plan)), other)


def test_a_run_on_another_model_of_the_same_name_is_not_taken_up(tmp_path: Path) -> None:
    """As when a folder's model was trained anew."""
    recipe, base, out = tmp_path / "lora.toml", tmp_path / "base", tmp_path / "out"
    recipe.write_text(LORA)
    shutil.copytree(embedded_folder() / EMBEDDED, base)
    some = TrainingOptions(recipe=str(recipe), model=str(base), limit=8, validation=0, epochs=1)
    report = finetune(some, out)
    assert finetune(some, out) == report, "the same model: finished already"
    weights = load_file(base / "model.safetensors")
    name = next(name for name in weights if name.endswith("down_proj.weight"))
    save_file(weights | {name: -3 * weights[name]}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(OptionError, match="holds a finished run with another"):
        finetune(some, out)


def test_questions_that_are_learnt_do_not_judge(tmp_path: Path) -> None:
    """As one file for both splits would have it."""
    questions = load_questions(load_task("everyday"), "train", limit=4)
    path = tmp_path / "all.jsonl"
    whole = (question.model_dump(mode="json", exclude={"targets"}) | question.targets for question in questions)
    path.write_text("".join(json.dumps(question) + "\n" for question in whole))
    some = TrainingOptions(recipe="lora", model=EMBEDDED, data=str(path), limit=4, validation=2)
    with pytest.raises(OptionError, match=r"2 questions are in dev and in train.* or --validation 0"):
        finetune(some, tmp_path / "out")


def test_what_cannot_be_healed(plan: Path, tmp_path: Path) -> None:
    recipe, out = tmp_path / "full.toml", tmp_path / "out"
    recipe.write_text(FULL)
    some = TrainingOptions(recipe="lora", model=EMBEDDED, limit=8, validation=0)
    session = load(model=EMBEDDED)
    session.full_plan().save_pretrained(tmp_path / "nothing")
    growing = SkipSchedule(segments=(Segment(), Segment(first_step=4, skipped=frozenset([SubLayer(3, "ffn")]))))
    session.plan({"recall": StagePlan(schedule=growing)}).save_pretrained(tmp_path / "growing")
    shown = load(model=EMBEDDED, shots=1)
    evidence = {"conditions": shown.conditions.model_dump()}
    shown.plan({}).model_copy(update={"evidence": evidence}).save_pretrained(tmp_path / "shown")
    for change, says in (
        ({"plan": str(tmp_path / "none")}, "No plan at"),
        ({"plan": str(tmp_path / "shown")}, r"searched with worked examples in each prompt \(1\).* with --shots 0\."),
        ({"plan": str(tmp_path / "nothing")}, "leaves no sub-layer out, so there is nothing to heal"),
        ({"plan": str(tmp_path / "growing")}, "skips other sub-layers as a text grows"),
        ({"plan": str(plan), "model": None, "recipe": "everyday"}, "--plan .* is for one that is there"),
        ({"skip": ("recal=1.ffn",)}, "--skip recal=1.ffn: .*recall"),
        ({"skip": ("recall=1.ffn", "recall=2.ffn")}, "recall is given twice"),
        ({"adapter": "obqa", "recipe": str(recipe)}, "trains all weights, so --adapter obqa cannot learn on"),
        ({"adapter": "obqa"}, "obqa holds the tensor .* trained on another one"),
        ({"adapter": "obka"}, "No adapter is called 'obka'"),
    ):
        with pytest.raises(LitestageError, match=says):
            finetune(replace(some, **change), out)
