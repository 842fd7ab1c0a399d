"""What the paper's motivation figures show, for any model and task: where skipping hurts, where it pays, and why."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from litestage.core import (
    Completion,
    Engine,
    MeanConfidence,
    OptionError,
    Plan,
    SkipSchedule,
    StagePlan,
    StageTrace,
    Trace,
)
from litestage.core.complaints import listed
from litestage.core.layers import Record
from litestage.evaluation import CostModel, compare, price, question_scores, score, usage_of
from litestage.evaluation.entropy import confidence_by_place, token_entropy
from litestage.jobs.evaluate import NO_ROOM_NOTE, none_right
from litestage.jobs.options import DiagnoseOptions
from litestage.jobs.rank import rank_traces
from litestage.jobs.session import Session, provenance
from litestage.jobs.timing import cost_model
from litestage.pipeline import Listener, run
from litestage.results import (
    ConfidenceCurve,
    Diagnosis,
    Example,
    ExampleVersions,
    Performance,
    Split,
    StageEntropy,
    Sweep,
    SweepPoint,
)
from litestage.skipping import Ranking
from litestage.tasks import Question, Stage

ALL = None
"""In place of a stage: every stage skips the same."""
ENTROPIES_FILE = "entropies.json"
BUDGETS = 6
"""Most budgets above 0 by default: a deep model's sample costs no more settings than a small one's."""
CURVES = 4
"""Budgets, 0 among them, whose texts are followed token by token."""
EXAMPLES = 3
EXITS_WORTH_SEEING = 0.05
"""Share of texts that exit must end for its examples to show something."""


def budgets_of(options: DiagnoseOptions, num_blocks: int) -> tuple[int, ...]:
    """0, step, 2 step, ... up to where the search ends, 2L - 4 sub-layers, and at most six steps, or as asked for.

    Raises `OptionError` when that leaves nothing to compare with full depth.
    """
    step = options.step
    most = min(2 * num_blocks - 4, BUDGETS * step) if options.budgets_up_to is None else options.budgets_up_to
    if most > 2 * num_blocks:
        raise OptionError(f"--budgets-up-to {most}: the model has {2 * num_blocks} sub-layers to skip.")
    if most < step:
        raise OptionError(
            f"No budget lies between --step {step} and --budgets-up-to {most}, so there would be nothing to "
            f"compare with full depth. The model has {2 * num_blocks} sub-layers: choose a smaller --step."
        )
    return tuple(range(0, most + 1, step))


def diagnose(
    session: Session, options: DiagnoseOptions = DiagnoseOptions(), questions: Sequence[Question] | None = None
) -> Diagnosis:
    """Measure all parts; what is decoded, timed and ranked is kept in the folder, so that a killed job goes on."""
    started = time.perf_counter()
    session.folder.reserve("diagnosis")
    budgets = budgets_of(options, session.engine.identity.num_blocks)
    if options.stage is not None:
        session.task.stage(options.stage)
    questions = session.questions() if questions is None else questions
    next_token = next_token_entropies(session, questions)
    full = session.answer(questions, session.full_plan(), "full depth")
    cost = cost_model(session, full)
    tried = _Tried(session, questions, rank_traces(session, full), cost, options.exit, {(ALL, 0, False): full})
    looked_at = options.stage or _slowest(session, cost, full)
    names = session.task.stage_names
    diagnosis = Diagnosis(
        model=session.engine.identity,
        task=session.task.name,
        measured_on=Split(
            name=session.data.split, used=len(questions), available=len(session.questions(session.data.split))
        ),
        exit_rule=options.exit,
        entropy=tuple(
            StageEntropy(name=name, written=token_entropy(texts(full, name)), next_token=next_token[name])
            for name in names
        ),
        sweeps=tuple(
            Sweep(stage=where, points=tuple(tried.point(where, budget) for budget in budgets))
            for where in (ALL, *names)
        ),
        with_exit=tuple(tried.point(ALL, budget, with_exit=True) for budget in budgets),
        looked_at=looked_at,
        curves=tuple(_curves(tried, looked_at, budgets)),
        ranking=tried.ranking.scores,
        examples=tuple(_examples(tried, budgets)) if session.may_show_texts else (),
        notes=tuple(_notes(tried)),
        provenance=provenance(session, cost, {"last run": round(time.perf_counter() - started, 1)}),
    )
    if session.folder.path:
        diagnosis.save(session.folder.path)
    return diagnosis


@dataclass
class _Tried:
    """Every budget's answers, worked out once each, and what came of them."""

    session: Session
    questions: Sequence[Question]
    ranking: Ranking
    cost: CostModel
    exit_rule: MeanConfidence
    done: dict[tuple[str | None, int, bool], list[Trace]]

    def point(self, where: str | None, budget: int, with_exit: bool = False) -> SweepPoint:
        """A budget's figures, paired with full depth, or with the same budget without exit."""
        traces = self.traces(where, budget, with_exit)
        baseline = self.traces(where, budget) if with_exit else self.traces(ALL, 0)
        priced = price(self.cost, traces, self.plan(where, budget, with_exit))
        return SweepPoint(
            budget=budget,
            performance=Performance.of(score(traces), usage_of(traces), priced),
            paired=compare(question_scores(baseline), question_scores(traces)),
        )

    def traces(self, where: str | None, budget: int, with_exit: bool = False) -> list[Trace]:
        """``where`` is a stage that skips alone, or all of them."""
        key = (where if budget else ALL, budget, with_exit)
        if key not in self.done:
            stages = "all stages" if where == ALL else where
            what = f"{stages}: {budget} skipped{', with exit' if with_exit else ''}"
            self.done[key] = self.session.answer(self.questions, self.plan(where, budget, with_exit), what)
        return self.done[key]

    def plan(self, where: str | None, budget: int, with_exit: bool = False) -> Plan:
        """The most redundant sub-layers left out in one stage or in all; exit, if any, is on in all."""
        skipping = SkipSchedule.fixed(self.ranking.skip_set(budget))
        rule = self.exit_rule if with_exit else None
        return self.session.plan(
            {
                name: StagePlan(schedule=skipping if where in (ALL, name) else SkipSchedule(), exit=rule)
                for name in self.session.task.stage_names
            }
        )


