"""How fast the engine decodes: ours in every form, with and without skipping, beside its peers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from litestage.benchmarks.options import DecodeBenchOptions
from litestage.benchmarks.peers import LLAMA_CPP, TRANSFORMERS, LlamaCpp, Process, Steps, apart, transformers_steps
from litestage.benchmarks.peers.elsewhere import model_folder
from litestage.core import (
    Compensation,
    Decode,
    Machine,
    OptionError,
    Prefill,
    Request,
    SkipSchedule,
    SkipSet,
    StagePlan,
    SubLayer,
    TokenIds,
)
from litestage.engine import TorchEngine
from litestage.engine.step_times import StepTimes, Timer, now, works_behind
from litestage.evaluation import skip_efficiency
from litestage.jobs.progress import Progress
from litestage.jobs.session import hardware, versions
from litestage.models import LoadedModel
from litestage.models.decoder import Affine, CompensationWeights, Decoder, Linear
from litestage.models.load import DTYPES, from_transformers, load_transformers
from litestage.models.packed import choose_packing
from litestage.results import DecodeBench, PrefillTime, StepTime
from litestage.results.benchmarks import OURS

FORMS = (("fp32", "none"), ("bf16", "none"), ("bf16", "int8"), ("bf16", "int4"))
"""Dtype and quantisation of each form of our engine."""
STEPS = 12
"""Decode steps that follow one another in a sample; the first warms up."""
GPU_STEPS = 64
"""The same on a GPU, where a step may take a tenth of the time, and is known by the mean of all."""
SLOW = 3
"""Samples, at most, of a peer's batches of many rows on a CPU: each prefills them again."""
TIMERS: Mapping[str, Timer | None] = {"wall": None, "processor": time.process_time}
SLOW_PEER = 5
"""The same of one that runs elsewhere."""
READ_BYTES = 1 << 28
COPY_BYTES = 1 << 30
"""On a GPU, which would hold the smaller number in its caches in part."""


@dataclass(frozen=True)
class Subject:
    """What is timed: an engine in one form at so many rows, at full depth or not."""

    engine: str
    rows: int
    dtype: str
    quantisation: str
    skipped: str
    steps: Steps
    compensation: str = "none"
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
    yield from ((blocks, sets[blocks], kind) for kind in compensations if kind != "none")


def bench_decode(
    model: str, options: DecodeBenchOptions, peers: Sequence[str], device: torch.device, progress: Progress
) -> DecodeBench:
    """Time decode steps of every subject in turn, beside so many peers, ``repeats`` times over."""
    rows, context, repeats = options.rows, options.context, options.repeats
    if options.clock == "processor":
        _check_alone(peers, device)
        torch.set_num_threads(1)
    forms = [form for form in forms_on(device, progress) if name_of(*form) in options.precisions]
    progress.start("loading engines")
    source, tokenizer = load_transformers(model)
    steps = GPU_STEPS if works_behind(device) else STEPS
    longest = max(context + steps, options.prefill + 1)
    engines = {form: endless(in_form(source, tokenizer, *form, device), max(rows), longest) for form in forms}
    with ExitStack() as running:
        processes = list(_start_apart(peers, source, tokenizer, options, progress, running))
        subjects = [
            *(one for form, engine in engines.items() for one in _ours(*form, engine, options)),
            *_peers(peers, model, source, options, device),
            *(_apart(one, count, options, source) for one in processes for count in rows),
        ]
        fresh = list(_prefills(engines, peers, source, processes, options, device)) if options.prefill else []
        gigabytes = bandwidth(device)
        if works_behind(device):
            _warm_up(subjects, steps, progress)
        times = _times(subjects, steps, repeats, progress)
        prefills = _times(fresh, 1, repeats, progress) if fresh else []
    return DecodeBench(
        model=model,
        context=context,
        repeats=repeats,
        bandwidth=gigabytes,
        steps=tuple(_records(subjects, times, gigabytes)),
        clock="processor" if options.clock == "processor" else "wall",
        prefills=tuple(_prefill_record(*one, options.prefill) for one in zip(fresh, prefills, strict=True)),
        conditions=Machine(
            hardware=hardware(device),
            device=device.type,
            threads=torch.get_num_threads(),
            versions=versions(device),
            kernels="litestage" if any(one.model.decoder.kernels for one in engines.values()) else "torch",
        ),
    )


