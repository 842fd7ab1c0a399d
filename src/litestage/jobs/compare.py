"""Every method, ablation and control on the same questions, under the same engine, seeds and statistics."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import ceil
from statistics import fmean
from typing import Any

from litestage.core import Compensation, CompensationKind, OptionError, Plan, SkipSchedule, Trace
from litestage.core.complaints import did_you_mean, listed
from litestage.evaluation import (
    Speedup,
    as_fast,
    frontier,
    holm,
    medians,
    price_error,
    priced_speedup,
    question_scores,
    timed_speedup,
)
from litestage.evaluation import compare as paired_scores
from litestage.jobs.evaluate import NO_ROOM_NOTE, none_right, summarise
from litestage.jobs.exits import fitted_exits
from litestage.jobs.methods import FULL, Method, controls, full_depth, searched, token_cap, uniform
from litestage.jobs.options import CompareOptions, SearchSettings
from litestage.jobs.rank import ADASKIP_PROMPTS, fit_compensation, prompts_run
from litestage.jobs.search import Baseline, lay_baseline, search_greedily
from litestage.jobs.session import Session, provenance
from litestage.jobs.timing import TURNS, distrust, drawn, wall_clock
from litestage.results import (
    CONSTANT,
    Comparison,
    Duel,
    DuelKind,
    Evaluation,
    Example,
    MethodResult,
    Pair,
    Performance,
    Split,
    most_common,
)
from litestage.skipping import block_influence, rank_sub_layers, redundancy, save_stand
from litestage.skipping.rules import RULES, Scores
from litestage.tasks import Question

INFLUENCE_QUESTIONS = 50
"""Questions whose prompts give ShortGPT its block influence."""
WORTH_TIMING = 0.5
"""Priced speedup below which a method is not timed: its texts run to their limits, and would take all of the time."""
UNREAD = 0.5
"""Share of answers that do not parse from which accuracy says little."""
BASELINE = "full depth, same engine"
AMOUNTS = 4
"""Budgets of each method, unless they are asked for."""


@dataclass
class _MethodResult:
    """A method and what it did on the test questions."""

    method: Method
    evaluation: Evaluation
    wall: Mapping[str, float] = field(default_factory=dict)
    """Seconds by question; nothing for a method that is not worth timing."""
    clock: Speedup | None = None
    """Against full depth."""

    @property
    def priced(self) -> dict[str, float]:
        """Seconds by question."""
        evaluation = self.evaluation
        ids = [trace.question_id for trace in evaluation.questions]
        return dict(zip(ids, evaluation.price.by_question, strict=True))


@dataclass(frozen=True)
class _Test:
    """What all methods are run on."""

    session: Session
    baseline: Baseline
    questions: Sequence[Question]

    def run(self, methods: Iterable[Method]) -> list[_MethodResult]:
        return [_MethodResult(method, self._evaluated(method)) for method in methods]

    def _evaluated(self, method: Method) -> Evaluation:
        what = f"{method.title} {method.requested}".strip()
        traces = self.session.answer(self.questions, method.plan, what, task=method.task)
        return summarise(traces, method.plan, self.baseline.cost, self.session.conditions)

    def time(self, results: Sequence[_MethodResult], count: int) -> None:
        """Time methods in turn on some questions; kept, so that a resumed comparison tells the same times."""
        full, *others = results
        most = full.evaluation.price.seconds / WORTH_TIMING
        worth = [full, *(result for result in others if result.evaluation.price.seconds <= most)]
        plans = {result.method.name: result.method.plan for result in worth}
        tasks = {result.method.name: result.method.task for result in worth}
        threads, some = self.baseline.cost.threads, drawn(self.questions, count, self.session.decoding.seed)
        samples = wall_clock(self.session, plans, some, threads, tasks=tasks, turns=TURNS)
        seconds = medians(samples)
        for result in worth:
            result.wall = seconds[result.method.name]
            result.clock = timed_speedup(samples, FULL, result.method.name, baseline_name=BASELINE)


def compare(
    session: Session, options: CompareOptions = CompareOptions(), *, split: str = "test", limit: int | None = 200
) -> Comparison:
    """Search LiteStage's plans on dev, run all methods on ``split``, and pair every outcome; resumes from the folder.

    Folders of ``plans`` that were found already take the place of the search. ``split`` dev is what the search, theirs
    too, leaves of it.
    """
    started = time.perf_counter()
    num_blocks = session.engine.identity.num_blocks
    if options.full:
        options, limit = replace(options, search_limit=None, blocks=tuple(range(1, num_blocks // 2 + 1))), None
    rules = known_methods(options.methods)
    if options.blocks and max(options.blocks) > num_blocks:
        raise OptionError(f"--blocks {max(options.blocks)}: the model has {num_blocks} blocks to skip.")
    session.folder.reserve("comparison")
    given = _given(session, options.plans, rules)
    dev, tested = splits(session, split, options.search_limit, given)
    searched, used = dev[: options.search_limit], tested[:limit]
    baseline = lay_baseline(session, searched)
    found = given if given or "litestage" not in rules else _plans(session, baseline, searched, options)
    test = _Test(session, baseline, used)
    results = test.run(_methods(session, baseline, rules, found, options))
    ours = [result for result in results if result.method.kind == "litestage"]
    full = results[0].evaluation.questions
    caps = (token_cap(session, result.method, full, result.evaluation.questions) for result in ours)
    results += test.run([cap for cap in caps if cap])
    test.time(results, options.wall)
    comparison = _comparison(
        test,
        results,
        searched_on=_searched_on(given.values()) or Split(name="dev", used=len(searched), available=len(dev)),
        searched_by=_latency_of(given.values()),
        tested_on=Split(name=split, used=len(used), available=len(tested)),
        seconds=time.perf_counter() - started,
    )
    if session.folder.path:
        comparison.save(session.folder.path)
    return comparison


def known_methods(names: Sequence[str]) -> tuple[str, ...]:
    """The rules named, or all; raises `OptionError` for a method that there is no rule for."""
    if tuple(names) == ("all",):
        return tuple(RULES)
    if unknown := [name for name in names if name not in RULES]:
        near = did_you_mean(unknown[0], ["all", *RULES])
        raise OptionError(f"--methods {unknown[0]!r} is not known.{near} Choose all, or among {', '.join(RULES)}.")
    return tuple(names)


def _methods(
    session: Session, baseline: Baseline, rules: Sequence[str], plans: Mapping[float, Plan], options: CompareOptions
) -> list[Method]:
    """Full depth first, then LiteStage's plans, the rules and the controls."""
    norm_ratio = fit_compensation(session, "norm_ratio", baseline.full)
    if session.folder.path:
        save_stand(session.folder.path, norm_ratio, session.engine.stands[norm_ratio.content or ""])
    compensations: dict[CompensationKind, Compensation] = {"none": Compensation(), "norm_ratio": norm_ratio}
    exits = {rule: fitted_exits(session, rule, baseline.full) for rule in options.exit_rules}
    blocks = options.blocks or amounts(plans.values())
    return [
        full_depth(session),
        *searched(session, plans, norm_ratio),
        *uniform(session, _scores(session, baseline), compensations, rules, blocks, exits[options.exit_rules[0]]),
        *controls(session, exits),
    ]