class _Heard(Record):
    """Entropy in bits summed over the tokens of a stage."""

    bits: float = 0.0
    tokens: int = 0


class _Groups(Record):
    """What was heard so far by stage, a group of questions after another."""

    groups: tuple[dict[str, _Heard], ...] = ()


def next_token_entropies(session: Session, questions: Sequence[Question]) -> dict[str, float]:
    """Mean entropy in bits of what decides each token at full depth, by stage; kept group by group.

    What the folder holds has no logits any more, so a group that it answers in part is run again without it.
    """
    size = session.decoding.batch_size
    inputs = [session.task.fingerprint, [question.model_dump(mode="json") for question in questions]]
    kept = session.folder.recall(ENTROPIES_FILE, inputs, _Groups) or _Groups()
    session.progress.start("entropy at full depth", len(questions))
    session.progress.advance(min(len(kept.groups) * size, len(questions)))
    for first in range(len(kept.groups) * size, len(questions), size):
        some = questions[first : first + size]
        heard = _listen(session, session.stored, some) or _listen(session, session.engine, some)
        assert heard is not None, "an engine without a cache decides every token"
        kept = session.folder.keep(ENTROPIES_FILE, inputs, _Groups, _Groups(groups=(*kept.groups, heard)))
        session.progress.advance(len(some))
    return {
        name: sum(group[name].bits for group in kept.groups) / max(1, sum(group[name].tokens for group in kept.groups))
        for name in session.task.stage_names
    }


