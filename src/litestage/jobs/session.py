"""What every job works with: a model, a task and its questions, a folder to keep work in, and somebody who listens."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import fields
from datetime import UTC, datetime
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from litestage.core import Conditions, ExitRule, OptionError, Plan, SkipSchedule, StagePlan, SubLayer, Trace
from litestage.core.complaints import did_you_mean
from litestage.core.drafts import SOURCES, Drafter, DraftSource
from litestage.core.plan import content_hash
from litestage.engine import CachedEngine, TorchEngine
from litestage.engine.draft_prices import time_forwards
from litestage.engine.processes import ParallelEngine, torch_threads
from litestage.evaluation import CostModel, VoteStop
from litestage.jobs.exits import fitted_exits
from litestage.jobs.options import (
    ClusterOptions,
    DataOptions,
    DecodingOptions,
    DraftOptions,
    ModelOptions,
    PlanOptions,
)
from litestage.jobs.progress import SILENT, Progress
from litestage.jobs.run_folder import RunFolder
from litestage.models import load_model
from litestage.pipeline import Listener, Votes, flow, run
from litestage.results import Provenance
from litestage.skipping import load_stands
from litestage.tasks import Question, Task, load_questions, load_task

if TYPE_CHECKING:
    from litestage.cluster.pool import Node, RayPool

T = TypeVar("T")
KINDS = (ModelOptions, DataOptions, ClusterOptions, DraftOptions)
"""What `load` takes, by name."""
DEFAULT_SHOTS = 3
"""Worked examples for a model that was not trained on the task."""
COMPLETIONS = "completions.sqlite"
NARROW = 256
"""Widest residual stream whose products are too small to be worth sharing out among the threads of a process."""


def load(
    model: str | Path = "everyday",
    task: str | Path = "everyday",
    *,
    out: str | Path | None = None,
    progress: Progress = SILENT,
    **options: Any,
) -> Session:
    """Load a model and a task; all work is kept in the folder ``out``, if any, and resumed from there.

    ``options`` are those of the command line by their names: adapter, device, dtype, quantise; data, split, limit,
    shots, answering; batch_size, workers, seed; cluster, price_on; drafts. Without a cluster one worker answers unless
    more are asked for: with several, a script needs an ``if __name__ == "__main__":`` around its work, as Python says.
    """
    named: dict[str, Any] = {"name": str(model), "task": str(task)} | {k: _text(v) for k, v in options.items()}
    if "cluster" not in named:
        named.setdefault("workers", 1)
    parts: list[dict[str, Any]] = []
    for kind in KINDS:
        parts.append({one.name: named.pop(one.name) for one in fields(kind) if one.name in named})
    if unknown := next(iter(named), None):
        known = [one.name for kind in KINDS for one in fields(kind)]
        raise OptionError(f"{unknown} is no option of load.{did_you_mean(unknown, known)}")
    model_options, data, decoding, drafts = parts
    return Session(
        ModelOptions(**model_options),
        DataOptions(**data),
        ClusterOptions(**decoding),
        drafts=DraftOptions(**drafts),
        out=Path(out) if out is not None else None,
        progress=progress,
    )


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


class Session:
    """A loaded model on a task, ready to run."""

    def __init__(
        self,
        model: ModelOptions = ModelOptions(),
        data: DataOptions = DataOptions(),
        decoding: DecodingOptions = DecodingOptions(),
        *,
        drafts: DraftOptions = DraftOptions(),
        out: Path | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self.model, self.data, self.decoding, self.drafts, self.progress = model, data, decoding, drafts, progress
        self.cluster = decoding if isinstance(decoding, ClusterOptions) else ClusterOptions()
        task = load_task(data.task)
        if data.answering is not None:
            task = task.answering("choice" if data.answering == "choice" else "free")
        self.engine = load_engine(model, decoding.batch_size)
        tuned = task.name in self.engine.model.tuned_for
        shots = data.shots if data.shots is not None else 0 if tuned else min(DEFAULT_SHOTS, len(task.examples))
        self.task: Task = task.with_shots(shots)
        self._pool = self._start_pool() if self.cluster.cluster else None
        self.folder = RunFolder(out, self.conditions.stamped)

    def at(self, out: str | Path | None) -> Session:
        """The same model and task, with another folder to keep work in."""
        other = self._in(None if out is None else Path(out))
        other.__dict__.pop("stored", None)
        return other

    def inside(self, name: str) -> Session:
        """The same session in a folder of its own inside this one's; what was answered is shared."""
        assert self.stored is not None
        return self._in(self.folder.path / name if self.folder.path else None)

    def _in(self, path: Path | None) -> Session:
        assert self._answering is not None  # made once, for both
        other = copy(self)
        other.folder = RunFolder(path, self.conditions.stamped)
        return other

    def questions(self, split: str | None = None, limit: int | None = None) -> list[Question]:
        """The questions of a split; by default those that the session was asked for."""
        if split is None:
            split, limit = self.data.split, limit or self.data.limit
        return load_questions(self.task, split, data=self.data.data, limit=limit)

    def dev_and_test(self, split: str = "test") -> tuple[list[Question], list[Question]]:
        """Questions to tune on and questions to measure on; raises `OptionError` when the two have any in common."""
        dev, test = self.questions("dev"), self.questions(split)
        if both := {question.id for question in dev} & {question.id for question in test}:
            raise OptionError(
                f"{len(both)} questions are in dev and in {split}, such as {min(both)}: the plan would be shown on what"
                f" it was tuned on. Give --data a folder with a dev.jsonl and a {split}.jsonl of its own."
            )
        return dev, test

    @property
    def may_show_texts(self) -> bool:
        """Whether results may print questions: only the embedded ones are ours."""
        return self.task.name == "everyday" and self.data.data is None

    def full_plan(self) -> Plan:
        """The plan that leaves nothing out."""
        return self.plan({})

    def plan(self, stages: Mapping[str, StagePlan]) -> Plan:
        """A plan of this model and task; stages not named run at full depth."""
        for name in stages:
            self.task.stage(name)
        return Plan(
            model=self.engine.identity,
            task=self.task.name,
            task_fingerprint=self.task.fingerprint,
            stages={name: stages.get(name, StagePlan()) for name in self.task.stage_names},
        )

    def load_plan(self, folder: str | Path) -> Plan:
        return load_plan(folder, self.engine, self.task)

    def chosen_plan(self, options: PlanOptions) -> Plan:
        """The plan that the options name, or full depth, with what they put over it by hand."""
        base = self.load_plan(options.plan) if options.plan else self.full_plan()
        exits = fitted_exits(self, options.exit) if options.exit else {} if options.no_exit else None
        return plan_by_hand(base, self.task, options.skip, exits)

    def answer(
        self,
        questions: Sequence[Question],
        plan: Plan,
        what: str,
        *,
        task: Task | None = None,
        votes: int | None = None,
        stop: VoteStop | None = None,
    ) -> list[Trace]:
        """Traces of all questions, decoding only what the folder does not hold; ``task`` is another form of the task.

        ``what`` is told to whoever listens.
        """
        self.progress.start(what, len(questions))
        right = seen = 0

        def told(traces: Sequence[Trace]) -> None:
            nonlocal right, seen
            right, seen = right + sum(trace.correct for trace in traces), seen + len(traces)
            who = f", {self._pool}" if self._pool else ""
            self.progress.advance(len({trace.question_id for trace in traces}), f"{right / seen:.1%} right{who}")

        asked, drawn, tell = task or self.task, Votes(votes, self.decoding.seed, stop), Listener(on_traces=told)
        if self._pool is not None and stop is None:
            return flow(self.stored, asked, questions, plan, drawn, at_once=self.capacity, tell=tell)
        at_once = max(1, self.decoding.batch_size * self.workers // (votes or 1))
        return run(self.stored, asked, questions, plan, drawn, questions_at_once=at_once, tell=tell)

    @cached_property
    def drafter(self) -> Drafter | None:
        """Guesses what texts go on with, and remembers what each stage wrote as long as the session is there.

        None where nothing is to be guessed. By default it is there on a processor in fp32, or whose kernels compute a
        token the same alone and among others; not on a GPU, where what drafts cost has not been measured.
        """
        decoder = self.engine.model.decoder
        steady = decoder.is_exact or decoder.dtype == torch.float32
        source: DraftSource = "stage" if decoder.device.type == "cpu" and steady else "none"
        if self.drafts.drafts != "auto":
            source = next(one for one in SOURCES if one == self.drafts.drafts)
        if source == "none":
            return None
        return Drafter(source, partial(time_forwards, self.engine), self.engine.model.eos_ids)

    @contextmanager
    def drafting(self) -> Iterator[None]:
        """Draft inside the block. Jobs that compare settings do not: what one asked would speed up the next."""
        self.engine.drafter = self.drafter
        try:
            yield
        finally:
            self.engine.drafter = None

    @cached_property
    def stored(self) -> CachedEngine:
        """The engine behind the folder's completions, so that a killed run goes on where it was."""
        shaping = ("dtype", "quantise", "kernels", "device", "versions", "tokenizer")
        conditions = self.conditions.model_dump(include=set(shaping))
        path = self.folder.path / COMPLETIONS if self.folder.path else ":memory:"
        return CachedEngine(self._answering, path, content_hash(conditions))

    @cached_property
    def workers(self) -> int:
        """Processes that answer side by side."""
        if self._pool is not None:
            return self._pool.count
        decoder = self.engine.model.decoder
        if decoder.device.type != "cpu":
            return 1
        if self.decoding.workers is not None:
            return self.decoding.workers
        return min(2, torch.get_num_threads()) if self.narrow else 1

    @property
    def narrow(self) -> bool:
        """Whether the model's products are too small to be shared out among threads."""
        return self.engine.model.decoder.head.shape[1] <= NARROW

    @property
    def capacity(self) -> int:
        """Requests that workers of a cluster have at a time; 0 without."""
        return 0 if self._pool is None else self._pool.capacity

    def settle(self) -> None:
        """Have nothing at work but this process: times are taken next."""
        if not isinstance(self._answering, TorchEngine):
            self._answering.settle()

    def timed(self, function: Callable[[TorchEngine], T], threads: int | None = None, plan: Plan | None = None) -> T:
        """What a function makes of an engine where times are taken: this one, or a worker's on the node of
        ``--price-on``. It computes with so many threads; ``plan`` is what the engine has to know the stand-ins of."""
        node = self._priced_on
        if self._pool is not None and node is not None:
            contents = [stage.compensation.content for stage in plan.stages.values()] if plan else []
            stands = {content: self.engine.stands[content] for content in contents if content is not None}
            return self._pool.on(node.id, function, threads, stands)
        with torch_threads(threads or torch.get_num_threads()):
            return function(self.engine)

    def _start_pool(self) -> RayPool:
        """Workers that load the model while this process goes on."""
        from litestage.cluster.pool import open_pool

        load = partial(load_engine, self.model.anywhere(), self.decoding.batch_size)
        return open_pool(self.cluster, self.engine, load, self.narrow, self.progress)

    @cached_property
    def _priced_on(self) -> Node | None:
        if self._pool is None or self.cluster.price_on is None:
            return None
        return self._pool.node(self.cluster.price_on)

    @cached_property
    def _answering(self) -> TorchEngine | ParallelEngine | RayPool:
        if self._pool is not None:
            return self._pool
        if self.workers == 1:
            return self.engine
        return ParallelEngine(self.engine, partial(load_engine, self.model, self.decoding.batch_size), self.workers - 1)

    @cached_property
    def conditions(self) -> Conditions:
        """Hardware, threads, dtype and versions, for whoever reads a number."""
        decoder = self.engine.model.decoder
        return Conditions(
            model=self.engine.identity.id,
            fingerprint=self.engine.identity.fingerprint,
            tokenizer=self.engine.model.tokenizer_fingerprint,
            task=self.task.name,
            shots=len(self.task.shots),
            answers="choice" if self.task.by_choice else "free",
            hardware=str(self._priced_on or hardware(decoder.device)),
            device=decoder.device.type,
            threads=torch.get_num_threads(),
            dtype=self.model.dtype,
            quantise=self.model.quantise,
            kernels="torch" if decoder.kernels is None else "litestage",
            batch_size=self.decoding.batch_size,
            seed=self.decoding.seed,
            versions=versions(decoder.device) | {"python": platform.python_version()},
        )

    def conditions_at(self, threads: int) -> Conditions:
        """The same with so many threads, as a timing found best."""
        return self.conditions.model_copy(update={"threads": threads})


def load_engine(options: ModelOptions, batch_size: int) -> TorchEngine:
    """The engine that the options describe."""
    model = load_model(
        options.name,
        adapter=options.adapter,
        dtype=options.dtype,
        device=options.device,
        quantise=options.quantise,
    )
    return TorchEngine(model, batch_size=batch_size)


def load_plan(folder: str | Path, engine: TorchEngine, task: Task) -> Plan:
    """Read a plan folder and load its stand-ins into the engine; raises `PlanError` for another model or task."""
    plan = Plan.from_pretrained(folder)
    plan.check_fits(engine.identity, task.name, task.fingerprint, task.stage_names)
    place = Path(folder) if Path(folder).is_dir() else Path(folder).parent
    load_stands(place, [stage.compensation for stage in plan.stages.values()], engine)
    return plan


def plan_by_hand(base: Plan, task: Task, skip: Sequence[str], exits: Mapping[str, ExitRule] | None = None) -> Plan:
    """A plan with ``--skip STAGE=7.attention,9.ffn`` sets put over it; ``exits``, by stage, replace all its rules."""
    stages = {name: base.stage(name) for name in task.stage_names}
    by_hand: set[str] = set()
    for text in skip:
        name, schedule = _skip(text, task, base.model.num_blocks)
        if name in by_hand:
            raise OptionError(f"--skip {text}: {name} is given twice; put its sub-layers in one --skip.")
        by_hand.add(name)
        stages[name] = stages[name].model_copy(update={"schedule": schedule, "left_out": False})
    if exits is not None:
        stages = {
            name: stage if stage.left_out else stage.model_copy(update={"exit": exits.get(name)})
            for name, stage in stages.items()
        }
    certificate = base.certificate if stages == base.stages else None  # it is of the plan as it was
    return base.model_copy(update={"stages": stages, "certificate": certificate})


def _skip(text: str, task: Task, num_blocks: int) -> tuple[str, SkipSchedule]:
    """The stage and the schedule of one ``--skip``."""
    name, _, written = text.partition("=")
    try:
        stage = task.stage(name.strip()).name
        if not written.strip():
            raise OptionError("write a stage, = and sub-layers: --skip recall=7.attention,9.ffn.")
        layers = [SubLayer.parse(layer.strip()) for layer in written.split(",")]
        if twice := [layer for layer in layers if layers.count(layer) > 1]:
            raise OptionError(f"{twice[0]} is given twice. Name each sub-layer once.")
        schedule = SkipSchedule.fixed(layers)
        schedule.check_fits(num_blocks)
    except OptionError as error:
        raise OptionError(f"--skip {text}: {error}") from None
    return stage, schedule


def hardware(device: torch.device) -> str:
    """The processor, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {os.cpu_count()} cores"


def versions(device: torch.device) -> dict[str, str]:
    """Of the packages that a number depends on, and of torch's CUDA where that is at work."""
    found = {name: version(name) for name in ("litestage", "torch", "transformers")}
    return found | ({"cuda": str(torch.version.cuda)} if device.type == "cuda" else {})


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def provenance(session: Session, cost: CostModel, durations: Mapping[str, float]) -> Provenance:
    """Where figures come from: the conditions and fit of the prices, this command, today."""
    return Provenance.of(
        session.conditions_at(cost.threads),
        command=command_line(),
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        durations=dict(durations),
        fits=(cost.decode_error, cost.prefill_error),
    )


def command_line() -> str:
    """The command as the user could type it again."""
    return shlex.join(["litestage", *sys.argv[1:]])
