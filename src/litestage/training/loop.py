"""The one training loop: from scratch or fine-tuning, all weights or an adapter's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from accelerate.utils import broadcast_object_list, reduce
from peft import PeftModel
from pydantic import ValidationError
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers import __version__ as transformers_version

from litestage import __version__
from litestage.core.complaints import problem
from litestage.core.errors import LitestageError, OptionError
from litestage.core.files import write_text
from litestage.core.layers import Record
from litestage.core.plan import content_hash
from litestage.models.convert import fingerprint, longest_seen_whole
from litestage.models.prompts import prompt_encoder
from litestage.tasks.question import Question
from litestage.tasks.task import Task
from litestage.training.checkpoint import CHECKPOINT, damaged, load, load_trainable, save, trainable
from litestage.training.healing import Healing, leaving_out
from litestage.training.optimise import learning_rate, make_optimizers, multiplies_bf16
from litestage.training.orders import make_order
from litestage.training.packing import Batch, Packed, collate
from litestage.training.processes import process_group
from litestage.training.recipe import TrainingRecipe

REPORT = "training.json"
SMOOTHING = 20
"""Steps that a reported loss and speed are averaged over."""


@dataclass(frozen=True)
class Progress:
    """Where training stands after a step."""

    step: int
    steps: int
    epoch: float
    loss: float
    """Mean over the last steps, nats a target token."""
    tokens_per_second: float
    """Sequence tokens without padding."""
    seconds_left: float
    accuracy: float | None
    """Of the generated validation made at this step, else None."""


class Point(Record):
    """One point of the curve that `TrainingReport` keeps."""

    step: int
    loss: float
    accuracy: float | None = None


class TrainingReport(Record):
    """What was trained and how it went; ``training.json`` in the model's folder."""

    recipe: TrainingRecipe
    task: str
    fingerprint: str
    questions: int
    parameters: int
    trained_parameters: int
    adapter: bool = False
    """Whether what was trained is an adapter, to be put on the model of the recipe."""
    steps: int
    seconds: float
    """Spent training, summed over resumes; validation included."""
    tokens: int
    curve: tuple[Point, ...]
    best_step: int
    best_accuracy: float | None
    validation_questions: int | None = None
    """Answered for each accuracy; None where none was measured, and in older records."""
    versions: dict[str, str]


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Validation:
    """What judges a model in training, and so chooses the weights that are kept."""

    accuracy: Callable[[PreTrainedModel], float]
    """Percent of the questions that the model answers right, generated."""
    questions: int
    content: str
    """A name for what is asked, and how, that changes with it: accuracies under two names cannot be compared."""


@dataclass
class _State:
    """What a checkpoint keeps beside weights and optimisers."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    recent: list[tuple[float, int, float]] = field(default_factory=list)
    """Loss, tokens and seconds of the last steps."""
    best: dict[str, Any] | None = None


@dataclass(frozen=True)
class Training:
    """All that decides which weights come out: what is trained, on what and how."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    task: Task
    questions: Sequence[Question]
    recipe: TrainingRecipe
    healing: Healing | None = None
    """A plan's sub-layers, which are left out of what stages write."""
    validation: Validation | None = None
    """Chooses the weights that are kept; without it the last ones are."""

    @property
    def fingerprint(self) -> str:
        """A name for all of it, at its start: runs of the same one end alike."""
        causal, task, healing, validation = causal_model(self.model), self.task, self.healing, self.validation
        base = causal.name_or_path  # empty for a model from scratch, whose recipe says all
        return content_hash(
            {
                **({"base": base} if base else {}),
                **({"plan": healing.content} if healing else {}),
                **({"validation": validation.content} if validation else {}),
                "start": fingerprint(causal),  # what lies under a name may be another model meanwhile
                "weights": {name: list(weight.shape) for name, weight in trainable(self.model).items()},
                "vocabulary": self.tokenizer.get_vocab(),
                **({"chat_template": self.tokenizer.chat_template} if task.chat else {}),
                "task": task.fingerprint,
                "questions": [question.model_dump(mode="json") for question in self.questions],
                "recipe": self.recipe.model_dump(mode="json"),
            }
        )


def finetune(
    training: Training, out: str | Path, *, on_progress: OnProgress | None = None, checkpoint_every: int = 500
) -> TrainingReport:
    """Train the weights that require gradients and leave model, tokenizer and ``training.json`` in ``out``.

    The same call resumes a killed run from its last checkpoint and ends with the same weights. A folder that holds a
    finished run of the same kind is left as it is. Raises `OptionError` when ``out`` holds another run, or a report
    that cannot be read, `DataError` for a question that cannot be trained on.
    """
    out = Path(out)
    fingerprint = training.fingerprint
    if (done := _finished(out, fingerprint)) is not None:
        return done
    trainer = _Trainer(training, out, fingerprint)
    trainer.resume()
    while trainer.state.step < trainer.last:
        progress = trainer.step()
        if on_progress is not None:
            on_progress(progress)
        if progress.step % checkpoint_every == 0 or progress.step == trainer.last:
            trainer.checkpoint()
    report = trainer.finish()
    trainer.processes.wait_for_everyone()
    return report


