"""What every job needs: a model, a task, an engine, questions, and the conditions they ran under."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path

import torch

from litestage.core import Conditions, ExitRule, OptionError, Plan, SkipSchedule, StagePlan, SubLayer
from litestage.core.plan import content_hash
from litestage.engine import CachedEngine, TorchEngine
from litestage.engine.processes import ParallelEngine
from litestage.models import load_model
from litestage.skipping import load_stands
from litestage.tasks import Question, Task, load_questions, load_task

DEFAULT_SHOTS = 3
"""Worked examples for a model that was not trained on the task."""
COMPLETIONS = "completions.sqlite"
NARROW = 256
"""Widest residual stream whose products are too small to be worth sharing out among the threads of a process."""


def load_plan(folder: str | Path, engine: TorchEngine, task: Task) -> Plan:
    """Read a plan folder and load its stand-ins into the engine; raises `PlanError` for another model or task."""
    plan = Plan.from_pretrained(folder)
    plan.check_fits(engine.identity, task.name, task.fingerprint, task.stage_names)
    place = Path(folder) if Path(folder).is_dir() else Path(folder).parent
    load_stands(place, [stage.compensation for stage in plan.stages.values()], engine)
    return plan


@dataclass(frozen=True)
class Options:
    """The options that commands share, by their names on the command line."""

    model: str = "everyday"
    adapter: str | None = None
    task: str = "everyday"
    data: str | None = None
    shots: int | None = None
    device: str = "auto"
    dtype: str = "fp32"
    batch_size: int = 32
    seed: int = 0
    quantise: str = "none"
    workers: int | None = field(default=1, repr=False)
    """Processes that answer side by side on a processor; None is two for a small model. Results do not depend on it,
    but for the last bits of confidences in fp32.

    With more than one, a script needs an ``if __name__ == "__main__":`` around its work, as Python says.
    """


class Session:
    """A loaded model on a task, ready to run."""

    def __init__(self, options: Options) -> None:
        self.options = options
        task = load_task(options.task)
        self.engine = load_engine(options)
        tuned = task.name in self.engine.model.tuned_for
        shots = options.shots if options.shots is not None else 0 if tuned else min(DEFAULT_SHOTS, len(task.examples))
        self.task: Task = task.with_shots(shots)

    def questions(self, split: str, limit: int | None = None) -> list[Question]:
        return load_questions(self.task, split, data=self.options.data, limit=limit)

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
        return self.task.name == "everyday" and self.options.data is None

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

    def cached(self, out: Path) -> CachedEngine:
        """The engine behind a cache in ``out``, so that a killed run goes on where it was."""
        shaping = ("dtype", "quantise", "kernels", "device", "versions", "tokenizer")
        conditions = self.conditions.model_dump(include=set(shaping))
        return CachedEngine(self._answering, out / COMPLETIONS, content_hash(conditions))

    @property
    def rows(self) -> int:
        """Rows that decode together, in all processes."""
        return self.options.batch_size * self.workers

    @cached_property
    def workers(self) -> int:
        """Processes that answer side by side."""
        decoder = self.engine.model.decoder
        if decoder.device.type != "cpu":
            return 1
        if self.options.workers is not None:
            return self.options.workers
        return min(2, torch.get_num_threads()) if decoder.head.shape[1] <= NARROW else 1

    def settle(self) -> None:
        """Have nothing at work but this process: times are taken next."""
        if isinstance(self._answering, ParallelEngine):
            self._answering.settle()

    @cached_property
    def _answering(self) -> TorchEngine | ParallelEngine:
        if self.workers == 1:
            return self.engine
        return ParallelEngine(self.engine, partial(load_engine, self.options), self.workers - 1)

    def stamp(self, *inputs: object) -> str:
        """A name for what is computed or timed from ``inputs`` here: another model, machine or version has another."""
        return content_hash([self.conditions.model_dump(exclude={"threads"}), *inputs])

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
            hardware=hardware(decoder.device),
            device=decoder.device.type,
            threads=torch.get_num_threads(),
            dtype=self.options.dtype,
            quantise=self.options.quantise,
            kernels="torch" if decoder.kernels is None else "litestage",
            batch_size=self.options.batch_size,
            seed=self.options.seed,
            versions=versions(decoder.device) | {"python": platform.python_version()},
        )

    def conditions_at(self, threads: int) -> Conditions:
        """The same with so many threads, as a timing found best."""
        return self.conditions.model_copy(update={"threads": threads})


def load_engine(options: Options) -> TorchEngine:
    """The engine that the options describe."""
    model = load_model(
        options.model,
        adapter=options.adapter,
        dtype=options.dtype,
        device=options.device,
        quantise=options.quantise,
    )
    return TorchEngine(model, batch_size=options.batch_size)


def plan_by_hand(
    base: Plan, task: Task, skips: Iterable[str], exit_rule: str | None = None, no_exit: bool = False
) -> Plan:
    """A plan with ``--skip STAGE=7.attention,9.ffn`` sets and an exit rule put over it."""
    stages = {name: base.stage(name) for name in task.stage_names}
    by_hand: set[str] = set()
    for text in skips:
        name, schedule = _skip(text, task, base.model.num_blocks)
        if name in by_hand:
            raise OptionError(f"--skip {text}: {name} is given twice; put its sub-layers in one --skip.")
        by_hand.add(name)
        stages[name] = stages[name].model_copy(update={"schedule": schedule})
    if no_exit and exit_rule:
        raise OptionError("--exit and --no-exit contradict each other. Leave one out.")
    if no_exit or exit_rule:
        rule = None if no_exit else parse_exit(exit_rule or "")
        stages = {name: stage.model_copy(update={"exit": rule}) for name, stage in stages.items()}
    return base.model_copy(update={"stages": stages})


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


def parse_exit(text: str) -> ExitRule:
    """Read ``WINDOW,THRESHOLD``, for example ``5,0.5``."""
    window, _, threshold = text.partition(",")
    try:
        return ExitRule(window=int(window), threshold=float(threshold))
    except ValueError:
        raise OptionError(
            f"--exit {text}: write the window in tokens (1 or more), a comma and the threshold (0 to 1): --exit 5,0.5."
        ) from None


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


def command_line() -> str:
    """The command as the user could type it again."""
    import shlex

    return shlex.join(["litestage", *sys.argv[1:]])