def amounts(plans: Iterable[Plan]) -> tuple[int, ...]:
    """Blocks that the methods are asked for, so that some are as many as a plan skips in the mean."""
    skipped = [[stage.schedule.num_skipped / 2 for stage in plan.stages.values()] for plan in plans]
    most = max([AMOUNTS, *(ceil(fmean(some)) for some in skipped)])
    return tuple(sorted({ceil(most * i / AMOUNTS) for i in range(1, AMOUNTS + 1)}))


def splits(
    session: Session, split: str, searched: int | None, given: Mapping[float, Plan]
) -> tuple[list[Question], list[Question]]:
    """Dev questions to search on, and those to test on: none that a plan was tuned on."""
    tuned = {found["split"]: found["n"] for found in sorted(_evidence(given.values()), key=lambda found: found["n"])}
    if split != "dev":
        if split in tuned:
            raise OptionError(f"--plans were searched on {split} questions, so --split {split} would flatter them.")
        return session.dev_and_test(split)
    dev = session.questions("dev")
    searched = None if searched is None else max(searched, tuned.get("dev", 0))
    if searched is None or searched >= len(dev):
        raise OptionError(
            f"The search, or that of a plan given, takes all {len(dev)} dev questions, so none are left to compare on. "
            "Choose a smaller --search-limit, or --split test."
        )
    return dev, dev[searched:]


