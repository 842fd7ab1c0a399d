"""What the paper's motivation figures show, for any model and task: where skipping hurts, where it pays, and why."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from litestage.core import Completion, Engine, ExitRule, OptionError, Plan, SkipSchedule, StagePlan, StageTrace, Trace
from litestage.core.files import read_kept, write_text
from litestage.core.layers import Record
from litestage.engine import CachedEngine
from litestage.evaluation import LatencyModel, compare, price, question_scores, score, usage_of
from litestage.evaluation.entropy import confidence_by_place, token_entropy
from litestage.jobs.claim import refuse_other_jobs
from litestage.jobs.evaluate import NO_ROOM_NOTE, answer, none_right
from litestage.jobs.latency import LATENCY_FILE, latency_model
from litestage.jobs.progress import SILENT, Progress
from litestage.jobs.rank import rank_traces
from litestage.jobs.session import Session, command_line
from litestage.pipeline import run
from litestage.report import words
from litestage.report.diagnosis_report import write_report
from litestage.results import (
    ConfidenceCurve,
    Diagnosis,
    Example,
    ExampleVersions,
    Performance,
    Provenance,
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


@dataclass(frozen=True)
class Depths:
    """Which budgets are tried, in sub-layers, and whose texts are followed token by token."""

    step: int = 4
    up_to: int | None = None
    """The largest budget; None is where the search ends, 2L - 4 sub-layers, and at most six steps."""
    stage: str | None = None
    """None is the stage that full depth spends most time in."""

    def budgets(self, num_blocks: int) -> tuple[int, ...]:
        """0, step, 2 step, ...; raises `OptionError` when that leaves nothing to compare with full depth."""
        most = min(2 * num_blocks - 4, BUDGETS * self.step) if self.up_to is None else self.up_to
        if self.step < 1:
            raise OptionError(f"--step {self.step} would never reach another budget. Choose 1 or more.")
        if most > 2 * num_blocks:
            raise OptionError(f"--budgets-up-to {most}: the model has {2 * num_blocks} sub-layers to skip.")
        if most < self.step:
            raise OptionError(
                f"No budget lies between --step {self.step} and --budgets-up-to {most}, so there would be nothing to "
                f"compare with full depth. The model has {2 * num_blocks} sub-layers: choose a smaller --step."
            )
        return tuple(range(0, most + 1, self.step))


def diagnose(
    session: Session,
    out: Path,
    *,
    split: str = "dev",
    limit: int | None = 100,
    depths: Depths = Depths(),
    exit_rule: ExitRule = ExitRule(),
    progress: Progress = SILENT,
) -> Diagnosis:
    """Measure all parts on the first questions of a split; leaves results and report in ``out``."""
    diagnosis = measure(session, out, split=split, limit=limit, depths=depths, exit_rule=exit_rule, progress=progress)
    diagnosis.save(out)
    write_report(diagnosis, out)
    return diagnosis


def measure(
    session: Session,
    out: Path,
    *,
    split: str = "dev",
    limit: int | None = 100,
    depths: Depths = Depths(),
    exit_rule: ExitRule = ExitRule(),
    progress: Progress = SILENT,
) -> Diagnosis:
    """All parts of a diagnosis; what is decoded, timed and ranked is kept in ``out``, so that a killed one goes on."""
    started = time.perf_counter()
    refuse_other_jobs(out, "diagnosis")
    budgets = depths.budgets(session.engine.identity.num_blocks)
    if depths.stage is not None:
        session.task.stage(depths.stage)
    questions, engine = session.questions(split, limit), session.cached(out)
    next_token = next_token_entropies(session, questions, engine, out, progress)
    full = answer(session, questions, session.full_plan(), engine, what="full depth", progress=progress)
    latency = latency_model(session, full, out / LATENCY_FILE, progress)
    ranking = rank_traces(session, full, out, progress)
    looked_at = depths.stage or _slowest(session, latency, full)
    lab = _Lab(session, engine, questions, ranking, latency, exit_rule, progress, {(ALL, 0, False): full})
    return Diagnosis(
        model=session.engine.identity,
        task=session.task.name,
        measured_on=Split(name=split, used=len(questions), available=len(session.questions(split))),
        exit_rule=exit_rule,
        entropy=tuple(
            StageEntropy(name=name, written=token_entropy(texts(full, name)), next_token=next_token[name])
            for name in session.task.stage_names
        ),
        sweeps=tuple(
            Sweep(stage=where, points=tuple(lab.point(where, budget) for budget in budgets))
            for where in (ALL, *session.task.stage_names)
        ),
        with_exit=tuple(lab.point(ALL, budget, with_exit=True) for budget in budgets),
        looked_at=looked_at,
        curves=tuple(_curves(lab, looked_at, budgets)),
        ranking=ranking.scores,
        examples=tuple(_examples(lab, budgets)) if session.may_show_texts else (),
        notes=tuple(_notes(lab)),
        provenance=Provenance.of(
            session.conditions_at(latency.threads),
            command=command_line(),
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
            durations={"last run": round(time.perf_counter() - started, 1)},
            fits=(latency.decode_error, latency.prefill_error),
        ),
    )


@dataclass
class _Lab:
    """Answers the questions under a setting, once each, and measures what came of it."""

    session: Session
    engine: CachedEngine
    questions: Sequence[Question]
    ranking: Ranking
    latency: LatencyModel
    exit_rule: ExitRule
    progress: Progress
    done: dict[tuple[str | None, int, bool], list[Trace]]

    def point(self, where: str | None, budget: int, with_exit: bool = False) -> SweepPoint:
        """A setting's figures, paired with full depth, or with the same budget without exit."""
        traces = self.traces(where, budget, with_exit)
        baseline = self.traces(where, budget) if with_exit else self.traces(ALL, 0)
        return SweepPoint(
            budget=budget,
            performance=Performance.of(
                score(traces), usage_of(traces), price(self.latency, traces, self.plan(where, budget, with_exit))
            ),
            paired=compare(question_scores(baseline), question_scores(traces), seed=self.session.options.seed),
        )

    def traces(self, where: str | None, budget: int, with_exit: bool = False) -> list[Trace]:
        """``where`` is a stage that skips alone, or all of them."""
        key = (where if budget else ALL, budget, with_exit)
        if key not in self.done:
            stages = "all stages" if where == ALL else where
            what = f"{stages}: {budget} skipped{', with exit' if with_exit else ''}"
            plan = self.plan(where, budget, with_exit)
            self.done[key] = answer(self.session, self.questions, plan, self.engine, what=what, progress=self.progress)
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


