"""Run a plan inside transformers' own `generate`: `apply_plan`.

While a plan is applied, the model's ``forward`` and those of its blocks are replaced by ones that know what the calling
thread leaves out: prompts run as ever, and forwards of generated tokens run the sub-layers that the plan keeps.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import LogitsProcessorList, PreTrainedModel

from litestage.core import PlanError, StagePlan
from litestage.hf.blocks import NOTHING_SKIPPED, Blocks, Kept, find_blocks, kept
from litestage.hf.cache import advance, skip_in
from litestage.hf.exit import ExitProcessor
from litestage.hf.folder import PlanFolder, load_plan

PATCHED: WeakKeyDictionary[nn.Module, Patch] = WeakKeyDictionary()
LOCK = threading.Lock()


@contextmanager
def apply_plan(
    model: nn.Module, plan: PlanFolder | str | Path, stage: str, *, check: bool = True, eos_token_id: int | None = None
) -> Iterator[Run]:
    """Decode under one stage of a plan: ``with apply_plan(model, "runs/plan", stage="analysis"): model.generate(...)``.

    ``plan`` is a plan's folder, a hub id, or what `load_plan` made of one. ``check`` compares the model's weights with
    those that the plan was searched on; leave it out for weights in another form, such as under unmerged adapters or
    in fewer bits. ``eos_token_id`` ends a text that breaks the exit rule; without it the model's first one does.

    Raises `PlanError` for another model, an unknown stage, or blocks whose sub-layers cannot be left out. Afterwards
    the model is what it was. Other threads may use it meanwhile, with plans of their own or none.
    """
    folder = plan if isinstance(plan, PlanFolder) else load_plan(plan)
    causal = causal_model(model)
    blocks = find_blocks(causal)
    folder.check_fits(causal, len(blocks.layers), by_weights=check)
    run = _run(causal, folder, stage, len(blocks.layers), eos_token_id)
    patch = _installed(causal, blocks)
    before = patch.run
    patch.local.run = run
    try:
        yield run
    finally:
        patch.local.run = before
        _released(causal, patch)


def causal_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model itself, which adapters of peft are wrapped around."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and module.can_generate():
            return module
    raise PlanError(f"{type(model).__name__} holds no model of transformers that generates text.")


@dataclass
class Run:
    """One text, or one batch of texts, being written under a stage's plan in one thread."""

    stage_plan: StagePlan
    segments: tuple[tuple[int, Kept], ...]
    """First decode step and what is left out from there on."""
    eos_id: int | None
    prompt: int | None = None
    """Tokens of the prompt, padding included; None outside of `generate`, where a forward of several tokens is one."""
    inside: bool = False
    """Whether a forward of this run is under way, so that one within it is a part of it."""
    now: Kept = NOTHING_SKIPPED
    logits: Tensor | None = field(default=None, repr=False)
    """The last forward's, [B, T, V], raw."""
    end: int = 0
    """Tokens a row has behind the last forward."""
    _read: int = 0

    def pieces(self, past: int, tokens: int) -> Iterator[tuple[int, int, Kept]]:
        """Tokens [start, stop) of a forward behind ``past`` others that run alike, and what they leave out.

        A forward may hold the end of a prompt and a draft behind it, and a draft may cross a segment of the schedule.
        """
        if self.prompt is None and (tokens > 1 or not past):
            self._read = past + tokens
        prompt = self._read if self.prompt is None else self.prompt
        ends = [prompt, *(prompt + first for first, _ in self.segments[1:]), past + tokens]
        start = past
        for stop in ends:
            if start < (stop := min(stop, past + tokens)):
                step = start - prompt
                yield start - past, stop - past, NOTHING_SKIPPED if step < 0 else self._at(step)
                start = stop

    def _at(self, step: int) -> Kept:
        return [what for first, what in self.segments if first <= step][-1]

    def raw(self, length: int) -> Tensor | None:
        """Raw logits [B, V] of the token behind ``length`` others, if the last forward made them."""
        behind = self.end - length
        if self.logits is None or not 0 <= behind < self.logits.shape[1]:
            return None
        return self.logits[:, self.logits.shape[1] - 1 - behind]

    def processors(self) -> list[ExitProcessor]:
        """The exit rule for one text, if the stage has one."""
        if self.stage_plan.exit is None:
            return []
        if self.eos_id is None:
            raise PlanError("The model names no end-of-sequence token to exit with. Give eos_token_id to apply_plan.")
        return [ExitProcessor(self.stage_plan.exit, self.eos_id, self.raw)]


