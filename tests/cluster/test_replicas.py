"""The same app on a Ray cluster: replicas that die, come and go while clients ask."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("ray")
pytest.importorskip("fastapi")

import httpx2
import psutil
from ray import serve

from litestage.core import Trace
from litestage.jobs.options import DataOptions, DecodingOptions, ModelOptions, ReplicaOptions, ServeOptions
from litestage.jobs.session import load
from litestage.pipeline import run
from litestage.serve.replicas import NAME, application
from litestage.serve.server import Asked
from litestage.tasks import LETTERS, Question

DEPLOYED = 2


@pytest.fixture(scope="module")
def url(ray_cluster: Any) -> Iterator[str]:
    """Where Ray's proxies listen."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def deploy(least: int, most: int, scale_after: float = 1.0) -> None:
    asked = Asked.of(
        ModelOptions(quantise="int8"), DataOptions(), DecodingOptions(batch_size=8), ServeOptions(no_page=True, grace=5)
    )
    replicas = ReplicaOptions(min_replicas=least, max_replicas=most, scale_after=scale_after)
    serve.run(application(asked, replicas), name=NAME, route_prefix="/")


def running() -> int:
    """Replicas that take requests."""
    (deployment,) = serve.status().applications[NAME].deployments.values()
    return int(deployment.replica_states.get("RUNNING", 0))


def wait_for(replicas: int, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while running() != replicas:
        assert time.monotonic() < until, f"{running()} replicas, not {replicas}"
        time.sleep(0.2)


def body(question: Question) -> dict[str, Any]:
    choices = " ".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, question.choices, strict=False))
    return {"model": "everyday", "messages": [{"role": "user", "content": f"{question.question} {choices}"}]}


def content(question: Question, trace: Trace) -> str:
    """An answer as the server puts it."""
    assert trace.answer is not None
    return f"({LETTERS[trace.answer]}) {question.choices[trace.answer]}"


def ask(url: str, question: Question, session: str = "") -> str:
    """The answer, asked for again as long as the server or the connection fails: as a client that retries."""
    headers = {"x-session-id": session} if session else {}
    for _ in range(120):
        try:
            came = httpx2.post(f"{url}/v1/chat/completions", json=body(question), headers=headers, timeout=60)
        except httpx2.TransportError:
            continue
        if came.status_code == 200:
            return str(came.json()["choices"][0]["message"]["content"])
        assert came.status_code >= 500, came.text
        time.sleep(0.25)
    raise AssertionError(f"{question.id} was never answered")


def replicas_of(cluster: Any) -> list[psutil.Process]:
    """Processes of this cluster's replicas, and of no other's."""
    nodes = [psutil.Process(node.all_processes["raylet"][0].process.pid) for node in cluster.list_all_nodes()]
    return [one for node in nodes for one in node.children() if "ServeReplica" in " ".join(one.cmdline())]


def test_a_replica_killed_under_load_loses_no_request_that_is_sent_again(ray_cluster: Any, url: str) -> None:
    alone = load(quantise="int8")
    questions = alone.questions("test", 24)
    traces = run(alone.engine, alone.task, questions, alone.full_plan())
    expected = [content(question, trace) for question, trace in zip(questions, traces, strict=True)]
    deploy(DEPLOYED, DEPLOYED)
    with ThreadPoolExecutor(6) as clients:
        answers = [clients.submit(ask, url, question) for question in questions]
        while sum(answer.done() for answer in answers) < 6:
            time.sleep(0.01)
        victim = replicas_of(ray_cluster)[0]
        os.kill(victim.pid, signal.SIGKILL)
        assert not all(answer.done() for answer in answers), "it was over before a replica could be killed"
        assert [answer.result() for answer in answers] == expected
    wait_for(DEPLOYED)
    assert victim.pid not in [one.pid for one in replicas_of(ray_cluster)]


def test_requests_of_one_question_go_to_one_replica(url: str) -> None:
    """Its own count of requests tells which."""
    (question,) = load().questions("test", 1)

    def counted(session: str) -> float:
        lines = httpx2.get(f"{url}/metrics", headers={"x-session-id": session}, timeout=60).text.splitlines()
        name = "litestage_e2e_request_latency_seconds_count"
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    if running() != DEPLOYED:
        deploy(DEPLOYED, DEPLOYED)
    for session in "abcdef":
        before = counted(session)
        for _ in range(3):
            ask(url, question, session)
        assert counted(session) == before + 3


@pytest.mark.slow
def test_replicas_come_with_load_and_go_without(url: str) -> None:
    questions = load().questions("test", 40)
    deploy(1, 2)
    wait_for(1)
    over = threading.Event()

    def client(number: int) -> int:
        done = 0
        while not over.is_set():
            ask(url, questions[(number + done) % len(questions)])
            done += 1
        return done

    with ThreadPoolExecutor(24) as clients:
        counts = [clients.submit(client, number) for number in range(24)]
        try:
            wait_for(2)
        finally:
            over.set()
        assert all(count.result() for count in counts)
    wait_for(1)
