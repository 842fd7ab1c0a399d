"""The same app as a Ray Serve deployment: replicas on the machines of a cluster, as many as the queue asks for.

Each replica has a model and an engine of its own, and answers a question from its first stage to its last, so that what
its stages have in common is prefilled once. Requests that carry the same ``x-session-id`` go to the same replica.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from litestage.cluster.connect import connect, environment, nodes
from litestage.core import LitestageError
from litestage.jobs.options import ClusterOptions, ReplicaOptions
from litestage.serve.server import Asked, Backend

NAME = "litestage"
ROUTER = "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter"
HEALTH_SECONDS = 5.0
TRIES = 2
"""Times that a replica may fail to load its model before all is given up."""


class Replica:
    """One copy of the model behind the app."""

    def __init__(self, asked: Asked) -> None:
        """Returns once the model is loaded: until then Ray sends no request here."""
        self._backend = Backend(asked)
        self._backend.load()

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._backend.app

    def check_health(self) -> None:
        """Raise where the engine has died: Ray ends the replica and starts another."""
        if self._backend.worker.error is not None:
            raise self._backend.worker.error


def application(asked: Asked, replicas: ReplicaOptions, gpus: int = 0) -> serve.Application:
    """What `serve.run` runs, a replica with so many GPUs."""
    options, rows = asked.options, asked.decoding.batch_size
    plans = {name: str(Path(folder).absolute()) for name, folder in asked.plans.items()}
    asked = replace(asked, model=asked.model.anywhere(), plans=plans)
    deployment = serve.deployment(
        name=NAME,
        max_ongoing_requests=options.max_requests,
        max_queued_requests=options.max_requests,
        graceful_shutdown_timeout_s=float(options.grace),
        graceful_shutdown_wait_loop_s=0.2,
        health_check_period_s=HEALTH_SECONDS,
        max_constructor_retry_count=TRIES,
        autoscaling_config=AutoscalingConfig(
            min_replicas=replicas.min_replicas,
            max_replicas=replicas.max_replicas,
            target_ongoing_requests=max(1, rows // 2),
            upscale_delay_s=replicas.scale_after,
            downscale_delay_s=10 * replicas.scale_after,
        ),
        request_router_config=RequestRouterConfig(request_router_class=ROUTER),
        ray_actor_options={
            "num_cpus": replicas.replica_cpus,
            "num_gpus": gpus,
            "runtime_env": {"env_vars": environment()},
        },
    )
    made: serve.Application = deployment(serve.ingress()(Replica)).bind(asked)
    return made


def run(asked: Asked, where: ClusterOptions, replicas: ReplicaOptions, tell: Callable[[str], None]) -> None:
    """Serve on a cluster until a signal ends it; then nothing new is taken, and what runs is finished."""
    assert where.cluster is not None
    options = asked.options
    connect(where.cluster, replicas.max_replicas * replicas.replica_cpus)
    gpus = asked.model.device in ("auto", "cuda") and any(node["Resources"].get("GPU") for node in nodes())
    serve.start(proxy_location="EveryNode", http_options={"host": options.host, "port": options.port})
    tell(f"litestage loads {replicas.min_replicas} to {replicas.max_replicas} replicas")
    try:
        serve.run(application(asked, replicas, int(gpus)), name=NAME, route_prefix="/")
    except RuntimeError as error:
        serve.delete(NAME)
        raise LitestageError(f"The replicas could not be started: {_reason(error)}") from None
    tell(f"ready: http://{options.host}:{options.port}, on every machine of the cluster")
    ended = threading.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda number, frame: ended.set())
    while not ended.wait(1.0):
        pass
    tell("no more requests are taken; what runs is finished")
    serve.delete(NAME)
    serve.shutdown()
    ray.shutdown()


def _reason(error: RuntimeError) -> str:
    """Ray puts a replica's whole traceback into a message; its last line says what it was."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
