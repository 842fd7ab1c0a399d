"""What clients do wrong, or to others: nothing hangs, no row leaks, neighbours keep their bits, refusals have codes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import psutil
import pytest
import torch
from serving import QUESTION, Served, served

from litestage.core import Compensation, Request, SkipSchedule, StagePlan, SubLayer
from litestage.engine import TorchEngine
from litestage.jobs.session import Session
from litestage.models import Affine
from litestage.serve.metrics import Metrics
from litestage.serve.work import Ask, Job, TextLine
from litestage.serve.worker import Worker

MODEL = "everyday-base"


@pytest.fixture(scope="module")
def small() -> Iterator[Served]:
    """A server that takes little: four rows, eight requests, bodies of 64 KiB."""
    with served(batch_size=4, max_requests=8, max_tokens=6000, max_body=1 << 16) as one:
        yield one


def raw(server: Served, path: str, body: dict[str, Any], length: int | None = None) -> socket.socket:
    """A connection on which a request was sent, and nothing was read."""
    text = json.dumps(body).encode()
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    head = f"POST /v1/{path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    connection.sendall(f"{head}content-length: {length or len(text)}\r\n\r\n".encode() + text)
    return connection


def staged(**more: Any) -> dict[str, Any]:
    return {"model": "everyday", "messages": [{"role": "user", "content": QUESTION}]} | more


def answered(server: Served) -> Any:
    """A neighbour's answer, without what a clock says."""
    answer = server.ask(litestage={"trace": True})
    assert answer.status_code == 200, answer.text
    return answer.json()["litestage"]["traces"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_rows(small: Served, stream: bool) -> None:
    engine = small.serving.worker.engine
    before, free = small.metric("requests_aborted_total"), engine.free_rows
    body = {"model": MODEL, "prompt": "x", "max_tokens": 900, "n": 2, "stream": stream, "temperature": 100}
    with raw(small, "completions", body):
        until = time.monotonic() + 20
        while small.metric("num_requests_running") < 2:
            assert time.monotonic() < until
            time.sleep(0.01)
    small.settled(before + 1)
    assert small.metric("requests_aborted_total") == before + 1
    assert engine.free_rows == free


def vanish(server: Served, number: int, seed: int) -> Any:
    """A client of its own kind: every other one goes away at a random moment."""
    chance = random.Random(f"{seed} {number}")
    stream = chance.random() < 0.5
    if number % 2:
        return answered(server)
    connection = raw(server, "chat/completions", staged(stream=stream, n=chance.choice([1, 2])))
    time.sleep(chance.random() * 0.5)
    if chance.random() < 0.5:
        with contextlib.suppress(OSError):
            connection.recv(64)
    connection.close()
    return None


@pytest.mark.parametrize("clients", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_neighbours_of_clients_that_vanish_keep_their_bits(server: Served, clients: int) -> None:
    expected = answered(server)
    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(lambda number: vanish(server, number, clients), range(clients)))
    assert [one for one in found if one is not None] == [expected] * (clients // 2)
    server.settled()


def test_a_slow_reader_holds_up_nobody(small: Served) -> None:
    """Its rows are free when its texts are written, though it has read nothing of them."""
    body = {"model": MODEL, "prompt": "x", "max_tokens": 200, "n": 4, "stream": True, "temperature": 100}
    with raw(small, "completions", body):
        answered(small)
        small.wait_for(lambda: not small.metric("num_requests_running"))
    small.settled()


def test_a_deadline_is_kept(small: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"model": MODEL, "prompt": "x", "n": 6, "max_tokens": 900, "temperature": 100, "logprobs": 5}
    monkeypatch.setattr(small.serving.site.desk, "timeout", 0.3)
    answer = small.http.post("/v1/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "deadline")
    with small.http.stream("POST", "/v1/completions", json=body | {"stream": True}) as stream:
        told = [line for line in stream.iter_lines() if line.startswith("data: ")]
    assert json.loads(told[-2].removeprefix("data: "))["error"]["code"] == "deadline"
    assert told[-1] == "data: [DONE]"
    small.settled()


def test_too_much_to_do_is_refused_before_the_engine_hears_of_it(small: Served) -> None:
    body = {"model": MODEL, "prompt": "x", "max_tokens": 30, "temperature": 0}
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: small.post("completions", **body), range(24)))
    texts = {answer.json()["choices"][0]["text"] for answer in answers if answer.status_code == 200}
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(texts) == 1
    assert refused
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) > 0
    huge = small.post("completions", model=MODEL, prompt="x", n=128, max_tokens=900)
    assert (huge.status_code, huge.json()["error"]["code"]) == (400, "too_many_tokens")
    small.settled()


@pytest.mark.parametrize("megabytes", [1, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_and_not_kept(small: Served, megabytes: int, chunked: bool) -> None:
    part = b"x" * (1 << 16)

    def parts() -> Iterator[bytes]:
        for _ in range(megabytes << 4):
            yield part

    content: Any = parts() if chunked else b"x" * (megabytes << 20)
    headers = {"content-type": "application/json"}
    before = psutil.Process().memory_info().rss
    answer = httpx2.post(f"{small.url}/v1/completions", content=content, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert psutil.Process().memory_info().rss - before < (megabytes + 64) << 20
    assert answered(small)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b"", 422),
        (b"[]", 422),
        (b"null", 422),
        (b'{"model": "everyday-base", "prompt": "\\ud800"}', 400),
        (b'{"model": "everyday-base", "prompt": "x", "n": 1e99}', 422),
        (b"\xff\xfe", 400),
        (b"[" * 60000, 400),
        (b'{"model": "everyday", "messages": [{"role": "user", "content": "(A) \\u0000 (B) x"}]}', 400),
    ],
)
def test_what_is_no_request_is_told_so(small: Served, content: bytes, status: int) -> None:
    for path in ("completions", "chat/completions", "decisions"):
        if path.split("/")[0].encode() not in content or path == "completions":
            answer = small.http.post(f"/v1/{path}", content=content, headers={"content-type": "application/json"})
            assert 400 <= answer.status_code < 500, answer.text
            assert answer.json()["error"]["message"]
    answer = small.http.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (status, 422)


