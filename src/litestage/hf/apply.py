"""Run a plan inside transformers' own `generate`: `apply_plan`.

While a plan is applied, the model's ``forward`` and those of its blocks are replaced by ones that know what the calling
thread leaves out: prompts run as ever, and forwards of generated tokens run the sub-layers that the plan keeps.
"""

from __future__ import annotations

import functools
import inspect
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, LogitsProcessorList, PreTrainedModel

from litestage.core import PlanError, StagePlan
from litestage.hf.blocks import NOTHING_SKIPPED, Blocks, Kept, find_blocks, kept
from litestage.hf.cache import advance, skip_in
from litestage.hf.exit import ExitProcessor
from litestage.hf.folder import PlanFolder, load_plan

PATCHED: WeakKeyDictionary[nn.Module, Patch] = WeakKeyDictionary()
LOCK = threading.Lock()
OF_GENERATE = tuple(inspect.signature(GenerationMixin.generate).parameters)[1:]
"""Names of what `generate` takes by position."""


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
    _refuse_virtual_tokens(model)
    blocks = find_blocks(causal)
    folder.check_fits(causal, len(blocks.layers), by_weights=check)
    run = _run(causal, folder, stage, len(blocks.layers), eos_token_id)
    patch = _installed(causal, blocks)
    runs = patch.runs
    runs.append(run)
    try:
        yield run
    finally:
        runs.remove(run)
        _released(causal, patch)


def _refuse_virtual_tokens(model: nn.Module) -> None:
    adapters = getattr(model, "peft_config", None)
    if isinstance(adapters, dict) and any(getattr(one, "is_prompt_learning", False) for one in adapters.values()):
        raise PlanError(
            "The model has an adapter of virtual tokens (prompt or prefix tuning), which a plan would take for text "
            "that was decoded. Give an adapter that changes weights, such as LoRA."
        )


def refuse_guidance(scale: float | None) -> None:
    """Raise `PlanError` where `generate` would write by two texts."""
    if scale not in (None, 1):
        raise PlanError("guidance_scale reads a second text, of which a plan has no stage. Leave it out.")


def causal_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model itself, which adapters of peft are wrapped around."""
    for module in model.modules() if isinstance(model, nn.Module) else ():
        if isinstance(module, PreTrainedModel) and module.can_generate():
            return module
    raise PlanError(f"{type(model).__name__} holds no model of transformers that generates text.")


@dataclass(eq=False)
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
    unseen: int = 0
    """Tokens of the prompt that logits processors do not see: given as embeddings, or in a cache alone."""
    _read: int = 0

    def begin(self, given: dict[str, Any]) -> None:
        """A text of `generate` from here on: its prompt is what was given, in the cache or not, padding included."""
        names = ("inputs", "input_ids", "inputs_embeds", "attention_mask")
        lengths = {name: int(given[name].shape[1]) for name in names if isinstance(given.get(name), Tensor)}
        if not lengths:
            raise PlanError("generate() was given no prompt, so there is nothing to run at full depth. Give input_ids.")
        self.prompt, self.logits = max(lengths.values()), None
        self.unseen = self.prompt - lengths.get("inputs", lengths.get("input_ids", 0))

    def finish(self) -> None:
        """The text that was begun is over."""
        self.prompt, self.logits, self.unseen = None, None, 0

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
        """Raw logits [B, V] of the token behind ``length`` others that are seen, if the last forward made them."""
        behind = self.end - length - self.unseen
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


class Replacement:
    """A method of one object, before its class's own. Copies and pickles of the object get the original."""

    def __init__(self, original: Callable[..., Any], by: Callable[..., Any]) -> None:
        """``by`` is given the original and its arguments."""
        functools.update_wrapper(self, original)
        self.original, self._by = original, by

    def __call__(self, *inputs: Any, **given: Any) -> Any:
        return self._by(self.original, *inputs, **given)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return deepcopy(self.original, memo)

    def __reduce__(self) -> Any:
        return self.original.__reduce__()


