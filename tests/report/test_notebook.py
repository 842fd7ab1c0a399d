"""Plans and results show themselves in a notebook: as the command line prints them, with nothing loaded before."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest
from report.test_tables import lines

from litestage.core import Completion, MeanConfidence, ModelIdentity, Plan, SkipSchedule, StagePlan, StageTrace, Trace
from litestage.report import notebook
from litestage.report import shown as drawn
from litestage.results import Comparison, PlanResult

RESULTS = Path(__file__).parents[2] / "results"


def text_of(shown: str) -> list[str]:
    """Without tags, spaces at the ends or empty lines."""
    plain = html.unescape(re.sub("<[^>]+>", "", shown))
    return [line.rstrip() for line in plain.splitlines() if line.strip()]


def plan() -> Plan:
    skipping = StagePlan(schedule=SkipSchedule.fixed(["1.attention", "2.ffn"]), exit=MeanConfidence())
    model = ModelIdentity(id="m <b>", fingerprint="f" * 64, num_blocks=4)
    return Plan(model=model, task="t", task_fingerprint="f" * 64, stages={"recall": skipping, "say": StagePlan()})


def test_a_plan_shows_what_it_leaves_out() -> None:
    shown = plan()._repr_html_()
    assert shown.startswith("<pre")
    assert "<script" not in shown
    assert len(shown) < 3000
    told = text_of(shown)
    assert "recall" in told[1]
    assert "·■··" in told[1]
    assert "attention 1" in told[1]
    assert "··■·" in told[2]


def test_results_show_what_the_command_line_prints(results: PlanResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "WIDTH", 80)
    printed = [line.rstrip() for line in lines(drawn(results)) if line.strip()]
    assert text_of(results._repr_html_()) == printed
    comparison = Comparison.load(RESULTS / "obqa" / "comparison")
    printed = [line.rstrip() for line in lines(drawn(comparison)) if line.strip()]
    assert text_of(comparison._repr_html_()) == printed


def test_a_trace_shows_its_texts_and_brackets_are_no_markup() -> None:
    done = Completion(token_ids=(1,), text=" A <i>lamp</i> [red]glows.", confidences=(1.0,), finish_reason="eos")
    stage = StageTrace(
        name="recall", prompts=("",), prompt_tokens=(1,), shared_tokens=0, header_tokens=0, text="", completions=(done,)
    )
    trace = Trace(question_id="q", stages=(stage,), answer=0)
    assert text_of(trace._repr_html_()) == ["recall", "  A <i>lamp</i> [red]glows."]
    assert "<i>" not in trace._repr_html_()


def test_the_drawing_is_found_when_it_is_asked_for() -> None:
    script = (
        "import sys, litestage.core\n"
        "from litestage.core import ModelIdentity, Plan\n"
        "plan = Plan.full_depth(ModelIdentity(id='m', fingerprint='f' * 64, num_blocks=2), 't', 'f' * 64)\n"
        "assert 'litestage.report' not in sys.modules\n"
        "assert plan._repr_html_().startswith('<pre')\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
