"""The same texts twice: written by the engine, and by transformers' `generate` under a plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tiny
import torch
from transformers import PreTrainedModel

from litestage.core import Plan, StagePlan
from litestage.engine import TorchEngine
from litestage.hf import PlanFolder

LENGTHS = (3, 21, 11, 1, 30)
"""Ragged, a single token among them, most longer than the sliding windows."""
PROMPTS = tuple(tiny.prompt(length) for length in LENGTHS)
Prompts = Sequence[tuple[int, ...]]
NEW = 14
EOS = tiny.tokenizer().eos_token_id


def folder_of(stage_plan: StagePlan, folder: Path = Path(), family: str = "llama") -> PlanFolder:
    identity = tiny.loaded(family).identity
    return PlanFolder(Plan(model=identity, task="tiny", task_fingerprint="0", stages={"s": stage_plan}), folder)


def by_engine(family: str, plan: StagePlan, prompts: Prompts = PROMPTS) -> list[tuple[int, ...]]:
    engine = tiny.engine(family)
    return written_by(engine, plan, prompts)


def written_by(engine: TorchEngine, plan: StagePlan, prompts: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    done = engine.generate(tiny.requests(prompts, max_new_tokens=NEW, stage_plan=plan))
    return [completion.token_ids for completion in done]


def batch(prompts: Sequence[tuple[int, ...]] = PROMPTS) -> dict[str, torch.Tensor]:
    """Padded at the left, as transformers asks for it."""
    longest = max(map(len, prompts))
    ids = [[EOS] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def generated(model: PreTrainedModel, prompts: Prompts = PROMPTS, **options: Any) -> list[tuple[int, ...]]:
    """What `generate` writes behind each prompt, to the end of the text."""
    inputs = batch(prompts)
    settings = {"do_sample": False, "max_new_tokens": NEW, **options}
    out = model.generate(**inputs, **settings)
    return [cut(tokens) for tokens in out[:, inputs["input_ids"].shape[1] :].tolist()]


def cut(tokens: list[int]) -> tuple[int, ...]:
    return tuple(tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens)
