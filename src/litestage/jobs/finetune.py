"""Training, with generated accuracy as its judge."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from litestage import training
from litestage.core import DataError, OptionError, Plan
from litestage.core.complaints import problem
from litestage.core.files import write_text
from litestage.core.plan import content_hash
from litestage.engine import TorchEngine
from litestage.evaluation import score
from litestage.jobs.healing import Healed
from litestage.jobs.options import TrainingOptions
from litestage.jobs.progress import SILENT, Progress
from litestage.jobs.run_folder import RunFolder
from litestage.models import from_transformers, load_model, load_transformers, pick_device
from litestage.models.adapters import adapter_folder, brings_tokenizer, merge, with_adapter
from litestage.models.convert import longest
from litestage.models.load import learnt_tokenizer
from litestage.models.prompts import prompt_encoder
from litestage.pipeline import run
from litestage.tasks import Question, Task, load_questions, load_task, trainable
from litestage.training import Progress as TrainingProgress
from litestage.training import (
    Recipe,
    TrainingRecipe,
    TrainingReport,
    initialise,
    load_recipe,
    with_lora,
)
from litestage.training.loop import Validation, causal_model
from litestage.training.processes import process_group


def finetune(options: TrainingOptions, out: Path, progress: Progress = SILENT) -> TrainingReport:
    """Train by a recipe and leave a model, or an adapter, in ``out``.

    The same call resumes a killed run and ends with the same weights. Questions that have no text for some stage are
    left out, and counted aloud.
    """
    if not process_group().is_main_process:  # of the processes of `accelerate launch` one talks
        progress = SILENT
    recipe = _recipe(options)
    RunFolder(out, {}).reserve("training")
    torch.set_num_threads(options.threads or torch.get_num_threads())
    task = load_task(options.task)
    questions = _questions(task, options, progress)
    dev = load_questions(task, "dev", data=options.data, limit=options.validation) if options.validation else []
    if both := {question.id for question in dev} & {question.id for question in questions}:
        raise OptionError(
            f"{len(both)} questions are in dev and in train, such as {min(both)}: the training would be judged on what "
            "it learns. Give --data a folder with a train.jsonl and a dev.jsonl of its own, or --validation 0."
        )
    model, tokenizer = _prepare(recipe, options, task, questions)
    _check_fits(task, dev, causal_model(model), tokenizer)
    healed = None
    if options.heals:
        healed = Healed.load(options, engine_of(model, tokenizer, str(options.model or options.config)), task)
    healing = healed.healing if healed else None
    validation = generated_validation(tokenizer, task, dev, healed) if dev else None
    wanted = training.Training(model, tokenizer, task, questions, recipe.training, healing, validation)
    report = training.finetune(wanted, out, on_progress=_teller(progress), checkpoint_every=options.checkpoint_every)
    if process_group().is_main_process:
        write_text(out / "README.md", card(report, options))
        if options.adapter and brings_tokenizer(adapter_folder(options.adapter)):
            tokenizer.save_pretrained(out)  # it learnt on with this one
        if healed:
            name, adapter = (str(options.model), str(out)) if report.adapter else (str(out), None)
            healed.save(out, load_model(name, adapter=adapter).identity, report)
    return report


def card(report: TrainingReport, options: TrainingOptions) -> str:
    """What was trained, on what and how, in a page for whoever finds the folder."""
    what = f"An adapter for {options.model}" if report.adapter else "A model"
    start = {"Starts from": f"adapter {options.adapter}"} if options.adapter else {}
    healed = {"Heals": f"`{options.heals}`: left out of what stages write"} if options.heals else {}
    best = "not measured"
    if report.best_accuracy is not None:
        how = f"{report.validation_questions} questions, greedy{', with the plan' * bool(healed)}"
        best = f"{report.best_accuracy:.1f} % (step {report.best_step}); {how}"
    facts = {
        "Trained": f"{report.trained_parameters:,} of {report.parameters:,} parameters",
        "Questions": f"{report.questions:,} of the train split",
        "Steps": f"{report.steps} of {report.recipe.batch_size}, {report.tokens:,} tokens, {report.seconds:,.0f} s",
        "Recipe": f"{options.config}, seed {report.recipe.seed}",
        **start,
        **healed,
        "Generated dev accuracy": best,
        "Versions": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
    }
    lines = [f"# {what}, trained on {report.task}", "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    return "\n".join(
        [*lines, "", "Made by `litestage finetune`; `training.json` holds the whole recipe and curve.", ""]
    )


def _recipe(options: TrainingOptions) -> Recipe:
    """The recipe with what the options override; raises `OptionError` where the two do not go together."""
    recipe = load_recipe(options.config)
    if recipe.from_scratch and options.model:
        raise OptionError(
            f"Recipe {options.config} makes a model from scratch, so --model {options.model} has no part in it. "
            "Leave out one of the two; `--recipe lora` trains an adapter."
        )
    if not recipe.from_scratch and not options.model:
        raise OptionError(f"Recipe {options.config} fine-tunes a model. Say which one with --model.")
    if options.heals and recipe.from_scratch:
        raise OptionError(
            f"Recipe {options.config} makes a model from scratch, and {options.heals} is for one that is there. "
            "Leave out one of the two."
        )
    if options.adapter and recipe.lora is None:
        raise OptionError(
            f"Recipe {options.config} trains all weights, so --adapter {options.adapter} cannot learn on. "
            "Give a recipe with [lora], such as `--recipe lora`."
        )
    changes: dict[str, Any] = {"order": options.order, "seed": options.seed}
    if options.epochs is not None:
        changes |= {"epochs": options.epochs, "steps": None}
    training = recipe.training.model_dump() | {k: v for k, v in changes.items() if v is not None or k == "steps"}
    return recipe.model_copy(update={"training": _training(training)})


def _training(content: dict[str, Any]) -> TrainingRecipe:
    try:
        return TrainingRecipe.model_validate(content)
    except ValidationError as error:
        raise OptionError(f"The training cannot be run so: {problem(error, content, {})}.") from None


def _questions(task: Task, options: TrainingOptions, progress: Progress) -> list[Question]:
    """Training questions with all their targets."""
    questions = load_questions(task, "train", data=options.data, limit=options.limit)
    complete = trainable(task, questions)
    if left_out := len(questions) - len(complete):
        progress.say(f"{left_out} of {len(questions)} training questions have no text for some stage and are left out.")
    if not complete:
        raise DataError(
            f"None of the {len(questions)} training questions says what every stage should write. Put a text for each "
            f"of {', '.join(stage.name for stage in task.stages if stage.target is None)} into each question, or "
            "[target_rules] into the task file."
        )
    return complete


def _prepare(
    recipe: Recipe, options: TrainingOptions, task: Task, questions: Sequence[Question]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model with the weights that should learn requiring gradients, and its tokenizer."""
    if recipe.tokenizer is not None and recipe.model is not None:
        return initialise(recipe.tokenizer, recipe.model, recipe.training.seed, task, questions)
    model, tokenizer = load_transformers(str(options.model))
    model.name_or_path = str(options.model)  # not where it lies here: adapters are put on the model of this name
    if options.adapter is not None:
        model = with_adapter(model, options.adapter, learning=True)
        rows = model.get_input_embeddings().weight.shape[0]
        tokenizer = learnt_tokenizer(options.adapter, adapter_folder(options.adapter), tokenizer, rows)
    elif recipe.lora is not None:
        model = with_lora(model, recipe.lora, recipe.training.seed)
    several = process_group().num_processes > 1
    return model.to(process_group().device if several else pick_device(options.device)), tokenizer