class Patch:
    """What is replaced in one model while any thread applies a plan to it."""

    def __init__(self, model: PreTrainedModel, blocks: Blocks) -> None:
        self.blocks, self.users = blocks, 0
        self.local = threading.local()
        self._checked = blocks.known
        self._replaced: list[tuple[nn.Module, str, Any]] = []
        self._replace(model, "generate", self._generate(model))
        self._replace(model, "forward", self._forward(model))
        self._replace(model, "get_compiled_call", self._compiled_call(model))
        for index, block in enumerate(blocks.layers):
            self._replace(block, "forward", self._block(index, block.forward))

    @property
    def run(self) -> Run | None:
        """What this thread applies."""
        found: Run | None = getattr(self.local, "run", None)
        return found

    def undo(self) -> None:
        for module, name, before in self._replaced:
            if before is None:
                del module.__dict__[name]
            else:
                module.__dict__[name] = before

    def _replace(self, module: nn.Module, name: str, by: Callable[..., Any]) -> None:
        """An attribute of the object goes before its class's method; another library may have put one there."""
        self._replaced.append((module, name, module.__dict__.get(name)))
        module.__dict__[name] = by

    def _generate(self, model: PreTrainedModel) -> Callable[..., Any]:
        original = model.generate

        @functools.wraps(original)
        def generate(inputs: Tensor | None = None, *more: Any, **given: Any) -> Any:
            run = self.run
            if run is None or run.prompt is not None or given.get("custom_generate") is not None:
                return original(inputs, *more, **given)
            processors = [*(given.pop("logits_processor", None) or ()), *run.processors()]
            run.prompt = prompt_tokens(inputs, given)
            try:
                return original(inputs, *more, logits_processor=LogitsProcessorList(processors), **given)
            finally:
                run.prompt, run.logits = None, None

        return generate

    def _forward(self, model: PreTrainedModel) -> Callable[..., Any]:
        original = model.forward

        @functools.wraps(original)
        def forward(*inputs: Any, **given: Any) -> Any:
            run = self.run
            if run is None or run.inside:
                return original(*inputs, **given)
            return _in_pieces(run, original, *inputs, **given)

        return forward

    def _compiled_call(self, model: PreTrainedModel) -> Callable[..., Any]:
        original = model.get_compiled_call

        @functools.wraps(original)
        def get_compiled_call(*settings: Any) -> Callable[..., Any]:
            compiled = original(*settings)
            run = self.run
            return compiled if run is None else functools.partial(_in_pieces, run, compiled)

        return get_compiled_call

    def _block(self, index: int, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def forward(hidden_states: Tensor, **arguments: Any) -> Any:
            run = self.run
            if run is None:
                return original(hidden_states, **arguments)
            if index in run.now.blocks:
                return self.blocks.run(index, run.now, hidden_states, arguments)
            if not self._checked:
                self._check(index, original, hidden_states, arguments)
            return original(hidden_states, **arguments)

        return forward

    def _check(self, index: int, original: Callable[..., Any], x: Tensor, arguments: dict[str, Any]) -> None:
        """On the first prompt, where a block reads no cache yet."""
        cache = arguments.get("past_key_values")
        if cache is None or not cache.get_seq_length(index):
            self.blocks.check(index, original, x, arguments)
            self._checked = index == len(self.blocks.layers) - 1


def _in_pieces(run: Run, forward: Callable[..., Any], input_ids: Tensor | None = None, **given: Any) -> Any:
    """One forward of a causal model: what runs alike at once, and the logits of all of it."""
    embeds, cache = given.get("inputs_embeds"), given.get("past_key_values")
    tokens = (input_ids if embeds is None else embeds).shape[1]  # type: ignore[union-attr]
    past = int(cache.get_seq_length()) if cache is not None else 0
    pieces = list(run.pieces(past, tokens))
    if cache is None and (len(pieces) > 1 or pieces[0][2].skipped):
        raise PlanError("A plan skips while decoding behind a cache of the prompt. Leave use_cache on.")
    out: Any = None
    logits: list[Tensor] = []
    run.inside = True
    try:
        for start, stop, what in pieces:
            whole = {"input_ids": input_ids, **given}
            part = whole if len(pieces) == 1 else _part(whole, (start, stop), past, tokens)
            if cache is not None:
                skip_in(cache, what.attentions)
            run.now = what
            out = forward(**part)
            logits.append(out.logits)
            if cache is not None:
                advance(cache, what.attentions, stop - start)
    finally:
        run.inside, run.now = False, NOTHING_SKIPPED
    if len(pieces) > 1:
        out.logits = torch.cat(logits, dim=1)[:, -_wanted(given, tokens) :]
    run.logits, run.end = out.logits, past + tokens
    return out


def _part(whole: dict[str, Any], at: tuple[int, int], past: int, tokens: int) -> dict[str, Any]:
    """The arguments of a forward for some of its tokens alone, ``at`` [start, stop) of them."""
    (start, stop), part = at, dict(whole)
    for name, along in (("input_ids", 1), ("inputs_embeds", 1), ("position_ids", -1)):
        if (value := whole.get(name)) is not None:
            part[name] = value.narrow(along, start, stop - start)
    if (mask := whole.get("attention_mask")) is not None:
        if not isinstance(mask, Tensor) or mask.dim() != 2:
            raise PlanError("A draft behind a prompt needs an attention mask of two dimensions, [rows, tokens].")
        part["attention_mask"] = mask[:, : past + stop]
    part["logits_to_keep"] = max(1, min(stop - start, _wanted(whole, tokens) - (tokens - stop)))
    return part


def _wanted(given: dict[str, Any], tokens: int) -> int:
    """Of how many of the last tokens the caller wants logits."""
    return int(given.get("logits_to_keep") or 0) or tokens


def prompt_tokens(inputs: Tensor | None, given: dict[str, Any]) -> int:
    """Tokens that `generate` was given, in the cache or not, padding included."""
    lengths = [
        int(value.shape[1])
        for value in (inputs, given.get("input_ids"), given.get("inputs_embeds"), given.get("attention_mask"))
        if isinstance(value, Tensor)
    ]
    if not lengths:
        raise PlanError("generate() was given no prompt, so there is nothing to run at full depth. Give input_ids.")
    return max(lengths)


def _run(model: PreTrainedModel, folder: PlanFolder, stage: str, num_blocks: int, eos_id: int | None) -> Run:
    stage_plan = folder.stage(stage)
    weights = folder.compensation_weights(stage_plan.compensation, model.device, model.dtype)
    segments = tuple(
        (segment.first_step, kept(segment.skipped, weights, num_blocks)) for segment in stage_plan.schedule.segments
    )
    ends = model.generation_config.eos_token_id if model.generation_config is not None else None
    first = ends[0] if isinstance(ends, list) else ends
    return Run(stage_plan, segments, first if eos_id is None else eos_id)


def _installed(model: PreTrainedModel, blocks: Blocks) -> Patch:
    with LOCK:
        if model not in PATCHED:
            PATCHED[model] = Patch(model, blocks)
        patch = PATCHED[model]
        patch.users += 1
        return patch


def _released(model: PreTrainedModel, patch: Patch) -> None:
    with LOCK:
        patch.users -= 1
        if not patch.users:
            del PATCHED[model]
            patch.undo()
