"""All that is to be known of a machine, by one command: whether its tokens are right, then how fast they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from litestage.benchmarks.decode import FORMS, bench_decode, forms_on, in_form, prompts_of, skip_sets
from litestage.benchmarks.ladder import bench_ladder
from litestage.benchmarks.options import AllBenchOptions, DecodeBenchOptions, LadderOptions, PipelineBenchOptions
from litestage.benchmarks.peers import TRANSFORMERS, TransformersEngine
from litestage.benchmarks.pipeline import bench_pipeline
from litestage.benchmarks.precision import bench_accuracy
from litestage.core import LitestageError, Request, Sampling, SkipSchedule, StagePlan
from litestage.core.files import write_text
from litestage.core.layers import Record
from litestage.engine import TorchEngine
from litestage.jobs.options import DataOptions, DecodingOptions, ModelOptions
from litestage.jobs.progress import Progress
from litestage.jobs.session import Session
from litestage.models import pick_device
from litestage.models.load import load_transformers
from litestage.results import AllBench, TokenCheck

PROMPTS, LENGTH, NEW = 4, 40, 16
"""Of a check: rows, tokens of each prompt, and tokens that follow."""
Part = TypeVar("Part", bound=Record)


def bench_all(
    model: ModelOptions, data: DataOptions, options: AllBenchOptions, out: Path | None, progress: Progress
) -> AllBench:
    """Check tokens, then time everything; what is done is kept at once, and a part that fails costs no other.

    Parts that would begin after ``minutes`` are left out.
    """
    start, device = time.perf_counter(), pick_device(model.device)
    failed: dict[str, str] = {}
    seconds: dict[str, float] = {}

    def part(name: str, make: Callable[[], Part]) -> Part | None:
        begun = time.perf_counter()
        if begun - start > 60 * options.minutes:
            failed[name] = f"left out: {options.minutes} minutes were over"
            return None
        try:
            made = make()
        except (RuntimeError, LitestageError) as error:  # a driver's or a compiler's, of a machine that nobody knew
            failed[name] = f"{type(error).__name__}: {error}"
            return None
        finally:
            seconds[name] = time.perf_counter() - begun
        if out is not None:
            write_text(out / f"{name.replace(':', '-')}.json", made.model_dump_json(indent=2) + "\n")
        return made

    def session(limit: int, **how: str) -> Session:
        decoding = DecodingOptions(batch_size=64, workers=1)
        return Session(replace(model, **how), replace(data, limit=limit), decoding, progress=progress)

    def pipeline() -> Record:
        opened = session(options.limit, dtype="bf16")
        asked = PipelineBenchOptions(votes=10, at_once=4, peer_questions=4, peer_batch_size=32)
        return bench_pipeline(opened, opened.questions(), None, asked)

    def ladder() -> Record:
        opened = session(options.limit)
        return bench_ladder(opened, opened.questions(), LadderOptions(search_limit=20, warm=2))

    def accuracy() -> Record:
        opened = session(options.limit)
        return bench_accuracy(opened, opened.questions())

    def decode(shape: str) -> Record:
        asked = DecodeBenchOptions(rows=options.rows, prefill=options.prefill, repeats=options.repeats)
        return bench_decode(shape, asked, (TRANSFORMERS,), device, progress)

    checks = part("tokens", lambda: check_tokens(session(1), progress))
    parts: dict[str, Callable[[], Record]] = {
        "accuracy": accuracy,
        **{f"decode:{shape}": partial(decode, shape) for shape in options.shapes},
        "pipeline": pipeline,
        "ladder": ladder,
    }
    done = {name: made.model_dump(mode="json") for name, make in parts.items() if (made := part(name, make))}
    return AllBench(checks=checks.checks if checks else (), parts=done, failed=failed, seconds=seconds)


class _Checks(Record):
    checks: tuple[TokenCheck, ...]


def check_tokens(session: Session, progress: Progress) -> _Checks:
    """In every form: rows beside each other against each alone, skipping or not, drawn or not; fp32 against
    transformers' own tokens."""
    device = session.engine.model.decoder.device
    source, tokenizer = load_transformers(session.model.name, adapter=session.model.adapter)
    prompts = prompts_of(PROMPTS, LENGTH, source.config.vocab_size)
    skipped = list(skip_sets(session.engine.identity.num_blocks).items())[1]
    plans = {"full depth": StagePlan(), skipped[0]: StagePlan(schedule=SkipSchedule.fixed(skipped[1]))}
    found = []
    forms = forms_on(device, progress)
    progress.start("checking tokens", len(forms))
    for dtype, quantisation in forms:
        loaded = in_form(source, tokenizer, dtype, quantisation, device)
        for name, plan in plans.items():
            for sampling in (Sampling(), Sampling(temperature=0.7)):
                requests = [
                    Request(prompt_ids=ids, stage_plan=plan, max_new_tokens=NEW, sampling=sampling, seed=seed)
                    for seed, ids in enumerate(prompts)
                ]
                how = f"{name}, {'greedy' if sampling.is_greedy else 'drawn'}"
                together = [one.token_ids for one in TorchEngine(loaded).generate(requests)]
                alone = [TorchEngine(loaded, batch_size=1).generate([one])[0].token_ids for one in requests]
                exact = (dtype, quantisation) == FORMS[0] or loaded.decoder.is_exact
                found.append(_check(f"{how}: beside others as alone", dtype, quantisation, together, alone, exact))
                if (dtype, quantisation) == FORMS[0] and not plan.schedule.num_skipped and sampling.is_greedy:
                    peer = TransformersEngine(source.to(device), TorchEngine(loaded), 1)
                    theirs = [one.token_ids for one in peer.generate(requests)]
                    found.append(_check(f"{how}: as transformers", dtype, quantisation, together, theirs, True))
                    source = source.to("cpu")
        progress.advance()
    return _Checks(checks=tuple(found))


def _check(
    name: str,
    dtype: str,
    quantisation: str,
    ours: Sequence[tuple[int, ...]],
    theirs: Sequence[tuple[int, ...]],
    exact: bool,
) -> TokenCheck:
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    return TokenCheck(
        name=name, dtype=dtype, quantisation=quantisation, same=same, of=len(ours), right=same == len(ours) or not exact
    )
