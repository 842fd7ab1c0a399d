"""What drafts save of whole questions, one at a time: with them and without in turn, the same texts."""

from __future__ import annotations

import time
from collections.abc import Sequence

from litestage.core import Decode, OptionError, Plan, Prefill, Trace
from litestage.core.drafts import Drafter
from litestage.jobs.session import Session
from litestage.pipeline import run
from litestage.pipeline.prompts import header_of
from litestage.pipeline.spine import Votes
from litestage.results import DraftBench, DraftRun, DraftTurn
from litestage.tasks import Question


def bench_drafts(session: Session, questions: Sequence[Question], votes: int | None, warm: int) -> DraftBench:
    """Answer each question twice in turn, without drafts and with them; the first ``warm`` only fill the memory.

    No question finds its own prompts: what all share alone is there.
    """
    drafter = session.drafter
    if drafter is None:
        raise OptionError("--drafts: there are none here to time. Give prompt, request or stage.")
    if warm >= len(questions):
        raise OptionError(f"--warm {warm} leaves none of {len(questions)} questions to time. Give fewer.")
    plan, turns = session.full_plan(), []
    prices = drafter.prices
    _answered(session, questions[0], plan, votes, None)
    session.progress.start("timing with drafts and without", len(questions))
    for number, question in enumerate(questions):
        order = (None, drafter) if number % 2 else (drafter, None)
        runs = {one is not None: _answered(session, question, plan, votes, one) for one in order}
        (without, texts), (drafted, same) = runs[False], runs[True]
        turns.append(DraftTurn(question_id=question.id, without=without, drafted=drafted, same_texts=texts == same))
        session.progress.advance()
    return DraftBench(
        model=session.engine.identity.id,
        task=session.task.name,
        shots=len(session.task.shots),
        votes=votes,
        source=drafter.source,
        prices=prices,
        warm=warm,
        turns=tuple(turns),
        dtype=session.model.dtype,
        quantisation=session.model.quantise,
        conditions=session.conditions,
    )


def _answered(
    session: Session, question: Question, plan: Plan, votes: int | None, drafter: Drafter | None
) -> tuple[DraftRun, list[object]]:
    """A question's seconds and decode forwards, and all that was written."""
    engine, seen = session.engine, list[Decode | Prefill]()
    engine.forget([header_of(engine, session.task, stage) for stage in session.task.stages])
    engine.drafter, engine.on_pass = drafter, seen.append
    try:
        begun = time.perf_counter()
        traces = run(engine, session.task, [question], plan, Votes(votes, session.decoding.seed))
        seconds = time.perf_counter() - begun
    finally:
        engine.drafter, engine.on_pass = None, None
    decodes = [one for one in seen if isinstance(one, Decode)]
    return DraftRun(seconds=seconds, forwards=len(decodes), tokens=sum(one.tokens for one in decodes)), _texts(traces)


def _texts(traces: Sequence[Trace]) -> list[object]:
    """Tokens and confidences, whose bits are the same where kernels do not depend on what is computed beside."""
    return [(done.token_ids, done.confidences) for one in traces for stage in one.stages for done in stage.completions]
