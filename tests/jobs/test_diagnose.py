"""The diagnosis of the embedded model, small: every figure against another way to get it, and what it leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from report.test_browser import BROWSER, PROBE, visit
from report.test_tables import lines
from torch import Tensor

from litestage.core import MeanConfidence, OptionError, Request, Trace
from litestage.evaluation import CostModel
from litestage.jobs.diagnose import bits_of, budgets_of, diagnose, some_of, texts
from litestage.jobs.options import DiagnoseOptions, PlanOptions
from litestage.jobs.progress import Silent
from litestage.jobs.session import Session, load
from litestage.pipeline import run
from litestage.report import draw, shown
from litestage.results import Diagnosis

LIMIT = 4
RULE = MeanConfidence(window=3, threshold=0.9)
OPTIONS = DiagnoseOptions(step=8, budgets_up_to=16, exit=RULE)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("diagnosis")


@pytest.fixture(scope="module")
def diagnosis(session: Session, out: Path) -> Diagnosis:
    found = diagnose(session.at(out), OPTIONS, session.questions("dev", LIMIT))
    draw(found, out)
    return found


def fresh(
    session: Session, diagnosis: Diagnosis, where: str | None, budget: int, exit_rule: MeanConfidence | None = None
) -> list[Trace]:
    """The same setting without any cache."""
    layers = ",".join(str(ranked.layer) for ranked in diagnosis.ranking[:budget])
    stages = session.task.stage_names if where is None else (where,)
    skips = tuple(f"{name}={layers}" for name in stages) if budget else ()
    plan = session.chosen_plan(PlanOptions(skip=skips, exit=exit_rule))
    return run(session.engine, session.task, session.questions("dev", LIMIT), plan)


def right(traces: list[Trace]) -> float:
    return 100 * sum(trace.correct for trace in traces) / len(traces)


def steps(traces: list[Trace]) -> float:
    return sum(c.counts.decoded for t in traces for s in t.stages for c in s.completions) / len(traces)


def test_every_sweep_and_exit_point_is_that_of_a_fresh_run(session: Session, diagnosis: Diagnosis) -> None:
    assert diagnosis.budgets == (0, 8, 16)
    for where in (None, "recall", "summary"):
        point = next(sweep for sweep in diagnosis.sweeps if sweep.stage == where).point(16)
        traces = fresh(session, diagnosis, where, 16)
        assert (point.accuracy, point.performance.total.decode_steps) == pytest.approx((right(traces), steps(traces)))
        assert point.paired.baseline_percent == pytest.approx(diagnosis.full.accuracy.percent)
    with_exit = diagnosis.with_exit[2]
    traces = fresh(session, diagnosis, None, 16, RULE)
    assert with_exit.performance.total.early_exit_share > 0
    assert (with_exit.accuracy, with_exit.performance.total.decode_steps) == pytest.approx(
        (right(traces), steps(traces))
    )
    assert with_exit.paired.baseline_percent == pytest.approx(diagnosis.together.point(16).accuracy)


def test_curves_are_of_the_slowest_stage_skipping_alone(session: Session, diagnosis: Diagnosis) -> None:
    seconds = {stage.name: stage.seconds for stage in diagnosis.full.stages}
    assert diagnosis.looked_at == max(seconds, key=lambda name: seconds[name])
    assert [curve.budget for curve in diagnosis.curves] == [0, 8, 16]
    generated = texts(fresh(session, diagnosis, diagnosis.looked_at, 16), diagnosis.looked_at)
    first, last = diagnosis.curves[2].steps[0], diagnosis.curves[2].steps[-1]
    assert first.rows == len(generated)
    assert first.confidence == pytest.approx(sum(c.confidences[0] for c in generated) / len(generated), abs=1e-5)
    assert last.token == max(len(c.token_ids) for c in generated)


def test_next_token_entropy_is_that_of_prefills_token_by_token(session: Session, diagnosis: Diagnosis) -> None:
    """Another road to the same logits: each token's distribution after a full-depth prefill of all before it."""
    told: list[Tensor] = []
    requests = []
    for trace in fresh(session, diagnosis, None, 0):
        prompt = session.engine.encode(trace.stages[0].prompts[0])
        tokens = trace.stages[0].completions[0].token_ids
        requests += [Request(prompt_ids=(*prompt, *tokens[:place]), max_new_tokens=1) for place in range(len(tokens))]
    session.engine.on_logits = lambda rows, logits: told.append(logits.clone())
    try:
        session.engine.generate(requests)
    finally:
        session.engine.on_logits = None
    probabilities = torch.cat(told).double().softmax(-1)
    bits = -(probabilities * probabilities.log2()).nan_to_num().sum(-1)
    assert len(bits) == diagnosis.entropy[0].written.tokens
    assert diagnosis.entropy[0].next_token == pytest.approx(float(bits.mean()), abs=1e-4)