def _check_alone(peers: Sequence[str], device: torch.device) -> None:
    """Processor time is told of ourselves, and of peers that run apart."""
    if device.type != "cpu" or len(apart(peers)) < len(peers):
        raise OptionError(
            "--clock processor is for the CPU, beside engines that run in environments of their own alone. "
            "Add --device cpu and --peers none, or openvino, vllm or onnxruntime."
        )


def name_of(dtype: str, quantisation: str) -> str:
    """A form as an option names it."""
    return dtype if quantisation == "none" else quantisation


def forms_on(device: torch.device, progress: Progress) -> list[tuple[str, str]]:
    """The forms that a device runs; it is said why one is left out."""
    found = []
    for dtype, quantisation in FORMS:
        try:
            choose_packing(quantisation, DTYPES[dtype], device)
            found.append((dtype, quantisation))
        except OptionError as error:
            progress.say(f"{quantisation} is left out. {error}")
    return found


def _warm_up(subjects: Sequence[Subject], steps: int, progress: Progress) -> None:
    """Have a GPU's steps captured and compiled for before any is timed.

    Most rows come first: a larger cache would take the place of the smaller one, and of the steps captured over it.
    """
    progress.start("warming up", len(subjects))
    for subject in sorted(subjects, key=lambda one: -one.rows):
        subject.steps(steps)
        progress.advance()


def _times(subjects: Sequence[Subject], steps: int, repeats: int, progress: Progress) -> list[list[float]]:
    """Seconds of a step, ``repeats`` samples of each subject, taken in turn."""
    progress.start("decoding", repeats * len(subjects))
    times: list[list[float]] = [[] for _ in subjects]
    for repeat in range(repeats):
        for subject, taken in zip(subjects, times, strict=True):
            if repeat < subject.samples:
                taken.append(subject.steps(steps))
            progress.advance()
    return times


def prompts_of(rows: int, context: int, vocabulary: int) -> list[TokenIds]:
    """One for each row, alike in nothing: what rows have in common we would read once."""
    generator = torch.Generator().manual_seed(0)
    return [tuple(ids) for ids in torch.randint(5, vocabulary, (rows, context), generator=generator).tolist()]


def in_form(
    source: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dtype: str, quantisation: str, device: torch.device
) -> LoadedModel:
    """The same fp32 weights in another form, on a device: files are read once."""
    packing = choose_packing(quantisation, DTYPES[dtype], device)
    copy = deepcopy(source).to(DTYPES[dtype] if quantisation == "none" else torch.float32)
    return from_transformers(copy, tokenizer, source.name_or_path, device=str(device), packing=packing)


def endless(loaded: LoadedModel, rows: int, tokens: int) -> TorchEngine:
    """One that ends no text, in a context with room for so many tokens."""
    engine = TorchEngine(replace(loaded, eos_ids=(-1,)), batch_size=rows)
    if tokens >= engine.max_context:
        raise OptionError(
            f"--context must leave room for the steps that are timed, and with them it is {tokens} tokens: "
            f"{engine.identity.id} takes {engine.max_context}. Give a smaller one."
        )
    return engine


def _ours(
    dtype: str,
    quantisation: str,
    engine: TorchEngine,
    options: DecodeBenchOptions,
) -> Iterator[Subject]:
    loaded, rows, context = engine.model, options.rows, options.context
    compensations = options.compensation
    prompts = prompts_of(max(rows), context, loaded.decoder.head.shape[0])
    engine.stands = {kind: stand_of(loaded.decoder, kind) for kind in compensations}
    for count in rows:
        for name, skipped, kind in left_out(loaded.identity.num_blocks, compensations):
            if skipped and options.full_depth:
                continue
            yield Subject(
                engine=OURS,
                rows=count,
                dtype=dtype,
                quantisation=quantisation,
                skipped=name,
                compensation=kind,
                steps=our_steps(engine, prompts[:count], skipped, kind, TIMERS[options.clock]),
                bytes_read=_weight_bytes(loaded.decoder, skipped) + _cache_bytes(loaded, skipped, count, context),
                share_skipped=1 - _weight_bytes(loaded.decoder, skipped) / _weight_bytes(loaded.decoder),
            )