class _Trainer:
    """A run in progress: the model, its optimisers and how far they are."""

    def __init__(self, training: Training, out: Path, fingerprint: str) -> None:
        self.training, self.out, self.fingerprint = training, out, fingerprint
        self.model, self.recipe = training.model, training.recipe
        self.healing, self.validation = training.healing, training.validation
        causal, recipe = causal_model(training.model), training.recipe
        self.encoder = prompt_encoder(causal, training.tokenizer, causal.name_or_path or "the model")
        skipping = tuple(training.healing.stages) if training.healing else ()
        context = longest_seen_whole(causal.config)  # a sliding window would have to follow a tree's branches
        self.order = make_order(recipe, training.task, training.questions, self.encoder, context, skipping)
        self.steps = recipe.steps or max(1, round((recipe.epochs or 0) * self.order.steps_per_epoch))
        self.last = min(self.steps, recipe.stop_after or self.steps)
        self.device = next(training.model.parameters()).device
        self.optimizers = make_optimizers(training.model, recipe)
        self.state = _State()
        # Under a tree mask torch's fused attention has a slow backward on processors; plain matrix products win there.
        causal.set_attn_implementation("eager" if self.device.type == "cpu" else "sdpa")
        self.processes = process_group()
        training.model.train()

    def step(self) -> Progress:
        """One optimiser step, and a validation where one is due."""
        started = time.perf_counter()
        state, recipe = self.state, self.recipe
        packs = self.order.packs(state.step)
        value = self._backward(packs)
        if not math.isfinite(value):
            raise _diverged(f"The loss became {value} at step {state.step + 1}")
        self._update(learning_rate(recipe, state.step, self.steps))
        state.step += 1
        tokens = sum(len(pack) for pack in packs)
        state.tokens += tokens
        state.recent = [*state.recent[1 - SMOOTHING :], (value, tokens, time.perf_counter() - started)]
        accuracy = self._validate()
        state.seconds += time.perf_counter() - started
        return self._progress(accuracy)

    def checkpoint(self) -> None:
        if self.processes.is_main_process:
            self._save_checkpoint()

    def _save_checkpoint(self) -> None:
        save(
            self.out / CHECKPOINT,
            {
                "fingerprint": self.fingerprint,
                "state": asdict(self.state),
                "weights": trainable(self.model),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            },
        )

    def resume(self) -> None:
        """Take up the last checkpoint, if there is one."""
        if (saved := load(self.out / CHECKPOINT, self.fingerprint)) is None:
            return
        try:
            self.state = _State(**saved["state"])
            load_trainable(self.model, saved["weights"])
            for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:  # laid out otherwise
            raise damaged(self.out / CHECKPOINT, error) from None

    def finish(self) -> TrainingReport:
        """Save the best weights with everything that loads beside them; ``training.json`` comes last."""
        if self.state.best is not None:
            load_trainable(self.model, self.state.best["weights"])
        if not all(bool(weight.isfinite().all()) for weight in trainable(self.model).values()):
            raise _diverged("Weights are no longer numbers after the last step")
        report = self._report()
        if not self.processes.is_main_process:
            return report
        self.model.eval().to(getattr(torch, self.recipe.save_dtype))
        _save_whole(self.out, self.model, self.training.tokenizer, self.encoder.ends[0])
        write_text(self.out / REPORT, report.model_dump_json(indent=2) + "\n")
        (self.out / CHECKPOINT).unlink(missing_ok=True)
        return report

    def _backward(self, packs: Sequence[Packed]) -> float:
        """Gradients of the mean loss over all target tokens of the step; several processes take a share each.

        Dropout is drawn anew from seed, step and process, so that a resumed run draws the same.
        """
        me = self.processes
        torch.manual_seed(int(content_hash([self.recipe.seed, self.state.step, me.process_index])[:12], 16))
        share = packs[me.process_index :: me.num_processes]
        weight = sum(len(pack.label) for pack in share) / sum(len(pack.label) for pack in packs)
        loss = torch.zeros((), device=self.device)
        if share:
            loss = weight * target_loss(self.model, collate(share).to(self.device), self.recipe.dtype, self.healing)
            loss.backward()  # type: ignore[no-untyped-call]
        if me.num_processes > 1:
            for parameter in trained(self.model):
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = reduce(gradient, "sum")
            loss = reduce(loss.detach(), "sum")
        return float(loss.detach())

    def _update(self, rate: float) -> None:
        torch.nn.utils.clip_grad_norm_(trained(self.model), self.recipe.max_grad_norm)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()

    def _validate(self) -> float | None:
        every = self.recipe.validate_every or self.last
        if self.validation is None or (self.state.step % every and self.state.step < self.last):
            return None
        accuracy = self._judged(self.validation)
        if self.state.best is None or accuracy >= self.state.best["accuracy"]:
            weights = {name: weight.clone() for name, weight in trainable(self.model).items()}
            self.state.best = {"step": self.state.step, "accuracy": accuracy, "weights": weights}
        return accuracy

    def _judged(self, validation: Validation) -> float:
        """The main process measures, and the others are told."""
        told = [0.0]
        if self.processes.is_main_process:
            self.model.eval()
            with torch.no_grad():
                told = [validation.accuracy(self.model)]
            self.model.train()
        if self.processes.num_processes > 1:
            broadcast_object_list(told)
        return told[0]

    def _progress(self, accuracy: float | None) -> Progress:
        losses, tokens, seconds = zip(*self.state.recent, strict=True)
        state, loss = self.state, sum(losses) / len(losses)
        if accuracy is not None or state.step % SMOOTHING == 0 or state.step == self.last:
            state.curve.append({"step": state.step, "loss": round(loss, 4), "accuracy": accuracy})
        return Progress(
            step=state.step,
            steps=self.last,
            epoch=state.step / self.order.steps_per_epoch,
            loss=loss,
            tokens_per_second=sum(tokens) / sum(seconds),
            seconds_left=(self.last - state.step) * sum(seconds) / len(seconds),
            accuracy=accuracy,
        )

    def _report(self) -> TrainingReport:
        state, best = self.state, self.state.best or {"step": self.last, "accuracy": None}
        return TrainingReport(
            recipe=self.recipe,
            task=self.training.task.name,
            fingerprint=self.fingerprint,
            questions=len(self.training.questions),
            parameters=sum(weight.numel() for weight in self.model.parameters()),
            trained_parameters=sum(weight.numel() for weight in trained(self.model)),
            adapter=isinstance(self.model, PeftModel),
            steps=state.step,
            seconds=round(state.seconds, 1),
            tokens=state.tokens,
            curve=tuple(Point(**point) for point in state.curve),
            best_step=best["step"],
            best_accuracy=best["accuracy"],
            validation_questions=self.validation.questions if self.validation else None,
            versions={"litestage": __version__, "torch": torch.__version__, "transformers": transformers_version},
        )


