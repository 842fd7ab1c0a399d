from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestage.core import (
    FULL_DEPTH,
    Compensation,
    MeanConfidence,
    ModelIdentity,
    Plan,
    PlanError,
    Segment,
    SkipSchedule,
    StagePlan,
    sub_layers,
    whole_blocks,
)
from litestage.core.plan import content_hash

MODEL = ModelIdentity(id="everyday", fingerprint="f" * 64, num_blocks=6)
LATER = SkipSchedule(segments=(Segment(), Segment(first_step=9, skipped=whole_blocks([1]))))
PLAN = Plan(
    model=MODEL,
    task="everyday",
    task_fingerprint="t" * 64,
    stages={
        "recall": StagePlan(schedule=SkipSchedule.fixed(["5.attention", "5.ffn", "2.ffn"]), exit=MeanConfidence()),
        "analysis": StagePlan(compensation=Compensation(kind="norm_ratio", content="ab")),
        "summary": StagePlan(
            schedule=SkipSchedule(segments=(Segment(), Segment(first_step=9, skipped=whole_blocks([1]))))
        ),
    },
    target={"max_drop": 1.0},
    evidence={"n": 150, "accuracy": {"full": 91.5, "plan": 91.0}, "hardware": None},
)

OTHER = {"fingerprint": "e" * 64, "id": "other"}

stage_plans = st.builds(
    StagePlan,
    schedule=st.builds(SkipSchedule.fixed, st.sets(st.sampled_from(sub_layers(6)))),
    compensation=st.sampled_from([Compensation(), Compensation(kind="norm_ratio", content="00ff")]),
    exit=st.none() | st.builds(MeanConfidence, window=st.integers(1, 20), threshold=st.floats(0, 1)),
)


