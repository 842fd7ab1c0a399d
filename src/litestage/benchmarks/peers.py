"""Other engines, timed beside ours: transformers, llama.cpp on a CPU, and vLLM on a GPU, where they are installed."""

from __future__ import annotations

import ctypes
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from litestage.core import (
    FULL_DEPTH,
    Completion,
    Counts,
    Event,
    Finished,
    LitestageError,
    NewText,
    NewToken,
    OptionError,
    Request,
    TokenIds,
)
from litestage.core.choices import allowed, probabilities
from litestage.core.engine import EngineAround
from litestage.engine import TorchEngine
from litestage.engine.step_times import StepTimes, works_behind
from litestage.models import catalog

Steps = Callable[[int], float]
"""Seconds of a decode step, among so many that follow one another."""
TRANSFORMERS, LLAMA_CPP, VLLM = "transformers", "llama.cpp", "vllm"
PEERS = (TRANSFORMERS, LLAMA_CPP, VLLM)
VLLM_MEMORY = 0.4
"""Of the GPU's, which it takes at its start, whatever the model needs."""


def usable_peers(wanted: str, model: str, device: torch.device) -> list[str]:
    """The peers named, separated by commas; ``all`` are those that run here, ``none`` none.

    vLLM takes a share of the GPU and minutes to start, so it is never one of ``all``.
    """
    if wanted == "none":
        return []
    reasons = {LLAMA_CPP: _why_not_llama(model, device), VLLM: _why_not_vllm(device)}
    if wanted == "all":
        return [name for name in PEERS if name != VLLM and not reasons.get(name)]
    for name in wanted.split(","):
        if name not in PEERS:
            raise OptionError(f"--peers {name} is not known. Choose from {', '.join(PEERS)}; all; or none.")
        if reason := reasons.get(name):
            raise OptionError(f"--peers {name} cannot run: {reason}")
    return wanted.split(",")


def _why_not_llama(model: str, device: torch.device) -> str | None:
    if find_spec("llama_cpp") is None:
        return "llama-cpp-python is not installed. pip install llama-cpp-python, or leave it out."
    if catalog.resolve(model).suffix.lower() != ".gguf":
        return f"it reads GGUF files, and {model} is none. Give one as --model, or leave it out."
    if device.type != "cpu":
        return "it is timed on the CPU alone. Add --device cpu, or leave it out."
    return None


def _why_not_vllm(device: torch.device) -> str | None:
    if find_spec("vllm") is None:
        return "vllm is not installed. pip install vllm, or leave it out."
    if device.type != "cuda":
        return f"it is timed on CUDA alone, and the device is {device.type}. Add --device cuda, or leave it out."
    return None


class _Watch(StoppingCriteria):  # type: ignore[misc]
    """Notes the time after every token, and stops nothing."""

    def __init__(self, clock: StepTimes) -> None:
        self.clock = clock

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        if self.clock.times:
            self.clock.note()
        else:
            self.clock.start()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def transformers_steps(model: PreTrainedModel, cache: str, prompts: Sequence[TokenIds]) -> Steps:
    """Of its own greedy `generate`, where the model is; ``cache`` is dynamic or static."""
    return partial(_timed_generate, model, cache, torch.tensor(prompts, device=model.device))


@torch.inference_mode()
def _timed_generate(model: PreTrainedModel, cache: str, ids: torch.Tensor, count: int) -> float:
    """The first token comes from prefill: time begins with it."""
    clock = StepTimes(ids.device, count)
    options: dict[str, Any] = {"cache_implementation": "static"} if cache == "static" else {}
    if not works_behind(ids.device):  # on a processor compiling takes minutes and gains nothing
        options["disable_compile"] = True
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=count + 1,
        min_new_tokens=count + 1,
        pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([_Watch(clock)]),
        **options,
    )
    return clock.step


