"""The systems of a comparison: LiteStage's plans, the other methods, the ablations and the controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from litestage.core import Compensation, CompensationKind, ExitRule, Plan, StagePlan, Trace
from litestage.jobs.session import Session
from litestage.results import Amount, MethodKind
from litestage.skipping.rules import RULES, Rule, Scores
from litestage.tasks import Task

FULL = "full"
WORTH_CAPPING = 0.01
"""Share by which a system must write less before a cap on full depth is a control of it."""


@dataclass(frozen=True)
class Method:
    """One system: a plan, and the form of the task that it runs."""

    name: str
    method: str
    title: str
    """The method, as charts and tables call it."""
    kind: MethodKind
    requested: str
    """What was asked for, in words."""
    plan: Plan
    task: Task
    amount: Amount | None = None
    """What every stage was asked to skip, of a uniform method."""
    without_exit: str | None = None
    """Name of what skips the same and ends no text."""
    control_of: str | None = None
    """Name of the plan that it is a control of alone."""


def full_depth(session: Session) -> Method:
    return Method(FULL, FULL, "Full depth", "full", "", session.full_plan(), session.task)


def uniform(
    session: Session,
    scores: Scores,
    compensations: Mapping[CompensationKind, Compensation],
    methods: Sequence[str],
    blocks: Sequence[int],
    exits: Mapping[str, ExitRule],
) -> Iterator[Method]:
    """Every method with every amount, the same in all stages; LiteStage's ranking with and without exit.

    ``exits`` are the rules of the stages that have one.
    """
    for name in methods:
        rule = RULES[name]
        for amount in blocks:
            stage = StagePlan(
                schedule=rule.schedule(amount * (2 if rule.unit == "sub-layers" else 1), scores),
                compensation=compensations[rule.compensation],
            )
            if name == "litestage":
                patient = _uniform(session, rule, amount, stage, "litestage_uniform", "Uniform, no exit")
                ending = _uniform(session, rule, amount, stage, "litestage_uniform_exit", "Uniform, exit")
                plan = ending_by(patient.plan, exits)
                yield from (patient, replace(ending, plan=plan, without_exit=patient.name))
            else:
                yield _uniform(session, rule, amount, stage, name, rule.title)


def _uniform(session: Session, rule: Rule, blocks: int, stage: StagePlan, method: str, title: str) -> Method:
    finer = rule.unit == "sub-layers"
    amount = Amount(number=2 * blocks if finer else blocks, unit="sub-layer" if finer else "block")
    plan = session.plan(dict.fromkeys(session.task.stage_names, stage))
    kind: MethodKind = "ablation" if rule.name == "litestage" else "rule"
    return Method(f"{method}-{blocks}", method, title, kind, str(amount), plan, session.task, amount)


def searched(session: Session, plans: Mapping[float, Plan], compensation: Compensation) -> Iterator[Method]:
    """LiteStage's plans by the points that they may lose; without exit; and with norm ratios for what they skip."""
    for plan, drops in _alike(plans):
        name, requested = f"{drops[0]:g}", f"drop ≤ {', '.join(f'{drop:g}' for drop in drops)}"
        ends = any(stage.exit for stage in plan.stages.values())
        ours = Method(f"litestage-{name}", "litestage", "LiteStage", "litestage", requested, plan, session.task)
        yield replace(ours, without_exit=f"litestage_no_exit-{name}" if ends else None)
        if ends:
            patient = _changed(plan, exit=None)
            title = "LiteStage, no exit"
            yield Method(
                f"litestage_no_exit-{name}", "litestage_no_exit", title, "ablation", requested, patient, session.task
            )
        if any(stage.schedule.num_skipped for stage in plan.stages.values()):
            scaled = _changed(plan, compensation=compensation)
            title = "LiteStage, norm ratio"
            yield Method(
                f"litestage_norm_ratio-{name}",
                "litestage_norm_ratio",
                title,
                "ablation",
                requested,
                scaled,
                session.task,
            )


def _alike(plans: Mapping[float, Plan]) -> Iterator[tuple[Plan, list[float]]]:
    """Plans that skip and exit alike once, with all the drops that led to them."""
    found: list[tuple[Plan, list[float]]] = []
    for drop, plan in sorted(plans.items()):
        same = next((drops for other, drops in found if other.stages == plan.stages), None)
        if same is None:
            found.append((plan, [drop]))
        else:
            same.append(drop)
    return iter(found)


def _changed(plan: Plan, **update: object) -> Plan:
    """The plan with something else in every stage that skips or exits."""
    stages = {
        name: stage.model_copy(update=update) if stage.schedule.num_skipped or "exit" in update else stage
        for name, stage in plan.stages.items()
    }
    return plan.model_copy(update={"stages": stages})


def ending_by(plan: Plan, exits: Mapping[str, ExitRule]) -> Plan:
    """The plan with these rules in its stages, and none in the others."""
    stages = {name: stage.model_copy(update={"exit": exits.get(name)}) for name, stage in plan.stages.items()}
    return plan.model_copy(update={"stages": stages})


def controls(session: Session, exits: Mapping[ExitRule, Mapping[str, ExitRule]]) -> Iterator[Method]:
    """Each exit rule at full depth, as its stages run it, and each stage but the last left out."""
    for place, (rule, stages) in enumerate(exits.items()):
        name = f"exit_only-{rule}" if place else "exit_only"
        plan = ending_by(session.full_plan(), stages)
        yield Method(name, "exit_only", "Exit, full depth", "control", f"exit {rule}", plan, session.task)
    for stage in session.task.stage_names[:-1]:
        method, title = f"without_{stage}", f"Without {stage}"
        yield Method(
            method, method, title, "control", "stage left out", session.full_plan(), session.task.without(stage)
        )


def token_cap(session: Session, shortened: Method, full: Sequence[Trace], shorter: Sequence[Trace]) -> Method | None:
    """Full depth, its texts limited to the system's mean length; None if those are not shorter."""
    limits: dict[str, int] = {}
    if _tokens(shorter) > (1 - WORTH_CAPPING) * _tokens(full):
        return None
    for index, name in enumerate(session.task.stage_names):
        lengths, target = _lengths(full, index), _mean(_lengths(shorter, index))
        if target < _mean(lengths):
            limits[name] = cap_for(lengths, target)
    if not limits:
        return None
    requested = ", ".join(f"{name} {limit}" for name, limit in limits.items())
    task = session.task.with_limits(limits)
    return Method(
        f"token_cap-{shortened.name}",
        "token_cap",
        "Token cap, full depth",
        "control",
        requested,
        session.full_plan(),
        task,
        control_of=shortened.name,
    )


def cap_for(lengths: Sequence[int], target: float) -> int:
    """The smallest limit at which texts of these lengths are ``target`` tokens long in the mean, or just above."""
    return next(cap for cap in range(1, max(lengths) + 1) if _mean([min(n, cap) for n in lengths]) >= target)


def _lengths(traces: Sequence[Trace], stage: int) -> list[int]:
    return [len(completion.token_ids) for trace in traces for completion in trace.stages[stage].completions]


def _tokens(traces: Sequence[Trace]) -> int:
    return sum(sum(_lengths(traces, stage)) for stage in range(len(traces[0].stages)))


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)