def test_round_trip(tmp_path: Path) -> None:
    path = PLAN.save_pretrained(tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "plan.json"
    assert Plan.from_pretrained(path.parent) == Plan.from_pretrained(str(path)) == PLAN
    assert hash(Plan.from_pretrained(path)) == hash(PLAN)
    stored = json.loads(path.read_text())
    assert stored["schema_version"] == 1
    assert stored["stages"]["recall"]["schedule"]["segments"][0]["skipped"] == ["2.ffn", "5.attention", "5.ffn"]


STAGES = tuple(PLAN.stages)


@given(st.dictionaries(st.text(), stage_plans, max_size=4))
def test_any_stages_round_trip(tmp_path_factory: pytest.TempPathFactory, stages: dict[str, StagePlan]) -> None:
    folder = tmp_path_factory.mktemp("plan")
    plan = PLAN.model_copy(update={"stages": stages})
    plan.save_pretrained(folder)
    again = Plan.from_pretrained(folder)
    assert again == plan
    backwards = plan.model_copy(update={"stages": dict(reversed(stages.items()))})
    assert (again, hash(again)) == (backwards, hash(backwards)), "the order of stages in a file means nothing"


def test_a_stage_that_is_not_named_runs_at_full_depth() -> None:
    assert PLAN.stage("recall") is PLAN.stages["recall"]
    assert PLAN.stage("unknown") == FULL_DEPTH


def test_a_plan_fits_its_own_model_and_task() -> None:
    PLAN.check_fits(MODEL, "everyday", "t" * 64, STAGES)
    PLAN.check_fits(MODEL.model_copy(update={"id": "another/name"}), "everyday", "t" * 64, STAGES)


@pytest.mark.parametrize(
    ("model", "task", "fingerprint", "sentence"),
    [
        (OTHER, "everyday", "t", r"on everyday \(weights f{12}\), .* is other \(weights e{12}\)"),
        ({}, "obqa", "t", r"searched for task everyday, but this is task obqa.*Use the plan's task"),
        ({}, "everyday", "u", r"task everyday, but this is a changed version of task everyday.*stages differ"),
        ({"num_blocks": 8}, "everyday", "t", r"says that its model has 6 blocks, but everyday has 8.*Search the"),
    ],
)  # fmt: skip
def test_a_plan_for_something_else_is_refused(
    model: dict[str, Any], task: str, fingerprint: str, sentence: str
) -> None:
    with pytest.raises(PlanError, match=sentence) as error:
        PLAN.check_fits(MODEL.model_copy(update=model), task, 64 * fingerprint, STAGES)
    assert error.value.exit_code == 2


def test_a_block_beyond_the_model_is_refused() -> None:
    small = MODEL.model_copy(update={"num_blocks": 3})
    with pytest.raises(PlanError, match=r"stage recall does not fit: 5\.attention cannot be skipped: .* 3 blocks"):
        PLAN.model_copy(update={"model": small}).check_fits(small, "everyday", "t" * 64, STAGES)


def test_a_stage_that_the_plan_lacks_is_refused() -> None:
    with pytest.raises(PlanError, match=r"lacks stage check of task everyday.*full depth unnoticed.*\"check\": \{\}"):
        PLAN.check_fits(MODEL, "everyday", "t" * 64, (*STAGES, "check"))


def test_a_stage_that_the_task_has_not_is_refused() -> None:
    with pytest.raises(PlanError, match=r"a stage 'recall', which task everyday has not \(its stages are recal, sum"):
        PLAN.check_fits(MODEL, "everyday", "t" * 64, ("recal", "summary"))


SEGMENTS = ("stages", "recall", "schedule", "segments")


def change(*path: str, to: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(PLAN.model_dump_json())
    place = content
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = to
    return content


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (change("schema_version", to=2), "has schema version 2; this litestage reads version 1.*Search the plan again"),
        (change("schema_version", to=None), "has schema version None"),
        ({}, "has schema version None"),
        ([], "is not a plan: a plan is one object"),
        (change(*SEGMENTS, to=[{"skipped": ["1.ffn", "1.ffn"]}]), r"1\.ffn is there twice"),
        (change(*SEGMENTS, to=[{"skipped": ["\u0661.ffn"]}]), "is not a sub-layer"),
        (change(*SEGMENTS, to=[{"skipped": ["9" * 5000 + ".ffn"]}]), "is not a sub-layer"),
        (change("speed", to=9), "speed is not a field there. The fields are schema_version, model"),
        (change("stages", "recall", "turbo", to=True), r"recall\.turbo is not a field there. The fields are sch"),
        (change(*SEGMENTS, to=[]), r"stages\.recall\.schedule\.segments: .*start at decode step 0"),
        (change(*SEGMENTS, to=[{"skipped": ["5.mlp"]}]), r"segments\[0\]\.skipped: '5\.mlp' is not a sub-layer.*7\.ff"),
        (change(*SEGMENTS, to=[{"skipped": "5.ffn"}]), r"segments\[0\]\.skipped: '5\.ffn' is not a list"),
        (change(*SEGMENTS, to=[{"skipped": None}]), r"segments\[0\]\.skipped: None is not a list"),
        (change("stages", "recall", "exit", to={"window": 0}), r"exit\.window should be greater .* but is 0"),
        (change("stages", "recall", "compensation", to={"kind": "magic"}), r"\.kind.*'magic' is not known"),
        (change("model", "num_blocks", to="6"), r"model\.num_blocks should be a whole number, but is '6'"),
        (change("stages", to={"recall": 7}), r"stages\.recall should be an object, but is 7\. Correct it"),
        (change("model", to={"id": "x"}), r"model\.fingerprint is missing"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, content: Any, sentence: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(content))
    with pytest.raises(PlanError, match=sentence) as error:
        Plan.from_pretrained(tmp_path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\x00", b"{'a': 1}"])
def test_what_is_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(PlanError, match=r"plan\.json is not JSON"):
        Plan.from_pretrained(tmp_path)


def test_a_stage_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    text = PLAN.model_dump_json()
    (tmp_path / "plan.json").write_text(text.replace('"stages":{', '"stages":{"recall":{},'))
    with pytest.raises(PlanError, match=r"plan\.json: recall is there twice\. Leave one out\."):
        Plan.from_pretrained(tmp_path)


def test_a_missing_plan_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "plan.json", tmp_path / "nowhere"):
        with pytest.raises(PlanError, match=r"No plan at .*No such file.*litestage search --out"):
            Plan.from_pretrained(place)


def test_content_hash_is_canonical() -> None:
    assert content_hash({"a": [1, "é"], "b": None}) == content_hash({"b": None, "a": [1, "é"]})
    assert content_hash({"a": 1}) != content_hash({"a": "1"})
    assert content_hash("") == "12ae32cb1ec02d01eda3581b127c1fee3b0dc53572ed6baf239721a03d82e126", (
        "SHA-256 of two quotes"
    )
