"""What clients do wrong, or to others, and what came of it: ``faults.json`` beside this file.

python results/serving/faults.py

Nothing may hang, no row may stay taken, neighbours must get to the last bit what they get alone, each refusal must have
its code, and memory must stay what it was. It ends with code 1 where anything of that is not so.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil

RESULTS = Path(__file__).with_name("faults.json")
BARE, STAGED = "everyday-base", "everyday"
QUESTION = "Which of these gives off light? (A) a glove (B) a lantern (C) a spoon (D) a shoe"
CLIENTS = 200
FLOOD, FLOOD_SECONDS = 10_000, 60
LARGE = 100 << 20
NOISE = {"model": BARE, "prompt": "x", "temperature": 100}
"""Texts that go on to their limit."""


class Server:
    """The server in a process of its own, and clients of it."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "litestage", "serve", "--port", "0", "--quantise", "int8", "--grace", "120"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"})
        assert self.process.stderr is not None
        self.url = self.process.stderr.readline().split(" at ")[1].split(";")[0]
        assert "ready" in self.process.stderr.readline()
        self.wrong: list[str] = []
        """What is not as it must be."""
        self.http = httpx2.AsyncClient(base_url=self.url, timeout=180, limits=httpx2.Limits(max_connections=None))

    def expect(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            self.wrong.append(f"{what}: {found}, not {wanted}")

    @property
    def megabytes(self) -> float:
        return round(psutil.Process(self.process.pid).memory_info().rss / (1 << 20), 1)

    async def ask(self, **more: Any) -> Any:
        """A staged answer's status and traces: all that a neighbour could change."""
        body = {"model": STAGED, "messages": [{"role": "user", "content": QUESTION}], "litestage": {"trace": True}}
        answer = await self.http.post("/v1/chat/completions", json=body | more)
        return answer.status_code, answer.json().get("litestage", {}).get("traces")

    async def raw(self, path: str, body: dict[str, Any] | bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection on which a request was sent, and nothing was read."""
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 10)
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"POST /v1/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(text)}\r\n\r\n".encode() + text)
        await writer.drain()
        return reader, writer

    async def metrics(self) -> dict[str, float]:
        """What must be zero when nobody waits."""
        lines = (await self.http.get("/metrics")).text.splitlines()
        found = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        names = ("num_requests_running", "num_requests_waiting", "reserved_tokens")
        return {name: float(found[f"litestage_{name}"]) for name in names}

    async def settled(self) -> float:
        """Seconds until nothing runs, waits or is held."""
        begun = time.monotonic()
        while any((await self.metrics()).values()):
            assert time.monotonic() - begun < 60, "something still runs"
            await asyncio.sleep(0.05)
        return round(time.monotonic() - begun, 2)


async def vanishing(server: Server) -> dict[str, Any]:
    """Half of the clients go away at a random moment, of any kind of request; the others' answers are as alone."""
    alone, chance = await server.ask(), random.Random(5)

    async def vanish(stream: bool, moment: float, body: dict[str, Any]) -> None:
        reader, writer = await server.raw("chat/completions" if "messages" in body else "completions", body)
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(moment):
                while await reader.read(64):
                    pass
        writer.close()

    staged = {"model": STAGED, "messages": [{"role": "user", "content": QUESTION}]}
    bodies: list[dict[str, Any]] = [staged, staged | {"n": 2}, NOISE | {"max_tokens": 400, "n": 2}]
    jobs: list[Awaitable[Any]] = []
    for number in range(CLIENTS):
        stream = chance.random() < 0.5
        body = bodies[number % 3] | {"stream": stream}
        jobs.append(vanish(stream, chance.random() * 8, body) if number % 2 else server.ask())
    found = [one for one in await asyncio.gather(*jobs) if one is not None]
    server.expect("neighbours as alone", sum(one == alone for one in found), CLIENTS // 2)
    return {
        "clients": CLIENTS,
        "vanished": CLIENTS - len(found),
        "neighbours as alone": sum(one == alone for one in found),
        "settled after s": await server.settled(),
    }


async def slow_readers(server: Server) -> dict[str, Any]:
    """Clients that ask for long streams and read a few bytes a second, beside one that asks and reads."""
    alone = await server.ask()
    before = server.megabytes
    body = NOISE | {"max_tokens": 300, "n": 2, "stream": True, "logprobs": 5}
    readers = [await server.raw("completions", body) for _ in range(20)]
    neighbours = [await server.ask() for _ in range(5)]
    for _ in range(10):
        for reader, _ in readers:
            await reader.read(16)
        await asyncio.sleep(0.2)
    while (await server.metrics())["num_requests_running"]:
        await asyncio.sleep(0.1)
    grown = server.megabytes - before
    server.expect("neighbours of slow readers as alone", sum(one == alone for one in neighbours), 5)
    for _, writer in readers:
        writer.close()
    return {
        "readers": len(readers),
        "neighbours as alone": sum(one == alone for one in neighbours),
        "MB more while their texts waited": round(grown, 1),
        "settled after s": await server.settled(),
    }


async def large_bodies(server: Server) -> dict[str, Any]:
    """100 MB with their length told, and in chunks without it."""
    before, said = server.megabytes, Counter[str]()

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(LARGE >> 16):
            yield b"x" * (1 << 16)

    async def send(content: Any) -> None:
        try:
            headers = {"content-type": "application/json"}
            answer = await server.http.post("/v1/completions", content=content, headers=headers)
            said[f"{answer.status_code} {answer.json()['error']['code']}"] += 1
        except httpx2.TransportError:  # the server closed the connection before the client had written all
            said["connection closed"] += 1

    whole = b"x" * LARGE
    await asyncio.gather(*(send(whole if number % 2 else parts()) for number in range(8)))
    server.expect("what is said of large bodies", dict(said), {"413 too_large": 8})
    return {"bodies": 8, "MB each": LARGE >> 20, "said": dict(said), "MB more": round(server.megabytes - before, 1)}


async def broken(server: Server) -> dict[str, Any]:
    """What is no request, by what is said of it."""
    bodies = {
        "half of a JSON document": b'{"model": "everyday-base", "prom',
        "nothing": b"",
        "a list": b"[]",
        "no UTF-8": b"\xff\xfe\x00",
        "brackets 60,000 deep": b"[" * 60_000,
        "half a character": b'{"model": "everyday-base", "prompt": "\\ud800"}',
        "another model": b'{"model": "gpt-5", "prompt": "x"}',
        "a field of another type": b'{"model": "everyday-base", "prompt": "x", "n": "many"}',
        "n of 10,000": b'{"model": "everyday-base", "prompt": "x", "n": 10000}',
        "a prompt beyond the context": json.dumps({"model": BARE, "prompt": [5] * 100_000}).encode(),
        "a question without choices": b'{"model": "everyday", "messages": [{"role": "user", "content": "Why?"}]}',
    }
    said: dict[str, str] = {}
    for name, content in bodies.items():
        path = "/v1/chat/completions" if b"messages" in content else "/v1/completions"
        answer = await server.http.post(path, content=content, headers={"content-type": "application/json"})
        error = answer.json()["error"]
        server.expect(f"the status of {name}", 400 <= answer.status_code < 500, True)
        server.expect(f"a sentence for {name}", error["message"][-1:], ".")
        said[name] = f"{answer.status_code} {error['code'] or error['type']}"
    return {"said": said}


async def flood(server: Server) -> dict[str, Any]:
    """10,000 requests in a minute, each on a connection of its own; health checks are answered meanwhile."""
    body = NOISE | {"temperature": 0, "max_tokens": 8}
    alone = (await server.http.post("/v1/completions", json=body)).json()
    said, checks = Counter[int](), list[float]()
    before, begun = server.megabytes, time.monotonic()
    unlike = 0

    async def one(number: int) -> None:
        nonlocal unlike
        await asyncio.sleep(max(0.0, number * FLOOD_SECONDS / FLOOD - (time.monotonic() - begun)))
        if number % 100 == 0:
            asked = time.monotonic()
            await server.http.get("/health")
            checks.append(time.monotonic() - asked)
        reader, writer = await server.raw("completions", b"{" if number % 10 == 0 else body)
        head, _, content = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        said[status := int(head[9:12])] += 1
        if status == 200:
            unlike += json.loads(content)["choices"] != alone["choices"]

    await asyncio.gather(*map(one, range(FLOOD)))
    server.expect("answers of the flood unlike alone", unlike, 0)
    server.expect("statuses of the flood are known", {*said} <= {200, 400, 503}, True)
    return {
        "requests": FLOOD,
        "seconds": round(time.monotonic() - begun, 1),
        "said": {str(status): count for status, count in sorted(said.items())},
        "answers unlike alone": unlike,
        "a health check took at most s": round(max(checks), 3),
        "MB more": round(server.megabytes - before, 1),
        "settled after s": await server.settled(),
    }


async def ended(server: Server) -> dict[str, Any]:
    """SIGTERM with 200 questions under way: all are finished, and nothing new is taken."""
    alone = await server.ask()
    jobs = [asyncio.ensure_future(server.ask()) for _ in range(CLIENTS)]
    while (await server.metrics())["num_requests_running"] < 20:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)  # all have been sent
    begun = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    found = await asyncio.gather(*jobs)
    code = await asyncio.to_thread(server.process.wait, 60)
    server.expect("answers after SIGTERM as alone", sum(one == alone for one in found), CLIENTS)
    server.expect("the exit code", code, 0)
    return {
        "under way": CLIENTS,
        "answers as alone": sum(one == alone for one in found),
        "exit code": code,
        "ended after s": round(time.monotonic() - begun, 1),
    }


FAULTS: tuple[Callable[[Server], Awaitable[dict[str, Any]]], ...] = (
    vanishing,
    slow_readers,
    large_bodies,
    broken,
    flood,
    vanishing,
)


async def main() -> int:
    server = Server()
    processor = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    told: dict[str, Any] = {"processor": processor.partition(": ")[2], "python": platform.python_version()}
    memory: list[float] = []
    try:
        await asyncio.gather(*(server.ask() for _ in range(64)))  # what memory a full batch takes is taken once
        for fault in FAULTS:
            memory.append(server.megabytes)
            name = fault.__name__ if fault.__name__ not in told else f"{fault.__name__} again"
            told[name] = found = await fault(server)
            print(name, json.dumps(found), flush=True)
        await server.settled()
        told["MB before each, and behind all"] = memory = [*memory, server.megabytes]
        grown = memory[-1] - memory[2]  # before, pages of the cache are used for the first time
        server.expect(f"memory has grown by {grown:.0f} MB", grown < 32, True)
        told["ended"] = found = await ended(server)
        print("ended", json.dumps(found), flush=True)
    finally:
        server.process.kill()
    RESULTS.write_text(json.dumps(told, indent=2) + "\n")
    print(*server.wrong, sep="\n")
    return bool(server.wrong)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
