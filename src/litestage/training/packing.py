"""From questions to tensors: every stage and branch of a question in one sequence under a tree mask.

The prompts of a question's stages share long beginnings. Laid out as a trie of token ids, each shared token stands
once, sees its ancestors alone, and has its depth as position: exactly what every prompt with its target would compute
in a sequence of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from litestage.core.errors import DataError
from litestage.models.prompts import PromptEncoder
from litestage.tasks.question import Question
from litestage.tasks.task import Task

Ids = tuple[int, ...]
Ints = NDArray[np.int32]
PROMPT = -1
"""In place of a stage: a node that every stage computes alike."""


class Example(NamedTuple):
    """One prompt and what should follow it, as token ids; the target ends in EOS."""

    stage: int
    prompt: Ids
    target: Ids


@dataclass(frozen=True)
class Packed:
    """A trie of examples in preorder: node ``i``'s descendants are the nodes ``i + 1`` to ``end[i] - 1``."""

    token: Ints
    position: Ints
    end: Ints
    source: Ints
    """Per target token: the node that predicts it."""
    label: Ints
    """Per target token: its id."""
    decoded_by: Ints
    """Per node: the stage that leaves sub-layers out when it writes it, or ``PROMPT``."""

    def __len__(self) -> int:
        return len(self.token)


@dataclass(frozen=True)
class Batch:
    """B packed sequences padded to T nodes, with N target tokens."""

    input_ids: torch.Tensor  # [B, T]
    position_ids: torch.Tensor  # [B, T]
    mask: torch.Tensor  # [B, 1, T, T], True where row's node sees column's
    source: torch.Tensor  # [N], index into the flattened B * T nodes
    label: torch.Tensor  # [N]
    decoded_by: torch.Tensor  # [B, T], as in `Packed`

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, field).to(device, non_blocking=True) for field in self.__dataclass_fields__))


def texts_of(task: Task, question: Question) -> Iterator[tuple[str, str]]:
    """(prompt, target) of every stage and branch, later prompts built on the earlier stages' targets."""
    for _, prompt, target in _teacher_forced(task, question):
        yield prompt, target


def examples_of(task: Task, question: Question, encoder: PromptEncoder) -> list[Example]:
    """The question's examples: prompts as they are encoded when the model generates, targets as what follows them."""
    stages, prompts, targets = zip(*_teacher_forced(task, question), strict=True)
    return [
        Example(stage, *taught)
        for stage, taught in zip(stages, encoder.teach(prompts, targets, task.chat), strict=True)
    ]


def pack(examples: Sequence[Example], skipping: Collection[int] = ()) -> Packed:
    """Lay examples out as one trie. In sorted order each shares a beginning with its neighbour, and nodes come in
    preorder by themselves.

    What the stages in ``skipping`` write shares no node with prompts: there the same tokens run at full depth.
    """
    token: list[int] = []
    position: list[int] = []
    end: list[int] = []
    source: list[int] = []
    label: list[int] = []
    decoded_by: list[int] = []
    path: list[int] = []
    for nodes, prompt_length in sorted((_nodes(example, skipping), len(example.prompt)) for example in examples):
        inputs = nodes[:-1]
        shared = _common([(token[node], decoded_by[node]) for node in path], inputs)
        for node in path[shared:]:
            end[node] = len(token)
        del path[shared:]
        for depth in range(shared, len(inputs)):
            path.append(len(token))
            token.append(inputs[depth][0])
            decoded_by.append(inputs[depth][1])
            position.append(depth)
            end.append(0)
        source.extend(path[prompt_length - 1 :])
        label.extend(token for token, _ in nodes[prompt_length:])
    for node in path:
        end[node] = len(token)
    columns = (token, position, end, source, label, decoded_by)
    return Packed(*(np.asarray(column, dtype=np.int32) for column in columns))


def _nodes(example: Example, skipping: Collection[int]) -> list[tuple[int, int]]:
    """Each token with the stage that writes it, where that makes a difference."""
    by = example.stage if example.stage in skipping else PROMPT
    return [(token, PROMPT) for token in example.prompt] + [(token, by) for token in example.target]


def collate(packs: Sequence[Packed]) -> Batch:
    """Pad packed sequences to one length; a pad node sees itself alone and predicts nothing."""
    rows, width = len(packs), max(len(pack) for pack in packs)
    token = np.zeros((rows, width), dtype=np.int64)
    position = np.zeros((rows, width), dtype=np.int64)
    end = np.tile(np.arange(1, width + 1), (rows, 1))
    decoded_by = np.full((rows, width), PROMPT)
    for row, pack in enumerate(packs):
        token[row, : len(pack)], position[row, : len(pack)] = pack.token, pack.position
        end[row, : len(pack)], decoded_by[row, : len(pack)] = pack.end, pack.decoded_by
    node = np.arange(width)
    mask = (node[:, None] >= node) & (node[:, None] < end[:, None, :])
    return Batch(
        input_ids=torch.from_numpy(token),
        position_ids=torch.from_numpy(position),
        mask=torch.from_numpy(mask[:, None]),
        source=torch.from_numpy(
            np.concatenate([row * width + p.source.astype(np.int64) for row, p in enumerate(packs)])
        ),
        label=torch.from_numpy(np.concatenate([p.label.astype(np.int64) for p in packs])),
        decoded_by=torch.from_numpy(decoded_by),
    )


def _teacher_forced(task: Task, question: Question) -> Iterator[tuple[int, str, str]]:
    texts: dict[str, str] = {}
    for index, stage in enumerate(task.stages):
        prompts, targets = task.prompts(stage, question, texts), task.targets(stage, question)
        if targets is None or len(targets) != len(prompts):
            raise DataError(
                f"Question {question.id} has {len(targets or [])} targets for stage {stage.name}, which asks "
                f"{len(prompts)} prompts: there is nothing to learn from. Give it one text a prompt."
            )
        yield from ((index, prompt, target) for prompt, target in zip(prompts, targets, strict=True))
        texts[stage.name] = stage.join_texts(targets, question)


def _common(left: Sequence[object], right: Sequence[object]) -> int:
    for length, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return length
    return min(len(left), len(right))
