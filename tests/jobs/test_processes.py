"""Several processes that answer as one engine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from litestage.core import Compensation, LitestageError, NewToken, Plan, Request, SkipSchedule, StagePlan, Trace
from litestage.core.layers import SubLayer
from litestage.engine import TorchEngine
from litestage.engine import processes as workers
from litestage.engine.processes import ParallelEngine
from litestage.jobs.rank import fit_compensation
from litestage.jobs.session import Session, load, load_engine
from litestage.pipeline import Listener, Votes, run


@pytest.fixture
def both(session: Session) -> Iterator[ParallelEngine]:
    """Two processes, both ready."""
    engine = ParallelEngine(session.engine, partial(load_engine, session.model, 32), 1)
    yield wait_for_all(engine)
    engine.close()


def wait_for_all(engine: ParallelEngine) -> ParallelEngine:
    while not all(other.is_ready() for other in engine.others()):
        time.sleep(0.05)
    return engine


def with_stands(session: Session) -> Plan:
    """A plan whose skipped sub-layers have stand-ins that only this process knows."""
    full = run(session.engine, session.task, session.questions("dev", 4), session.full_plan())
    compensation: Compensation = fit_compensation(session, "norm_ratio", full)
    skips = SkipSchedule.fixed([SubLayer.parse("3.ffn"), SubLayer.parse("5.attention")])
    stage = StagePlan(schedule=skips, compensation=compensation)
    return session.plan(dict.fromkeys(session.task.stage_names, stage))


def test_texts_do_not_depend_on_who_decodes_them(session: Session, both: ParallelEngine) -> None:
    questions, plan = session.questions("test", 9), with_stands(session)
    alone = run(session.engine, session.task, questions, plan, Votes(2))
    together = run(both, session.task, questions, plan, Votes(2))
    assert [_texts(trace) for trace in together] == [_texts(trace) for trace in alone]


def _texts(trace: Trace) -> object:
    """All but confidences, whose last digits depend on how many rows are multiplied at once."""
    return trace.model_dump(exclude={"stages": {"__all__": {"completions": {"__all__": {"confidences"}}}}})


def test_whoever_listens_hears_every_token_from_this_process(session: Session, both: ParallelEngine) -> None:
    heard: list[int] = []
    traces = run(
        both,
        session.task,
        session.questions("test", 3),
        session.full_plan(),
        tell=Listener(on_event=lambda event: heard.append(event.token) if isinstance(event, NewToken) else None),
    )
    assert len(heard) == sum(len(c.token_ids) for trace in traces for stage in trace.stages for c in stage.completions)


def test_a_mistake_in_another_process_is_told_in_this_one(session: Session, both: ParallelEngine) -> None:
    """Prompts too long for the context, the first of which falls to this process in the second call."""
    long = session.engine.encode("a") * 2000
    requests = [_request(session), _request(session).model_copy(update={"prompt_ids": long})]
    with pytest.raises(LitestageError) as told:
        both.generate(requests)
    with pytest.raises(LitestageError) as alone:
        session.engine.generate(requests)
    assert str(told.value) == str(alone.value)
    assert len(both.generate([_request(session)] * 2)) == 2, "it goes on after that"


def _request(session: Session) -> Request:
    return Request(prompt_ids=session.engine.encode("a"), max_new_tokens=2)


def test_a_worker_that_nobody_waits_for_any_more_ends_quietly(session: Session) -> None:
    """Its parent was done before it was ready."""
    parent, worker = multiprocessing.Pipe()
    parent.close()
    workers._serve(worker, lambda: session.engine, 1)


def test_ctrl_c_while_a_worker_is_started_is_heard_afterwards() -> None:
    started = []

    def start() -> None:
        with workers._deaf_to_ctrl_c():
            signal.raise_signal(signal.SIGINT)
            started.append("worker")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            start()
    finally:
        signal.signal(signal.SIGINT, before)
    assert started


def test_a_worker_that_dies_is_told(session: Session, both: ParallelEngine) -> None:
    (child,) = multiprocessing.active_children()
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    with pytest.raises(LitestageError, match=r"A process that answered questions died; .*--workers 1"):
        run(both, session.task, session.questions("test", 2), session.full_plan())


def test_how_many_processes_there_are(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    assert session.workers == 1, "a script that is not told starts none"
    assert session.at(tmp_path).stored.engine is session.engine
    small = load(workers=None)
    assert small.workers == 2
    assert isinstance(small.stored.engine, ParallelEngine)
    assert small.at(tmp_path).stored.engine is small.stored.engine
    monkeypatch.setattr("litestage.jobs.session.NARROW", 8)
    assert load(workers=None).workers == 1


def test_a_call_with_too_little_for_all_starts_nothing(session: Session) -> None:
    engine = ParallelEngine(session.engine, _never, 1)
    assert len(engine.generate([_request(session)])) == 1


def test_times_are_taken_without_a_process_that_is_still_loading(session: Session, both: ParallelEngine) -> None:
    both.settle()
    assert len(multiprocessing.active_children()) == 1, "one that waits disturbs nobody"
    loading = ParallelEngine(session.engine, partial(load_engine, session.model, 32), 1)
    assert len(loading.generate([_request(session)] * 2)) == 2
    assert len(multiprocessing.active_children()) == 2
    loading.settle()
    assert len(multiprocessing.active_children()) == 1


def _never() -> TorchEngine:
    raise AssertionError


def test_workers_end_with_a_parent_that_is_killed() -> None:
    """The pipe's other end closes when the last that holds it is gone: the parent, then its worker."""
    fork = multiprocessing.get_context("fork")
    held, holds = fork.Pipe(duplex=False)

    def worker() -> None:
        threading.Thread(target=workers._end_with_parent, daemon=True).start()
        time.sleep(60)

    def parent() -> None:
        fork.Process(target=worker).start()
        holds.send("under way")
        time.sleep(60)

    process = fork.Process(target=parent)
    process.start()
    holds.close()
    assert held.recv() == "under way"
    process.kill()
    assert held.poll(20)
    with pytest.raises(EOFError):
        held.recv()