def _given(session: Session, folders: Sequence[str], rules: Sequence[str]) -> dict[float, Plan]:
    """Plans that were found already, by the points that they may lose; what they need is kept here then, too."""
    plans: dict[float, Plan] = {}
    if folders and "litestage" not in rules:
        raise OptionError("--plans are LiteStage's, which --methods leaves out. Add litestage there.")
    for folder in folders:
        plan = session.load_plan(folder)
        drop = plan.target.get("max_drop")
        if drop is None:
            raise OptionError(
                f"--plans {folder}: the plan does not say what it may lose, as those that `litestage search` finds do. "
                "Measure it with `litestage evaluate --plan`."
            )
        if drop in plans:
            raise OptionError(
                f"--plans {folder}: the plan may lose {drop:g} points, as another one does, and plans are told apart "
                "by those. Leave one out."
            )
        plans[drop] = plan
        for stage in plan.stages.values():
            if session.folder.path and (content := stage.compensation.content) is not None:
                save_stand(session.folder.path, stage.compensation, session.engine.stands[content])
    return plans


def _searched_on(plans: Iterable[Plan]) -> Split | None:
    """What plans that were found already say that they were searched on; the fewest of them."""
    evidence = min(_evidence(plans), key=lambda found: found["n"], default=None)
    return None if evidence is None else Split(name=evidence["split"], used=evidence["n"])


def _latency_of(plans: Iterable[Plan]) -> str:
    """What they were searched by."""
    return ", ".join(sorted({found["latency"] for found in _evidence(plans)})) or "priced"


def _evidence(plans: Iterable[Plan]) -> list[dict[str, Any]]:
    return [plan.evidence for plan in plans if plan.evidence]


def _plans(
    session: Session, baseline: Baseline, questions: Sequence[Question], options: CompareOptions
) -> dict[float, Plan]:
    """A plan for each number of points to lose; the searches share all that they measure alike."""
    return {
        drop: search_greedily(
            session.inside(f"plan-{drop:g}"),
            SearchSettings(preset="paper", max_drop=drop, step=options.step, exit=options.exit),
            questions,
            baseline=baseline,
        ).plan
        for drop in options.max_drops
    }


def _scores(session: Session, baseline: Baseline) -> Scores:
    """What the rules look at, from full-depth prefills of the dev questions' prompts."""
    engine, chat = session.engine, session.task.chat
    prompts = [
        engine.encode(prompt, chat)
        for trace in baseline.full[:INFLUENCE_QUESTIONS]
        for stage in trace.stages
        for prompt in prompts_run(stage)
    ]
    first = redundancy(engine, prompts[:ADASKIP_PROMPTS])
    return Scores(
        num_blocks=engine.identity.num_blocks,
        ranking=baseline.ranking,
        first_prompts=rank_sub_layers({"first prompts": first}),
        influence=tuple(block_influence(engine, prompts)),
    )


