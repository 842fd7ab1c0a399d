"""A search for a path on the embedded model, small: what is granted, refused, kept and priced again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from shutil import copy

import pytest

from litestage.core import Completion, Counts, DataError, OptionError, Plan, StageTrace, Trace
from litestage.engine import TorchEngine
from litestage.evaluation import questions_hash, would_do
from litestage.evaluation.pricing import work_of
from litestage.jobs.options import PriceOptions, SearchSettings
from litestage.jobs.path import FoundPath, Questions, find_path
from litestage.jobs.price import price_search
from litestage.jobs.session import Session
from litestage.jobs.work import Work
from litestage.report.certificate import rounded
from litestage.report.path import promise

SETTINGS = SearchSettings(max_drop=25, step=6, certify=60, compensation=("none",), levers=("exit",))


def questions_of(session: Session, certify: float = 60) -> Questions:
    return Questions.of(session, "dev", certify).first(24, None)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("path")


@pytest.fixture(scope="module")
def there(session: Session, out: Path) -> Session:
    return session.at(out)


@pytest.fixture(scope="module")
def found(there: Session) -> FoundPath:
    return find_path(there, SETTINGS, questions_of(there))


def test_the_plan_is_the_last_one_granted_and_keeps_its_certificate(found: FoundPath, out: Path) -> None:
    told = found.plan.certificate
    assert told is not None
    assert told.granted
    assert told.epsilon == 25
    assert (told.n, told.spent) in ((20, 0.01), (40, 0.015), (60, 0.025))  # the look at which it was known
    assert found.search.chosen is not None
    granted = [plan.certificate is not None and plan.certificate.granted for plan in found.search.plans]
    assert granted[: found.search.chosen + 1] == [True] * (found.search.chosen + 1)
    assert not any(granted[found.search.chosen + 1 :])
    assert Plan.from_pretrained(out) == found.plan
    assert found.search.plan is not None
    assert found.plan.stages["analysis"].schedule.num_skipped == found.search.plan.tried.candidate.budgets["analysis"]


def test_no_question_of_the_certificate_was_searched_on(session: Session, found: FoundPath) -> None:
    questions = questions_of(session)
    assert not {one.id for one in questions.search} & {one.id for one in questions.certify}
    assert found.plan.certificate is not None
    if found.plan.certificate.n == len(questions.certify):
        assert found.plan.certificate.questions == questions_hash(one.id for one in questions.certify)
    assert found.plan.evidence["questions"] == questions_hash(one.id for one in questions.search)


def test_the_same_search_goes_on_where_it_was_and_finds_the_same(
    session: Session, found: FoundPath, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = session.at(out)

    def no_more(*_: object, **__: object) -> int:
        raise AssertionError("something was decoded again")

    monkeypatch.setattr(TorchEngine, "add", no_more)
    assert find_path(again, SETTINGS, questions_of(session)).search == found.search
    with pytest.raises(OptionError, match="its levers is"):
        find_path(again, SearchSettings(max_drop=25, step=6, certify=60, compensation=("none",)), questions_of(session))


def beside(there: Session, name: str) -> Session:
    """A folder of its own for another search at the same prices."""
    inside = there.inside(name)
    assert there.folder.path is not None
    assert inside.folder.path is not None
    inside.folder.path.mkdir()
    copy(there.folder.path / "latency.json", inside.folder.path)
    return inside


def test_where_nothing_is_granted_the_plan_is_full_depth_and_the_page_says_what_would_do(
    there: Session, found: FoundPath
) -> None:
    settings = replace(SETTINGS, max_drop=3)  # 60 questions cannot promise so little, whatever they show
    refused = find_path(beside(there, "refused"), settings, questions_of(there))
    assert refused.search.chosen is None
    assert refused.search.refused is not None
    assert refused.plan.stages == there.full_plan().stages
    assert refused.plan.certificate is None
    told = refused.search.refused.certificate
    assert told is not None
    assert refused.plan.evidence["refused"] == told.model_dump(mode="json")
    needed = would_do(told)
    said = promise(refused.search)
    assert f"{told.lost} and gained {told.gained} of {told.n}" in said
    assert f"{told.bound:.2f} points" in said
    assert needed is None or f"{rounded(needed):,} certify questions" in said


def test_within_a_latency_the_safest_plan_is_taken_with_its_bound_whatever_that_is(
    there: Session, found: FoundPath
) -> None:
    target = 0.97 * found.search.full_seconds
    settings = replace(SETTINGS, latency_target=target)
    safest = find_path(beside(there, "latency"), settings, questions_of(there))
    chosen = safest.search.plan
    assert chosen is not None
    assert chosen.tried.seconds <= target
    within = [plan.tried for plan in safest.search.plans if plan.tried.seconds <= target]
    assert chosen.tried.risk == min(one.risk for one in within)
    assert safest.plan.certificate == chosen.certificate
    assert safest.plan.target["latency"] == target
    enough = replace(SETTINGS, latency_target=2 * found.search.full_seconds)
    full = find_path(beside(there, "enough"), enough, questions_of(there))
    assert (full.search.plan, full.plan.stages) == (None, there.full_plan().stages)
    assert "Full depth itself" in promise(full.search)
    nothing = find_path(beside(there, "too fast"), replace(SETTINGS, latency_target=1e-6), questions_of(there))
    assert (nothing.search.plan, nothing.plan.stages) == (None, there.full_plan().stages)
    assert "No plan was found" in promise(nothing.search)


def test_a_finished_search_is_priced_again_without_decoding(
    session: Session, found: FoundPath, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TorchEngine, "add", None)
    prices = price_search(session.at(None), out)
    assert [plan.name for plan in prices.plans] == ["full", *(str(i + 1) for i in range(len(found.search.plans)))]
    assert [plan.chosen for plan in prices.plans].index(True) == (found.search.chosen or 0) + 1
    assert prices.plans[0].speedup == 1
    together = price_search(session.at(None), out, PriceOptions(batch_size=4))
    assert together.questions_at_once == 4
    assert len(together.plans) == len(prices.plans)
    work = json.loads((out / "work.json").read_text())
    assert not any(text in (out / "work.json").read_text() for text in ("prompt_ids", "token_ids"))
    assert len(work["full"]["questions"]) == 24
    with pytest.raises(DataError, match="No counted work"):
        price_search(session.at(None), found.plan.save_pretrained(out / "bare").parent)


def test_kept_work_of_an_answer_by_choice_is_what_it_was(session: Session) -> None:
    chosen = Completion(
        token_ids=(4, 5, 6, 7),
        text="",
        confidences=(),
        finish_reason="eos",
        counts=Counts(prefilled=9, decoded=2, joined=1),
        asked=(1, 3),
    )
    free = chosen.model_copy(update={"counts": Counts(prefilled=9, decoded=3), "asked": ()})
    stages = (
        StageTrace(
            name=name,
            prompts=("", ""),
            prompt_tokens=(9, 8),
            shared_tokens=4,
            header_tokens=2,
            text="",
            completions=(chosen, free),
        )
        for name in session.task.stage_names
    )
    trace = Trace(question_id="q", stages=tuple(stages), answer=None)
    kept = Work.model_validate_json(Work.of([trace], session.full_plan()).model_dump_json()).traces()[0]
    assert [work_of(stage) for stage in kept.stages] == [work_of(stage) for stage in trace.stages]


def test_questions_for_the_certificate_are_the_end_of_dev_where_there_is_no_split_for_them(session: Session) -> None:
    given = session.questions("dev", 10)
    own = Questions.of(session, "dev", 100, given)
    assert (own.certified.name, len(own.certify), len(own.search)) == ("certify", 100, 10)
    session = session.at(None)
    session.data = session.data.__class__(data="somewhere")
    shared = Questions.of(session, "dev", 0.4, given)
    assert [one.id for one in shared.search] == [one.id for one in given[:6]]
    assert [one.id for one in shared.certify] == [one.id for one in given[6:]]
    with pytest.raises(OptionError, match="none are left to search on"):
        Questions.of(session, "dev", 10, given)
    with pytest.raises(OptionError, match="for certificates alone"):
        Questions.of(session, "certify", None)
