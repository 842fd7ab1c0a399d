"""Staged questions from several clients at once; each asks its next when the last is answered. One JSON line a setting.

    python results/serving/load.py --url URL --model obqa --task obqa --data DIR --clients 1,8,32 --seconds 30
    python results/serving/load.py --url URL --model NAME --tokenizer DIR ...   # where the client runs the stages

Both send the same prompts. Questions are the first of the split, in order, from the beginning for every setting.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import httpx2

from litestage.core import Completion, Counts, ModelIdentity, Plan, Request, TokenIds
from litestage.models.prompts import PromptEncoder
from litestage.pipeline import Spine
from litestage.tasks import Question, Task, list_choices, load_questions, load_task

Ask = Callable[[httpx2.AsyncClient, Question], Awaitable[int | None]]
CONTEXT = 2048


class Prompts:
    """What of an engine the spine needs to write prompts; the texts come from elsewhere."""

    max_context, keeps_written = CONTEXT, False

    def __init__(self, folder: str) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.identity = ModelIdentity(id=folder, fingerprint="", num_blocks=1)
        self._encoder = PromptEncoder(tokenizer, folder, len(tokenizer), (tokenizer.eos_token_id,))

    def encode(self, text: str, chat: Any = None) -> TokenIds:
        return self._encoder.encode([text], chat)[0]


def by_stages_of_the_client(url: str, model: str, task: Task, folder: str) -> Ask:
    prompts = Prompts(folder)
    plan = Plan.full_depth(prompts.identity, task.name, task.fingerprint)
    spine = Spine(prompts, task, plan)  # type: ignore[arg-type]

    async def write(client: httpx2.AsyncClient, request: Request) -> Completion:
        body = {
            "model": model,
            "prompt": list(request.prompt_ids),
            "max_tokens": min(request.max_new_tokens, CONTEXT - len(request.prompt_ids)),
            "temperature": 0,
            "stop": list(request.stop) or None,
        }
        answer = (await client.post(f"{url}/v1/completions", json=body)).raise_for_status().json()
        choice = answer["choices"][0]
        reason = "length" if choice["finish_reason"] == "length" else "eos"
        return Completion(token_ids=(), text=choice["text"], confidences=(), finish_reason=reason, counts=Counts())

    async def ask(client: httpx2.AsyncClient, question: Question) -> int | None:
        answering = spine.start(question)
        while answering.stage is not None:
            answering.take(await asyncio.gather(*(write(client, one) for one in answering.requests())))
        return answering.trace().answer

    return ask


def by_stages_of_the_server(url: str, model: str) -> Ask:
    async def ask(client: httpx2.AsyncClient, question: Question) -> int | None:
        content = f"{question.question} {list_choices(question.choices)}"
        body = {"model": model, "messages": [{"role": "user", "content": content}]}
        answer = (await client.post(f"{url}/v1/chat/completions", json=body)).raise_for_status().json()
        letter = answer["litestage"]["answer"]
        return None if letter is None else "ABCDEFGH".index(letter)

    return ask


async def load(ask: Ask, questions: Sequence[Question], clients: int, seconds: float) -> dict[str, Any]:
    """Questions that were answered within ``seconds``; those under way then are let finish and do not count."""
    took: list[float] = []
    right = 0
    end = time.perf_counter() + seconds
    following: Iterator[Question] = itertools.cycle(questions)

    async def client_asks(client: httpx2.AsyncClient) -> None:
        nonlocal right
        while (begun := time.perf_counter()) < end:
            question = next(following)
            answer = await ask(client, question)
            if (now := time.perf_counter()) <= end:
                took.append(now - begun)
                right += answer == question.answer

    async with httpx2.AsyncClient(timeout=300, limits=httpx2.Limits(max_connections=None)) as client:
        await asyncio.gather(*(client_asks(client) for _ in range(clients)))
    took.sort()
    at = lambda share: round(took[min(len(took) - 1, int(share * len(took)))], 3) if took else None  # noqa: E731
    return {
        "clients": clients,
        "seconds": seconds,
        "answered": len(took),
        "right": right,
        "questions_a_second": round(len(took) / seconds, 3),
        "p50": at(0.5),
        "p99": at(0.99),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("url", "model", "task", "data", "tokenizer", "label"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--seconds", type=float, default=30)
    given = parser.parse_args()
    task = load_task(given.task)
    questions = load_questions(task, "test", data=given.data)
    if given.tokenizer:
        ask = by_stages_of_the_client(given.url, given.model, task, given.tokenizer)
    else:
        ask = by_stages_of_the_server(given.url, given.model)
    asyncio.run(load(ask, questions[-4:], 2, 3))  # warm
    for clients in map(int, given.clients.split(",")):
        found = asyncio.run(load(ask, questions, clients, given.seconds))
        print(json.dumps({"label": given.label or given.model} | found), flush=True)


if __name__ == "__main__":
    main()