def test_bits_of_known_distributions() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1e9, -1e9], [50.0, 0.0, 0.0, 0.0]])
    assert bits_of(logits).tolist() == pytest.approx([2, 1, 0], abs=1e-6)


def test_redundancy_is_the_rankings_by_stage(session: Session, diagnosis: Diagnosis) -> None:
    assert len(diagnosis.ranking) == 2 * session.engine.identity.num_blocks
    for ranked in diagnosis.ranking:
        assert set(ranked.by_stage) == set(session.task.stage_names)
        assert ranked.redundancy == pytest.approx(sum(ranked.by_stage.values()) / 3)


def test_examples_show_what_exit_cut(diagnosis: Diagnosis) -> None:
    assert len(diagnosis.examples) == 3
    cut = [
        (done.text, done.cut, whole.text)
        for versions in diagnosis.examples
        for ended, without in zip(versions.with_exit.stages, versions.without_exit.stages, strict=True)
        for done, whole in zip(ended.plan, without.plan, strict=True)
        if done.cut
    ]
    assert cut
    assert all(text + rest == whole for text, rest, whole in cut)


def told(diagnosis: Diagnosis) -> dict[str, Any]:
    """All that must be the same after a resume: how long it took is not."""
    return diagnosis.model_dump(exclude={"provenance": {"durations"}})


def test_the_same_command_again_decodes_nothing(
    session: Session, out: Path, diagnosis: Diagnosis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session.engine, "generate", None)
    assert told(diagnose(session.at(out), OPTIONS, session.questions("dev", LIMIT))) == told(diagnosis)


def assert_same_entropies(one: Diagnosis, other: Diagnosis) -> None:
    """Up to the last bits, which depend in fp32 on what is prefilled together."""
    for mine, others in zip(one.entropy, other.entropy, strict=True):
        assert (mine.name, mine.written) == (others.name, others.written)
        assert mine.next_token == pytest.approx(others.next_token, abs=1e-5)


def test_entropies_come_back_where_only_their_texts_were_kept(
    session: Session, out: Path, diagnosis: Diagnosis
) -> None:
    (out / "entropies.json").unlink()
    again = diagnose(session.at(out), OPTIONS, session.questions("dev", LIMIT))
    assert_same_entropies(again, diagnosis)


def test_a_killed_diagnosis_goes_on(session: Session, out: Path, diagnosis: Diagnosis, tmp_path: Path) -> None:
    shutil.copy(out / "latency.json", tmp_path)  # timing the machine again would take long, and come out otherwise

    class Killed(Silent):
        left = 7

        def start(self, what: str, total: int | None = None) -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        diagnose(load(out=tmp_path, progress=Killed()), OPTIONS, session.questions("dev", LIMIT))
    assert not (tmp_path / "results.json").exists()
    assert told(diagnose(session.at(tmp_path), OPTIONS, session.questions("dev", LIMIT))) == told(diagnosis)


