"""Price a finished search again: its counted work, by what forwards take on this machine, without decoding a token."""

from __future__ import annotations

from pathlib import Path

from litestage.core import Plan
from litestage.evaluation import price
from litestage.jobs.options import PriceOptions
from litestage.jobs.session import Session
from litestage.jobs.timing import cost_model
from litestage.jobs.work import Work, read_work
from litestage.results import PlanPrice, Prices


def price_search(session: Session, plan: str | Path, options: PriceOptions = PriceOptions()) -> Prices:
    """What every plan of the search in folder ``plan`` takes here, a question.

    Raises `DataError` for a folder without counted work, and `PlanError` for another model or task.
    """
    chosen, works = session.load_plan(plan), read_work(plan)
    traces = {name: work.traces() for name, work in works.items()}
    cost = cost_model(session, traces["full"], options.batch_size)

    def seconds(name: str) -> float:
        return price(cost, traces[name], works[name].plan, questions_at_once=options.batch_size).seconds

    full = seconds("full")
    return Prices(
        questions=len(traces["full"]),
        questions_at_once=options.batch_size,
        plans=tuple(_priced(name, work, seconds(name), full, chosen) for name, work in works.items()),
        decode_fit=cost.decode_error,
        prefill_fit=cost.prefill_error,
        conditions=session.conditions_at(cost.threads),
    )


def _priced(name: str, work: Work, seconds: float, full: float, chosen: Plan) -> PlanPrice:
    stages = work.plan.stages
    return PlanPrice(
        name=name,
        skipped={stage: plan.schedule.num_skipped for stage, plan in stages.items()},
        exits=tuple(stage for stage, plan in stages.items() if plan.exit),
        left_out=tuple(stage for stage, plan in stages.items() if plan.left_out),
        seconds=seconds,
        speedup=full / seconds,
        chosen=stages == chosen.stages,
    )
