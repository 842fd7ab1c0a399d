"""Training, with generated accuracy as its judge."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from litestage.core import DataError, OptionError, Plan
from litestage.engine import TorchEngine
from litestage.evaluation import score
from litestage.models import from_transformers
from litestage.runner import run
from litestage.tasks import Question, Task, load_questions, load_task
from litestage.training import Progress as TrainingProgress
from litestage.training import TrainingReport, finetune, initialise, load_recipe
from litestage.workflows.progress import SILENT, Progress


@dataclass(frozen=True)
class FinetuneOptions:
    """What to train, on what, and how it is judged."""

    init: str
    task: str = "everyday"
    data: str | None = None
    limit: int | None = None
    validation: int = 100
    """Dev questions answered at every validation; 0 for none."""
    seed: int | None = None
    """Overrides the recipe's."""
    threads: int | None = None


def train_from_scratch(options: FinetuneOptions, out: Path, progress: Progress = SILENT) -> TrainingReport:
    """Train a new model by a recipe; the same call resumes a killed run and ends with the same weights."""
    recipe = load_recipe(options.init)
    if options.seed is not None:
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"seed": options.seed})})
    if options.validation < 0:
        raise OptionError(f"--validation {options.validation}: give 0 for none, or a number of dev questions.")
    torch.set_num_threads(options.threads or torch.get_num_threads())
    task = load_task(options.task)
    questions = load_questions(task, "train", data=options.data, limit=options.limit)
    dev = load_questions(task, "dev", data=options.data, limit=options.validation) if options.validation else []
    model, tokenizer = initialise(recipe, task, questions)
    _check_fits(task, dev, tokenizer, recipe.model.max_position_embeddings)
    return finetune(
        model,
        tokenizer,
        task,
        questions,
        recipe.training,
        out,
        validate=generated_accuracy(tokenizer, task, dev) if dev else None,
        on_progress=_teller(progress),
    )


def _check_fits(task: Task, dev: Sequence[Question], tokenizer: PreTrainedTokenizerBase, context: int) -> None:
    """Raise `DataError` for a dev question that the new model could not read: long training should not end there."""
    first = task.stages[0]
    for question in dev:
        longest = max(len(tokenizer(prompt)["input_ids"]) for prompt in task.prompts(first, question, {}))
        if longest >= context:
            raise DataError(
                f"Dev question {question.id}: its {first.name} prompt has {longest} tokens, but the recipe's model "
                f"reads {context} with its answer. A tokenizer that saw more questions needs fewer tokens: give a "
                "larger --limit, or raise max_position_embeddings in the recipe."
            )


def generated_accuracy(
    tokenizer: PreTrainedTokenizerBase, task: Task, questions: Sequence[Question], batch_size: int = 32
) -> Callable[[PreTrainedModel], float]:
    """A judge of models: percent of questions answered right, greedily, through all stages."""

    def judge(model: PreTrainedModel) -> float:
        trained = from_transformers(merged_copy(model), tokenizer, "the model in training")
        engine = TorchEngine(trained, batch_size=batch_size)
        traces = run(
            engine,
            task,
            questions,
            Plan.full_depth(engine.identity, task.name, task.fingerprint),
            questions_at_once=batch_size,
        )
        return score(traces).percent

    return judge


def merged_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy to take apart, with an adapter merged into it if there is one."""
    twin = copy.deepcopy(model).eval()
    merged: PreTrainedModel = twin.merge_and_unload() if hasattr(twin, "merge_and_unload") else twin
    return merged


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
