"""Hub columns to question fields, and the splits, without a network."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from litestage.core.errors import DataError, LitestageError, UserError
from litestage.tasks import Question, load_questions, load_task
from litestage.tasks.hub import HUB, HubSet, csqa_fields, dev_ids, hub_rows, obqa_fields, strategyqa_fields
from litestage.tasks.questions import question_from

SHARED = Path(__file__).parents[3] / "shared" / "data"
THREE_STAGE = load_task("three_stage")

# Rows with the hub's columns; the questions are our own.
OBQA = {
    "id": "7-1",
    "question_stem": "A wet towel dries fastest",
    "choices": {"text": ["in a drawer", "in the sun", "in a cellar", "in a bucket"], "label": ["A", "B", "C", "D"]},
    "answerKey": "B",
}
FACT = {"fact1": "heat makes water evaporate", "humanScore": 1.0, "clarity": 2.0, "turkIdAnonymized": "x"}
CSQA: dict[str, Any] = {
    "id": "abc",
    "question": "What keeps the rain off?",
    "question_concept": "rain",
    "choices": {"label": ["A", "B", "C", "D", "E"], "text": ["umbrella", "window", "bottle", "suitcase", "book"]},
    "answerKey": "E",
}
STRATEGYQA = {
    "qid": "f00",
    "term": "Snowman",
    "question": "Would a snowman last in the Sahara?",
    "facts": "Snow melts above zero degrees. The Sahara is hot.",
    "answer": False,
}


def test_obqa_columns() -> None:
    choices = ["in a drawer", "in the sun", "in a cellar", "in a bucket"]
    fields = {"id": "7-1", "question": "A wet towel dries fastest", "choices": choices, "answer": 1}
    assert obqa_fields(OBQA) == fields | {"recall": None}
    assert obqa_fields(OBQA | FACT) == fields | {"recall": "heat makes water evaporate"}


def test_csqa_columns() -> None:
    assert csqa_fields(CSQA) == {
        "id": "abc",
        "question": "What keeps the rain off?",
        "choices": ["umbrella", "window", "bottle", "suitcase", "book"],
        "answer": 4,
        "concept": "rain",
    }


@pytest.mark.parametrize("facts", [STRATEGYQA["facts"], ["Snow melts above zero degrees.", "The Sahara is hot."]])
def test_strategyqa_columns(facts: object) -> None:
    assert strategyqa_fields(STRATEGYQA | {"facts": facts}) == {
        "id": "f00",
        "question": "Would a snowman last in the Sahara?",
        "choices": ["yes", "no"],
        "answer": 1,
        "recall": "Snow melts above zero degrees. The Sahara is hot.",
        "term": "Snowman",
    }
    assert strategyqa_fields(STRATEGYQA | {"answer": True})["answer"] == 0


def test_the_fields_make_questions() -> None:
    assert question_from(obqa_fields(OBQA | FACT), THREE_STAGE) == Question(
        id="7-1",
        question="A wet towel dries fastest",
        choices=("in a drawer", "in the sun", "in a cellar", "in a bucket"),
        answer=1,
        targets={"recall": "heat makes water evaporate"},
    )
    assert question_from(csqa_fields(CSQA), THREE_STAGE).extra == {"concept": "rain"}
    assert question_from(strategyqa_fields(STRATEGYQA), THREE_STAGE).answer == 1


@pytest.mark.skipif(not SHARED.is_dir(), reason="the public question sets are not beside the project")
@pytest.mark.parametrize("name", ["csqa", "strategyqa"])
def test_dev_is_what_the_public_sets_have_as_dev(name: str) -> None:
    """Their README: the questions of the official train split with the smallest SHA-256 of the id."""
    ids = {
        split: [json.loads(line)["id"] for line in (SHARED / name / f"{split}.jsonl").read_text("utf-8").splitlines()]
        for split in ("train", "dev")
    }
    assert dev_ids(ids["train"] + ids["dev"], HUB[name].dev_size) == set(ids["dev"])


@pytest.fixture
def local_set(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> HubSet:
    """A folder that the real library reads as it reads a repository on the hub."""
    pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("hub")  # not tmp_path: the library takes a "test" in a path for a split
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    for split, count in (("train", 10), ("validation", 3)):
        rows = [CSQA | {"id": f"{split}-{i}"} for i in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    splits = {"train": "train", "dev": "train", "test": "validation"}
    return HubSet(str(folder), None, splits, csqa_fields, dev_size=4)


def test_splits_through_the_library(local_set: HubSet) -> None:
    train, dev, test = (hub_rows(local_set, split) for split in ("train", "dev", "test"))
    digests = sorted((hashlib.sha256(f"train-{i}".encode()).hexdigest(), f"train-{i}") for i in range(10))
    assert {row["id"] for row in dev} == {name for _, name in digests[:4]}
    assert {row["id"] for row in train} == {name for _, name in digests[4:]}
    assert [row["id"] for row in test] == ["validation-0", "validation-1", "validation-2"]
    assert test[0]["source"] == f"{local_set.repo}/validation"
    assert test[0]["choices"] == CSQA["choices"]["text"]


def test_columns_that_changed_are_a_failure_with_a_sentence(local_set: HubSet) -> None:
    changed = HubSet(local_set.repo, None, local_set.splits, obqa_fields)
    with pytest.raises(LitestageError, match=r"no longer as it was: a question has the fields id, .*question_stem"):
        hub_rows(changed, "train")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs the library datasets.*pip install .*--data DIR"):
        load_questions(load_task("csqa"), "dev")


def test_without_the_network() -> None:
    """In a process of its own, because the library reads its switch when it is imported."""
    pytest.importorskip("datasets")
    script = (
        "from litestage.tasks import load_questions, load_task\n"
        "from litestage.core.errors import LitestageError\n"
        "try: load_questions(load_task('obqa'), 'dev')\n"
        "except LitestageError as error: print(error.exit_code, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("1 allenai/openbookqa (validation) could not be had from the Hugging Face hub: ")
    assert "--data DIR" in done.stdout
    assert not issubclass(LitestageError, UserError)