def test_questions_that_are_not_ours_are_not_printed(
    session: Session, out: Path, diagnosis: Diagnosis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same questions, but from a file: nobody knows whose they are."""
    cost = CostModel.model_validate(json.loads((out / "latency.json").read_bytes())["content"])
    monkeypatch.setattr("litestage.jobs.diagnose.cost_model", lambda *_: cost)
    data = tmp_path / "data"
    data.mkdir()
    asked = [
        q.model_dump(mode="json", include={"id", "question", "choices", "answer"}) for q in session.questions("dev", 2)
    ]
    (data / "dev.jsonl").write_text("\n".join(map(json.dumps, asked)))
    other = load(data=data, out=tmp_path / "out")
    theirs = diagnose(other, DiagnoseOptions(step=12, budgets_up_to=12, stage="summary"))
    assert theirs.looked_at == "summary"
    assert diagnosis.examples
    assert not theirs.examples
    words = asked[0]["question"], asked[0]["choices"][0]
    assert not any(word in theirs.model_dump_json() for word in words)  # all that a report is drawn from


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"step": 0}, "--step 0"),
        ({"step": 9, "budgets_up_to": 8}, "No budget lies between --step 9 and --budgets-up-to 8"),
        ({"budgets_up_to": 25}, "the model has 24 sub-layers"),
        ({"stage": "recal"}, "recal"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    session: Session, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        diagnose(session.at(tmp_path), DiagnoseOptions(**changes))
    assert not any(tmp_path.iterdir())


def test_what_was_kept_and_damaged_is_made_again(
    session: Session, out: Path, diagnosis: Diagnosis, tmp_path: Path
) -> None:
    """A disk that was full, an editor that was open: every file but the completions can be made from those."""
    copy = Path(shutil.copytree(out, tmp_path / "copy"))
    for name in ("entropies.json", "ranking.json", "latency.json"):
        path = copy / name
        path.write_bytes(path.read_bytes()[:40])
    again = diagnose(session.at(copy), OPTIONS, session.questions("dev", LIMIT))
    assert [sweep.stage for sweep in again.sweeps] == [sweep.stage for sweep in diagnosis.sweeps]
    assert_same_entropies(again, diagnosis)
    assert again.ranking == diagnosis.ranking


@pytest.mark.parametrize("content", ["{", "[1, 2]"])
def test_results_that_cannot_be_read_are_told(session: Session, tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(OptionError, match=r"results\.json cannot be read"):
        diagnose(session.at(tmp_path))


def test_the_results_of_another_job_are_not_overwritten(session: Session, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"kind": "plan"}')
    with pytest.raises(OptionError, match="another job"):
        diagnose(session.at(tmp_path))


def test_default_budgets_stay_few() -> None:
    assert budgets_of(DiagnoseOptions(), 12) == (0, 4, 8, 12, 16, 20)
    assert budgets_of(DiagnoseOptions(), 30) == (0, 4, 8, 12, 16, 20, 24)
    assert budgets_of(DiagnoseOptions(step=2, budgets_up_to=5), 12) == (0, 2, 4)
    assert some_of((0, 4, 8, 12, 16, 20), 4) == [0, 8, 12, 20]
    assert some_of((0, 4), 4) == [0, 4]


def test_it_leaves_results_a_report_and_figures(out: Path, diagnosis: Diagnosis) -> None:
    assert Diagnosis.load(out).sweeps == diagnosis.sweeps
    assert json.loads((out / "results.json").read_text())["kind"] == "diagnosis"
    drawn = {path.name for path in (out / "figures").iterdir()}
    names = ("skipping", "exit", "confidence", "entropy", "redundancy")
    assert drawn == {f"{name}.{kind}" for name in names for kind in ("svg", "png")}


def test_the_terminal_summary_fits_80_columns(diagnosis: Diagnosis) -> None:
    drawn = lines(shown(diagnosis))
    assert max(map(len, drawn)) <= 80
    assert not any("…" in line for line in drawn)


@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
@pytest.mark.parametrize("width", [1280, 375])
def test_the_page_opens_and_nothing_overflows(out: Path, diagnosis: Diagnosis, tmp_path: Path, width: int) -> None:
    page = tmp_path / "report.html"
    page.write_text((out / "report.html").read_text() + PROBE)
    seen, logged = visit(page, tmp_path / "profile", width)
    assert not logged
    assert (seen["width"], seen["drawn"], seen["loaded"], seen["wide"]) == (width, 10, 0, [])
    assert seen["page"] <= width
