"""What an operator and a client's programs rely on: models, health, metrics, the key, and the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from serving import Served, served

from litestage import __version__
from litestage.jobs.session import Session


def test_models_are_the_tasks_own_first_with_plan_and_limits(server: Served, session: Session) -> None:
    models = server.http.get("/v1/models").json()["data"]
    assert [model["id"] for model in models] == ["everyday", "everyday:full", "everyday:fast", "everyday-base"]
    fast = models[2]["litestage"]
    assert fast["stages"]["recall"]["skipped"] == [{"first_step": 0, "sub_layers": ["5.attention", "6.ffn"]}]
    assert fast["certificate"] is None
    assert fast["limits"]["max_context"] == session.engine.max_context
    assert server.http.get("/v1/models/everyday:fast").json() == models[2]
    assert server.http.get("/v1/models/other").status_code == 404


def test_metrics_count_what_was_done(server: Served, session: Session) -> None:
    before = {name: server.metric(name) for name in ("generation_tokens_total", "sublayers_skipped_total")}
    run, steps = server.metric("sublayers_run_total"), server.metric("steps_total")
    trace = server.ask(model="everyday:fast", litestage={"trace": True}).json()["litestage"]["traces"][0]
    texts = [text for stage in trace["stages"] for text in stage["completions"]]
    decoded = sum(text["counts"]["decoded"] for text in texts)
    written = sum(len(text["token_ids"]) for text in texts)
    assert server.metric("generation_tokens_total") - before["generation_tokens_total"] == written
    assert server.metric("sublayers_skipped_total") - before["sublayers_skipped_total"] == 2 * decoded
    kept = 2 * session.engine.identity.num_blocks - 2
    assert server.metric("sublayers_run_total") - run == kept * decoded
    assert 0 < server.metric("steps_total") - steps <= decoded + written


def test_version_and_health(server: Served) -> None:
    assert server.http.get("/version").json() == {"version": __version__}
    assert server.http.get("/health").json() == {"status": "ready"}


def test_what_is_not_there_is_told_in_the_same_form(server: Served) -> None:
    assert server.http.get("/v1/nothing").json()["error"]["type"] == "not_found_error"
    assert server.http.get("/v1/completions").status_code == 405


def test_health_says_no_until_the_model_is_there_and_once_it_is_dead(tmp_path: Path) -> None:
    """A model that cannot be loaded ends the server, with the sentence that says why."""
    with served(ready=False) as loading:
        assert loading.http.get("/health").status_code == 503
        refused = loading.ask()
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "loading")
        assert int(refused.headers["retry-after"]) > 0


def test_a_key_is_wanted_where_there_is_one(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret\n")
    with served(ready=False, api_key_file=str(key)) as locked:
        for header in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
            answer = locked.http.get("/v1/models", headers=header)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
        assert locked.http.get("/v1/models", headers={"authorization": "Bearer secret"}).status_code in (200, 503)
        assert locked.http.get("/health").status_code in (200, 503)


def test_the_schema_names_every_path(server: Served) -> None:
    schema: dict[str, Any] = server.http.get("/openapi.json").json()
    assert {"/v1/completions", "/v1/chat/completions", "/v1/decisions", "/v1/models", "/health"} <= set(schema["paths"])


def test_skips_by_hand_are_refused_where_the_operator_says_nothing(tmp_path: Path) -> None:
    with served() as strict:
        answer = strict.ask(litestage={"stages": {"recall": {"skip": ["2.ffn"]}}})
        assert answer.status_code == 403
        assert "--allow-skips" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--plan", "fast"), "fast"),
        (("--plan", "full=."), "full"),
        (("--plan", "a=/nowhere"), "/nowhere"),
        (("--port", "70000"), "70000"),
        (("--host", "no.such.host.invalid"), "no.such.host.invalid"),
        (("--api-key-file", "/nowhere/key"), "/nowhere/key"),
        (("--scheduling", "random"), "random"),
    ],
)
def test_a_users_mistake_is_a_sentence(litestage: Any, arguments: tuple[str, ...], named: str) -> None:
    code, out, err = litestage("serve", *arguments)
    assert (code, out) == (2, "")
    assert named in err
    assert "Traceback" not in err
