"""Search a path of plans on some questions, and go as far down it as questions that it has not seen allow."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from litestage.core import Certificate, OptionError, Plan, Trace
from litestage.core.files import write_text
from litestage.core.shown import Shown
from litestage.evaluation import CostModel, down_path, questions_hash
from litestage.jobs.ahead import measured
from litestage.jobs.certify import certify_plan
from litestage.jobs.options import SearchSettings
from litestage.jobs.policies import Policies
from litestage.jobs.rank import check_room
from litestage.jobs.session import Session
from litestage.jobs.timing import cost_model
from litestage.jobs.trials import Trials, save_plan, settings_of, warn_if_none_is_right
from litestage.jobs.work import Work, keep_work
from litestage.results import PathPlan, PathSearch, Split
from litestage.search import PathFound, path_search
from litestage.tasks import Question, has_certify_questions

PATH_FILE = "path.json"


@dataclass(frozen=True)
class Questions:
    """Questions to search on, and others to certify on."""

    search: Sequence[Question]
    searched: Split
    certify: Sequence[Question]
    certified: Split

    @classmethod
    def of(
        cls, session: Session, split: str, certify: float | None, given: Sequence[Question] | None = None
    ) -> Questions:
        """A split of its own for certificates, or the end of the search's; raises `OptionError` where none are left.

        Without ``given`` questions the search takes as many as the session was asked for.
        """
        if split == "certify":
            raise OptionError("--split certify: these questions are for certificates alone. Search on dev.")
        every = session.questions(split) if given is None else list(given)
        limit = session.data.limit if given is None else None
        own = has_certify_questions(session.task, session.data.data)
        pool = session.questions("certify") if own else every
        count = len(pool) if own and certify is None else _count(0.5 if certify is None else certify, len(pool))
        held = pool[:count] if own else pool[-count:]
        rest = every if own else every[:-count]
        if not rest or not held:
            raise OptionError(
                f"--certify {count} takes all {len(every)} {split} questions: none are left to search on. Give fewer."
            )
        if both := {one.id for one in rest[:limit]} & {one.id for one in held}:
            raise OptionError(
                f"{len(both)} questions are in {split} and in certify, such as {min(both)}. Certify questions must not "
                "have been seen by the search: take them out of one."
            )
        return cls(
            search=rest[:limit],
            searched=Split(name=split, used=len(rest[:limit]), available=len(every)),
            certify=held,
            certified=Split(name="certify" if own else split, used=len(held), available=len(pool)),
        )

    def first(self, search: int | None, certify: int | None) -> Questions:
        """No more than so many of each."""
        return Questions(
            self.search[:search],
            self.searched.model_copy(update={"used": len(self.search[:search])}),
            self.certify[:certify],
            self.certified.model_copy(update={"used": len(self.certify[:certify])}),
        )


def _count(certify: float, of: int) -> int:
    return min(of, max(1, round(certify * of) if certify < 1 else round(certify)))


@dataclass(frozen=True)
class FoundPath(Shown):
    """A finished search: the plan that may be used, and the path that it lies on."""

    plan: Plan
    search: PathSearch
    found: PathFound
    cost: CostModel
    full: list[Trace]
    """Full-depth traces of the search's questions."""

    def _shown(self) -> tuple[object, ...]:
        return (self.search, self.plan)


