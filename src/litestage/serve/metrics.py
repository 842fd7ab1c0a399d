"""What an operator sees at ``/metrics``: names end as vLLM's do, so that its dashboards need a prefix changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from litestage.core import Completion, Decode, Prefill, Trace
from litestage.core.exits import ExitReason
from litestage.engine import TorchEngine
from litestage.serve.work import Ask, Job

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


class Metrics:
    """Counted on the engine's thread and on the event loop's alike."""

    def __init__(self) -> None:
        without_dates: Callable[[], None] = disable_created_metrics  # nobody reads them, and they double what is sent
        without_dates()
        self.registry = CollectorRegistry()
        self._blocks = 0

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"litestage_{name}", help, labels, registry=self.registry)

        def histogram(name: str, help: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"litestage_{name}", help, labels, buckets=buckets, registry=self.registry)

        def gauge(name: str, help: str) -> Gauge:
            return Gauge(f"litestage_{name}", help, registry=self.registry)

        self._running = gauge("num_requests_running", "Generations that the engine has.")
        self._waiting = gauge("num_requests_waiting", "Generations that wait for a row.")
        self.reserved = gauge("reserved_tokens", "Tokens that requests at work or waiting may come to.")
        self.refused = counter("requests_refused_total", "Requests that were refused, by status.", "status")
        self.first_token = histogram(
            "time_to_first_token_seconds", "From a request to its first token; of streams.", SECONDS, "model"
        )
        self.between_tokens = histogram(
            "inter_token_latency_seconds", "Between two tokens of a stream's text.", SECONDS, "model", "stage"
        )
        self._whole = histogram(
            "e2e_request_latency_seconds", "From a request to the end of its answer.", SECONDS, "model"
        )
        self._stage = histogram("stage_seconds", "A stage of one vote, from its prompts on.", SECONDS, "model", "stage")
        self._success = counter("request_success_total", "Generations by why they ended.", "finished_reason", "stage")
        self._prompt = counter("prompt_tokens_total", "Prompt tokens of generations, computed or kept.", "stage")
        self._written = counter("generation_tokens_total", "Tokens generated.", "stage")
        self._steps = counter("steps_total", "Forwards of the engine.", "kind")
        self._step_tokens = histogram("step_tokens", "Tokens that a forward runs.", TOKENS, "kind")
        self._run = counter("sublayers_run_total", "Sub-layers that decode steps ran.", "stage")
        self._skipped = counter("sublayers_skipped_total", "Sub-layers that decode steps left out.", "stage")
        self._drafted = counter("draft_tokens_total", "Drafts that forwards ran.")
        self._accepted = counter("draft_tokens_accepted_total", "Drafts that were right; of streams.", "stage")
        self._exits = counter("exits_total", "Texts that the exit rule ended.", "reason", "stage")
        self._answers = counter("answers_total", "Votes on questions by what came of them.", "model", "outcome")
        self._dropped = counter("requests_aborted_total", "Requests that ended before their answer.", "model")

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def watch(self, engine: TorchEngine) -> None:
        """Count an engine's forwards."""
        self._blocks = engine.identity.num_blocks
        before = engine.on_pass

        def count(done: Prefill | Decode) -> None:
            kind, tokens = ("prefill" if isinstance(done, Prefill) else "decode", done.tokens)
            self._steps.labels(kind).inc()
            if isinstance(done, Decode):
                self._drafted.inc(done.drafted)
            self._step_tokens.labels(kind).observe(tokens)
            if before is not None:
                before(done)

        engine.on_pass = count

    def queued(self, running: int, waiting: int) -> None:
        self._running.set(running)
        self._waiting.set(waiting)

    def finished(self, ask: Ask, completion: Completion) -> None:
        """A generation ended."""
        stage = ask.stage
        self._success.labels(completion.finish_reason, stage).inc()
        self._prompt.labels(stage).inc(len(ask.request.prompt_ids))
        self._written.labels(stage).inc(len(completion.token_ids))
        steps = completion.counts.decoded
        skipped = ask.request.stage_plan.schedule.skipped_in(steps)
        self._skipped.labels(stage).inc(skipped)
        self._run.labels(stage).inc(steps * 2 * self._blocks - skipped)
        if completion.finish_reason in get_args(ExitReason):
            self._exits.labels(completion.finish_reason, stage).inc()

    def accepted(self, stage: str, tokens: int) -> None:
        """Drafts were right."""
        self._accepted.labels(stage).inc(tokens)

    def stage_done(self, model: str, stage: str, seconds: float) -> None:
        self._stage.labels(model, stage).observe(seconds)

    def line_done(self, model: str, outcome: Trace | Completion) -> None:
        """A text, or a vote on a question, is there."""
        if isinstance(outcome, Trace):
            what = "no_room" if outcome.no_room else "none" if outcome.answer is None else "answered"
            self._answers.labels(model, what).inc()

    def job_done(self, job: Job) -> None:
        self._whole.labels(job.model).observe(time.perf_counter() - job.arrived)

    def dropped(self, model: str) -> None:
        """A client went away, or its request failed."""
        self._dropped.labels(model).inc()
