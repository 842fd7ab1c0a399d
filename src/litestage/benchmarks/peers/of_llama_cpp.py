"""llama.cpp, timed beside ours on a CPU."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from litestage.benchmarks.peers.batches import Steps
from litestage.core import LitestageError, TokenIds
from litestage.engine.step_times import StepTimes
from litestage.models import catalog


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
        raise LitestageError(f"llama.cpp died when it decoded with {model}. Leave it out: --peers transformers.")

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


_SILENT = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
