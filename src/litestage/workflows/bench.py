"""How fast the engine decodes: ours in every form, with and without skipping, beside its peers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.metadata import version

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from litestage.core import Compensation, Request, SkipSchedule, SkipSet, StagePlan, SubLayer, TokenIds
from litestage.engine import TorchEngine
from litestage.models import LoadedModel
from litestage.models.decoder import Affine, Decoder, Linear, Stand
from litestage.models.kernels import find_kernels
from litestage.models.load import DTYPES, from_transformers, load_transformers
from litestage.models.packed import choose_packing
from litestage.report.bench import DecodeBench, StepTime
from litestage.workflows.peers import LLAMA_CPP, TRANSFORMERS, LlamaCpp, Steps, differences, transformers_steps
from litestage.workflows.progress import Progress
from litestage.workflows.workbench import hardware

FORMS = (("fp32", "none"), ("bf16", "none"), ("bf16", "int8"), ("bf16", "int4"))
"""Dtype and quantisation of each form of our engine."""
OURS = "litestage"
STEPS = 12
"""Decode steps that follow one another in a sample; the first warms up."""
SLOW = 3
"""Samples, at most, of a peer's batches of many rows: each prefills them again."""
READ_BYTES = 1 << 28


@dataclass(frozen=True)
class Subject:
    """What is timed: an engine in one form at so many rows, at full depth or not."""

    engine: str
    rows: int
    dtype: str
    quantisation: str
    skipped: str
    steps: Steps
    bytes_read: int = 0
    """Weights and cache that a step reads; 0 where only the engine knows."""
    share_skipped: float = 0.0
    """Of the weights' bytes."""
    samples: int = 1000
    """At most."""

    @property
    def full(self) -> tuple[str, int, str, str]:
        """What its full depth is called by."""
        return self.engine, self.rows, self.dtype, self.quantisation


def skip_sets(num_blocks: int) -> dict[str, SkipSet]:
    """Full depth, and half the blocks, attentions and FFNs: every second one, from the second on."""
    blocks = range(1, num_blocks, 2)
    attentions = frozenset(SubLayer(block=block, kind="attention") for block in blocks)
    ffns = frozenset(SubLayer(block=block, kind="ffn") for block in blocks)
    n = len(attentions)
    return {
        "nothing": frozenset(),
        f"{n} blocks": attentions | ffns,
        f"{n} attentions": attentions,
        f"{n} FFNs": ffns,
    }


def left_out(num_blocks: int, compensations: Sequence[str]) -> Iterator[tuple[str, SkipSet, str]]:
    """What steps are timed with: every skip set with nothing in place, and the blocks with each compensation."""
    sets = skip_sets(num_blocks)
    yield from ((name, skipped, "none") for name, skipped in sets.items())
    blocks = next(name for name in sets if name.endswith(" blocks"))
    yield from ((f"{blocks}, {kind}", sets[blocks], kind) for kind in compensations if kind != "none")


def bench_decode(
    model: str,
    rows: Sequence[int],
    context: int,
    repeats: int,
    peers: Sequence[str],
    compensations: Sequence[str],
    progress: Progress,
) -> DecodeBench:
    """Time decode steps of every subject in turn, ``repeats`` times over."""
    progress.start("loading engines")
    source, tokenizer = load_transformers(model)
    ours = _ours(source, tokenizer, rows, context, compensations)
    subjects = [*ours, *_peers(model, source, rows, context, peers)]
    gigabytes = bandwidth()
    progress.start("decoding", repeats * len(subjects))
    times: list[list[float]] = [[] for _ in subjects]
    for repeat in range(repeats):
        for subject, taken in zip(subjects, times, strict=True):
            if repeat < subject.samples:
                taken.append(statistics.median(subject.steps(STEPS)[1:]))
            progress.advance()
    return DecodeBench(
        model=model,
        context=context,
        repeats=repeats,
        bandwidth=gigabytes,
        steps=tuple(_records(subjects, times, gigabytes)),
        conditions={
            "hardware": hardware(torch.device("cpu")),
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in ("litestage", "torch", "transformers")},
            "kernels": "torch" if find_kernels() is None else "litestage",
        },
    )


def _prompt(context: int, vocabulary: int) -> TokenIds:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randint(5, vocabulary, (context,), generator=generator).tolist())


def in_form(source: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dtype: str, quantisation: str) -> LoadedModel:
    """The same fp32 weights in another form, on the CPU: files are read once."""
    packing = choose_packing(quantisation, DTYPES[dtype], torch.device("cpu"))
    copy = deepcopy(source).to(DTYPES[dtype] if quantisation == "none" else torch.float32)
    return from_transformers(copy, tokenizer, source.name_or_path, device="cpu", packing=packing)


def _ours(
    source: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[int],
    context: int,
    compensations: Sequence[str],
) -> Iterator[Subject]:
    for dtype, quantisation in FORMS:
        loaded = in_form(source, tokenizer, dtype, quantisation)
        endless = replace(loaded, eos_ids=(-1,))
        engine = TorchEngine(endless, batch_size=max(rows))
        prompt = _prompt(context, loaded.decoder.head.shape[0])
        engine.stands = {kind: stand_of(loaded.decoder, kind) for kind in compensations}
        for count in rows:
            for name, skipped, kind in left_out(loaded.identity.num_blocks, compensations):
                yield Subject(
                    engine=OURS,
                    rows=count,
                    dtype=dtype,
                    quantisation=quantisation,
                    skipped=name,
                    steps=_our_steps(engine, count, prompt, skipped, kind),
                    bytes_read=_weight_bytes(loaded.decoder, skipped) + _cache_bytes(loaded, skipped, count, context),
                    share_skipped=1 - _weight_bytes(loaded.decoder, skipped) / _weight_bytes(loaded.decoder),
                )


