"""Which examples each step learns from: a pure function of recipe, seed and step, so a resumed run needs no replay."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from math import ceil
from typing import Protocol, TypeVar

from litestage.core.errors import DataError, OptionError
from litestage.models.prompts import PromptEncoder
from litestage.tasks.question import Question
from litestage.tasks.task import Task
from litestage.training.packing import Example, Packed, examples_of, pack
from litestage.training.recipe import TrainingRecipe

T = TypeVar("T")
BUCKET = 32
"""Batches whose questions are sorted by length together."""


class Order(Protocol):
    """The packs of every step."""

    @property
    def steps_per_epoch(self) -> int: ...

    def packs(self, step: int) -> list[Packed]: ...


def make_order(
    recipe: TrainingRecipe,
    task: Task,
    questions: Sequence[Question],
    encoder: PromptEncoder,
    context: int,
    skipping: Collection[int] = (),
) -> Order:
    """Encode all questions once; raises `DataError` for one without targets or longer than ``context`` tokens.

    ``skipping`` are the stages, by index, that leave sub-layers out while they write (`pack`).
    """
    if not questions:
        raise DataError("There are no questions to train on. Check --data, --split and --limit.")
    encoded = [_fitting(examples_of(task, question, encoder), question, context) for question in questions]
    if recipe.order == "cycles":
        return Cycles(encoded, recipe.batch_size, recipe.interval, recipe.seed, skipping)
    return PackedOrder(encoded, recipe.batch_size, recipe.seed, _rarer(recipe, task), _fewer(recipe, task), skipping)


class PackedOrder:
    """Every step takes ``batch_size`` whole questions of about one length; an epoch takes each question once.

    ``every`` names stages, by index, that only each Nth step teaches; ``branches`` those of whose examples a step draws
    so many of each question.
    """

    def __init__(
        self,
        encoded: Sequence[Sequence[Example]],
        batch_size: int,
        seed: int,
        every: Mapping[int, int],
        branches: Mapping[int, int],
        skipping: Collection[int] = (),
    ) -> None:
        self._encoded, self._batch_size, self._seed = encoded, batch_size, seed
        self._every, self._branches, self._skipping = every, branches, skipping
        self.steps_per_epoch = ceil(len(encoded) / batch_size)
        self._batches_of = lru_cache(maxsize=1)(self._epoch)

    def packs(self, step: int) -> list[Packed]:
        epoch, index = divmod(step, self.steps_per_epoch)
        rng = random.Random(f"{self._seed} step {step}")
        taught = [list(self._taught(step, self._encoded[i], rng)) for i in self._batches_of(epoch)[index]]
        return [pack(examples, self._skipping) for examples in taught]

    def _taught(self, step: int, examples: Sequence[Example], rng: random.Random) -> Iterator[Example]:
        """A question's examples that this step teaches."""
        for stage, group in groupby(examples, key=lambda example: example.stage):
            some = list(group)
            if step % self._every.get(stage, 1) == 0:
                yield from rng.sample(some, min(len(some), self._branches.get(stage, len(some))))

    def _epoch(self, epoch: int) -> list[list[int]]:
        rng = random.Random(f"{self._seed} epoch {epoch}")
        shuffled = rng.sample(range(len(self._encoded)), len(self._encoded))
        batches: list[list[int]] = []
        for window in _chunks(shuffled, self._batch_size * BUCKET):
            batches += _chunks(sorted(window, key=self._length), self._batch_size)
        rng.shuffle(batches)
        return batches

    def _length(self, index: int) -> int:
        return max(len(example.prompt) + len(example.target) for example in self._encoded[index])


class Cycles:
    """``interval`` steps of the first stage, as many of the next times its branches, and so on; then new questions.

    A step takes ``batch_size`` examples of one stage; within a cycle all stages learn from the same questions.
    """

    def __init__(
        self,
        encoded: Sequence[Sequence[Example]],
        batch_size: int,
        interval: int,
        seed: int,
        skipping: Collection[int] = (),
    ) -> None:
        self._encoded, self._batch_size, self._interval, self._seed = encoded, batch_size, interval, seed
        self._skipping = skipping
        self._steps = self._epoch(0)
        self._epochs = 1
        self.steps_per_epoch = len(self._steps)

    def packs(self, step: int) -> list[Packed]:
        while step >= len(self._steps):
            self._steps += self._epoch(self._epochs)
            self._epochs += 1
        return [pack([example], self._skipping) for example in self._steps[step]]

    def _epoch(self, epoch: int) -> list[list[Example]]:
        rng = random.Random(f"{self._seed} epoch {epoch}")
        shuffled = rng.sample(list(self._encoded), len(self._encoded))
        return [step for cycle in _chunks(shuffled, self._batch_size * self._interval) for step in self._cycle(cycle)]

    def _cycle(self, questions: Sequence[Sequence[Example]]) -> list[list[Example]]:
        examples = [example for question in questions for example in question]
        stages = sorted({example.stage for example in examples})
        return [
            step for stage in stages for step in _chunks([e for e in examples if e.stage == stage], self._batch_size)
        ]


def _chunks(items: Sequence[T], size: int) -> list[list[T]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def _fitting(examples: list[Example], question: Question, context: int) -> list[Example]:
    longest = max(len(example.prompt) + len(example.target) for example in examples)
    if longest > context:
        raise DataError(
            f"Question {question.id} makes a sequence of {longest} tokens with its targets, but the model reads "
            f"{context} at most. Shorten it or leave it out."
        )
    return examples


def _rarer(recipe: TrainingRecipe, task: Task) -> dict[int, int]:
    every = _by_index(recipe.every, "every", task)
    if len(every) == len(task.stages) and min(every.values()) > 1:
        raise OptionError("The recipe's `every` leaves steps without any stage. Leave out the stages that matter most.")
    return every


def _fewer(recipe: TrainingRecipe, task: Task) -> dict[int, int]:
    return _by_index(recipe.branches, "branches", task)


def _by_index(by_name: Mapping[str, int], field: str, task: Task) -> dict[int, int]:
    if unknown := sorted(set(by_name) - set(task.stage_names)):
        raise OptionError(
            f"The recipe's `{field}` names {unknown[0]!r}, which is not a stage of task {task.name}. "
            f"Its stages are {', '.join(task.stage_names)}."
        )
    return {task.stage_names.index(name): number for name, number in by_name.items()}
