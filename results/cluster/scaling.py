"""Two workers of a Ray cluster on this machine beside one, and what a request costs its driver: ``scaling.json``.

python results/cluster/scaling.py [evaluate] [search] [request]

Workers have loaded their model before times are taken; the start is told by itself. Each number of workers has its turn
``ROUNDS`` times. Where the load shows that others were at work, the ratio says nothing. A search is the default one,
and all searches price by the same cost model.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import resource
import shutil
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray

from litestage.core import Request
from litestage.jobs.evaluate import evaluate
from litestage.jobs.options import ClusterOptions, DataOptions, SearchSettings
from litestage.jobs.search import search
from litestage.jobs.session import COMPLETIONS, Session
from litestage.jobs.timing import LATENCY_FILE

RESULTS = Path(__file__).with_name("scaling.json")
WORKERS = (2, 1)
ROUNDS = 2
ANSWERED, SEARCHED = 150, 40
CALLS = 300
OF_A_THOUSAND, WAITS = 2000, 50
"""Shards that a thousand workers have out, and how often they are waited for."""


def session_of(workers: int, limit: int, out: Path) -> Session:
    decoding = ClusterOptions(batch_size=32, workers=workers, cluster="local")
    return Session(data=DataOptions(split="test", limit=limit), decoding=decoding, out=out)


def timed(workers: int, limit: int, out: Path, job: Callable[[Session], object]) -> dict[str, float]:
    """Seconds of a job on a fresh folder, workers loaded, and the driver's own processor time meanwhile."""
    began = time.perf_counter()
    session = session_of(workers, limit, out)
    session.stored  # noqa: B018  that starts the workers
    session.settle()
    loaded, before = time.perf_counter(), processor()
    job(session)
    took = {"start": loaded - began, "seconds": time.perf_counter() - loaded, "driver": processor() - before}
    session.stored.engine.close()  # type: ignore[attr-defined]
    return took


def processor() -> float:
    """Seconds of all of this process' threads, Ray's among them."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def compared(job: Callable[[Session], object], limit: int, prices: Path | None) -> dict[str, Any]:
    """A job with each number of workers in turn; medians, and the ratio of their seconds."""
    rounds: dict[int, list[dict[str, float]]] = {workers: [] for workers in WORKERS}
    for _ in range(ROUNDS):
        for workers in WORKERS:
            with TemporaryDirectory() as folder:
                if prices is not None:
                    shutil.copy(prices, Path(folder) / LATENCY_FILE)
                rounds[workers].append(timed(workers, limit, Path(folder), job))
    told = {
        str(workers): {key: round(statistics.median(one[key] for one in took), 3) for key in took[0]}
        for workers, took in rounds.items()
    }
    return {
        "load": round(os.getloadavg()[0], 1),
        **told,
        "ratio": round(told["2"]["seconds"] / told["1"]["seconds"], 3),
    }


class Empty:
    """An actor that does nothing."""

    async def call(self) -> None:
        """Come back."""

    async def stay(self) -> None:
        """Do not come back."""
        await asyncio.sleep(3600)


def a_request() -> dict[str, float]:
    """Bytes of a request and its completion, there, back and in the store, and Ray's part of an empty call."""
    with TemporaryDirectory() as folder:
        session = session_of(2, ANSWERED, Path(folder))
        asked: list[Request] = []
        kept = session.stored.add

        def add(request: Request, *, stream: bool = False) -> int:
            asked.append(request)
            return kept(request, stream=stream)

        session.stored.add = add  # type: ignore[method-assign]
        traces = session.answer(session.questions(), session.full_plan(), "answering")
        done = [one for trace in traces for stage in trace.stages for one in stage.completions]
        there, back = (len(pickle.dumps(all_)) / len(all_) for all_ in (asked, done))
        pages = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        with sqlite3.connect(Path(folder) / COMPLETIONS) as file:
            stored = file.execute(pages).fetchone()[0] / session.stored.decoded
        session.stored.engine.close()  # type: ignore[attr-defined]
    empty = ray.remote(Empty).options(max_concurrency=OF_A_THOUSAND, num_cpus=0).remote()
    ray.get(empty.call.remote())
    began, before = time.perf_counter(), processor()
    for _ in range(CALLS):
        ray.get(empty.call.remote())
    call, own = (time.perf_counter() - began) / CALLS, (processor() - before) / CALLS
    waiting = [empty.stay.remote() for _ in range(OF_A_THOUSAND)]
    began = time.perf_counter()
    for _ in range(WAITS):
        ray.wait(waiting, num_returns=1, timeout=0)
    wait = (time.perf_counter() - began) / WAITS
    ray.kill(empty)
    return {
        "requests": len(asked),
        "bytes_there": round(there),
        "bytes_back": round(back),
        "bytes_stored": round(stored),
        "call_ms": round(1e3 * call, 3),
        "call_processor_ms": round(1e3 * own, 3),
        "wait_for_2000_ms": round(1e3 * wait, 3),
    }


def evaluated() -> dict[str, Any]:
    """Without the times that prices are made of."""
    told = compared(lambda on: on.answer(on.questions(), on.full_plan(), "answering"), ANSWERED, None)
    return {"questions": ANSWERED, **told}


def searched() -> dict[str, Any]:
    """The default search, by prices that were taken once."""
    with TemporaryDirectory() as folder:
        evaluate(session_of(2, 4, Path(folder)))
        settings = SearchSettings(certify=SEARCHED)
        prices = Path(folder) / LATENCY_FILE
        told = compared(lambda on: search(on, settings, on.questions("dev", 2 * SEARCHED)), SEARCHED, prices)
    return {"questions": SEARCHED, "certify": SEARCHED, **told}


PARTS = {"evaluate": evaluated, "search": searched, "request": a_request}


def main(parts: Sequence[str]) -> None:
    told = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for part in parts:
        told[part] = PARTS[part]()
        print(part, json.dumps(told[part], indent=2))
    told["rounds"] = ROUNDS
    told["conditions"] = Session(data=DataOptions(limit=1)).conditions.model_dump(mode="json")
    RESULTS.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:] or list(PARTS))