def stand_of(decoder: Decoder, kind: str) -> CompensationWeights:
    """Stand-ins of a kind for every sub-layer, with numbers that change nothing: a step takes as long with any."""
    name, _, rank = kind.partition(":")
    width = len(decoder.norm)
    ones, zeros = (partial(make, dtype=decoder.dtype, device=decoder.device) for make in (torch.ones, torch.zeros))
    down = zeros((int(rank), width)) if rank else None
    one = Affine(
        scale={"norm_ratio": ones(()), "affine": ones(width)}.get(name),
        shift=None if name == "norm_ratio" else zeros(width),
        down=down,
        up=None if down is None else zeros((width, int(rank))),
    )
    return dict.fromkeys(decoder.layers, one)


def our_steps(
    engine: TorchEngine,
    prompts: Sequence[TokenIds],
    skipped: SkipSet,
    kind: str = "none",
    timer: Timer | None = None,
) -> Steps:
    """Of our engine behind these prompts, with a skip set and what stands in for it."""
    compensation = Compensation(kind=kind, content=None if kind == "none" else kind)
    plan = StagePlan(schedule=SkipSchedule.fixed(skipped), compensation=compensation)

    def steps(count: int) -> float:
        clock = StepTimes(engine.model.decoder.device, count, timer)

        def on_pass(work: Prefill | Decode) -> None:
            if isinstance(work, Prefill):
                clock.start()
            else:
                clock.note()

        engine.on_pass = on_pass
        requests = [Request(prompt_ids=prompt, stage_plan=plan, max_new_tokens=count + 1) for prompt in prompts]
        engine.forget([prompt[:-1] for prompt in prompts])  # the last token is prefilled: its end is the start
        engine.generate(requests)
        engine.on_pass = None
        return clock.step

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
    peers: Sequence[str],
    model: str,
    source: PreTrainedModel,
    options: DecodeBenchOptions,
    device: torch.device,
) -> Iterator[Subject]:
    rows, context = options.rows, options.context
    prompts = prompts_of(max(rows), context, source.config.vocab_size)
    if TRANSFORMERS in peers:
        for dtype in ("fp32", "bf16"):
            peer = deepcopy(source).to(device, DTYPES[dtype])
            for count in rows:
                samples = 1000 if count == 1 or works_behind(device) else SLOW
                for cache in ("dynamic", "static"):
                    name, steps = f"{TRANSFORMERS}, {cache} cache", transformers_steps(peer, cache, prompts[:count])
                    yield Subject(name, count, dtype, "none", "nothing", steps, samples=samples)
    if LLAMA_CPP in peers:
        for count in rows:
            llama = LlamaCpp(model, count, context + 2 * STEPS)
            form = "the GGUF" if llama.repacked else "the GGUF as it lies"
            yield Subject(LLAMA_CPP, count, "fp16", form, "nothing", llama.steps(prompts[:count]))


def _start_apart(
    peers: Sequence[str],
    source: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    options: DecodeBenchOptions,
    progress: Progress,
    running: ExitStack,
) -> Iterator[Process]:
    """The peers that run in environments of their own, in each of their precisions, until ``running`` is closed."""
    context = max(options.context + STEPS, options.prefill) + 2
    for peer in apart(peers):
        folder = model_folder(source, tokenizer)
        for precision in set(peer.precisions) & set(options.precisions):
            progress.start(f"starting {peer.name} in {precision}")
            process = Process(peer, folder, precision, max(options.rows), context, torch.get_num_threads())
            running.callback(process.close)
            process.clock = options.clock
            yield process


def _apart(process: Process, rows: int, options: DecodeBenchOptions, source: PreTrainedModel) -> Subject:
    prompts = prompts_of(rows, options.context, source.config.vocab_size)
    dtype, quantisation = process.form
    return Subject(process.title, rows, dtype, quantisation, "nothing", process.steps(prompts), samples=SLOW_PEER)


def _prefills(
    engines: Mapping[tuple[str, str], TorchEngine],
    peers: Sequence[str],
    source: PreTrainedModel,
    processes: Sequence[Process],
    options: DecodeBenchOptions,
    device: torch.device,
) -> Iterator[Subject]:
    """Each takes a prompt that nobody has seen, and makes one token of it."""
    fresh, timer = _fresh_prompts(options.prefill, source.config.vocab_size), TIMERS[options.clock]
    for (dtype, quantisation), engine in engines.items():
        yield Subject(OURS, 1, dtype, quantisation, "nothing", partial(_our_prefill, engine, fresh, timer))
    if TRANSFORMERS in peers:
        for dtype in ("fp32", "bf16"):
            peer = deepcopy(source).to(device, DTYPES[dtype])
            yield Subject(TRANSFORMERS, 1, dtype, "none", "nothing", partial(_their_prefill, peer, fresh))
    for process in processes:
        yield Subject(process.title, 1, *process.form, "nothing", partial(_prefill_apart, process, fresh))


