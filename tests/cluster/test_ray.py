"""Workers of a Ray cluster: three nodes on this machine, killed and removed while they are at work."""

from __future__ import annotations

import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fragile import fragile, unlike_on

from litestage.core import LitestageError, OptionError, Trace
from litestage.engine import CachedEngine
from litestage.jobs.certify import certify_change
from litestage.jobs.evaluate import evaluate
from litestage.jobs.options import ChangeOptions, ClusterOptions, DataOptions, DecodingOptions, SearchSettings
from litestage.jobs.search import search
from litestage.jobs.session import COMPLETIONS, Session
from litestage.jobs.timing import LATENCY_FILE
from litestage.pipeline import flow, run

pytest.importorskip("ray")

from litestage.cluster.pool import RayPool

STORE = 80 << 20


@pytest.fixture(scope="module")
def alone() -> Session:
    """One process, in which everything is decoded for comparison."""
    return Session(data=DataOptions(limit=8), decoding=DecodingOptions(batch_size=4, workers=1))


def answered(out: Path) -> int:
    """Completions that are safe in a run's store."""
    try:
        with sqlite3.connect(f"file:{out / COMPLETIONS}?mode=ro", uri=True) as file:
            return int(file.execute("SELECT count(*) FROM completions").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def texts(traces: list[Trace]) -> list[Any]:
    """All but confidences, whose last digits depend on how many rows are multiplied at once."""
    without = {"stages": {"__all__": {"completions": {"__all__": {"confidences"}}}}}
    return [trace.model_dump(exclude=without) for trace in traces]


@contextmanager
def meanwhile(out: Path, *steps: tuple[int, Callable[[], object]]) -> Iterator[list[int]]:
    """Do something each time that a run has stored so many completions more; how many there were then."""
    done: list[int] = []

    def watch() -> None:
        for wanted, act in steps:
            while answered(out) < wanted and not over.is_set():
                time.sleep(0.01)
            if not over.is_set():
                act()
                done.append(answered(out))

    over = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    yield done
    over.set()
    watcher.join()


def head(cluster: Any) -> str:
    """The node that cannot be removed."""
    return str(cluster.head_node.node_id)


@contextmanager
def on(
    cluster: Any, out: Path, session: Session, workers: int | None = None, price_on: str | None = None
) -> Iterator[Session]:
    """The same session with workers of the cluster, which end with it."""
    decoding = ClusterOptions(batch_size=4, workers=workers, cluster=cluster.address, price_on=price_on)
    made = Session(session.model, session.data, decoding, out=out)
    yield made
    made.stored.engine.close()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_path_search_and_a_certificate_are_those_of_one_machine(
    ray_cluster: Any, alone: Session, tmp_path: Path
) -> None:
    """To the last byte, with two workers of the cluster."""
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    settings = SearchSettings(max_drop=40, step=8, certify=12, plans=2, compensation=("none",), levers=("exit",))
    questions = alone.questions("dev", 12)
    search(alone.at(whole), settings, questions)
    shared.mkdir()
    (shared / LATENCY_FILE).write_bytes((whole / LATENCY_FILE).read_bytes())  # two fits of one machine differ
    change, unseen = ChangeOptions(skip=("recall=6.ffn",)), alone.questions("test", 12)
    found = certify_change(alone.at(tmp_path / "certified"), change, unseen, max_drop=40)
    with on(ray_cluster, shared, alone, workers=2) as session:
        search(session, settings, questions)
        assert certify_change(session.at(tmp_path / "certified-there"), change, unseen, max_drop=40) == found
    assert (shared / "plan.json").read_bytes() == (whole / "plan.json").read_bytes()


def test_a_worker_killed_and_a_node_removed_in_mid_search_change_no_byte_of_the_plan(
    ray_cluster: Any, alone: Session, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = SearchSettings(preset="paper", max_drop=20, step=8)
    search(alone.at(whole), settings)
    broken.mkdir()
    (broken / LATENCY_FILE).write_bytes((whole / LATENCY_FILE).read_bytes())  # two fits of one machine differ
    ray_cluster.add_node(num_cpus=1, object_store_memory=STORE)  # with room for a worker whose node is gone
    with on(ray_cluster, broken, alone, workers=2) as session:
        pool = session.stored.engine
        pool.settle()
        killed, lost = sorted(pool.start().places, key=lambda place: place.node != head(ray_cluster))
        removed = next(node for node in ray_cluster.list_all_nodes() if node.node_id == lost.node)
        steps = (
            (60, lambda: os.kill(killed.pid, signal.SIGKILL)),
            (120, lambda: ray_cluster.remove_node(removed, allow_graceful=False)),
        )
        with meanwhile(broken, *steps) as done:
            search(session, settings)
        assert len(done) == 2
        assert {place.pid for place in pool.start().places}.isdisjoint({killed.pid, lost.pid})
    assert done[-1] < answered(broken)
    assert (broken / "plan.json").read_bytes() == (whole / "plan.json").read_bytes()


def test_a_driver_killed_and_started_again_decodes_nothing_twice(
    ray_cluster: Any, alone: Session, tmp_path: Path
) -> None:
    """And prices on the machine that is named."""
    out, questions = tmp_path / "run", alone.questions("dev", 24)
    node = head(ray_cluster)
    command = f"evaluate --split dev --limit 24 --batch-size 4 --cluster {ray_cluster.address} --out {out}"
    driver = subprocess.Popen(
        [sys.executable, "-m", "litestage", *shlex.split(command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while driver.poll() is None and answered(out) < 64:
        time.sleep(0.02)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL, "it was over before it could be killed: ask for more questions"
    before = answered(out)
    assert before >= 64
    with on(ray_cluster, out, alone, price_on=node[:12]) as session:
        result = evaluate(session, questions=questions)
        assert session.stored.decoded == answered(out) - before
    assert "(node " in result.conditions.hardware
    assert texts(list(result.questions)) == texts(alone.answer(questions, alone.full_plan(), ""))


def test_a_poison_question_is_named_and_the_rest_is_finished(ray_cluster: Any, alone: Session) -> None:
    questions, plan = alone.questions("dev", 6), alone.full_plan()
    ids = alone.engine.encode(questions[2].question)
    pool = RayPool(alone.engine, partial(fragile, alone.model, 4, ids[1:-1]), 2)
    stored = CachedEngine(pool)
    with pytest.raises(LitestageError, match=rf"{questions[2].id} could not .*stage recall.* 3 workers died"):
        flow(stored, alone.task, questions, plan, at_once=6)
    pool.close()
    others = [question for question in questions if question is not questions[2]]
    decoded = stored.decoded
    traces = flow(stored, alone.task, others, plan, at_once=6)
    assert stored.decoded == decoded, "the others were all answered"
    assert texts(traces) == texts(run(alone.engine, alone.task, others, plan))


def test_a_machine_that_could_write_other_texts_is_left_out(ray_cluster: Any, alone: Session) -> None:
    said: list[str] = []
    node = head(ray_cluster)
    pool = RayPool(alone.engine, partial(unlike_on, node, alone.model, 4), 2, say=said.append)
    questions, plan = alone.questions("dev", 2), alone.full_plan()
    traces = flow(pool, alone.task, questions, plan, at_once=2)
    pool.settle()
    assert [place.node for place in pool.start().places] != [node]
    assert len(pool.start().places) == 1
    assert "portable" in " ".join(said)
    assert texts(traces) == texts(run(alone.engine, alone.task, questions, plan))
    pool.close()


@pytest.mark.parametrize("wrong", ["", "ray://10.0.0.1:10001", "10.0.0.1", "here"])
def test_an_address_that_is_none_is_refused(wrong: str, litestage: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = litestage("evaluate", "--cluster", wrong)
    assert (code, "--cluster" in err) == (2, True), err


def test_options_that_cannot_work_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match=r"--price-on .* --cluster"):
        ClusterOptions(price_on="a")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r"--cluster local needs Ray.*pip install \"litestage\[ray\]\""):
        ClusterOptions(cluster="local")