def _comparison(
    test: _Test,
    results: Sequence[_MethodResult],
    *,
    searched_on: Split,
    searched_by: str,
    tested_on: Split,
    seconds: float,
) -> Comparison:
    session, questions, cost = test.session, test.questions, test.baseline.cost
    compared = tuple(_compared(result, results[0]) for result in results)
    scores = {result.method.name: question_scores(result.evaluation.questions) for result in results}
    gold = tuple(question.answer for question in questions)
    answer, constant = most_common(gold)
    scores[CONSTANT] = {question.id: float(question.answer == answer) for question in questions}
    worthy = [one for one in compared if one.speedup >= 1 and one.worth_a_place(compared[0], constant)]
    return Comparison(
        model=session.engine.identity,
        task=session.task.name,
        tested_on=tested_on,
        searched_on=searched_on,
        searched_by=searched_by,
        question_ids=tuple(question.id for question in questions),
        gold=gold,
        results=compared,
        frontier=frontier({one.name: one.speedup for one in worthy}, scores),
        duels=tuple(duels(compared, scores)),
        pairs=tuple(pairs(compared, scores)),
        plans={
            result.method.name: {name: result.method.plan.stage(name) for name in session.task.stage_names}
            for result in results
            if result.method.kind == "litestage"
        },
        ranking=test.baseline.ranking.scores,
        examples=_examples(session, questions, results),
        notes=(*_notes(results), *distrust(cost)),
        provenance=provenance(session, cost, {"last run": round(seconds, 1)}),
    )


def _compared(result: _MethodResult, full: _MethodResult) -> MethodResult:
    method, evaluation, traces = result.method, result.evaluation, result.evaluation.questions
    baseline, timed = full.evaluation, sorted(result.wall)
    measured = [result.wall[question] for question in timed]
    return MethodResult(
        name=method.name,
        method=method.method,
        title=method.title,
        kind=method.kind,
        requested=method.requested,
        amount=method.amount,
        without_exit=method.without_exit,
        control_of=method.control_of,
        skipped={
            stage.name: mean_skipped(traces, index, method.plan.stage(stage.name).schedule)
            for index, stage in enumerate(method.task.stages)
        },
        performance=Performance.of(
            evaluation.interval,
            evaluation.usage,
            evaluation.price,
            fmean(measured) if measured else None,
            price_error([result.priced[question] for question in timed], measured) if timed else None,
        ),
        speedup=baseline.price.seconds / evaluation.price.seconds,
        paired=paired_scores(question_scores(baseline.questions), question_scores(traces)),
        priced=priced_speedup(full.priced, result.priced, baseline_name=BASELINE),
        priced_when_timed=sum(full.priced[q] for q in timed) / sum(result.priced[q] for q in timed) if timed else None,
        wall=result.clock,
        answers=tuple(trace.answer for trace in traces),
    )


def mean_skipped(traces: Sequence[Trace], stage: int, schedule: SkipSchedule) -> float:
    """Sub-layers skipped, the mean over a stage's decode steps: a schedule of several segments skips more and more."""
    lengths = [c.counts.decoded for trace in traces for c in trace.stages[stage].completions]
    if not sum(lengths):
        return float(len(schedule.at(0)))
    return sum(map(schedule.skipped_in, lengths)) / sum(lengths)


def duels(systems: Sequence[MethodResult], scores: Mapping[str, Mapping[str, float]]) -> Iterator[Duel]:
    """Each plan of LiteStage against what it has to beat; and full depth, too, against always the same answer."""
    for plan in (system for system in systems if system.kind in ("full", "litestage")):
        against = opponents(plan, systems) if plan.kind == "litestage" else {}
        for by, others in against.items():
            for other in others:
                paired = paired_scores(scores[other.name], scores[plan.name])
                among = len(_as_fast(plan, systems)) if by == "speed" else 1
                yield Duel(by=by, plan=plan.name, other=other.name, paired=paired, among=among)
        yield Duel(
            by="constant", plan=plan.name, other=CONSTANT, paired=paired_scores(scores[CONSTANT], scores[plan.name])
        )