def next_token_entropies(
    session: Session, questions: Sequence[Question], engine: CachedEngine, out: Path, progress: Progress = SILENT
) -> dict[str, float]:
    """Mean entropy in bits of what decides each token at full depth, by stage; kept in ``out`` group by group.

    What the cache answers has no logits any more, so a group that it answers in part is run again without it.
    """
    path, size = out / ENTROPIES_FILE, session.options.batch_size
    stamp = session.stamp(session.task.fingerprint, [question.model_dump(mode="json") for question in questions])
    kept = read_kept(path, _Kept.model_validate_json) or _Kept(stamp=stamp)
    groups = kept.groups if kept.stamp == stamp else ()
    progress.start("entropy at full depth", len(questions))
    progress.advance(min(len(groups) * size, len(questions)))
    for first in range(len(groups) * size, len(questions), size):
        some = questions[first : first + size]
        heard = _listen(session, engine, some) or _listen(session, session.engine, some)
        assert heard is not None, "an engine without a cache decides every token"
        groups = (*groups, heard)
        write_text(path, _Kept(stamp=stamp, groups=groups).model_dump_json() + "\n")
        progress.advance(len(some))
    return {
        name: sum(group[name].bits for group in groups) / max(1, sum(group[name].tokens for group in groups))
        for name in session.task.stage_names
    }


class _Heard(Record):
    """Entropy in bits summed over the tokens of a stage."""

    bits: float = 0.0
    tokens: int = 0


class _Kept(Record):
    """What was heard so far, a group of questions after another."""

    stamp: str
    groups: tuple[dict[str, _Heard], ...] = ()


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

    session.engine.on_logits = hear
    try:
        traces = run(
            engine, session.task, questions, session.full_plan(), questions_at_once=len(questions), on_stage=close
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


def _slowest(session: Session, latency: LatencyModel, full: Sequence[Trace]) -> str:
    seconds = price(latency, full, session.full_plan()).stage_seconds
    return max(seconds, key=lambda name: seconds[name])


def _curves(lab: _Lab, stage: str, budgets: Sequence[int]) -> Iterator[ConfidenceCurve]:
    """The stage's texts when it alone skips, so that every budget answers the same prompts."""
    for budget in some_of(budgets, CURVES):
        yield ConfidenceCurve(budget=budget, steps=confidence_by_place(texts(lab.traces(stage, budget), stage)))


def some_of(budgets: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of them, evenly spread, both ends included."""
    last = len(budgets) - 1
    places = {round(i * last / (count - 1)) for i in range(count)}
    return [budgets[place] for place in sorted(places)]


def _examples(lab: _Lab, budgets: Sequence[int]) -> Iterator[ExampleVersions]:
    """Questions in three versions, at the first budget where exit ends some texts; those with the most exits first."""
    with_exit = {budget: lab.point(ALL, budget, with_exit=True).performance.total for budget in budgets[1:]}
    ended = (budget for budget, total in with_exit.items() if total.early_exit_share >= EXITS_WORTH_SEEING)
    budget = next(ended, budgets[-1])
    settings = lab.traces(ALL, 0), lab.traces(ALL, budget), lab.traces(ALL, budget, with_exit=True)
    rows = sorted(
        zip(lab.questions, *settings, strict=True),
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
    return sum(done.finish_reason == "low_confidence" for stage in trace.stages for done in stage.completions)


def _notes(lab: _Lab) -> Iterator[str]:
    """What would make a reader trust the figures less."""
    yield from none_right(lab.traces(ALL, 0))
    cramped = sorted({budget for (_, budget, _), traces in lab.done.items() if any(t.no_room for t in traces)})
    if cramped:
        yield f"With {words.listed(list(map(str, cramped)))} sub-layers skipped {NO_ROOM_NOTE}"
