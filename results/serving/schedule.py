"""What an answer waits for under load, by who gets the next row: in forwards of the engine, so no clock has a part.

python results/serving/schedule.py [CLIENTS] [QUESTIONS EACH] [ROWS]
"""

from __future__ import annotations

import asyncio
import json
import sys

from litestage.core import Decode, Prefill
from litestage.jobs.session import Session, load
from litestage.pipeline import Spine
from litestage.serve.desk import Desk, Order
from litestage.serve.metrics import Metrics
from litestage.serve.work import VoteLine
from litestage.serve.worker import Worker
from litestage.tasks import Question


async def measure(session: Session, scheduling: str, clients: int, each: int) -> dict[str, object]:
    """Each client asks its next question when its last one is answered."""
    forwards = 0

    def count(_: Prefill | Decode) -> None:
        nonlocal forwards
        forwards += 1

    session.engine.on_pass = count
    session.engine.forget()
    metrics = Metrics()
    worker = Worker(lambda: session.engine, scheduling, metrics)
    worker.start(asyncio.get_running_loop())
    desk = Desk(worker, metrics, most_requests=clients, most_tokens=1 << 30, timeout=3600)
    spine = Spine(session.engine, session.task, session.full_plan())
    questions = session.questions("test", clients * each)
    took: list[int] = []

    async def client(mine: list[Question]) -> None:
        for question in mine:
            begun = forwards
            order = Order([VoteLine(spine.start(question), stream=False)], "everyday", 1)
            async for _ in desk.messages(order, desk.deadline()):
                pass
            took.append(forwards - begun)

    await asyncio.gather(*(client(questions[at::clients]) for at in range(clients)))
    worker.stop()
    took.sort()
    at = {f"p{share}": took[min(len(took) - 1, share * len(took) // 100)] for share in (50, 90, 99)}
    return {
        "scheduling": scheduling,
        "clients": clients,
        "rows": session.engine.batch_size,
        "questions": len(took),
        "forwards": forwards,
        "mean": round(sum(took) / len(took), 1),
    } | at


def main() -> None:
    clients, each, rows = [int(text) for text in sys.argv[1:]] or [24, 3, 8]
    for scheduling in ("fcfs", "stages"):
        session = load(quantise="int8", batch_size=rows)
        print(json.dumps(asyncio.run(measure(session, scheduling, clients, each))), flush=True)


if __name__ == "__main__":
    main()
