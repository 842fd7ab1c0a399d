"""The embedded model: what its card says of it, and that its stages carry the answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from litestage.core import Completion, Engine, OnEvent, Request
from litestage.core.engine import EngineAround
from litestage.evaluation import score
from litestage.jobs.session import Session
from litestage.models.catalog import embedded_folder
from litestage.pipeline import run

QUESTIONS = 80


class Tampered(EngineAround):
    """An engine whose texts of one stage are left out, or handed to the next question."""

    def __init__(self, engine: Engine, stages: int, stage: int, swap: bool) -> None:
        super().__init__(engine)
        self.stages, self.stage, self.swap = stages, stage, swap
        self.calls = 0

    def generate(self, requests: Sequence[Request], on_event: OnEvent | None = None) -> list[Completion]:
        completions = self.engine.generate(requests, on_event)
        self.calls += 1
        if (self.calls - 1) % self.stages != self.stage:
            return completions
        if not self.swap:
            return [completion.model_copy(update={"text": ""}) for completion in completions]
        branches = len(requests) // QUESTIONS
        return completions[branches:] + completions[:branches]


def accuracy(session: Session, engine: Engine) -> float:
    questions = session.questions("dev", QUESTIONS)
    return score(run(engine, session.task, questions, session.full_plan(), questions_at_once=QUESTIONS)).percent


@pytest.fixture(scope="module")
def untouched(session: Session) -> float:
    return accuracy(session, session.engine)


def test_accuracy_leaves_room_to_lose(untouched: float) -> None:
    assert 85 <= untouched <= 97


@pytest.mark.parametrize("swap", [False, True], ids=["left out", "swapped"])
@pytest.mark.parametrize("stage", [0, 1], ids=["recall", "analysis"])
def test_a_stage_carries_the_answer(session: Session, untouched: float, stage: int, swap: bool) -> None:
    tampered = Tampered(session.engine, len(session.task.stages), stage, swap)
    assert accuracy(session, tampered) <= untouched - 10


def test_it_is_small_and_says_how_it_was_made() -> None:
    folder = embedded_folder() / "everyday"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 15_000_000
    record = json.loads((folder / "training.json").read_text())
    assert record["task"] == "everyday"
    assert record["recipe"]["seed"] is not None
    assert "How it was made" in Path(folder / "README.md").read_text()
