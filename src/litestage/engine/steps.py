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
    """``count`` decisions on their way to the host, which need not wait for them while it has other work."""

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
    """What one fixed step is for; rows, context and width, the tokens it runs of each row, are the most it can take."""

    skipped: SkipSet
    compensation: Compensation
    sampling: Sampling
    rows: int
    context: int
    width: int = 1


class FixedStep:
    """One decode step whose inputs and outputs keep their places in memory.

    Where it is one token wide, it leaves what it decides where it takes its tokens from, and goes on from there by
    itself. Rows without a generation run along: they write to the last row of the cache, which nobody reads. Behind a
    row's last token there is padding, which writes where the row's next tokens will.
    """

    def __init__(
        self, decoder: Decoder, cache: Cache, program: LayerProgram, key: StepKey, recorder: Recorder | None = None
    ) -> None:
        self._decoder, self._cache, self._program, self._key, self._recorder = decoder, cache, program, key, recorder
        self._tokens: Int[Tensor, "R T"] = torch.zeros(key.rows, key.width, dtype=torch.long, device=decoder.device)
        self._given: Int[Tensor, "2 R"] = torch.zeros(2, key.rows, dtype=torch.long, device=decoder.device)
        """How many tokens come before, and the row of the cache."""
        self._uniforms: Float[Tensor, " R*T"] = torch.zeros(key.rows * key.width, device=decoder.device)
        self._count = 0
        """Rows that have a generation."""
        self._out: Decision | None = None
        self.graph: torch.cuda.CUDAGraph | None = None

    @property
    def context(self) -> int:
        """Slots that it reads at most: no row may have more tokens when it has run."""
        return self._key.context

    @property
    def width(self) -> int:
        """Tokens that it runs of each row, at most."""
        return self._key.width

    def start(
        self,
        tokens: Sequence[Sequence[int]],
        lengths: Sequence[int],
        rows: Sequence[int],
        uniforms: Float[Tensor, " N"] | None,
    ) -> PendingTokens:
        """Decide the token after each of ``tokens``, which follow ``lengths`` others in these rows of the cache.

        Decisions come row by row, as many for each as the step is wide; so do ``uniforms``.
        """
        self._count, width = len(tokens), self._key.width
        padded = torch.tensor([[*own, *(0,) * (width - len(own))] for own in tokens])
        given = torch.tensor([lengths, rows])
        if self._recorder is not None:  # not before: the steps that warm it up write where this one writes
            self._take(padded, given, uniforms)
            self.graph, self._out = self._recorder.record(self._step)
            self._recorder = None
        self._take(padded, given, None)
        return self.go_on(uniforms)

    def go_on(self, uniforms: Float[Tensor, " N"] | None) -> PendingTokens:
        """Decide the token after the one decided last."""
        self._take(None, None, uniforms)
        if self.graph is None:
            self._out = self._step()
        else:
            self.graph.replay()
        assert self._out is not None
        return PendingTokens(self._out, self._count * self._key.width)

    def _take(
        self,
        tokens: Int[Tensor, "B T"] | None,
        given: Int[Tensor, "2 B"] | None,
        uniforms: Float[Tensor, " N"] | None,
    ) -> None:
        if tokens is not None and given is not None:
            self._tokens[: self._count] = tokens
            self._tokens[self._count :] = 0
            self._given[:, : self._count] = given
            self._given[0, self._count :] = 0
            self._given[1, self._count :] = self._cache.rows - 1
        if uniforms is not None:
            self._uniforms[: self._count * self._key.width] = uniforms

    def _step(self) -> Decision:
        lengths, rows = self._given
        width = self._key.width
        step = self._decoder.step(width, lengths, self._cache, rows, self._key.context)
        logits = self._decoder.forward(self._tokens, step, (Stretch(self._program, None),), every=width > 1)
        uniforms = None if self._key.sampling.is_greedy else self._uniforms
        decided = decision(logits, self._key.sampling, uniforms, self._decoder.kernels)
        if width == 1:
            self._tokens[:, 0].copy_(decided.numbers[0])
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
        width: int = 1,
    ) -> FixedStep:
        """One that takes so many rows of so many tokens and reads so many slots at least.

        Rows and tokens go by powers of two, slots by `CONTEXT`.
        """
        room = min(1 << (rows - 1).bit_length(), self._cache.rows)
        read = min(-(-context // CONTEXT) * CONTEXT, self._cache.slots)
        key = StepKey(skipped, compensation, sampling, room, read, 1 << (width - 1).bit_length())
        found = self.made.pop(key, None) or FixedStep(self._decoder, self._cache, program, key, self._recorder)
        self.made[key] = found  # the last
        while len(self.made) > 1 and sum(kept.rows * kept.width for kept in self.made) > ROWS_KEPT:
            del self.made[next(iter(self.made))]
        return found
