"""Programs of others: lm-evaluation-harness asks for log-likelihoods, schemathesis for all that the schema allows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance, unsupported_method
from serving import Served

from litestage.core import Request
from litestage.jobs.session import Session
from litestage.models import catalog

MODEL = "everyday-base"
EXAMPLES = 8
"""Requests a path: each is answered by real decoding."""


def test_the_harness_scores_as_the_engine_does(server: Served, session: Session) -> None:
    """Its `local-completions`, as its own command makes it: it sends token ids, and asks for echo and logprobs."""
    models = pytest.importorskip("lm_eval.models.openai_completions")
    instance = pytest.importorskip("lm_eval.api.instance").Instance
    tokenizer = session.engine.model.tokenizer
    harness = models.LocalCompletionsAPI(
        base_url=f"{server.url}/v1/completions", model=MODEL, tokenizer=str(catalog.resolve("everyday"))
    )
    pairs = [("A candle gives off", " light."), ("A glove is worn on", " a hand."), ("Ice is", " hot")]
    asked = [instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    for (score, greedy), (context, continuation) in zip(harness.loglikelihood(asked), pairs, strict=True):
        before = tuple(tokenizer(context)["input_ids"])
        behind = tuple(tokenizer(context + continuation)["input_ids"])[len(before) :]
        expected, likeliest = scored(session, before, behind)
        assert score == pytest.approx(expected, abs=1e-3)
        assert greedy == likeliest


def scored(session: Session, context: tuple[int, ...], continuation: tuple[int, ...]) -> tuple[float, bool]:
    """The engine's own: each token's probability by a request that ends before it."""
    total, likeliest = 0.0, True
    for at in range(len(continuation)):
        rows: list[Any] = []
        session.engine.on_logits = lambda _, logits, rows=rows: rows.append(logits[0].float().log_softmax(-1))
        session.engine.generate([Request(prompt_ids=context + continuation[:at], max_new_tokens=1)])
        session.engine.on_logits = None
        total += float(rows[0][continuation[at]])
        likeliest &= int(rows[0].argmax()) == continuation[at]
    return total, likeliest


HOW = settings(max_examples=EXAMPLES, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))


def within(body: dict[str, Any]) -> dict[str, Any]:
    """A generated body's model is one that there is, and what it asks for is little."""
    limits: dict[str, Any] = {"n": 1} | ({"max_tokens": 2} if "prompt" in body else {})
    if isinstance(body.get("model"), str):
        limits["model"] = "everyday" if "questions" in body else MODEL
    if isinstance(body.get("questions"), list):
        limits["questions"] = body["questions"][:1]
    if isinstance(body.get("litestage"), dict):
        limits["litestage"] = body["litestage"] | ({"votes": 1} if "questions" in body else {})
    return limits


def test_whatever_the_schema_allows_is_answered_as_it_says(server: Served) -> None:
    """No status that the schema does not know, no answer in another form, no failure of the server."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    for operation in schema.get_all_operations():
        api = operation.ok()

        @HOW
        @given(case=api.as_strategy())
        def check(case: schemathesis.Case) -> None:
            if isinstance(case.body, dict):
                case.body |= within(case.body)
            case.call_and_validate(excluded_checks=[positive_data_acceptance, unsupported_method])

        check()


def test_the_dashboard_reads_metrics_that_there_are(server: Served) -> None:
    """Each query of the Grafana file names series and labels of this server, and the file has what Grafana imports."""
    dashboard = json.loads((Path(__file__).parents[2] / "docs" / "examples" / "grafana.json").read_text())
    kinds = set(re.findall(r"# TYPE (\w+)", server.http.get("/metrics").text))
    assert dashboard["schemaVersion"] >= 39
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) == 10
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            asked = {re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"litestage_\w+", target["expr"])}
            assert asked
            assert asked <= kinds
            assert target["expr"].count("(") == target["expr"].count(")")


def test_the_python_of_the_guide_runs(server: Served, capsys: pytest.CaptureFixture[str]) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    exec(code.replace("http://127.0.0.1:8000", server.url), {})
    assert capsys.readouterr().out.startswith("recall:")
