"""The path beside the paper's search, on the embedded model and the same questions: plans, bounds, and tokens decoded.

    python results/search/beside_paper.py FOLDER > results/search/beside-paper.json

The paper's search is run for each number of points, each from full depth's texts alone. Every plan is then tested on
the same certify questions. Tokens are those of texts that a search had not written before. A killed run goes on from
FOLDER.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litestage.core import Plan
from litestage.evaluation import bound, outcomes, price
from litestage.jobs.options import DataOptions, DecodingOptions, ModelOptions, SearchSettings
from litestage.jobs.path import Questions
from litestage.jobs.policies import Policies
from litestage.jobs.search import Baseline, lay_baseline
from litestage.jobs.session import Session
from litestage.jobs.trials import Trials
from litestage.search import Candidate, Search, budget_search, path_search
from litestage.tasks import Question

SEARCHED, CERTIFIED = 96, 400
"""Questions of the search, as in quickstart."""
POINTS = (1.0,)
"""Asked of the paper's search, one search each."""
ASKED = 3.0
"""Asked of the path's: what is tried covers fewer points as well."""
PLANS = 6


class Tester:
    """Plans on the certify questions, beside full depth."""

    def __init__(self, session: Session, ground: Baseline, certify: Sequence[Question]) -> None:
        self.session, self.cost, self.certify = session, ground.cost, certify
        self.full = session.answer(certify, session.full_plan(), "certify questions at full depth")
        self.seconds = price(self.cost, self.full, session.full_plan()).seconds

    def row(self, candidate: Candidate, plan: Plan) -> dict[str, Any]:
        traces = self.session.answer(self.certify, plan, str(candidate))
        full, changed = ({trace.question_id: trace.correct for trace in some} for some in (self.full, traces))
        seen = outcomes(full, changed)
        pace = price(self.cost, traces, plan).seconds / self.seconds
        return {"plan": str(candidate), "pace": round(pace, 4), **seen._asdict(), "bound": bound(seen)}


def searched(search: Search[Any], trials: Trials) -> tuple[Any, int]:
    """What a search found, and the tokens decoded for it besides full depth's."""
    tokens = 0
    while not search.is_over:
        for trial in search.wanted:
            told = trials.run(trial)
            tokens += told.tokens if trial.purpose != "full" else 0
            search.tell(trial, told)
    return search.outcome, tokens


def main(folder: Path) -> None:
    session = Session(ModelOptions(), DataOptions(), DecodingOptions(batch_size=64), out=folder)
    questions = Questions.of(session, "dev", None).first(SEARCHED, CERTIFIED)
    ground = lay_baseline(session, questions.search)
    test = Tester(session, ground, questions.certify)
    stages, blocks, n = session.task.stage_names, session.engine.identity.num_blocks, len(questions.search)

    def ready(settings: SearchSettings, where: Session) -> Trials:
        policies = Policies(where, ground.full, settings.policies, ground.ranking)
        return Trials(where, ground.cost, questions.search, settings, policies)

    paper = []
    for points in POINTS:
        settings = SearchSettings(preset="paper", max_drop=points)
        trials = ready(settings, session)
        found, tokens = searched(budget_search(stages, blocks, n, settings.options, trials.screen, 1), trials)
        row = test.row(found.candidate, trials.plan(found.candidate))
        paper.append({"points": points, "tokens": tokens, **row})
        print(paper[-1], file=sys.stderr, flush=True)
    settings = SearchSettings(max_drop=ASKED, plans=PLANS)
    trials = ready(settings, session)
    options = settings.path_options(stages, len(questions.certify))
    found, tokens = searched(path_search(stages, blocks, n, options, trials.compare), trials)
    path = [test.row(one.candidate, trials.plan(one.candidate)) for one in found.path]
    document = {
        "searched": n,
        "certified": len(questions.certify),
        "full depth's tokens": sum(len(d.token_ids) for t in ground.full for s in t.stages for d in s.completions),
        "paper": paper,
        "path": {"points": ASKED, "tokens": tokens, "tried": len(found.tried), "answers": found.answers, "plans": path},
        "conditions": session.conditions.model_dump(mode="json"),
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