def pairs(systems: Sequence[MethodResult], scores: Mapping[str, Mapping[str, float]]) -> Iterator[Pair]:
    """The fastest plan and the methods at the budgets nearest to its own, each against each."""
    plan = max((s for s in systems if s.kind == "litestage"), key=lambda s: s.speedup, default=None)
    if plan is None:
        return
    matched = list(combinations([plan, *nearest(plan, _uniform_ones(systems))], 2))
    paired = [paired_scores(scores[other.name], scores[one.name]) for one, other in matched]
    adjusted = holm([one.p_value for one in paired])
    for (one, other), found, p_value in zip(matched, paired, adjusted, strict=True):
        yield Pair(one=one.name, other=other.name, paired=found, adjusted=p_value)


def opponents(plan: MethodResult, systems: Sequence[MethodResult]) -> dict[DuelKind, list[MethodResult]]:
    """Whom a plan is held against: the same budget, the same speed, its own texts without exit, and the controls."""
    quick = _as_fast(plan, systems)
    return {
        "budget": list(nearest(plan, _uniform_ones(systems))),
        "speed": [max(quick, key=lambda system: (system.accuracy, system.speedup))] if quick else [],
        "exit": [system for system in systems if system.name == plan.without_exit],
        "control": [
            system for system in systems if system.kind == "control" and system.control_of in (None, plan.name)
        ],
    }


def _uniform_ones(systems: Sequence[MethodResult]) -> list[MethodResult]:
    return [system for system in systems if system.amount is not None]


def _as_fast(plan: MethodResult, systems: Sequence[MethodResult]) -> list[MethodResult]:
    return [system for system in _uniform_ones(systems) if as_fast(system.speedup, plan.speedup)]


def nearest(plan: MethodResult, systems: Sequence[MethodResult]) -> Iterator[MethodResult]:
    """Of every method the system whose mean blocks skipped are nearest to the plan's."""
    for method in dict.fromkeys(system.method for system in systems):
        some = [system for system in systems if system.method == method]
        yield min(some, key=lambda system: abs(system.blocks_skipped - plan.blocks_skipped))


def _notes(results: Sequence[_MethodResult]) -> Iterator[str]:
    """What would make a reader trust the figures less."""
    yield from none_right(results[0].evaluation.questions)
    cramped = [
        f"{result.method.title} ({result.method.requested})"
        for result in results
        if any(trace.no_room for trace in result.evaluation.questions)
    ]
    if cramped:
        yield f"With {listed(cramped)} {NO_ROOM_NOTE}"
    unread = [result.method.title for result in results if result.evaluation.none_rate > UNREAD]
    if unread:
        yield (
            f"Most answers of {listed(list(dict.fromkeys(unread)))} could not be read, at least at one budget: "
            "their accuracy there is that of the form, and says little about what they know."
        )


def _examples(session: Session, questions: Sequence[Question], results: Sequence[_MethodResult]) -> tuple[Example, ...]:
    """Questions in full under the boldest plan; none of a set whose text is not ours to show."""
    ours = [result for result in results if result.method.kind == "litestage"]
    if not session.may_show_texts or not ours:
        return ()
    plan = max(ours, key=lambda result: results[0].evaluation.price.seconds / result.evaluation.price.seconds)
    patient = next((one for one in results if one.method.name == plan.method.without_exit), None)
    rows = zip(questions, results[0].evaluation.questions, plan.evaluation.questions, strict=True)
    longer = patient.evaluation.questions if patient else [None] * len(questions)
    chosen = sorted(
        zip(rows, longer, strict=True), key=lambda row: (row[0][1].answer == row[0][2].answer, row[0][0].id)
    )[:3]
    return tuple(
        Example.of(question.question, question.choices, before, after, uncut)
        for (question, before, after), uncut in chosen
    )
