"""A server in this process, on real HTTP, and a client of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from litestage.jobs.options import DataOptions, DecodingOptions, ModelOptions, ServeOptions
from litestage.serve.server import Asked, Serving

QUESTION = (
    "Grace is lost in the dark and sees a glow far away. Which of these could it be? "
    "(A) a sleeping bag (B) a glove (C) an ice cream (D) a lantern"
)


class Served:
    """A running server and a client of it."""

    def __init__(self, serving: Serving) -> None:
        self.serving, self.url = serving, serving.url
        self.http = httpx2.Client(base_url=self.url, timeout=120)

    def post(self, path: str, **body: Any) -> httpx2.Response:
        return self.http.post(f"/v1/{path}", json=body)

    def ask(self, content: str = QUESTION, model: str = "everyday", **more: Any) -> httpx2.Response:
        return self.post("chat/completions", model=model, messages=[{"role": "user", "content": content}], **more)

    def metric(self, name: str) -> float:
        """The sum of a metric's series."""
        lines = self.http.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"litestage_{name}"))

    def settled(self, aborted: float = 0) -> None:
        """Wait until nothing runs, and as many requests were ``aborted``; fails where something never ends."""
        self.wait_for(lambda: self.metric("requests_aborted_total") >= aborted)
        for name in ("num_requests_running", "num_requests_waiting", "reserved_tokens"):
            self.wait_for(lambda name=name: not self.metric(name))

    def wait_for(self, what: Callable[[], bool]) -> None:
        until = time.monotonic() + 30
        while not what():
            assert time.monotonic() < until, "what was to be is not"
            time.sleep(0.02)


@contextmanager
def served(
    *, batch_size: int = 32, ready: bool = True, data: DataOptions = DataOptions(), **options: Any
) -> Iterator[Served]:
    """A server on a thread of this process."""
    asked = Asked.of(
        ModelOptions(quantise="int8"),
        data,
        DecodingOptions(batch_size=batch_size),
        ServeOptions(port=0, grace=5, **options),
    )
    serving = Serving(asked, tell=lambda line: None)
    thread = threading.Thread(target=serving.run)
    thread.start()
    try:
        one = Served(serving)
        until = time.monotonic() + 120
        while ready and one.http.get("/health").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.02)
        yield one
    finally:
        serving.end()
        thread.join(timeout=60)
        assert not thread.is_alive(), "the server did not end"
