"""What `litestage certify` says is the exact test of both systems' own answers, however they were come by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from litestage.core import MeanConfidence, Plan, StagePlan
from litestage.evaluation import Outcomes, bound, questions_hash
from litestage.jobs.answer import answer
from litestage.jobs.session import Session, load, plan_by_hand

Run = Callable[..., tuple[int, str, str]]
COMPARISON = Path(__file__).parents[2] / "results" / "obqa" / "comparison"
N = 8
SKIPS = "recall=2.attention,3.attention,4.attention,5.attention,6.attention,7.attention,8.attention"


@pytest.fixture
def plan(litestage: Run, session: Session, tmp_path: Path) -> Path:
    """A plan that skips much, written by hand."""
    made = plan_by_hand(session.full_plan(), session.task, (SKIPS,))
    return made.save_pretrained(tmp_path / "plan").parent


def counted(before: dict[str, bool], after: dict[str, bool]) -> Outcomes:
    lost = sum(before[q] and not after[q] for q in before)
    return Outcomes(lost, sum(after[q] and not before[q] for q in before), len(before))


def right(session: Session, used: Plan) -> dict[str, bool]:
    traces = session.answer(session.questions("test", N), used, "")
    return {trace.question_id: trace.correct for trace in traces}


def test_counts_from_elsewhere(litestage: Run) -> None:
    code, out, _ = litestage("certify", "--counts", "5,3,500", "--max-drop", "2", "--json")
    found = json.loads(out)
    assert (code, found["granted"], found["epsilon"], found["delta"]) == (0, True, 2, 0.05)
    assert found["bound"] == pytest.approx(1.55, abs=0.1)
    assert (found["lost"], found["gained"], found["n"]) == (5, 3, 500)
    code, out, _ = litestage("certify", "--counts", "33,32,350", "--max-drop", "3")
    assert code == 0
    shown = " ".join(out.split())
    assert "Refused" in shown
    assert "4.14 points" in shown
    assert "questions would do" in shown
    assert all(len(line.rstrip()) <= 80 for line in out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to certify"),
        (["--counts", "24,17"], "--counts 24,17: write"),
        (["--counts", "a,b,c"], "--counts a,b,c"),
        (["--counts", "2,2,3"], "more than 3 questions"),
        (["--counts=-1,2,3"], "below 0"),
        (["--counts", "0,0,0"], "1 to a million"),
        (["--counts", "1,1,10", "--max-drop", "0"], "--max-drop 0"),
        (["--counts", "1,1,10", "--max-drop", "nan"], "--max-drop nan"),
        (["--counts", "1,1,10", "--max-drop", "101"], "--max-drop 101"),
        (["--counts", "1,1,10", "--plan", "x"], "--counts and a change (plan x)"),
        (["one", "other", "--exit", "5,0.5"], "two folders and a change (exit 5,0.5)"),
        (["one"], "1 folder given"),
        (["one", "two", "three"], "3 folders given"),
        (["nowhere", "nowhere"], "No answers at nowhere"),
        ([str(COMPARISON), f"{COMPARISON}#litestge-1"], "Did you mean litestage-1?"),
        (["--quantise", "int5"], "--quantise int5 is not known"),
        (["--plan", "no-such-plan"], "No plan at no-such-plan"),
        (["--exit", "5"], "--exit 5"),
        (["--exit", "5,0.5", "--no-exit"], "contradict"),
        (["--without", "recal"], "recall"),
        (["--without", "summary"], "cannot be left out"),
        (["--skip", "recall=99.ffn"], "99.ffn cannot be skipped"),
        (["--to-adapter", "nope"], "No adapter is called"),
        (["--exit", "5,0.5", "--split", "tset"], "tset"),
    ],
)
def test_what_is_mistyped_gets_a_sentence(
    litestage: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = litestage("certify", *arguments)
    assert (code, said in err) == (2, True), err
    assert "Traceback" not in err


def test_a_plan_keeps_its_certificate(litestage: Run, session: Session, plan: Path, tmp_path: Path) -> None:
    before = json.loads((plan / "plan.json").read_text())
    code, out, err = litestage(
        "certify", "--plan", str(plan), "--limit", str(N), "--out", str(tmp_path / "out"), "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    used = Plan.from_pretrained(plan)
    assert used.certificate is not None
    assert used.certificate.model_dump() == {name: found[name] for name in type(used.certificate).model_fields}
    after = json.loads((plan / "plan.json").read_text())
    assert after.pop("certificate")["bound"] == found["bound"]
    assert after == before
    one, other = (right(session, p) for p in (session.full_plan(), used))
    seen = counted(one, other)
    assert (found["lost"], found["gained"], found["n"]) == tuple(seen)
    assert found["bound"] == bound(seen)
    assert found["questions"] == questions_hash(one)
    assert seen.lost, "a plan that loses nothing tests little"
    assert session.load_plan(plan) == used


def test_a_changed_plan_has_no_certificate(session: Session, plan: Path) -> None:
    from litestage.evaluation import certify

    promised = session.load_plan(plan).model_copy(update={"certificate": certify(Outcomes(0, 0, 400), 3)})
    assert plan_by_hand(promised, session.task, ()).certificate == promised.certificate
    assert plan_by_hand(promised, session.task, ("recall=1.ffn",)).certificate is None
    rule = MeanConfidence(window=3, threshold=0.9)
    rules = dict.fromkeys(session.task.stage_names, rule)
    assert plan_by_hand(promised, session.task, (), rules).certificate is None


def test_what_is_put_over_a_stage_left_out_is_run_or_left_alone(session: Session, tmp_path: Path) -> None:
    gone = session.plan({"recall": StagePlan(left_out=True)})
    rules = dict.fromkeys(session.task.stage_names, MeanConfidence(window=3, threshold=0.9))
    unsure = plan_by_hand(gone, session.task, (), rules)
    assert (unsure.stage("recall"), unsure.stage("summary").exit) == (StagePlan(left_out=True), rules["summary"])
    assert Plan.from_pretrained(unsure.save_pretrained(tmp_path)) == unsure
    skipping = plan_by_hand(gone, session.task, ("recall=1.ffn",)).stage("recall")
    assert (skipping.left_out, skipping.schedule.num_skipped) == (False, 1)


def test_a_text_is_told_by_the_stage_that_writes_it(session: Session) -> None:
    """Also where an earlier stage is left out."""
    heard: dict[str, set[str]] = {}
    (asked,) = session.questions("dev", 1)
    plan = session.plan({"recall": StagePlan(left_out=True)})
    told = answer(session, asked, plan, on_text=lambda stage, _, text: heard.setdefault(stage, set()).add(text))
    assert set(heard) == {"analysis", "summary"}
    assert told.stages[-1].completions[0].text in heard["summary"]


def test_questions_that_chose_the_plan_promise_nothing(litestage: Run, plan: Path) -> None:
    chosen = Plan.from_pretrained(plan).model_copy(update={"evidence": {"split": "dev"}})
    chosen.save_pretrained(plan)
    code, _, err = litestage("certify", "--plan", str(plan), "--split", "dev", "--limit", "2")
    assert (code, "searched on dev questions" in err) == (2, True)
    assert Plan.from_pretrained(plan) == chosen


def adapter(model: Path, place: Path) -> str:
    """One that nobody trained: it changes some answers."""
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(str(place))
    return str(place)


def test_every_kind_of_change_is_tested_as_it_runs(
    litestage: Run, session: Session, embedded: Path, tmp_path: Path
) -> None:
    full = right(session, session.full_plan())
    other = adapter(embedded, tmp_path / "adapter")
    adapted = load(adapter=other, shots=0)
    rule = MeanConfidence(window=3, threshold=0.9)
    exits = session.plan(dict.fromkeys(session.task.stage_names, StagePlan(exit=rule)))
    small = load(quantise="int4")
    for name, arguments, after in (
        ("exit", ("--exit", "3,0.9"), right(session, exits)),
        ("int4", ("--quantise", "int4"), right(small, small.full_plan())),
        ("adapter", ("--to-adapter", other), right(adapted, adapted.full_plan())),
    ):
        folder = tmp_path / f"certified-{name}"
        code, out, err = litestage("certify", *arguments, "--limit", str(N), "--out", str(folder), "--json")
        assert code == 0, err
        found = json.loads(out)
        assert (found["lost"], found["gained"], found["n"]) == tuple(counted(full, after)), name
        kept = json.loads((folder / "certificate.json").read_text())
        assert kept == {field: found[field] for field in kept}
    code, shown, _ = litestage(
        "certify", "--without", "recall", "--limit", str(N), "--out", str(tmp_path / "certified-exit")
    )
    assert code == 0
    assert "without stage recall" in shown
    assert f"{N} of {N} test questions" in shown


def test_two_evaluations_are_paired_by_question(litestage: Run, tmp_path: Path) -> None:
    full, skipped, other = (tmp_path / name for name in ("full", "skipped", "other"))
    common = ("evaluate", "--limit", "4")
    assert (
        litestage(*common, "--out", str(full))[0] == litestage(*common, "--skip", SKIPS, "--out", str(skipped))[0] == 0
    )
    code, out, _ = litestage("certify", str(full), str(skipped), "--json")
    read = [json.loads((place / "evaluation.json").read_text()) for place in (full, skipped)]
    seen = counted(*({t["question_id"]: t["answer"] == t["gold"] for t in kept["questions"]} for kept in read))
    found = json.loads(out)
    assert (code, (found["lost"], found["gained"], found["n"])) == (0, tuple(seen))

    def refused(said: str, **changed: object) -> None:
        other.mkdir(exist_ok=True)
        (other / "evaluation.json").write_text(json.dumps(read[1] | changed))
        code, _, err = litestage("certify", str(full), str(other))
        assert (code, said in err) == (2, True), err

    first, *rest = read[1]["questions"]
    refused("did not answer the same questions", questions=rest)
    refused("several votes", questions=[first, first | {"vote": 1}, *rest])
    refused("another right answer", questions=[first | {"gold": 1 - first["gold"] % 2}, *rest])
    refused("has no right answer", questions=[first | {"gold": None}, *rest])
    refused("is of task everyday, but", plan={"task": "other"})
    refused("questions", questions=7)
    refused("keeps no answers a question", kind="plan")


def test_systems_of_a_comparison_are_paired(litestage: Run) -> None:
    code, out, _ = litestage("certify", str(COMPARISON), f"{COMPARISON}#litestage-1", "--json")
    kept = json.loads((COMPARISON / "results.json").read_text())
    full, plan = (s["answers"] for s in kept["systems"][:2])
    before, after = ([a == g for a, g in zip(answers, kept["gold"], strict=True)] for answers in (full, plan))
    lost = sum(b and not a for b, a in zip(before, after, strict=True))
    found = json.loads(out)
    assert (code, found["lost"], found["n"]) == (0, lost, len(kept["gold"]))
    assert found["questions"] == questions_hash(kept["question_ids"])
