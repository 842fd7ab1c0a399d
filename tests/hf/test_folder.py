"""Plans as repositories: what `generate` loads by name, the card, and what is sent to a hub."""

from __future__ import annotations

import json
import threading
from base64 import b64decode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import tiny
import torch
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from planned import PROMPTS, by_engine, folder_of, generated, written_by

from litestage.core import Certificate, Compensation, MeanConfidence, PlanError, SkipSchedule, StagePlan
from litestage.hf import PlanDecoding, PlanFolder, apply_plan, load_plan
from litestage.hf.export import blocks_of
from litestage.models.convert import fingerprint
from litestage.skipping import fit_norm_ratio, save_stand

PLAN = StagePlan(schedule=SkipSchedule.fixed(["0.attention", "2.ffn"]), exit=MeanConfidence(window=3, threshold=0.3))


def of_this_model(folder: PlanFolder) -> PlanFolder:
    """As if searched on the model under test."""
    found = fingerprint(tiny.transformers_model("llama"))
    plan = folder.plan.model_copy(update={"model": folder.plan.model.model_copy(update={"fingerprint": found})})
    return PlanFolder(plan, folder.folder)


def test_a_way_of_decoding_for_generate() -> None:
    model = tiny.transformers_model("llama")
    got = generated(model, custom_generate=PlanDecoding(folder_of(PLAN), "s"))
    assert got == by_engine("llama", PLAN)
    torch.manual_seed(0)
    beams = generated(model, PROMPTS[1:3], custom_generate=PlanDecoding(folder_of(PLAN), "s"), num_beams=2)
    assert len(beams) == 2
    with pytest.raises(PlanError, match="guidance_scale"):
        generated(model, PROMPTS[1:2], custom_generate=PlanDecoding(folder_of(PLAN), "s"), guidance_scale=2.0)
    with pytest.raises(PlanError, match="assisted"):
        generated(model, PROMPTS[1:2], custom_generate=PlanDecoding(folder_of(PLAN), "s"), prompt_lookup_num_tokens=3)
    assert "forward" not in model.__dict__


@pytest.mark.parametrize("kind", [PromptTuningConfig, PrefixTuningConfig])
def test_virtual_tokens_are_refused(kind: type[PromptTuningConfig]) -> None:
    model = get_peft_model(tiny.new_model("llama"), kind(num_virtual_tokens=4, task_type="CAUSAL_LM"))
    with pytest.raises(PlanError, match="virtual tokens"), apply_plan(model, folder_of(PLAN), "s", check=False):
        pass


def test_generate_loads_a_folder_by_name(tmp_path: Path) -> None:
    """As a user of the hub would, who gives a name and trusts its code."""
    engine = tiny.engine("llama")
    compensation, weights = fit_norm_ratio(engine, PROMPTS)
    save_stand(tmp_path, compensation, weights)
    engine.stands[compensation.content or ""] = weights
    plan = PLAN.model_copy(update={"compensation": compensation})
    place = of_this_model(folder_of(plan, tmp_path)).save(tmp_path / "repository")
    model = tiny.transformers_model("llama")
    got = generated(model, custom_generate=str(place), trust_remote_code=True, stage="s")
    assert got == written_by(engine, plan, PROMPTS)
    assert load_plan(place).plan.stages["s"] == plan


def test_a_card_says_what_a_plan_costs_and_whether_that_is_promised(tmp_path: Path) -> None:
    evidence = {
        "split": "dev",
        "n": 300,
        "full": {"accuracy": 43.333, "seconds": 0.0961},
        "plan": {"accuracy": 43.0, "seconds": 0.0913},
    }
    folder = folder_of(PLAN.model_copy(update={"compensation": Compensation()}))
    folder = PlanFolder(folder.plan.model_copy(update={"evidence": evidence}), folder.folder)
    text = (folder.save(tmp_path, "someone/plan") / "README.md").read_text()
    for part in ("43.3 %", "43.0 %", "96 ms", "91 ms", "300", "not certified", '"someone/plan"', "| s | 2 of 8 |"):
        assert part in text
    assert text.startswith("---\nlibrary_name: litestage\n")


def test_a_card_shows_how_to_run_a_stage_that_runs(tmp_path: Path) -> None:
    folder = folder_of(PLAN)
    stages = {"gone": StagePlan(left_out=True), **folder.plan.stages}
    folder = PlanFolder(folder.plan.model_copy(update={"stages": stages}), folder.folder)
    saved = folder.save(tmp_path, "someone/plan")
    for text in (saved / "README.md", saved / "custom_generate" / "generate.py"):
        assert 'stage="s"' in text.read_text()
    assert "| gone | the whole stage |" in (saved / "README.md").read_text()
    with pytest.raises(PlanError, match="without stage gone"):
        blocks_of(folder.plan)


def test_a_card_of_a_path_says_what_was_lost_and_a_bound_no_smaller_than_was_shown(tmp_path: Path) -> None:
    evidence = {"split": "dev", "n": 150, "plan": {"questions": 120, "lost": 2, "gained": 5, "pace": 0.8}}
    certificate = Certificate(epsilon=3, lost=2, gained=4, n=266, bound=1.64)
    folder = folder_of(PLAN)
    changed = {"evidence": evidence, "certificate": certificate}
    folder = PlanFolder(folder.plan.model_copy(update=changed), folder.folder)
    text = (folder.save(tmp_path, "someone/plan") / "README.md").read_text()
    for part in ("120 questions", "lost 2", "gained 5", "1.25 times", "less than 1.64 points", "266", "95%"):
        assert part in text


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as an upload needs; what was committed lies in ``received``."""

    received: dict[str, str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self._answer({"url": f"http://{self.headers['Host']}/me/plan"})
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.received[line["value"]["path"]] = line["value"]["content"]
            self._answer({"commitUrl": f"http://{self.headers['Host']}/me/plan/commit/1", "commitOid": "1"})
        else:
            self.send_error(404)

    def _answer(self, content: dict[str, object]) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[tuple[str, dict[str, str]]]:
    received: dict[str, str] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("ThisHub", (Hub,), {"received": received}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()


def test_a_plan_is_sent_to_the_hub(hub: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    endpoint, received = hub
    folder_of(PLAN).push_to_hub("me/plan", endpoint=endpoint, token="hf_x")
    names = {"plan.json", "README.md", "custom_generate/generate.py", "custom_generate/requirements.txt"}
    assert set(received) == names
    assert 'PLAN = "me/plan"' in b64decode(received["custom_generate/generate.py"]).decode()


def test_a_plan_that_no_hub_has_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PlanError, match="someone/nothing"):
        load_plan("someone/nothing")