def _listen(session: Session, engine: Engine, questions: Sequence[Question]) -> dict[str, _Heard] | None:
    """Entropy by stage of what decides each token; None when the engine did not decide them all."""
    heard: dict[str, _Heard] = {}
    now = _Heard()

    def hear(rows: Sequence[int], logits: Float[Tensor, "B V"]) -> None:
        nonlocal now
        now = _Heard(bits=now.bits + float(bits_of(logits).sum()), tokens=now.tokens + len(rows))

    def close(stage: Stage, traces: Sequence[StageTrace]) -> None:
        nonlocal now
        heard[stage.name], now = now, _Heard()

    plan = session.full_plan()
    session.engine.on_logits = hear
    try:
        traces = run(
            engine, session.task, questions, plan, questions_at_once=len(questions), tell=Listener(on_stage=close)
        )
    finally:
        session.engine.on_logits = None
    complete = all(heard[name].tokens == sum(len(done.token_ids) for done in texts(traces, name)) for name in heard)
    return heard if complete else None


def bits_of(logits: Float[Tensor, "B V"]) -> Float[Tensor, " B"]:
    """Entropy in bits of each row's next-token distribution, in fp32."""
    nats: Tensor = torch.special.entr(logits.float().softmax(-1)).sum(-1)
    return nats / math.log(2)


def texts(traces: Sequence[Trace], stage: str) -> list[Completion]:
    """All generations of one stage."""
    return [done for trace in traces for part in trace.stages if part.name == stage for done in part.completions]


def _slowest(session: Session, cost: CostModel, full: Sequence[Trace]) -> str:
    seconds = price(cost, full, session.full_plan()).stage_seconds
    return max(seconds, key=lambda name: seconds[name])


def _curves(tried: _Tried, stage: str, budgets: Sequence[int]) -> Iterator[ConfidenceCurve]:
    """The stage's texts when it alone skips, so that every budget answers the same prompts."""
    for budget in some_of(budgets, CURVES):
        yield ConfidenceCurve(budget=budget, steps=confidence_by_place(texts(tried.traces(stage, budget), stage)))


def some_of(budgets: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of them, evenly spread, both ends included."""
    last = len(budgets) - 1
    places = {round(i * last / (count - 1)) for i in range(count)}
    return [budgets[place] for place in sorted(places)]


def _examples(tried: _Tried, budgets: Sequence[int]) -> Iterator[ExampleVersions]:
    """Questions in three versions, at the first budget where exit ends some texts; those with the most exits first."""
    with_exit = {budget: tried.point(ALL, budget, with_exit=True).performance.total for budget in budgets[1:]}
    ended = (budget for budget, total in with_exit.items() if total.early_exit_share >= EXITS_WORTH_SEEING)
    budget = next(ended, budgets[-1])
    settings = tried.traces(ALL, 0), tried.traces(ALL, budget), tried.traces(ALL, budget, with_exit=True)
    rows = sorted(
        zip(tried.questions, *settings, strict=True),
        key=lambda row: (-_exits(row[3]), len({trace.answer for trace in row[1:]}) == 1, row[0].id),
    )
    for question, full, without, cut in rows[:EXAMPLES]:
        asked = question.question, question.choices
        yield ExampleVersions(
            budget=budget,
            without_exit=Example.of(*asked, full, without),
            with_exit=Example.of(*asked, full, cut, without),
        )


def _exits(trace: Trace) -> int:
    return sum(done.exited for stage in trace.stages for done in stage.completions)


def _notes(tried: _Tried) -> Iterator[str]:
    """What would make a reader trust the figures less."""
    yield from none_right(tried.traces(ALL, 0))
    cramped = sorted({budget for (_, budget, _), traces in tried.done.items() if any(t.no_room for t in traces)})
    if cramped:
        yield f"With {listed(list(map(str, cramped)))} sub-layers skipped {NO_ROOM_NOTE}"
