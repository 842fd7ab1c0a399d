"""A server from its start to its end: it listens at once, says that it is loading, and finishes what runs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from litestage.core import OptionError, Plan
from litestage.engine import TorchEngine
from litestage.jobs.options import DataOptions, DecodingOptions, DraftOptions, ModelOptions, ServeOptions
from litestage.jobs.session import Session
from litestage.serve.app import Site, build_app
from litestage.serve.desk import Desk
from litestage.serve.metrics import Metrics
from litestage.serve.offer import FULL, Offer
from litestage.serve.worker import Worker

KEY = "LITESTAGE_API_KEY"
BACKLOG = 2048


@dataclass(frozen=True)
class Asked:
    """What is to be served; raises `UserError` for what cannot be."""

    model: ModelOptions
    data: DataOptions
    decoding: DecodingOptions
    options: ServeOptions
    plans: Mapping[str, str]
    """Folders, by name."""
    key: str | None

    @classmethod
    def of(cls, model: ModelOptions, data: DataOptions, decoding: DecodingOptions, options: ServeOptions) -> Asked:
        return cls(model, data, decoding, options, _plans(options.plan), _key(options))


class Backend:
    """An app and the engine behind it, which starts with the app."""

    def __init__(self, asked: Asked, started: Callable[[], None] = lambda: None) -> None:
        """``started`` is called when the app is there, and the engine is loading its model."""
        self._asked, self._started, options = asked, started, asked.options
        metrics = Metrics()
        self.worker = Worker(self.load, options.scheduling, metrics)
        desk = Desk(self.worker, metrics, options.max_requests, options.max_tokens, options.timeout)
        self.site = Site(
            *(desk, metrics, int(time.time())),
            show_page=not options.no_page,
            key=asked.key,
            most_bytes=options.max_body,
        )
        self.app = build_app(self.site, self._start, self.worker.stop)
        self._engine: TorchEngine | None = None

    def load(self) -> TorchEngine:
        """The engine, loaded if it is not."""
        if self._engine is None:
            asked = self._asked
            session = Session(asked.model, asked.data, asked.decoding, drafts=DraftOptions(asked.options.drafts))
            plans = {name: session.load_plan(folder) for name, folder in asked.plans.items()}
            self.site.offer = Offer(session, plans, asked.options.allow_skips)
            self._engine = session.engine
            self._engine.chunk = asked.options.chunk or None
            self._engine.drafter = drafter = session.drafter
            if drafter is not None:
                _ = drafter.prices  # timed now: who asks first should not wait for it
                if asked.options.drafts == "auto":  # what others wrote takes the operator's word
                    drafter.source = "request"
        return self._engine

    def _start(self) -> None:
        self.worker.start(asyncio.get_running_loop())
        self._started()


class Serving:
    """One server; raises `UserError` for what cannot be served."""

    def __init__(self, asked: Asked, tell: Callable[[str], None] = print) -> None:
        options = asked.options
        self._socket, self._tell = _listen(options.host, options.port), tell
        self._backend = Backend(asked, self._loading)
        self.site, self.worker = self._backend.site, self._backend.worker
        config = uvicorn.Config(
            self._backend.app,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=options.grace,
            server_header=False,
        )
        self._server = _Server(config)
        self.worker.on_ready = self._ready
        self.worker.on_end = self.end

    @property
    def url(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def run(self) -> None:
        """Serve until a signal ends it, or `end`; raises what ended the engine, if anything did."""
        asyncio.run(self._server.serve([self._socket]))
        if self.worker.error is not None:
            raise self.worker.error

    def end(self) -> None:
        """Take nothing new, and stop when what runs is done."""
        self._server.should_exit = True

    def _loading(self) -> None:
        self._tell(f"litestage listens at {self.url}; the model is being loaded")

    def _ready(self) -> None:
        offer = self.site.offer
        assert offer is not None
        self._tell(f"ready: {', '.join(offer.models)}")


class _Server(uvicorn.Server):
    """Ends well at SIGINT and SIGTERM: what runs is finished. A second signal does not wait for it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()

        def stop() -> None:
            self.force_exit, self.should_exit = self.should_exit, True

        signals = (signal.SIGINT, signal.SIGTERM)
        for one in signals:
            loop.add_signal_handler(one, stop)
        try:
            yield
        finally:
            for one in signals:
                loop.remove_signal_handler(one)


def _plans(given: tuple[str, ...]) -> dict[str, str]:
    """Plan folders by name."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder or set(name) & set(" /:,"):
            raise OptionError(f"--plan {text}: write a name, = and the plan's folder: --plan fast=runs/search-1/plan.")
        if name in found or name == FULL:
            taken = "stands for full depth" if name == FULL else "is given twice"
            raise OptionError(f"--plan {text}: the name {name} {taken}. Choose another.")
        Plan.from_pretrained(folder)  # what is wrong with it is told before a model is loaded
        found[name] = folder
    return found


def _key(options: ServeOptions) -> str | None:
    """The key that clients must have; from a file or the environment, which a list of processes does not show."""
    if options.api_key_file is None:
        return os.environ.get(KEY) or None
    try:
        key = Path(options.api_key_file).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise OptionError(f"--api-key-file {options.api_key_file} cannot be read ({error}).") from None
    if not key or not key.isascii() or not key.isprintable():
        raise OptionError(f"--api-key-file {options.api_key_file} holds no key: one line of plain letters and signs.")
    return key


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)  # who comes before the server runs waits for it
    except (OSError, OverflowError) as error:
        listening.close()
        raise OptionError(f"--host {host} --port {port}: cannot listen there ({error}). Choose another.") from None
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return listening