def _fresh_prompts(tokens: int, vocabulary: int) -> Iterator[TokenIds]:
    generator = torch.Generator().manual_seed(1)
    while True:
        yield tuple(torch.randint(5, vocabulary, (tokens,), generator=generator).tolist())


def _our_prefill(engine: TorchEngine, fresh: Iterator[TokenIds], timer: Timer | None, _: int) -> float:
    request = Request(prompt_ids=next(fresh), max_new_tokens=1)
    start = now(engine.model.decoder.device, timer)
    engine.generate([request])
    return now(engine.model.decoder.device, timer) - start


@torch.inference_mode()
def _their_prefill(model: PreTrainedModel, fresh: Iterator[TokenIds], _: int) -> float:
    ids = torch.tensor([next(fresh)], device=model.device)
    start = now(model.device)
    model(ids, use_cache=True, logits_to_keep=1)
    return now(model.device) - start


def _prefill_apart(process: Process, fresh: Iterator[TokenIds], _: int) -> float:
    return process.generate([next(fresh)], 1)[0]


def _prefill_record(subject: Subject, taken: Sequence[float], tokens: int) -> PrefillTime:
    seconds, low, high = _quartiles(taken)
    return PrefillTime(
        engine=subject.engine,
        tokens=tokens,
        dtype=subject.dtype,
        quantisation=subject.quantisation,
        ms=1e3 * seconds,
        ms_low=1e3 * low,
        ms_high=1e3 * high,
        samples=len(taken),
    )


def _quartiles(taken: Sequence[float]) -> tuple[float, float, float]:
    """The median, and the quartiles below and above it."""
    seconds = statistics.median(taken)
    low, high = (seconds, seconds) if len(taken) < 2 else statistics.quantiles(taken, n=4)[::2]
    return seconds, low, high


def bandwidth(device: torch.device, repeats: int = 7) -> float:
    """Gigabytes a second that a device moves from and to its memory, or torch's threads read: the best of a few."""
    size, work = _copy(device) if works_behind(device) else (READ_BYTES, torch.ones(READ_BYTES // 4).sum)
    return size / min(_timed(work, device) for _ in range(repeats)) / 1e9


def _copy(device: torch.device) -> tuple[int, Callable[[], object]]:
    """The bytes that a copy on a device moves, and the copy."""
    numbers = torch.ones(COPY_BYTES // 4, device=device)
    return 2 * COPY_BYTES, partial(torch.empty_like(numbers).copy_, numbers)


def _timed(work: Callable[[], object], device: torch.device) -> float:
    start = now(device)
    work()
    return now(device) - start


def _records(subjects: Sequence[Subject], times: Sequence[Sequence[float]], gigabytes: float) -> Iterator[StepTime]:
    full = {one.full: taken for one, taken in zip(subjects, times, strict=True) if one.skipped == "nothing"}
    for subject, taken in zip(subjects, times, strict=True):
        seconds, low, high = _quartiles(taken)
        yield StepTime(
            engine=subject.engine,
            rows=subject.rows,
            dtype=subject.dtype,
            quantisation=subject.quantisation,
            skipped=subject.skipped,
            compensation=subject.compensation,
            ms_per_step=1e3 * seconds,
            ms_low=1e3 * low,
            ms_high=1e3 * high,
            tokens_per_s=subject.rows / seconds,
            samples=len(taken),
            bound_share=subject.bytes_read / (gigabytes * 1e9) / seconds if subject.bytes_read else None,
            efficiency=_efficiency(full[subject.full], taken, subject.share_skipped) if subject.share_skipped else None,
        )


def _efficiency(full: Sequence[float], skipping: Sequence[float], share_skipped: float) -> float:
    """Of samples taken in turn, each held against its neighbour, so that a drift of the machine hits both."""
    return statistics.median(
        skip_efficiency(whole, step, share_skipped) for whole, step in zip(full, skipping, strict=True)
    )
