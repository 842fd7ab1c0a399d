"""Decode steps of fixed shapes over fixed memory: a GPU captures each once, and replays it as one launch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from litestage.core import Compensation, Sampling, SkipSet
from litestage.engine.sampling import decide
from litestage.kernels import Kernels
from litestage.models.cache import Cache
from litestage.models.decoder import Decoder, LayerProgram, Stretch

CONTEXT = 128
"""Slots read are rounded up to a multiple of this."""
ROWS_KEPT = 1 << 14
"""Rows at most of all steps that are kept for the next time: a search asks for new ones with every skip set."""
WARM_UP = 2
"""Steps before a capture: in the first, libraries choose their kernels and take memory."""


class Decision(NamedTuple):
    """What a forward makes of its rows: raw logits, and what the host has to know of them."""

    logits: Float[Tensor, "B V"]
    numbers: Float[Tensor, "2 B"]
    """Next tokens, and how probable each row's likeliest was: in fp32, which holds both, they are read at once.

    It holds ids below 2 ** 24 exactly, and Apple's GPUs have nothing wider.
    """


def decision(
    logits: Float[Tensor, "B V"], sampling: Sampling, uniforms: Float[Tensor, " B"] | None, kernels: Kernels | None
) -> Decision:
    return Decision(logits, torch.stack([part.float() for part in decide(logits, sampling, uniforms, kernels)]))


class PendingTokens:
    """A decision about ``count`` rows on its way to the host, which need not wait for it while it has other work."""

    def __init__(self, decision: Decision, count: int) -> None:
        self.logits = decision.logits[:count]
        """Those of a fixed step hold until the next."""
        self._numbers, self._count = decision.numbers, count
        self._arrived: torch.cuda.Event | None = None
        if self._numbers.is_cuda:
            there = torch.empty(self._numbers.shape, dtype=self._numbers.dtype, pin_memory=True)
            self._numbers = there.copy_(self._numbers, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def wait(self) -> tuple[list[int], list[float]]:
        """Tokens and confidences."""
        if self._arrived is not None:
            self._arrived.synchronize()
        tokens, confidences = self._numbers[:, : self._count].tolist()
        return [int(token) for token in tokens], confidences


class StepKey(NamedTuple):
    """What one fixed step is for; rows and context are the most it can take."""

    skipped: SkipSet
    compensation: Compensation
    sampling: Sampling
    rows: int
    context: int


class FixedStep:
    """One decode step whose inputs and outputs keep their places in memory.

    It leaves what it decides where it takes its tokens from, and goes on from there by itself. Rows without a
    generation run along: they write to the last row of the cache, which nobody reads.
    """

    def __init__(
        self, decoder: Decoder, cache: Cache, program: LayerProgram, key: StepKey, recorder: Recorder | None = None
    ) -> None:
        self._decoder, self._cache, self._program, self._key, self._recorder = decoder, cache, program, key, recorder
        self._given: Int[Tensor, "3 R"] = torch.zeros(3, key.rows, dtype=torch.long, device=decoder.device)
        self._uniforms: Float[Tensor, " R"] = torch.zeros(key.rows, device=decoder.device)
        self._count = 0
        self._out: Decision | None = None
        self.graph: torch.cuda.CUDAGraph | None = None

    @property
    def context(self) -> int:
        """Slots that it reads at most: no row may have more tokens when it has run."""
        return self._key.context

    def start(
        self,
        tokens: Sequence[int],
        lengths: Sequence[int],
        rows: Sequence[int],
        uniforms: Float[Tensor, " B"] | None,
    ) -> PendingTokens:
        """Decide the token after ``tokens``, which follow ``lengths`` others in these rows of the cache."""
        self._count = len(tokens)
        given = torch.tensor([tokens, lengths, rows])
        if self._recorder is not None:  # not before: the steps that warm it up write where this one writes
            self._take(given, uniforms)
            self.graph, self._out = self._recorder.record(self._step)
            self._recorder = None
        self._take(given, None)
        return self.go_on(uniforms)

    def go_on(self, uniforms: Float[Tensor, " B"] | None) -> PendingTokens:
        """Decide the token after the one decided last."""
        self._take(None, uniforms)
        if self.graph is None:
            self._out = self._step()
        else:
            self.graph.replay()
        assert self._out is not None
        return PendingTokens(self._out, self._count)

    def _take(self, given: Int[Tensor, "3 B"] | None, uniforms: Float[Tensor, " B"] | None) -> None:
        if given is not None:
            self._given[:, : self._count] = given
            self._given[:2, self._count :] = 0
            self._given[2, self._count :] = self._cache.rows - 1
        if uniforms is not None:
            self._uniforms[: self._count] = uniforms

    def _step(self) -> Decision:
        tokens, lengths, rows = self._given
        step = self._decoder.step(1, lengths, self._cache, rows, self._key.context)
        logits = self._decoder.forward(tokens[:, None], step, (Stretch(self._program, None),))
        uniforms = None if self._key.sampling.is_greedy else self._uniforms
        decided = decision(logits, self._key.sampling, uniforms, self._decoder.kernels)
        tokens.copy_(decided.numbers[0])
        lengths.add_(1)
        return decided


class Recorder:
    """Records steps on a GPU as graphs; no two replay at once, so they share memory."""

    def __init__(self) -> None:
        self._aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, step: Callable[[], Decision]) -> tuple[torch.cuda.CUDAGraph | None, Decision | None]:
        """The graph and where it leaves its results; neither, and a warning, where the step cannot be recorded."""
        graph = torch.cuda.CUDAGraph()
        self._aside.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self._aside):
                for _ in range(WARM_UP):
                    step()
            self._aside.synchronize()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._aside):
                return graph, step()
        except RuntimeError as error:
            warnings.warn(
                f"A decode step could not be captured as a CUDA graph, and runs slower: {error}", stacklevel=2
            )
            return None, None


class FixedSteps:
    """The fixed steps over one cache, each made when it is first asked for; the last ones asked for are kept."""

    def __init__(self, decoder: Decoder, cache: Cache) -> None:
        self._decoder, self._cache = decoder, cache
        self._recorder = Recorder() if decoder.device.type == "cuda" else None
        self.made: dict[StepKey, FixedStep] = {}

    def step(
        self,
        skipped: SkipSet,
        compensation: Compensation,
        sampling: Sampling,
        program: LayerProgram,
        rows: int,
        context: int,
    ) -> FixedStep:
        """One that takes so many rows and reads so many slots at least: rows by powers of two, slots by `CONTEXT`."""
        room = min(1 << (rows - 1).bit_length(), self._cache.rows)
        read = min(-(-context // CONTEXT) * CONTEXT, self._cache.slots)
        key = StepKey(skipped, compensation, sampling, room, read)
        found = self.made.pop(key, None) or FixedStep(self._decoder, self._cache, program, key, self._recorder)
        self.made[key] = found  # the last
        while len(self.made) > 1 and sum(kept.rows for kept in self.made) > ROWS_KEPT:
            del self.made[next(iter(self.made))]
        return found