class TransformersEngine(EngineAround):
    """Prompts by transformers' own `generate`, at full depth: sorted by length, padded on the left, in batches.

    Rows end at EOS or a stop string, and a batch when all its rows have ended. Requests of a batch have the same stop
    strings, sampling and limit. An answer by choice is `generate` with the tokens that may come next. Prompts are
    encoded as by ``ours``; draws are torch's own, without a request's seed.
    """

    def __init__(self, model: PreTrainedModel, ours: TorchEngine, batch_size: int) -> None:
        super().__init__(ours)
        self.model, self.ours, self.batch_size = model, ours, batch_size
        self._next_id = 0
        self._waiting: dict[int, tuple[Request, int, bool]] = {}
        """Requests by id, the shortest prompt first: most new tokens, and whether somebody listens."""

    @property
    def keeps_written(self) -> bool:
        return False

    def add(self, request: Request, *, stream: bool = False) -> int:
        """See `litestage.core.Engine`; tokens are told when their batch has ended."""
        self._next_id += 1
        self._waiting[self._next_id] = request, self._limit(request), stream
        return self._next_id

    def cancel(self, id: int) -> None:
        """See `litestage.core.Engine`."""
        self._waiting.pop(id, None)

    def work(self) -> list[Event]:
        """A batch: the shortest prompt that waits, and those like it that are next in length."""
        order = sorted(self._waiting, key=lambda id: len(self._waiting[id][0].prompt_ids))
        if not order:
            return []
        like = [id for id in order if self._kind(id) == self._kind(order[0])][: self.batch_size]
        asked = {id: self._waiting.pop(id) for id in like}
        events: list[Event] = []
        done = self._batch([request for request, _, _ in asked.values()], asked[like[0]][1])
        for (id, (_, _, stream)), completion in zip(asked.items(), done, strict=True):
            if stream:
                events += [NewToken(id, token) for token in completion.token_ids] + [NewText(id, completion.text)]
            events.append(Finished(id, completion))
        return events

    def _kind(self, id: int) -> object:
        request, limit, _ = self._waiting[id]
        return request.stop, request.sampling, limit, bool(request.choices)

    def _limit(self, request: Request) -> int:
        """Most new tokens; raises `OptionError` for what transformers cannot run."""
        if request.stage_plan != FULL_DEPTH:
            raise OptionError(f"{TRANSFORMERS} decodes at full depth and without exit alone. Leave the plan out.")
        return self.ours.check(request)

    @torch.inference_mode()
    def _batch(self, requests: Sequence[Request], limit: int) -> list[Completion]:
        width = max(len(request.prompt_ids) for request in requests)
        ids = [[self.eos_id] * (width - len(request.prompt_ids)) + [*request.prompt_ids] for request in requests]
        mask = [[0] * (width - len(request.prompt_ids)) + [1] * len(request.prompt_ids) for request in requests]
        out = self.model.generate(
            torch.tensor(ids, device=self.model.device),
            attention_mask=torch.tensor(mask, device=self.model.device),
            max_new_tokens=limit,
            pad_token_id=self.eos_id,
            eos_token_id=list(self.ours.model.eos_ids),
            stopping_criteria=StoppingCriteriaList([_Stops(self.ours, requests[0].stop, width)]),
            return_dict_in_generate=True,
            **_sampling(requests[0]),
            **_choosing(requests, width, self.eos_id),
        )
        written = [row[width:].tolist() for row in out.sequences]
        return [
            self._completion(request, tokens) if not request.choices else self._chosen(request, tokens, out.logits, row)
            for row, (request, tokens) in enumerate(zip(requests, written, strict=True))
        ]

    def _chosen(self, request: Request, tokens: list[int], logits: Sequence[torch.Tensor], row: int) -> Completion:
        """An answer by choice, with what `generate` saw at its forks."""
        chosen = next(i for i, one in enumerate(request.choices) if list(one) == tokens[: len(one)])
        text = request.choices[chosen]
        asked = []
        for at in range(len(text)):
            if len(only := allowed(request.choices, text[:at])) > 1:
                likely = logits[at][row, only].softmax(-1).tolist()
                asked.append((at, dict(zip(only, likely, strict=True))))
        return Completion(
            token_ids=text,
            text=self.decode(text[:-1]),
            confidences=(1.0,) * len(text),
            finish_reason="eos",
            counts=Counts(prefilled=len(request.prompt_ids), decoded=len(text) - 1),
            choices=probabilities(request.choices, text, asked),
            chosen=chosen,
        )

    def _completion(self, request: Request, tokens: list[int]) -> Completion:
        """Tokens end where the row did: what `generate` fills a batch up with behind it was not written."""
        ended = next((i for i, token in enumerate(tokens) if token in self.ours.model.eos_ids), None)
        written = tokens[:ended]
        stops = self.ours.detokeniser.stops
        stopped = next((n for n in range(1, len(written) + 1) if stops(written[:n], request.stop)), None)
        if stopped is not None:
            tokens = tokens[:stopped]
        elif ended is not None:
            tokens = tokens[: ended + 1]
        return Completion(
            token_ids=tuple(tokens),
            text=self.decode(written) if stopped is None else self.ours.detokeniser.until(tokens, request.stop),
            confidences=(1.0,) * len(tokens),
            finish_reason="stop" if stopped is not None else "length" if ended is None else "eos",
            counts=Counts(prefilled=len(request.prompt_ids), decoded=len(tokens) - 1),
        )


def _choosing(requests: Sequence[Request], width: int, end: int) -> dict[str, Any]:
    """What `generate` takes of answers by choice; nothing where they are free."""
    if not requests[0].choices:
        return {}

    def may_follow(row: int, ids: torch.Tensor) -> list[int]:
        return allowed(requests[row].choices, ids[width:].tolist()) or [end]

    return {"prefix_allowed_tokens_fn": may_follow, "output_logits": True}


def _sampling(request: Request) -> dict[str, Any]:
    drawn = request.sampling
    if drawn.is_greedy:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": drawn.temperature, "top_k": drawn.top_k, "top_p": drawn.top_p}


