from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from litestage.core import LitestageError, OptionError
from litestage.models.adapters import with_adapter
from litestage.models.catalog import EMBEDDED, embedded_adapters, embedded_folder
from litestage.models.prompts import prompt_encoder
from litestage.training import Progress, Training, TrainingRecipe, TrainingReport, finetune
from litestage.training.checkpoint import CHECKPOINT, trainable
from litestage.training.initialise import new_model
from litestage.training.loop import REPORT, Validation
from litestage.training.packing import examples_of

RECIPE = TrainingRecipe(steps=12, batch_size=4, learning_rate=3e-3, save_dtype="float32", seed=5)


class KilledError(Exception):
    """Stands for a kill: nothing of the run survives but what is on disk."""


def kill_at(step: int):
    def watch(progress: Progress) -> None:
        if progress.step == step:
            raise KilledError

    return watch


@pytest.fixture
def fresh(tiny, tokenizer):
    def make(lora: bool = False) -> PreTrainedModel:
        model = new_model(tiny.model_copy(update={"initializer_range": 0.05}), tokenizer, seed=1)
        if not lora:
            return model
        torch.manual_seed(1)
        return get_peft_model(model, LoraConfig(r=4, lora_dropout=0.2, target_modules=["q_proj", "down_proj"]))

    return make


@pytest.mark.parametrize(
    ("change", "lora"),
    [({}, False), ({"optimizer": "muon"}, False), ({"order": "cycles", "interval": 2}, False), ({}, True)],
    ids=["adamw", "muon", "cycles", "lora with dropout"],
)
def test_a_killed_run_ends_with_the_same_weights(change, lora, fresh, tokenizer, task, questions, tmp_path) -> None:
    recipe = RECIPE.model_copy(update=change)

    def run(out: Path, on_progress=None) -> tuple[PreTrainedModel, TrainingReport]:
        model = fresh(lora)
        training = Training(model, tokenizer, task, questions, recipe)
        return model, finetune(training, out, on_progress=on_progress, checkpoint_every=5)

    whole, report = run(tmp_path / "whole")
    with pytest.raises(KilledError):
        run(tmp_path / "killed", kill_at(8))
    assert sorted(file.name for file in (tmp_path / "killed").iterdir()) == [CHECKPOINT]
    steps: list[int] = []
    resumed, resumed_report = run(tmp_path / "killed", lambda progress: steps.append(progress.step))
    assert steps == list(range(6, 13))
    start, end, again = trainable(fresh(lora)), trainable(whole), trainable(resumed)
    assert all(torch.equal(end[name], again[name]) for name in end)
    assert not any(torch.equal(end[name], start[name]) for name in end)
    assert report.tokens == resumed_report.tokens
    assert not (tmp_path / "killed" / CHECKPOINT).exists()


def test_a_short_training_learns_the_targets_and_where_they_end(fresh, tokenizer, task, questions, tmp_path) -> None:
    few = questions[:4]
    recipe = TrainingRecipe(steps=150, batch_size=4, learning_rate=1e-2, optimizer="muon", save_dtype="float32")
    losses: list[float] = []
    finetune(
        Training(fresh(), tokenizer, task, few, recipe),
        tmp_path,
        on_progress=lambda progress: losses.append(progress.loss),
    )
    assert losses[0] > 6
    assert losses[-1] < 0.05
    model, loaded = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for question in few:
        for example in examples_of(task, question, prompt_encoder(model, loaded, "tiny")):
            ids = torch.tensor([example.prompt])
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=60, do_sample=False)
            assert tuple(out[0, ids.shape[1] :].tolist()) == example.target


def test_the_best_generated_validation_is_kept(fresh, tokenizer, task, questions, tmp_path) -> None:
    recipe = RECIPE.model_copy(update={"validate_every": 3})
    accuracies = iter([20.0, 60.0, 40.0, 50.0])
    seen: list[dict[str, torch.Tensor]] = []

    def accuracy(model: PreTrainedModel) -> float:
        assert not model.training
        assert not torch.is_grad_enabled()
        seen.append({name: weight.clone() for name, weight in trainable(model).items()})
        return next(accuracies)

    model = fresh()
    judge = Validation(accuracy, 5, "five questions")
    report = finetune(Training(model, tokenizer, task, questions, recipe, validation=judge), tmp_path)
    assert (report.best_step, report.best_accuracy, report.validation_questions) == (6, 60.0, 5)
    assert [(p.step, p.accuracy) for p in report.curve if p.accuracy] == [(3, 20), (6, 60), (9, 40), (12, 50)]
    saved = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(saved[name], seen[1][name]) for name in saved)
    assert not torch.equal(seen[1]["model.norm.weight"], seen[3]["model.norm.weight"])


