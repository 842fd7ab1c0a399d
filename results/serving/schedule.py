"""What staged answers wait for under load, by who gets the next row and how long prompts enter: ``schedule.json``.

    python results/serving/schedule.py [--data ../shared/data]

Clients ask OpenBookQA's questions, each its next when its last is answered; one more sends long bare prompts. Settings
take turns, so that a drift of the machine is everybody's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path

from litestage.core import Decode, Prefill, Request
from litestage.jobs.session import Session, load
from litestage.pipeline import Spine
from litestage.serve.desk import Desk
from litestage.serve.metrics import Metrics
from litestage.serve.work import Ask, Job, TextLine, VoteLine
from litestage.serve.worker import Worker
from litestage.tasks import Question

RESULTS = Path(__file__).with_name("schedule.json")
CLIENTS, EACH, ROWS, ROUNDS = 12, 3, 16, 2
LONG = 1500
"""Tokens of a bare prompt."""
SETTINGS = (("fcfs", 0), ("fcfs", 256), ("stages", 0), ("stages", 64), ("stages", 256), ("stages", 512))
"""Who gets the next row, and the tokens of a chunk; 0 takes prompts whole."""


class Load:
    """One setting's clients and what they waited."""

    def __init__(self, session: Session, scheduling: str, chunk: int) -> None:
        self.session, self.forwards = session, 0
        self.waited: dict[str, list[float]] = {"staged": [], "long": []}
        session.engine.on_pass = self._count
        session.engine.chunk = chunk or None
        session.engine.forget()
        metrics = Metrics()
        self._worker = Worker(lambda: session.engine, scheduling, metrics)
        self._desk = Desk(self._worker, metrics, most_requests=1000, most_tokens=1 << 30, timeout=3600)
        self._spine = Spine(session.engine, session.task, session.full_plan())

    def _count(self, _: Prefill | Decode) -> None:
        self.forwards += 1

    async def run(self, questions: list[Question], long: list[tuple[int, ...]]) -> float:
        """Seconds until all staged questions are answered."""
        self._worker.start(asyncio.get_running_loop())
        begun = time.perf_counter()
        reader = asyncio.ensure_future(self._long(long))
        await asyncio.gather(*(self._staged(questions[at::CLIENTS]) for at in range(CLIENTS)))
        seconds = time.perf_counter() - begun
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        self._worker.stop()
        return seconds

    async def _staged(self, questions: list[Question]) -> None:
        for question in questions:
            await self._wait("staged", Job([VoteLine(self._spine.start(question), stream=False)], "staged", 1))

    async def _long(self, prompts: list[tuple[int, ...]]) -> None:
        for prompt in prompts:
            await self._wait("long", Job([TextLine(Ask(Request(prompt_ids=prompt, max_new_tokens=8)))], "long", 1))

    async def _wait(self, kind: str, job: Job) -> None:
        begun = time.perf_counter()
        async for _ in self._desk.messages(job, self._desk.deadline()):
            pass
        self.waited[kind].append(time.perf_counter() - begun)


def shares(waited: list[float]) -> dict[str, float]:
    ordered = sorted(waited)
    at = {f"p{share}": ordered[min(len(ordered) - 1, share * len(ordered) // 100)] for share in (50, 90, 99)}
    return {name: round(value, 3) for name, value in ({"mean": sum(ordered) / len(ordered)} | at).items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="../shared/data")
    data = f"{parser.parse_args().data}/obqa"
    session = load("smollm2-135m", "obqa", adapter="obqa", data=data, quantise="int8", batch_size=ROWS)
    session.engine.drafter = session.drafter
    pool = session.questions("test", CLIENTS * EACH + 300)
    questions, others = list(pool[: CLIENTS * EACH]), pool[CLIENTS * EACH :]
    text = session.engine.encode(" ".join(one.question for one in others))
    long = [text[at : at + LONG] for at in range(0, len(text) - LONG, LONG // 4)]  # each begins in its own way
    found: dict[tuple[str, int], list[tuple[Load, float]]] = {setting: [] for setting in SETTINGS}
    asyncio.run(Load(session, *SETTINGS[0]).run(questions, long))  # the cache's memory is taken
    for _ in range(ROUNDS):
        for setting in SETTINGS:
            one = Load(session, *setting)
            found[setting].append((one, asyncio.run(one.run(questions, long))))
        settings = [summary(*setting, runs) for setting, runs in found.items()]
        RESULTS.write_text(json.dumps({"settings": settings}, indent=2) + "\n")
    print(*map(json.dumps, settings), sep="\n")


def summary(scheduling: str, chunk: int, runs: list[tuple[Load, float]]) -> dict[str, object]:
    waited = {kind: [value for one, _ in runs for value in one.waited[kind]] for kind in ("staged", "long")}
    return {
        "scheduling": scheduling,
        "chunk": chunk,
        "clients": CLIENTS,
        "rows": ROWS,
        "questions": len(waited["staged"]),
        "long_prompts": len(waited["long"]),
        "seconds": round(sum(seconds for _, seconds in runs), 1),
        "forwards": sum(one.forwards for one, _ in runs),
    } | {f"{kind}_seconds": shares(values) for kind, values in waited.items() if values}


if __name__ == "__main__":
    main()