def _check_fits(
    task: Task, dev: Sequence[Question], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raise `DataError` for a dev question that the model could not read: long training should not end there."""
    first, context = task.stages[0], longest(model.config)
    encoder = prompt_encoder(model, tokenizer, model.name_or_path or "the model")
    for question in dev:
        tokens = max(map(len, encoder.encode(task.prompts(first, question, {}), task.chat)))
        if tokens >= context:
            raise DataError(
                f"Dev question {question.id}: its {first.name} prompt has {tokens} tokens, but the model reads "
                f"{context} with its answer. Shorten the question; for a model from scratch, raise "
                "max_position_embeddings in the recipe, or give its tokenizer more questions with a larger --limit."
            )


def generated_validation(
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    questions: Sequence[Question],
    healed: Healed | None = None,
    batch_size: int | None = None,
) -> Validation:
    """A judge of models: questions answered greedily, through all stages, with the plan and its exits if any."""

    def accuracy(model: PreTrainedModel) -> float:
        engine = engine_of(model, tokenizer, "the model in training", batch_size)
        full = Plan.full_depth(engine.identity, task.name, task.fingerprint)
        plan = healed.plan_on(engine) if healed else full
        return score(run(engine, task, questions, plan, questions_at_once=engine.batch_size)).percent

    stages = healed.plan.stages if healed else {}
    asked = [question.model_dump(mode="json") for question in questions]
    how = {name: stage.model_dump(mode="json") for name, stage in stages.items()}
    return Validation(accuracy, len(questions), content_hash([asked, how]))


def engine_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, label: str, batch_size: int | None = None
) -> TorchEngine:
    """An engine on a copy of a model in training; by default of few rows on a processor, of many on a GPU."""
    device = next(model.parameters()).device
    loaded = from_transformers(merged_copy(model), tokenizer, label, device=str(device))
    return TorchEngine(loaded, batch_size=batch_size or (32 if device.type == "cpu" else 256))


def merged_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy to take apart, with an adapter merged into it if there is one.

    It is merged on the processor, as where models are loaded: a GPU rounds otherwise, and plans know weights by theirs.
    """
    twin = copy.deepcopy(model).eval()
    return merge(twin.cpu()) if hasattr(twin, "merge_and_unload") else twin


def _teller(progress: Progress) -> Callable[[TrainingProgress], None]:
    """Turn a step's progress into a line: loss, speed, time left."""
    started = False

    def tell(now: TrainingProgress) -> None:
        nonlocal started
        if not started:
            progress.start("training", now.steps)
            progress.advance(now.step - 1)
            started = True
        accuracy = "" if now.accuracy is None else f", dev {now.accuracy:.1f} %"
        speed = f"{now.tokens_per_second:.0f} tokens/s"
        progress.advance(
            1,
            f"loss {now.loss:.3f}, {speed}, {now.seconds_left / 60:.0f} min left{accuracy}",
        )
        if now.accuracy is not None:
            progress.say(f"step {now.step}: loss {now.loss:.3f}, generated dev accuracy {now.accuracy:.1f} %")

    return tell