def target_loss(model: PreTrainedModel, batch: Batch, dtype: str = "float32", healing: Healing | None = None) -> Tensor:
    """Mean cross-entropy over the batch's target tokens, in nats; logits are made at those positions alone."""
    device = batch.input_ids.device
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16" and multiplies_bf16(device)):
        logits = target_logits(model, batch, healing)
    return F.cross_entropy(logits.float(), batch.label)


def target_logits(model: PreTrainedModel, batch: Batch, healing: Healing | None = None) -> Tensor:
    """Next-token logits [N, V] at the nodes that predict the batch's labels."""
    causal = causal_model(model)
    head = cast(nn.Module, causal.get_output_embeddings())
    # The head is asked there alone, within the model's own forward: some families cap or scale what it says.
    at_targets = head.register_forward_pre_hook(lambda _, hidden: hidden[0].flatten(0, 1)[batch.source][None])
    with at_targets, leaving_out(causal, healing, batch.decoded_by) if healing else nullcontext():
        output = causal(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=_additive(batch.mask, causal.dtype),
            use_cache=False,
        )
    logits: Tensor = output.logits[0]
    return logits


def causal_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model under an adapter, or the model itself."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    return cast(PreTrainedModel, inner)


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where seen, a very large negative elsewhere: what every attention of transformers adds to its scores."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def _diverged(what: str) -> LitestageError:
    return LitestageError(
        f"{what}, so nothing can be learnt from here on. "
        "Lower learning_rate in the recipe, or give it more warmup, and start again with another --out."
    )


def _save_whole(out: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, end: int) -> None:
    """A model with its tokenizer, or an adapter with the token that it learnt to end texts with.

    Everything is written beside first: a full disk or a kill leaves no file in ``out`` that is half there.
    """
    saving = out / ".saving"
    try:
        if isinstance(model, PeftModel):
            # Left to itself, peft asks the hub about the vocabulary.
            model.save_pretrained(saving, save_embedding_layers=getattr(model, "keeps_embedding", False))
            GenerationConfig(eos_token_id=end).save_pretrained(saving)
        else:
            model.save_pretrained(saving)
            tokenizer.save_pretrained(saving)
        for file in saving.iterdir():
            file.replace(out / file.name)
        saving.rmdir()
    except OSError as error:
        raise LitestageError(
            f"The trained model could not be written to {out} ({error.strerror}). Free some space and run the command "
            "again: it goes on from its last checkpoint."
        ) from error


def _finished(out: Path, fingerprint: str) -> TrainingReport | None:
    path = out / REPORT
    if not path.exists():
        return None
    try:
        report = TrainingReport.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise OptionError(
            f"{path} was not written by this version of litestage, or was changed ({problem(error, None, {})}), so it "
            "does not say whether this run is finished there. Choose another --out, or delete that folder."
        ) from None
    if report.fingerprint != fingerprint:
        raise OptionError(
            f"{out} holds a finished run with another recipe, model, plan or question set (those of --validation count "
            "too), which this one would overwrite. Choose another --out, or delete that folder."
        )
    return report
