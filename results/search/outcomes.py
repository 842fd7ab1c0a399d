"""Which questions of the embedded set some plans answer right, and in how much of full depth's time.

    python results/search/outcomes.py FOLDER > results/search/outcomes.json

Answers all 400 dev questions with each plan; a killed run goes on from FOLDER.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from litestage.evaluation import price
from litestage.jobs.options import DataOptions, DecodingOptions, ModelOptions, SearchSettings
from litestage.jobs.policies import Policies
from litestage.jobs.session import Session
from litestage.jobs.timing import cost_model
from litestage.jobs.trials import Trials
from litestage.search import Candidate

BUDGETS = ((0, 4, 0), (6, 6, 2), (10, 6, 4), (6, 8, 4), (10, 10, 6), (12, 12, 6))
"""Sub-layers skipped of 24 in recall, analysis and summary, from safe to bold."""
STAGES = ("recall", "analysis", "summary")
CALIBRATING = 100


def main(folder: Path) -> None:
    session = Session(ModelOptions(), DataOptions(), DecodingOptions(batch_size=64, workers=2), out=folder)
    settings = SearchSettings(ranking=("probe",), compensation=("none",))
    questions = session.questions("dev")
    first = session.answer(questions[:CALIBRATING], session.full_plan(), "")
    cost = cost_model(session, first)
    trials = Trials(session, cost, questions, settings, Policies(session, first, settings.policies))
    found = {}
    for budgets in ((0, 0, 0), *BUDGETS):
        candidate = Candidate.full_depth(STAGES)
        for stage, budget in zip(STAGES, budgets, strict=True):
            candidate = candidate.with_budget(stage, budget, "probe + none")
        plan = trials.plan(candidate)
        traces = session.answer(questions, plan, "")
        name = " ".join(map(str, budgets))
        found[name] = {
            "seconds": round(price(cost, traces, plan).seconds, 5),
            "right": "".join(str(int(trace.correct)) for trace in traces),
        }
        print(name, found[name]["seconds"], found[name]["right"].count("1"), file=sys.stderr)
    document = {
        "questions": [question.id for question in questions],
        "plans": found,
        "conditions": session.conditions.model_dump(mode="json"),
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