class Patch:
    """What is replaced in one model while any thread applies a plan to it."""

    def __init__(self, model: PreTrainedModel, blocks: Blocks) -> None:
        self.blocks, self.users = blocks, 0
        self._model, self._local = model, threading.local()
        self._earlier = {thread.ident for thread in threading.enumerate()}
        self._unchecked = set() if blocks.known else set(range(len(blocks.layers)))
        self._replaced: list[tuple[nn.Module, str, Any]] = []
        self._replace(model, "generate", self._generate)
        self._replace(model, "init_continuous_batching", self._continuous)
        self._replace(model, "forward", self._forward)
        self._replace(model, "get_compiled_call", self._compiled_call)
        for index, block in enumerate(blocks.layers):
            self._replace(block, "forward", functools.partial(self._block, index))

    @property
    def runs(self) -> list[Run]:
        """What this thread applies, the innermost last."""
        found: list[Run] = self._local.__dict__.setdefault("runs", [])
        return found

    @property
    def run(self) -> Run | None:
        return self.runs[-1] if self.runs else None

    def undo(self) -> None:
        for module, name, before in self._replaced:
            if before is None:
                del module.__dict__[name]
            else:
                module.__dict__[name] = before

    def _replace(self, module: nn.Module, name: str, by: Callable[..., Any]) -> None:
        """An attribute of the object goes before its class's method; another library may have put one there."""
        self._replaced.append((module, name, module.__dict__.get(name)))
        module.__dict__[name] = Replacement(getattr(module, name), by)

    def _generate(self, original: Callable[..., Any], *inputs: Any, **given: Any) -> Any:
        run = self.run
        if run is None and threading.get_ident() not in self._earlier:
            warnings.warn(
                "This thread generates at full depth while another one applies a plan, which holds in the thread that "
                "enters apply_plan alone. Have the thread that generates enter it.",
                stacklevel=3,
            )
        if run is None or run.prompt is not None:
            return original(*inputs, **given)
        given |= zip(OF_GENERATE, inputs, strict=False)
        settings = given.get("generation_config") or self._model.generation_config
        refuse_guidance(given.get("guidance_scale", getattr(settings, "guidance_scale", None)))
        processors = [*(given.pop("logits_processor", None) or ()), *run.processors()]
        run.begin(given)
        try:
            return original(logits_processor=LogitsProcessorList(processors), **given)
        finally:
            run.finish()

    def _continuous(self, original: Callable[..., Any], *inputs: Any, **given: Any) -> Any:
        if self.run is None:
            return original(*inputs, **given)
        raise PlanError("Continuous batching decodes in a thread of its own, where no plan is applied. Use generate().")

    def _forward(self, original: Callable[..., Any], *inputs: Any, **given: Any) -> Any:
        run = self.run
        if run is None or run.inside:
            return original(*inputs, **given)
        return _in_pieces(run, original, *inputs, **given)

    def _compiled_call(self, original: Callable[..., Any], *settings: Any) -> Callable[..., Any]:
        compiled: Callable[..., Any] = original(*settings)
        run = self.run
        return compiled if run is None else functools.partial(_in_pieces, run, compiled)

    def _block(self, index: int, original: Callable[..., Any], x: Tensor, **arguments: Any) -> Any:
        run = self.run
        if run is None:
            return original(x, **arguments)
        if not run.inside:
            raise PlanError(
                "A part of the model was called by itself, so nobody knows which tokens are the prompt's. Call all of "
                "the model, or generate()."
            )
        if index in self._unchecked:
            self.blocks.check(index, original, x, arguments)
            self._unchecked.discard(index)
        block = self.blocks.layers[index]
        if (
            arguments.get("past_key_values") is not None
            and block.training
            and getattr(block, "gradient_checkpointing", False)
        ):
            raise PlanError(
                "Gradient checkpointing drops the cache that a plan decodes behind. Say model.eval() first."
            )
        if index in run.now.blocks:
            return self.blocks.run(index, run.now, x, arguments)
        return original(x, **arguments)


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
    if as_tuple := given.get("return_dict") is False:
        given["return_dict"] = True
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
    return out.to_tuple() if as_tuple else out


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


def _run(model: PreTrainedModel, folder: PlanFolder, stage: str, num_blocks: int, eos_id: int | None) -> Run:
    stage_plan = folder.stage(stage)
    weights = folder.compensation_weights(stage_plan.compensation, model.device, model.dtype)
    segments = tuple(
        (segment.first_step, kept(segment.skipped, weights, num_blocks)) for segment in stage_plan.schedule.segments
    )
    ends = model.generation_config.eos_token_id if model.generation_config is not None else None
    first = ends[0] if isinstance(ends, list) else ends
    if eos_id is not None and not 0 <= eos_id < (size := model.get_input_embeddings().num_embeddings):
        raise PlanError(f"eos_token_id {eos_id} is no token of the model, which has {size}.")
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