def test_a_kill_after_the_best_validation_does_not_lose_it(fresh, tokenizer, task, questions, tmp_path) -> None:
    recipe = RECIPE.model_copy(update={"validate_every": 4})
    accuracies = iter([70.0, 10.0, 30.0])

    def run(on_progress=None) -> TrainingReport:
        judge = Validation(lambda _: next(accuracies), 10, "ten questions")
        training = Training(fresh(), tokenizer, task, questions, recipe, validation=judge)
        return finetune(training, tmp_path, on_progress=on_progress, checkpoint_every=5)

    with pytest.raises(KilledError):
        run(kill_at(7))
    report = run()
    assert (report.best_step, report.best_accuracy) == (4, 70.0)


def test_accuracies_on_other_questions_are_not_compared(fresh, tokenizer, task, questions, tmp_path) -> None:
    """Neither in a run that is resumed, nor by the record of a finished one."""
    recipe = RECIPE.model_copy(update={"validate_every": 4})
    ten, other = (Validation(lambda _: 70.0, 10, name) for name in ("ten questions", "other questions"))

    def run(validation: Validation | None, on_progress=None) -> TrainingReport:
        training = Training(fresh(), tokenizer, task, questions, recipe, validation=validation)
        return finetune(training, tmp_path, on_progress=on_progress, checkpoint_every=5)

    with pytest.raises(KilledError):
        run(ten, kill_at(7))
    for changed in (other, None):
        with pytest.raises(OptionError, match=r"checkpoint.pt belongs to a run with another"):
            run(changed)
    report = run(ten)
    for changed in (other, None):
        with pytest.raises(OptionError, match=r"question set \(those of --validation count too\)"):
            run(changed)
    assert run(ten) == report


def test_an_adapter_learns_and_its_base_does_not(fresh, tokenizer, task, questions, tmp_path) -> None:
    model = fresh(lora=True)
    report = finetune(Training(model, tokenizer, task, questions, RECIPE), tmp_path)
    base = fresh().state_dict()
    assert report.trained_parameters < report.parameters / 4
    loaded = PeftModel.from_pretrained(fresh(), tmp_path)
    inner = {name.replace(".base_layer", ""): w for name, w in loaded.get_base_model().state_dict().items()}
    assert all(torch.equal(inner[name], base[name]) for name in base)
    adapter = {name: w for name, w in loaded.state_dict().items() if "lora_B" in name}
    assert adapter
    assert all(weight.abs().sum() > 0 for weight in adapter.values())


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "embed_tokens", "lm_head"]])
def test_an_adapter_that_learns_on_keeps_the_tokens_it_brought(
    targets, fresh, tokenizer, task, questions, tmp_path
) -> None:
    grown = fresh()
    grown.resize_token_embeddings(len(tokenizer) + 5)
    started = get_peft_model(grown, LoraConfig(r=4, target_modules=targets))
    started.save_pretrained(str(tmp_path / "first"), save_embedding_layers=True)
    model = with_adapter(fresh(), str(tmp_path / "first"), learning=True)
    finetune(Training(model, tokenizer, task, questions, RECIPE), tmp_path / "second")
    again = with_adapter(fresh(), str(tmp_path / "second")).get_base_model()
    for end in ("get_input_embeddings", "get_output_embeddings"):
        assert torch.equal(getattr(again, end)().weight, getattr(grown, end)().weight)


def test_what_was_trained_is_written_beside_the_weights(fresh, tokenizer, task, questions, tmp_path) -> None:
    recipe = RECIPE.model_copy(update={"save_dtype": "bfloat16", "dtype": "bfloat16"})
    told: list[Progress] = []
    report = finetune(Training(fresh(), tokenizer, task, questions, recipe), tmp_path, on_progress=told.append)
    assert TrainingReport.model_validate_json((tmp_path / REPORT).read_text()) == report
    assert (report.recipe, report.steps, report.questions, report.task) == (recipe, 12, 64, "everyday")
    assert report.curve[-1].loss < report.curve[0].loss or len(report.curve) == 1
    assert all(w.dtype == torch.bfloat16 for w in load_file(tmp_path / "model.safetensors").values())
    assert [progress.step for progress in told] == list(range(1, 13))
    assert told[-1].seconds_left == 0
    assert all(progress.tokens_per_second > 0 for progress in told)
    assert not list(tmp_path.glob(".*"))


