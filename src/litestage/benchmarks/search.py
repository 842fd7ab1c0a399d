"""How long a search takes in each form of the model, and whether it chooses the same."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from litestage.benchmarks.decode import FORMS
from litestage.jobs.options import DataOptions, DecodingOptions, ModelOptions, SearchSettings
from litestage.jobs.progress import Progress
from litestage.jobs.search import search_greedily
from litestage.jobs.session import Session
from litestage.results import SearchBench, SearchTime


def bench_search(
    model: ModelOptions, data: DataOptions, decoding: DecodingOptions, settings: SearchSettings, progress: Progress
) -> SearchBench:
    """Run the same search in every form, each from nothing."""
    times = [
        _timed(replace(model, dtype=dtype, quantise=quantisation), data, decoding, settings, progress)
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
    model: ModelOptions, data: DataOptions, decoding: DecodingOptions, settings: SearchSettings, progress: Progress
) -> tuple[SearchTime, Session]:
    with TemporaryDirectory() as out:
        session = Session(model, data, decoding, out=Path(out), progress=progress)
        questions = session.questions()
        start = time.perf_counter()
        found = search_greedily(session, settings, questions, split=data.split)
        seconds = time.perf_counter() - start
    record = SearchTime(
        dtype=model.dtype,
        quantisation=model.quantise,
        seconds=seconds,
        questions=len(questions),
        settings=found.record.spent.points,
        answered=found.record.spent.questions,
        percent=found.record.result.accuracy,
        skipped={name: stage.schedule.num_skipped for name, stage in found.plan.stages.items()},
    )
    return record, session