def test_a_forward_that_fails_ends_no_more_than_what_was_in_it(small: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does for want of memory: who waited for it is told, and the next is answered."""
    expected, step = answered(small), small.serving.worker.engine.step

    def once() -> Any:
        monkeypatch.setattr(small.serving.worker.engine, "step", step)
        raise MemoryError

    monkeypatch.setattr(small.serving.worker.engine, "step", once)
    failed = small.ask()
    assert (failed.status_code, failed.json()["error"]["code"]) == (500, "internal_error")
    assert answered(small) == expected
    small.settled()


def test_an_engine_that_dies_leaves_nobody_waiting(session: Session) -> None:
    """Neither who is in it, nor who comes while it dies, nor who comes later."""
    told: list[list[Any]] = [[], [], []]

    def step() -> Any:
        time.sleep(0.2)
        raise SystemExit

    def dying() -> TorchEngine:
        engine = TorchEngine(session.engine.model, batch_size=2)
        vars(engine)["step"] = step
        return engine

    async def submit() -> None:
        worker = Worker(dying, "stages", Metrics())
        worker.start(asyncio.get_running_loop())
        for heard, wait in zip(told, (0.1, 0.5, 0.1), strict=True):
            worker.submit(Job([TextLine(Ask(Request(prompt_ids=(5, 6, 7))))], "everyday", 1, tell=heard.append))
            await asyncio.sleep(wait)
        assert worker.state == "dead"

    asyncio.run(submit())
    assert [(heard[-1].error.status, heard[-1].error.code) for heard in told] == [(503, "dead")] * 3


def test_numbers_that_are_none_fail_alone_whom_they_concern(small: Served) -> None:
    """A plan whose compensation overflows, beside neighbours who hear nothing of it; then a model that is spoilt."""
    engine, offer = small.serving.worker.engine, small.serving.site.offer
    expected = answered(small)
    assert offer is not None
    engine.stands["endless"] = {SubLayer(5, "ffn"): Affine(scale=torch.tensor(float("inf")))}
    compensation = Compensation(kind="norm_ratio", content="endless")
    spoilt = StagePlan(schedule=SkipSchedule.fixed(["5.ffn"]), compensation=compensation)
    offer.plans["spoilt"] = offer.session.plan({"analysis": spoilt})
    with ThreadPoolExecutor(1) as pool:
        neighbour = pool.submit(answered, small)
        for failed in [small.ask(model="everyday:spoilt") for _ in range(2)]:
            assert (failed.status_code, failed.json()["error"]["code"]) == (500, "unanswered")
            assert "finite" in failed.json()["error"]["message"]
        assert neighbour.result() == expected
    with torch.inference_mode():
        norm = engine.model.decoder.norm
        sound = norm.clone()
        norm[:] = float("nan")
        for more in ({}, {"echo": True, "logprobs": 1}, {"stream": True}):
            answer = small.post("completions", model=MODEL, prompt="a lantern", max_tokens=4, **more)
            assert "finite" in answer.text
        norm[:] = sound
    engine.forget()
    assert answered(small) == expected
    small.settled()


def test_a_request_that_is_never_sent_whole_holds_nothing(small: Served) -> None:
    with raw(small, "completions", {"model": MODEL, "prompt": "x"}, length=5000):
        assert answered(small)
    assert small.metric("reserved_tokens") == 0


def test_memory_is_flat(small: Served) -> None:
    """After many requests of many kinds it is what it was after a few."""

    def some() -> int:
        for number in range(3):
            small.post("completions", model=MODEL, prompt=f"{number} {time.monotonic()}", max_tokens=4, logprobs=2)
            small.ask(f"Which is {time.monotonic()}? (A) a lantern (B) a glove")
            small.post("completions", model=MODEL, prompt=[5] * 5000)
        small.settled()
        return psutil.Process().memory_info().rss

    some()
    first = some()
    assert some() - first < 32 << 20


def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A server in a process of its own, and where it listens, once it is ready."""
    command = [sys.executable, "-m", "litestage", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"})
    assert process.stderr is not None
    line = process.stderr.readline()
    while "ready" not in process.stderr.readline():
        assert process.poll() is None
    return process, line.split(" at ")[1].split(";")[0]


def test_a_signal_lets_finish_what_runs() -> None:
    process, url = start("--grace", "60")
    codes: list[int] = []
    try:

        def ask() -> None:
            codes.append(httpx2.post(f"{url}/v1/chat/completions", json=staged(), timeout=100).status_code)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 60
        while "litestage_num_requests_running 0" in httpx2.get(f"{url}/metrics").text:
            assert time.monotonic() < until
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert codes == [200] * 2
        assert process.wait(timeout=60) == 0
        with pytest.raises(httpx2.TransportError):
            httpx2.get(f"{url}/health")
    finally:
        process.kill()


def test_a_model_that_cannot_be_loaded_ends_the_server(litestage: Any) -> None:
    code, _, err = litestage("serve", "--port", "0", "--model", "/nowhere")
    assert code == 2
    assert "/nowhere" in err
    assert "Traceback" not in err