def stand_of(decoder: Decoder, kind: str) -> Stand:
    """Stand-ins of a kind for every sub-layer, with numbers that change nothing: a step takes as long with any."""
    name, _, rank = kind.partition(":")
    width, dtype = len(decoder.norm), decoder.dtype
    scales = {"norm_ratio": torch.ones((), dtype=dtype), "affine": torch.ones(width, dtype=dtype)}
    down = torch.zeros(int(rank), width, dtype=dtype) if rank else None
    one = Affine(
        scale=scales.get(name),
        shift=None if name == "norm_ratio" else torch.zeros(width, dtype=dtype),
        down=down,
        up=None if down is None else torch.zeros(width, int(rank), dtype=dtype),
    )
    return dict.fromkeys(decoder.layers, one)


def _our_steps(engine: TorchEngine, rows: int, prompt: TokenIds, skipped: SkipSet, kind: str) -> Steps:
    compensation = Compensation(kind=kind, content=None if kind == "none" else kind)
    plan = StagePlan(schedule=SkipSchedule.fixed(skipped), compensation=compensation)

    def steps(count: int) -> list[float]:
        times: list[float] = []
        engine.on_pass = lambda work: times.append(time.perf_counter())
        requests = [Request(prompt_ids=prompt, stage_plan=plan, max_new_tokens=count + 1)] * rows
        engine.generate(requests, prefixes=[prompt])
        engine.on_pass = None
        return differences(times[-count - 1 :])

    return steps


def _weight_bytes(decoder: Decoder, skipped: SkipSet = frozenset()) -> int:
    """What a step reads of the weights."""
    kept = [layer for layer in decoder.layers if layer not in skipped]
    return decoder.head.nbytes + sum(part.nbytes for layer in kept for part in _parts(decoder, layer))


def _parts(decoder: Decoder, layer: SubLayer) -> tuple[Linear, Linear]:
    block = decoder.blocks[layer.block]
    if layer.kind == "attention":
        return block.attention.qkv, block.attention.out
    return block.ffn.gate_up, block.ffn.down


def _cache_bytes(loaded: LoadedModel, skipped: SkipSet, rows: int, context: int) -> int:
    shape, decoder = loaded.decoder.shape, loaded.decoder
    attentions = sum(layer.kind == "attention" and layer not in skipped for layer in decoder.layers)
    return attentions * rows * context * 2 * shape.kv_heads * shape.head_size * decoder.cache_dtype.itemsize


def _peers(
    model: str, source: PreTrainedModel, rows: Sequence[int], context: int, peers: Sequence[str]
) -> Iterator[Subject]:
    if TRANSFORMERS in peers:
        prompt = _prompt(context, source.config.vocab_size)
        for dtype in ("fp32", "bf16"):
            peer = deepcopy(source).to(DTYPES[dtype])
            for count in rows:
                for cache in ("dynamic", "static"):
                    name, steps = f"{TRANSFORMERS}, {cache} cache", transformers_steps(peer, cache, count, prompt)
                    yield Subject(name, count, dtype, "none", "nothing", steps, samples=1000 if count == 1 else SLOW)
    if LLAMA_CPP in peers:
        for count in rows:
            llama = LlamaCpp(model, count, context + 2 * STEPS)
            steps = llama.steps(count, _prompt(context, 1000))
            yield Subject(LLAMA_CPP, count, "fp16", "the GGUF", "nothing", steps)


def bandwidth(repeats: int = 7) -> float:
    """Gigabytes a second that this machine reads from memory with torch's threads: the best of a few."""
    numbers = torch.ones(READ_BYTES // 4)
    seconds = [_timed(numbers.sum) for _ in range(repeats)]
    return READ_BYTES / min(seconds) / 1e9


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _records(subjects: Sequence[Subject], times: Sequence[Sequence[float]], gigabytes: float) -> Iterator[StepTime]:
    full = {one.full: taken for one, taken in zip(subjects, times, strict=True) if one.skipped == "nothing"}
    for subject, taken in zip(subjects, times, strict=True):
        seconds = statistics.median(taken)
        saved = statistics.median(1 - own / whole for own, whole in zip(taken, full[subject.full], strict=True))
        low, high = (seconds, seconds) if len(taken) < 2 else statistics.quantiles(taken, n=4)[::2]
        yield StepTime(
            engine=subject.engine,
            rows=subject.rows,
            dtype=subject.dtype,
            quantisation=subject.quantisation,
            skipped=subject.skipped,
            ms_per_step=1e3 * seconds,
            ms_low=1e3 * low,
            ms_high=1e3 * high,
            tokens_per_s=subject.rows / seconds,
            samples=len(taken),
            bound_share=subject.bytes_read / (gigabytes * 1e9) / seconds if subject.bytes_read else None,
            efficiency=saved / subject.share_skipped if subject.share_skipped else None,
        )
