"""A smaller plain model in the place of a plan, and what that changes: its prompts are skipped too."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from litestage.core import OptionError, SkipSchedule, StagePlan, Trace, whole_blocks
from litestage.core.files import write_text
from litestage.core.layers import Record
from litestage.evaluation import Accuracy, Paired, compare, question_scores, score
from litestage.hf.export import blocks_of, without_blocks
from litestage.jobs.options import ExportOptions, ModelOptions
from litestage.jobs.session import Session
from litestage.models import catalog
from litestage.models.load import load_transformers
from litestage.tasks import Question

CARD, TRAINING = "README.md", "training.json"


class Measured(Record):
    """One way of answering the questions, against full depth."""

    accuracy: Accuracy
    change: Paired | None = None
    """Against full depth; None for that itself."""
    same_answers: int
    """Questions answered as at full depth."""


class Exported(Record):
    """A plain model, and what it answers."""

    folder: str
    model: str
    blocks: tuple[int, ...]
    """Those taken out."""
    num_blocks: int
    questions: int
    full_depth: Measured | None = None
    while_decoding: Measured | None = None
    """The blocks skipped while decoding alone, as a plan does."""
    everywhere: Measured | None = None
    """The plain model, whose prompts go without the blocks as well."""


def export(session: Session, out: Path, options: ExportOptions) -> Exported:
    """Write a model without a plan's blocks, or without those that are named, and answer questions with it.

    Raises `PlanError` for a plan that no plain model can follow, `OptionError` for a folder that holds something.
    """
    if out.exists() and any(out.iterdir()):
        raise OptionError(f"--out {out} is not empty: a model's files would be mixed with others. Give a new folder.")
    taken = blocks_of(session.load_plan(options.plan)) if options.plan else tuple(sorted(options.blocks or ()))
    if not taken:
        raise OptionError("No block would be taken out. Give --plan, or --blocks such as 5,6.")
    of = session.model
    model, tokenizer = load_transformers(of.name, adapter=of.adapter, dtype=of.dtype)
    num_blocks = model.config.num_hidden_layers
    without_blocks(model, taken).save_pretrained(out)
    tokenizer.save_pretrained(out)
    _copy_training(of, out)
    questions = session.questions(limit=options.measure) if options.measure else []
    done = Exported(
        folder=str(out),
        model=session.engine.identity.id,
        blocks=taken,
        num_blocks=num_blocks,
        questions=len(questions),
    )
    if questions:
        done = _measured(done, session, out, questions)
    write_text(out / CARD, card(done, session.task.name))
    return done


def _measured(done: Exported, session: Session, out: Path, questions: Sequence[Question]) -> Exported:
    skipping = StagePlan(schedule=SkipSchedule.fixed(whole_blocks(done.blocks)))
    decoding = session.plan(dict.fromkeys(session.task.stage_names, skipping))
    plain = Session(
        replace(session.model, name=str(out), adapter=None),
        replace(session.data, shots=len(session.task.shots)),
        session.decoding,
        progress=session.progress,
    )
    full = session.answer(questions, session.full_plan(), "full depth")
    return done.model_copy(
        update={
            "full_depth": _against(full, full),
            "while_decoding": _against(full, session.answer(questions, decoding, "skipping while decoding")),
            "everywhere": _against(full, plain.answer(questions, plain.full_plan(), "the plain model")),
        }
    )


def _copy_training(model: ModelOptions, out: Path) -> None:
    """The record of what the model was trained on, which says whether prompts show worked examples."""
    came = [catalog.resolve(model.name), *([catalog.resolve_adapter(model.adapter)] if model.adapter else [])]
    for place in came:
        if (record := place / TRAINING).is_file():
            shutil.copy(record, out / TRAINING)


def _against(full: Sequence[Trace], traces: Sequence[Trace]) -> Measured:
    return Measured(
        accuracy=score(traces),
        change=None if traces is full else compare(question_scores(full), question_scores(traces)),
        same_answers=sum(one.answer == other.answer for one, other in zip(full, traces, strict=True)),
    )


def card(done: Exported, task: str) -> str:
    """What the model is, in Markdown, for whoever finds its folder."""
    names = ", ".join(map(str, done.blocks))
    lines = [
        f"# {done.model} without {len(done.blocks)} of {done.num_blocks} blocks",
        "",
        f"Blocks {names} are taken out. Any engine that runs the model runs this one.",
        "",
        *(f"{sentence}\n" for sentence in sentences(done, task)),
    ]
    return "\n".join(lines)


def sentences(done: Exported, task: str) -> list[str]:
    """What taking blocks out changes, and by how much."""
    told = [
        "A plan skips while decoding and reads prompts at full depth. A plain model has the blocks for neither, so its "
        "prompts lose them too, and a text of it is not one of the plan's. An exit rule is no part of a model."
    ]
    if done.full_depth is None or done.while_decoding is None or done.everywhere is None:
        return [*told, "What that costs was not measured: no questions were given."]
    ways = (
        ("At full depth", done.full_depth),
        ("With the blocks skipped while decoding", done.while_decoding),
        ("Without them in prompts as well", done.everywhere),
    )
    return [*told, *(f"{how}, {_measure(of, done.questions, task)}" for how, of in ways)]


def _measure(measured: Measured, n: int, task: str) -> str:
    accuracy = f"{measured.accuracy.percent:.1f} % of {n} questions of {task} are answered right"
    if measured.change is None:
        return f"{accuracy}."
    change = measured.change
    return (
        f"{accuracy} ({change.difference:+.1f} points, 95 % interval {change.low:+.1f} to {change.high:+.1f}). "
        f"{measured.same_answers} answers are those of full depth."
    )
