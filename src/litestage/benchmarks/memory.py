"""What memory the engine takes, loading and at work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litestage.benchmarks.options import MemoryBenchOptions
from litestage.core import OptionError
from litestage.jobs.options import DataOptions, DecodingOptions, ModelOptions
from litestage.jobs.progress import Progress
from litestage.jobs.session import Session
from litestage.models.decoder import Decoder
from litestage.pipeline import run
from litestage.results import MemoryBench
from litestage.tasks import Question

STATUS = Path("/proc/self/status")
MB = 1e6


def bench_memory(
    model: ModelOptions,
    data: DataOptions,
    decoding: DecodingOptions,
    options: MemoryBenchOptions,
    progress: Progress,
) -> MemoryBench:
    """Resident memory after importing, loading and each round of the questions; for a process that did nothing else."""
    imported = resident()
    session = Session(model, data, decoding)
    loaded, peak = resident(), resident("VmHWM")
    questions: list[Question] = session.questions()
    at_once = options.at_once
    progress.start("answering", options.rounds * len(questions))
    after: list[float] = []
    for _ in range(options.rounds):
        for group in (questions[i : i + at_once] for i in range(0, len(questions), at_once)):
            run(session.engine, session.task, group, session.full_plan(), questions_at_once=len(group))
            progress.advance(len(group))
        after.append(resident())
    return MemoryBench(
        model=session.engine.identity.id,
        task=session.task.name,
        dtype=model.dtype,
        quantisation=model.quantise,
        questions=len(questions),
        imported_mb=imported,
        loading_peak_mb=peak,
        loaded_mb=loaded,
        after_rounds_mb=tuple(after),
        weights_mb=_weights(session.engine.model.decoder) / MB,
        cache_mb=session.engine.cache_bytes / MB,
        conditions=session.conditions,
    )


def resident(what: str = "VmRSS") -> float:
    """Of this process, in megabytes; ``VmHWM`` is the most it ever was."""
    try:
        lines: Sequence[str] = STATUS.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) * 1024 / MB
    except (OSError, StopIteration):
        raise OptionError("bench memory reads /proc/self/status, which only Linux has.") from None


def _weights(decoder: Decoder) -> int:
    blocks = [part for b in decoder.blocks for part in (b.attention.qkv, b.attention.out, b.ffn.gate_up, b.ffn.down)]
    tied = decoder.embedding is decoder.head
    return sum(part.nbytes for part in blocks) + decoder.head.nbytes + (0 if tied else decoder.embedding.nbytes)
