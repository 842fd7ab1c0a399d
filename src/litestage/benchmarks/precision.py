"""What fewer bits do to a model: the same tokens, and answers, as in fp32."""

from __future__ import annotations

from collections.abc import Sequence

from litestage.benchmarks.decode import FORMS, forms_on, in_form
from litestage.core import Trace
from litestage.engine import TorchEngine
from litestage.engine.forcing import forcings
from litestage.evaluation import score
from litestage.evaluation.accuracy import question_scores
from litestage.evaluation.paired import compare
from litestage.jobs.policies import stage_texts
from litestage.jobs.session import Session
from litestage.models.load import load_transformers
from litestage.pipeline import Listener, run
from litestage.results import PrecisionAccuracy, PrecisionBench
from litestage.skipping.probe import effect_of
from litestage.tasks import Question


def bench_accuracy(session: Session, questions: Sequence[Question]) -> PrecisionBench:
    """Answer the questions in every form, and teacher-force fp32's own texts; ``session`` is in fp32."""
    source, tokenizer = load_transformers(session.model.name, adapter=session.model.adapter)
    reference: list[Trace] = []
    records: list[PrecisionAccuracy] = []
    device, progress = session.engine.model.decoder.device, session.progress
    for dtype, quantisation in forms_on(device, progress):
        engine = session.engine
        if (dtype, quantisation) != FORMS[0]:
            loaded = in_form(source, tokenizer, dtype, quantisation, device)
            engine = TorchEngine(loaded, batch_size=session.decoding.batch_size)
        progress.start(
            f"answering in {dtype}" if quantisation == "none" else f"answering in {quantisation}", len(questions)
        )
        traces = run(
            engine,
            session.task,
            questions,
            session.full_plan(),
            tell=Listener(on_traces=lambda done: progress.advance(len(done))),
        )
        reference = reference or traces
        records.append(_record(session, engine, dtype, quantisation, reference, traces))
    return PrecisionBench(
        model=session.engine.identity.id,
        task=session.task.name,
        shots=len(session.task.shots),
        forms=tuple(records),
        conditions=session.conditions,
    )


def _record(
    session: Session,
    engine: TorchEngine,
    dtype: str,
    quantisation: str,
    reference: Sequence[Trace],
    traces: Sequence[Trace],
) -> PrecisionAccuracy:
    texts = [text for index in range(len(session.task.stages)) for text in stage_texts(session, reference, index)]
    effect = effect_of(zip(forcings(session.engine, texts), forcings(engine, texts), strict=True))
    return PrecisionAccuracy(
        dtype=dtype,
        quantisation=quantisation,
        accuracy=score(traces),
        paired=compare(question_scores(reference), question_scores(traces)),
        agreement=effect.agreement,
        kl=effect.kl,
        tokens=effect.tokens,
    )
