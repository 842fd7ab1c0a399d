"""How long a search takes in each form of the model, and whether it chooses the same."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from litestage.benchmarks.decode import FORMS
from litestage.jobs.progress import Progress
from litestage.jobs.search import search
from litestage.jobs.session import Options, Session
from litestage.results import SearchBench, SearchTime
from litestage.search import SearchOptions


def bench_search(
    options: Options, split: str, limit: int | None, wanted: SearchOptions, progress: Progress
) -> SearchBench:
    """Run the same search in every form, each from nothing."""
    times = [
        _timed(replace(options, dtype=dtype, quantise=quantisation), split, limit, wanted, progress)
        for dtype, quantisation in FORMS
    ]
    session = times[0][1]
    return SearchBench(
        model=session.engine.identity.id,
        task=session.task.name,
        forms=tuple(record for record, _ in times),
        conditions=session.conditions,
    )


def _timed(
    options: Options, split: str, limit: int | None, wanted: SearchOptions, progress: Progress
) -> tuple[SearchTime, Session]:
    session = Session(options)
    questions = session.questions(split, limit)
    with TemporaryDirectory() as out:
        start = time.perf_counter()
        found = search(session, questions, Path(out), wanted, split=split, progress=progress)
        seconds = time.perf_counter() - start
    record = SearchTime(
        dtype=options.dtype,
        quantisation=options.quantise,
        seconds=seconds,
        questions=len(questions),
        settings=found.record.spent.points,
        answered=found.record.spent.questions,
        percent=found.record.result.accuracy,
        skipped={name: stage.schedule.num_skipped for name, stage in found.plan.stages.items()},
    )
    return record, session
