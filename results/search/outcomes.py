"""What the plans that a search of the embedded model tried really do, on all of its questions.

    python results/search/outcomes.py FOLDER results/search/outcomes.json

The search is quickstart's, with six plans on its path. Each plan that it may have put there answers every question, and
so do an exit in every stage and a stage left out. A killed run goes on from FOLDER; what it had is in the file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from litestage.core import CalibratedConfidence, Plan, StagePlan
from litestage.core.files import write_text
from litestage.evaluation import price
from litestage.jobs.exits import fitted_exits
from litestage.jobs.options import DataOptions, DecodingOptions, ModelOptions, SearchSettings
from litestage.jobs.path import FoundPath, Questions, find_path
from litestage.jobs.policies import Policies
from litestage.jobs.session import Session
from litestage.jobs.trials import Trials
from litestage.search import Tried

SEARCHED, CERTIFIED = 96, 400
"""Questions of the search, as in quickstart."""
OF_CERTIFY, OF_TEST = 400, 300
"""Questions of these splits, beside all of dev."""
TOO_MUCH = 9.0
"""Points that a plan may seem to lose and still be asked all questions."""


def plans(session: Session, found: FoundPath, trials: Trials) -> Iterator[tuple[str, Plan]]:
    """Full depth, the path, what else was tried and lost little, an exit and a stage left out."""
    yield "full depth", session.full_plan()
    tried: list[Tried] = sorted(found.found.tried, key=lambda one: (not one.on_path, -one.questions, one.pace))
    for one in tried:
        if one.pace < 1 and (one.loss <= TOO_MUCH or any(stage.left_out for stage in one.candidate.stages)):
            yield str(one.candidate), trials.plan(one.candidate)
    rules = fitted_exits(session, CalibratedConfidence(), found.full)
    yield "exit calibrated:16,0.9", session.plan({name: StagePlan(exit=rule) for name, rule in rules.items()})


def main(folder: Path, out: Path) -> None:
    session = Session(ModelOptions(), DataOptions(), DecodingOptions(batch_size=64), out=folder)
    settings = SearchSettings(plans=6)
    questions = Questions.of(session, "dev", None).first(SEARCHED, CERTIFIED)
    found = find_path(session, settings, questions)
    policies = Policies(session, found.full, settings.policies)
    trials = Trials(session, found.cost, questions.search, settings, policies)
    every = session.questions("dev") + session.questions("certify", OF_CERTIFY) + session.questions("test", OF_TEST)
    document: dict[str, Any] = {
        "searched": SEARCHED,
        "certified": CERTIFIED,
        "questions": [question.id for question in every],
        "plans": {},
        "conditions": session.conditions.model_dump(mode="json"),
    }
    for name, plan in plans(session, found, trials):
        traces = session.answer(every, plan, name)
        seconds = round(price(found.cost, traces, plan).seconds, 5)
        document["plans"][name] = {"seconds": seconds, "right": "".join(str(int(trace.correct)) for trace in traces)}
        write_text(out, json.dumps(document, indent=1) + "\n")
        print(name, seconds, sum(trace.correct for trace in traces), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
