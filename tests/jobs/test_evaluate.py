"""What an evaluation says of latency: of a question, or of a run of it, and by what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from litestage.core import Decode, Prefill, Trace
from litestage.jobs.evaluate import evaluate
from litestage.jobs.options import EvaluateOptions
from litestage.jobs.session import Session

Run = Callable[..., tuple[int, str, str]]
VOTES = 4
BRANCHES = 4
"""Of the analysis of each question."""


@contextmanager
def heard(session: Session) -> Iterator[list[Prefill | Decode]]:
    """The forwards that the engine runs inside the block."""
    done: list[Prefill | Decode] = []
    session.engine.on_pass = done.append
    try:
        yield done
    finally:
        session.engine.on_pass = None


def decoded(traces: Iterable[Trace]) -> int:
    return sum(done.counts.decoded for trace in traces for stage in trace.stages for done in stage.completions)


@pytest.mark.parametrize("kind", [None, "decided"], ids=["all votes", "until decided"])
def test_the_clock_times_the_votes_that_were_drawn(session: Session, tmp_path: Path, kind: str | None) -> None:
    """And no greedy run: the timed forwards decode what the answers took, once more of the question that warms up."""
    questions, session = session.questions("test", 2), session.at(tmp_path)
    options = EvaluateOptions(votes=VOTES, votes_stop=kind)
    stop = options.stop
    evaluate(session, None, questions, options)
    with heard(session) as forwards:  # the answers are kept, so only timed runs reach the engine
        found = evaluate(session, None, questions, replace(options, latency="wall"))
    assert found.wall_seconds is not None
    rows = [work.rows for work in forwards if isinstance(work, Decode)]
    first = [trace for trace in found.questions if trace.question_id == questions[0].id]
    assert sum(rows) == decoded(found.questions) + decoded(first)
    assert max(rows) == BRANCHES * (VOTES if stop is None else stop.fewest([]))
    assert (len(found.questions) < 2 * VOTES) == (stop is not None)


def test_a_table_says_whether_it_is_of_a_question_or_of_a_run(litestage: Run, tmp_path: Path) -> None:
    common = ("evaluate", "--limit", "1", "--batch-size", "8", "--out", str(tmp_path), "--latency", "wall")
    code, shown, _ = litestage(*common, "--votes", "3", "--votes-stop", "decided")
    assert code == 0
    assert shown.splitlines()[0].rstrip() == "everyday on everyday, test; latency and tokens of a run"
    assert "a question by the clock" in " ".join(shown.split())
    code, shown, _ = litestage(*common)
    assert code == 0
    assert shown.splitlines()[0].rstrip() == "everyday on everyday, test"