class _Stops(StoppingCriteria):  # type: ignore[misc]
    """Ends a row whose last token ends a stop string."""

    def __init__(self, engine: TorchEngine, stop: Sequence[str], width: int) -> None:
        self.engine, self.stop, self.width = engine, stop, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        stops = self.engine.detokeniser.stops
        ended = [stops(row, self.stop) for row in input_ids[:, self.width :].tolist()]
        return torch.tensor(ended, device=input_ids.device)


class LlamaCpp:
    """llama.cpp on all of torch's threads, several rows as sequences of one batch; the argmax is taken, as by us.

    It has a process of its own: it sets up a processor's tile registers once and trusts that nobody else does, which
    torch and we do. Where it dies of the layout it gives weights for them, as 0.3.36 does of Q4_1, it runs without.
    """

    def __init__(self, model: str, rows: int, context: int) -> None:
        path = str(Path(catalog.resolve(model)))
        for self.repacked in (True, False):
            made_of = (path, rows, context, torch.get_num_threads(), self.repacked)
            self._process = ProcessPoolExecutor(1, get_context("spawn"), initializer=_load_llama, initargs=made_of)
            try:
                self._process.submit(_llama_steps, [(1,) * 32] * rows, 3).result()
                return
            except BrokenProcessPool:
                self._process.shutdown()
        raise LitestageError(f"llama.cpp died when it decoded with {model}. Leave it out: --peers {TRANSFORMERS}.")

    def steps(self, prompts: Sequence[TokenIds]) -> Steps:
        return lambda count: self._process.submit(_llama_steps, prompts, count).result()


_llama: _Llama | None = None
"""What its process holds."""


def _load_llama(path: str, rows: int, context: int, threads: int, repacked: bool) -> None:
    global _llama
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits for this one
    _llama = _Llama(path, rows, context, threads, repacked)


def _llama_steps(prompts: Sequence[TokenIds], count: int) -> float:
    assert _llama is not None
    return _llama.steps(prompts, count)


class _Llama:
    """llama.cpp in this process, by its C interface."""

    def __init__(self, path: str, rows: int, context: int, threads: int, repacked: bool) -> None:
        import llama_cpp

        self._lib: Any = llama_cpp
        llama_cpp.llama_backend_init()
        llama_cpp.llama_log_set(_SILENT, ctypes.c_void_p(0))
        params = llama_cpp.llama_model_default_params()
        params.use_extra_bufts = repacked
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = context * rows, rows, False
        params.n_batch = params.n_ubatch = self._most = max(512, rows)
        params.n_threads = params.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(self._most, 0, 1)

    def steps(self, prompts: Sequence[TokenIds], count: int) -> float:
        """Seconds of a step behind prompts of one length, which are prefilled outside the timing."""
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        for row, prompt in enumerate(prompts):
            entries = [(token, at, row) for at, token in enumerate(prompt)]
            for start in range(0, len(entries), self._most):
                self._decode(entries[start : start + self._most])
        rows, context = len(prompts), len(prompts[0])
        tokens, clock = [1] * rows, StepTimes(torch.device("cpu"), count)
        clock.start()
        for step in range(count):
            self._decode([(token, context + step, row) for row, token in enumerate(tokens)])
            logits = self._lib.llama_get_logits(self._context)
            tokens = np.ctypeslib.as_array(logits, (rows, self._vocabulary)).argmax(-1).tolist()
            clock.note()
        return clock.step

    def _decode(self, entries: Sequence[tuple[int, int, int]]) -> None:
        """Tokens with their positions and rows; logits of all."""
        batch = self._batch
        batch.n_tokens = len(entries)
        for i, (token, position, row) in enumerate(entries):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, position, 1, row
            batch.logits[i] = True
        if self._lib.llama_decode(self._context, batch):
            raise RuntimeError("llama.cpp could not decode")


class Vllm:
    """vLLM in bf16 on the same weights, which it reads from a folder written for it.

    Written against its documented interface; we have not run it.
    """

    def __init__(self, source: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: int, context: int) -> None:
        import vllm

        self._sampling: Any = vllm.SamplingParams
        with TemporaryDirectory() as folder:
            source.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            self._llm = vllm.LLM(
                model=folder,
                dtype="bfloat16",
                max_model_len=context,
                max_num_seqs=rows,
                gpu_memory_utilization=VLLM_MEMORY,
            )

    def steps(self, prompts: Sequence[TokenIds]) -> Steps:
        return partial(self._step, [{"prompt_token_ids": list(prompt)} for prompt in prompts])

    def _step(self, prompts: Sequence[dict[str, list[int]]], count: int) -> float:
        """It tells no step's end, so a generation of one token, from prefill, is taken off a long one."""
        return (self._seconds(prompts, count + 1) - self._seconds(prompts, 1)) / count

    def _seconds(self, prompts: Sequence[dict[str, list[int]]], tokens: int) -> float:
        sampling = self._sampling(
            temperature=0, max_tokens=tokens, min_tokens=tokens, ignore_eos=True, detokenize=False
        )
        start = time.perf_counter()
        self._llm.generate(prompts, sampling, use_tqdm=False)
        return time.perf_counter() - start


_SILENT = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