def test_a_finished_run_is_left_alone_and_another_is_refused(fresh, tokenizer, task, questions, tmp_path) -> None:
    first = finetune(Training(fresh(), tokenizer, task, questions, RECIPE), tmp_path)
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    assert finetune(Training(fresh(), tokenizer, task, questions, RECIPE), tmp_path) == first
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(OptionError, match=r"finished run with another recipe, model, plan or question set"):
        finetune(Training(fresh(), tokenizer, task, questions[1:], RECIPE), tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"steps": 3}', "recipe is missing"),
        (b"[]", "should be"),
        (b'{"steps": ', "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
    ],
)
def test_a_record_that_is_no_trainings_is_said(content, says, fresh, tokenizer, task, questions, tmp_path) -> None:
    (tmp_path / REPORT).write_bytes(content)
    with pytest.raises(OptionError, match=rf"training.json was not written by .*{says}.*Choose another --out") as error:
        finetune(Training(fresh(), tokenizer, task, questions, RECIPE), tmp_path)
    assert "\n" not in str(error.value)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [content], "it is left alone"


@pytest.mark.parametrize("folder", [embedded_folder() / EMBEDDED, *embedded_adapters().values()], ids=lambda f: f.name)
def test_records_of_before_are_read(folder: Path) -> None:
    assert TrainingReport.model_validate_json((folder / REPORT).read_bytes()).best_accuracy


def test_a_checkpoint_of_another_run_is_refused(fresh, tokenizer, task, questions, tmp_path) -> None:
    with pytest.raises(KilledError):
        finetune(
            Training(fresh(), tokenizer, task, questions, RECIPE), tmp_path, on_progress=kill_at(8), checkpoint_every=5
        )
    other = RECIPE.model_copy(update={"learning_rate": 1e-3})
    with pytest.raises(OptionError, match=r"checkpoint.pt belongs to a run with another recipe"):
        finetune(Training(fresh(), tokenizer, task, questions, other), tmp_path)


@pytest.mark.parametrize("content", [b"", b"junk"])
def test_a_damaged_checkpoint_is_named(fresh, tokenizer, task, questions, tmp_path, content: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(OptionError, match=r"checkpoint.pt is damaged .* Delete that file to start again"):
        finetune(Training(fresh(), tokenizer, task, questions, RECIPE), tmp_path)


def test_a_checkpoint_that_is_laid_out_otherwise_is_named(fresh, tokenizer, task, questions, tmp_path) -> None:
    """As another version's may be, whose fingerprint is the same."""
    with pytest.raises(KilledError):
        finetune(
            Training(fresh(), tokenizer, task, questions, RECIPE), tmp_path, on_progress=kill_at(8), checkpoint_every=5
        )
    path = tmp_path / "checkpoint.pt"
    whole = torch.load(path, weights_only=True)
    name = next(iter(whole["weights"]))
    for changes in (
        {"state": whole["state"] | {"mood": "good"}},
        {"state": None},
        {"weights": {f"other.{name}": whole["weights"][name]}},
        {"weights": {name: torch.zeros(3, 3, 3)}},
        {"optimizers": []},
        {"optimizers": [{}]},
    ):
        torch.save(whole | changes, path)
        with pytest.raises(OptionError, match=r"checkpoint.pt is damaged .* Delete that file to start again"):
            finetune(Training(fresh(), tokenizer, task, questions, RECIPE), tmp_path)


def test_weights_that_are_not_numbers_are_not_kept(fresh, tokenizer, task, questions, tmp_path) -> None:
    """The last step may break them when its loss was still sound."""
    once = RECIPE.model_copy(update={"learning_rate": float("inf"), "steps": 1, "epochs": None})
    with pytest.raises(LitestageError, match="Weights are no longer numbers after the last step"):
        finetune(Training(fresh(), tokenizer, task, questions, once), tmp_path)
    assert not (tmp_path / "training.json").exists()


def test_a_loss_that_is_not_a_number_ends_the_run(fresh, tokenizer, task, questions, tmp_path) -> None:
    model = fresh()
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(math.nan)
    with pytest.raises(LitestageError, match=r"loss became nan at step 1.*Lower learning_rate"):
        finetune(Training(model, tokenizer, task, questions, RECIPE), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_says_so(fresh, tokenizer, task, questions, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LitestageError, match=r"could not be written"):
        finetune(Training(fresh(), tokenizer, task, questions, RECIPE), tmp_path / "file" / "out")