def find_path(session: Session, settings: SearchSettings, questions: Questions) -> FoundPath:
    """Search a path, test it in order, and leave the plan in the session's folder; a killed search goes on there."""
    stages, blocks = session.task.stage_names, session.engine.identity.num_blocks
    settings.options.check_fits(blocks)
    session.folder.reserve("plan", settings_of(session, questions.search, settings, questions.certify))
    full = session.answer(questions.search, session.full_plan(), "answering at full depth")
    check_room(session, full)
    warn_if_none_is_right(session, full)
    cost = cost_model(session, full)
    policies = Policies(session, full, settings.policies)
    trials = Trials(session, cost, questions.search, settings, policies)
    options = settings.path_options(stages, len(questions.certify))
    found = measured(path_search(stages, blocks, len(full), options, trials.compare), trials)
    plans = [trials.plan(one.candidate) for one in found.path]
    certificates = _down(session, plans, found, questions.certify)
    chosen = _chosen(certificates, found)
    search = PathSearch(
        options=options,
        searched_on=questions.searched,
        certified_on=questions.certified,
        latency="wall" if settings.latency == "wall" else "priced",
        full_correct=found.full_correct,
        full_seconds=found.full_seconds,
        plans=tuple(PathPlan(tried=one, certificate=certificates.get(i)) for i, one in enumerate(found.path)),
        chosen=chosen,
        tried=found.tried,
        answers=found.answers,
        tokens=found.tokens,
        full_tokens=sum(len(done.token_ids) for trace in full for stage in trace.stages for done in stage.completions),
        certify_answers=sum(one.n for one in certificates.values()) + max([0, *(c.n for c in certificates.values())]),
    )
    plan = session.full_plan() if chosen is None else plans[chosen]
    plan = plan.model_copy(
        update={
            "target": {"max_drop": options.max_drop, "latency": options.latency, "step": options.step},
            "evidence": _evidence(session, search, questions, cost),
            "certificate": certificates[chosen] if chosen is not None else None,
        }
    )
    result = FoundPath(plan, search, found, cost, full)
    if folder := session.folder.path:
        _save(session, folder, result, trials)
    return result


def _down(
    session: Session, plans: Sequence[Plan], found: PathFound, questions: Sequence[Question]
) -> dict[int, Certificate]:
    """Certificates by place on the path, up to the first refused; within a latency, of the safest plan alone."""
    shuffled = random.Random(session.decoding.seed).sample(list(questions), len(questions))
    places: Sequence[int] = range(len(plans))
    if found.options.latency is not None:
        within = [place for place in places if found.path[place].seconds <= found.options.latency]
        places = within[:1] if found.full_seconds > found.options.latency else ()  # nothing is safer than full depth
    tests = (partial(certify_plan, session, plans[place], shuffled, found.options.max_drop) for place in places)
    return down_path(zip(places, tests, strict=True))


def _chosen(certificates: dict[int, Certificate], found: PathFound) -> int | None:
    """The last plan granted, or the one within the latency asked for; None for full depth."""
    if found.options.latency is not None:
        return next(iter(certificates), None)
    return max((place for place, one in certificates.items() if one.granted), default=None)


def _evidence(session: Session, search: PathSearch, questions: Questions, cost: CostModel) -> dict[str, object]:
    """What the plan rests on."""
    one = search.plan
    return {
        "split": questions.searched.name,
        "n": questions.searched.used,
        "questions": questions_hash(question.id for question in questions.search),
        "certified_on": questions.certified.model_dump(mode="json"),
        "plan": one.tried.model_dump(mode="json") if one else None,
        "refused": search.refused.certificate.model_dump(mode="json")
        if search.refused and search.refused.certificate
        else None,
        "latency": search.latency,
        "latency_fit": {"decode": cost.decode_error.model_dump(), "prefill": cost.prefill_error.model_dump()},
        "conditions": session.conditions.model_dump(mode="json"),
    }


def _save(session: Session, folder: Path, result: FoundPath, trials: Trials) -> None:
    save_plan(session, folder, result.plan)
    write_text(folder / PATH_FILE, result.search.model_dump_json(indent=1) + "\n")
    works = {"full": Work.of(result.full, session.full_plan())}
    for i, one in enumerate(result.found.path):
        plan = trials.plan(one.candidate)
        traces = session.answer(trials.questions, plan, f"plan {i + 1} of the path")
        works[str(i + 1)] = Work.of(traces, plan)
    keep_work(folder, works)
