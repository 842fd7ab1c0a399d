"""Timing the engine's own forwards, interleaved, for the cost model to be fitted to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from litestage.core import Compensation, Decode, Prefill, Request, SkipSchedule, StagePlan, SubLayer, num_runs
from litestage.engine.batch import Batch, prefill
from litestage.engine.engine import TorchEngine
from litestage.engine.row import Generation
from litestage.models.cache import Cache
from litestage.models.decoder import Affine, CompensationWeights

OnProgress = Callable[[int, int], None]
AHEAD = 4
"""Fixed steps that are timed together: each is started before the one before it is read, as while a text is written."""


@dataclass(frozen=True, slots=True)
class PassTime:
    """One timed forward: the work, seconds, the parts a decode step kept, and the stand-ins' operations."""

    work: Prefill | Decode
    seconds: float
    attentions: int
    ffns: int
    compensated: int


@dataclass(frozen=True, slots=True)
class _Probe:
    work: Prefill | Decode
    attentions: int
    ffns: int
    compensated: int
    run: Callable[[], None]
    steps: int = 1
    """That one run takes."""


@torch.inference_mode()
def time_passes(
    engine: TorchEngine,
    rows: Sequence[int],
    contexts: Sequence[int],
    prefills: Sequence[Prefill],
    repeats: int = 7,
    budget_seconds: float = 20.0,
    on_progress: OnProgress | None = None,
) -> list[PassTime]:
    """Time decode steps of every combination of rows and context, and prefills, in turn, ``repeats`` times.

    A prefill's tokens are shared out evenly over its rows. One repeat more warms up.

    Once ``budget_seconds`` are over, one repeat is enough: a large model's steps vary less.
    Interleaving spreads a drift of the machine over all of them alike.
    """
    longest = max([*contexts, *(work.context for work in prefills)])
    cache = engine.model.decoder.new_cache(max([*rows, *(work.rows for work in prefills)]) + 1, longest + 2 + AHEAD)
    probes = [
        *_decode_probes(engine, cache, rows, contexts),
        *(_Probe(work, 0, 0, 0, _prefill_run(engine, cache, work)) for work in prefills),
    ]
    times: list[PassTime] = []
    begun = time.perf_counter()
    for repeat in range(repeats + 1):
        if repeat > 1 and time.perf_counter() - begun > budget_seconds:
            break
        for probe in probes:
            start = time.perf_counter()
            probe.run()
            synchronise(engine.model.decoder.device)
            seconds = (time.perf_counter() - start) / probe.steps
            if repeat:
                times.append(PassTime(probe.work, seconds, probe.attentions, probe.ffns, probe.compensated))
        if on_progress is not None:
            on_progress(repeat, repeats)
    return times


def synchronise(device: torch.device) -> None:
    """Wait until a device has done all that it was given; a CPU has when a call returns."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _skip_sets(layers: Sequence[SubLayer]) -> list[frozenset[SubLayer]]:
    """Full depth, half the blocks, all attentions but one, all FFNs but one: what tells the parts' prices apart."""
    half = frozenset(layer for layer in layers if layer.block % 2)
    attentions = frozenset(layer for layer in layers if layer.kind == "attention" and layer.block)
    ffns = frozenset(layer for layer in layers if layer.kind == "ffn" and layer.block)
    return [frozenset(), half, attentions, ffns]


def _decode_probes(engine: TorchEngine, cache: Cache, rows: Sequence[int], contexts: Sequence[int]) -> list[_Probe]:
    layers = engine.model.decoder.layers
    stand: CompensationWeights = dict.fromkeys(
        layers, Affine(scale=torch.ones((), device=cache.data.device, dtype=cache.data.dtype))
    )
    sets = [(skipped, False) for skipped in _skip_sets(layers)] + [(_skip_sets(layers)[1], True)]
    return [
        _decode_probe(engine, cache, count, context, skipped, stand if compensated else {})
        for count in rows
        for context in contexts
        for skipped, compensated in sets
    ]


def _decode_probe(
    engine: TorchEngine, cache: Cache, rows: int, context: int, skipped: frozenset[SubLayer], stand: CompensationWeights
) -> _Probe:
    """A step of rows that are already there: what their cache holds does not change the time."""
    plan = StagePlan(schedule=SkipSchedule.fixed(skipped), compensation=Compensation())
    request = Request(prompt_ids=(0,) * (context - 1), stage_plan=plan, max_new_tokens=1 << 20)
    fixed = engine.fixed_steps(cache)
    steps = AHEAD if fixed else 1
    batch = Batch(engine.model.decoder, cache, fixed)
    programs = (batch.program(skipped, plan.compensation, stand),)

    def run() -> None:
        batch.active = [
            Generation(i, request, steps + 1, tokens=[0], programs=programs, cache_row=i) for i in range(rows)
        ]
        for step in range(steps):
            for due in batch.decode(ahead=step + 1 < steps):
                for row, run, (decided,) in due.decided():
                    row.ran += run.pending
                    row.accept(decided.token, decided.confidence, (-1,))

    attentions = sum(layer.kind == "attention" for layer in skipped)
    blocks = engine.identity.num_blocks
    work = Decode(rows, context, 0)
    runs = num_runs(skipped) if stand else 0
    return _Probe(work, blocks - attentions, blocks - len(skipped) + attentions, runs, run, steps)


def _prefill_run(engine: TorchEngine, cache: Cache, work: Prefill) -> Callable[[], None]:
    decoder = engine.model.decoder
    tokens = work.tokens // work.rows
    rest, starts = [(0,) * tokens] * work.rows, [work.context - tokens] * work.rows

    def run() -> None:
        prefill(decoder, cache, range(work.rows), rest, starts)

    return run
