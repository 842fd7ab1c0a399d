"""Staged questions from several clients at once: questions a second and what each waits, ours beside other servers.

    python results/serving/load.py --data ../shared/data [--systems ours-int8,openvino-int8,...]

Each server is started, asked and ended before the next begins. To ours a client sends a question; of the others it runs
the stages itself, by `/v1/completions`, with the same prompts. Each asks its next question when its last is answered.
All systems are asked the same questions, none twice. ``ours-int8-stage`` drafts from what stages wrote for others, too.
What is found goes to ``load.json`` beside this file; settings that are there are not measured again. The others'
environments: `litestage bench decode --peers` names them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2

from litestage.benchmarks.peers.elsewhere import OPENVINO, VLLM, model_folder
from litestage.core import Completion, Counts, ModelIdentity, Plan, Request, TokenIds
from litestage.models.load import load_transformers
from litestage.models.prompts import PromptEncoder
from litestage.pipeline import Spine
from litestage.tasks import LETTERS, Question, Task, list_choices, load_questions, load_task

Ask = Callable[[httpx2.AsyncClient, Question], Awaitable[int | None]]
MODEL, TASK = "smollm2-135m", "obqa"
CONTEXT, ROWS, THREADS = 2048, 128, 2
QUESTIONS = {1: 24, 8: 72, 32: 160}
"""By clients."""
WARM = 4
"""Questions besides one a client, before a setting is measured."""
SYSTEMS = "ours-int8,ours-int8-stage,openvino-int8,ours-bf16,vllm-bf16"
PORT = 8177
URL = f"http://127.0.0.1:{PORT}"
RESULTS = Path(__file__).with_name("load.json")


class Prompts:
    """What of an engine the spine needs to write prompts; the texts come from elsewhere."""

    max_context, keeps_written = CONTEXT, False

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.identity = ModelIdentity(id=str(folder), fingerprint="", num_blocks=1)
        self._encoder = PromptEncoder(tokenizer, str(folder), len(tokenizer), (tokenizer.eos_token_id,))

    def encode(self, text: str, chat: Any = None) -> TokenIds:
        return self._encoder.encode([text], chat)[0]


def by_stages_of_the_client(task: Task, folder: Path) -> Ask:
    prompts = Prompts(folder)
    spine = Spine(prompts, task, Plan.full_depth(prompts.identity, task.name, task.fingerprint))  # type: ignore[arg-type]

    async def write(client: httpx2.AsyncClient, request: Request) -> Completion:
        body = {
            "model": str(folder),
            "prompt": list(request.prompt_ids),
            "max_tokens": min(request.max_new_tokens, CONTEXT - len(request.prompt_ids)),
            "temperature": 0,
        }
        answer = (await client.post(f"{URL}/v1/completions", json=body)).raise_for_status().json()
        choice = answer["choices"][0]
        reason = "length" if choice["finish_reason"] == "length" else "eos"
        return Completion(token_ids=(), text=choice["text"], confidences=(), finish_reason=reason, counts=Counts())

    async def ask(client: httpx2.AsyncClient, question: Question) -> int | None:
        answering = spine.start(question)
        while answering.stage is not None:
            answering.take(await asyncio.gather(*(write(client, one) for one in answering.requests())))
        return answering.trace().answer

    return ask


async def by_stages_of_the_server(client: httpx2.AsyncClient, question: Question) -> int | None:
    content = f"{question.question} {list_choices(question.choices)}"
    body = {"model": TASK, "messages": [{"role": "user", "content": content}]}
    answer = (await client.post(f"{URL}/v1/chat/completions", json=body)).raise_for_status().json()
    letter = answer["litestage"]["answer"]
    return None if letter is None else LETTERS.index(letter)


async def load(ask: Ask, questions: Sequence[Question], clients: int) -> dict[str, Any]:
    took: list[float] = []
    answers: dict[str, int | None] = {}
    following = iter(questions)

    async def client_asks(client: httpx2.AsyncClient) -> None:
        for question in following:
            begun = time.perf_counter()
            answers[question.id] = await ask(client, question)
            took.append(time.perf_counter() - begun)

    async with httpx2.AsyncClient(timeout=300, limits=httpx2.Limits(max_connections=None)) as client:
        begun = time.perf_counter()
        await asyncio.gather(*(client_asks(client) for _ in range(clients)))
        seconds = time.perf_counter() - begun
    took.sort()
    at = {f"p{share}": round(took[min(len(took) - 1, share * len(took) // 100)], 3) for share in (50, 90, 99)}
    right = sum(answers[question.id] == question.answer for question in questions)
    return {
        "clients": clients,
        "questions": len(questions),
        "seconds": round(seconds, 2),
        "questions_a_second": round(len(questions) / seconds, 3),
        **at,
        "right": right,
    }


def command(system: str, folder: Path) -> list[str]:
    name, precision, *drafts = system.split("-")
    if name == "vllm":
        more = ["--dtype", "bfloat16", "--max-model-len", str(CONTEXT), "--max-num-seqs", "256"]
        serve = [str(VLLM.python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
        return [*serve, *more, "--port", str(PORT), "--enable-prefix-caching"]
    if name == "openvino":
        server = [str(OPENVINO.python), str(Path(__file__).with_name("openvino_server.py"))]
        return [*server, str(folder), precision, str(PORT), str(ROWS), str(THREADS)]
    form = ["--dtype", "bf16", *(() if precision == "bf16" else ("--quantise", precision))]
    serve = [sys.executable, "-m", "litestage", "serve", "--model", MODEL, "--adapter", TASK, "--task", TASK]
    return [
        *serve,
        *form,
        "--batch-size",
        str(ROWS),
        "--port",
        str(PORT),
        "--no-page",
        *(["--drafts", *drafts] if drafts else []),
    ]


@contextmanager
def started(system: str, folder: Path) -> Iterator[None]:
    """A server, once it answers."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "2", "OMP_NUM_THREADS": str(THREADS)}
    if not system.startswith("ours"):
        environment.pop("PYTHONPATH", None)
    with folder.with_name(f"load-{system}.log").open("w") as log:
        process = subprocess.Popen(
            command(system, folder), stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        until = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < until:
            try:
                if httpx2.get(f"{URL}/health", timeout=5).status_code == 200:
                    break
            except httpx2.TransportError:
                pass
            time.sleep(0.2)
        else:
            raise SystemExit(f"{system} did not start: {log.name} says why")
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        with suppress(ProcessLookupError):  # of a server of several processes none must take the next one's time
            os.killpg(process.pid, signal.SIGKILL)


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--systems", default=SYSTEMS)
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--share", type=float, default=1.0, help="of the questions, to try it")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    folder, task = model_folder(*load_transformers(MODEL, adapter=TASK)), load_task(TASK)
    pool = [one for split in ("test", "dev") for one in load_questions(task, split, data=f"{given.data}/{TASK}")]
    settings = json.loads(given.out.read_text())["settings"] if given.out.is_file() else []
    there = {(one["system"], one["clients"]) for one in settings}
    for system in given.systems.split(","):
        wanted = [clients for clients in map(int, given.clients.split(",")) if (system, clients) not in there]
        if not wanted:
            continue
        ask = by_stages_of_the_server if system.startswith("ours") else by_stages_of_the_client(task, folder)
        with started(system, folder):
            for clients in wanted:
                asyncio.run(load(ask, pool[len(pool) - WARM - clients :], clients))
                first = sum(count for fewer, count in QUESTIONS.items() if fewer < clients)
                asked = pool[first : first + round(QUESTIONS[clients] * given.share)]
                settings.append({"system": system} | asyncio.run(load(ask, asked, clients)))
                print(json.dumps(settings[-1]), flush=True)
                given.out.write_text(json.dumps({"processor": processor(), "settings": settings}, indent=2) + "\n")


if __name__ == "__main__":
    main()
