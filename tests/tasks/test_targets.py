"""Training targets by rule: what they say, that their wordings vary, and that inference never sees gold."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from litestage.core import TaskError
from litestage.tasks import LETTERS, Question, Task, load_questions, load_task, trainable, with_targets

DATA = Path(__file__).parents[3] / "shared" / "data"
NAMES = ("obqa", "csqa", "strategyqa")
SPOON = Question(
    id="spoon",
    question="A spoon in hot soup gets warm because",
    choices=("soup is salty", "metal conducts heat."),
    answer=1,
    targets={"recall": "metal is a conductor"},
    extra={"explanation": "heat moves. It does so fast! really"},
)


def made_up(task: Task, count: int = 600) -> list[Question]:
    choices = 2 if task.name == "strategyqa" else 4
    return [
        Question(
            id=f"q{i}",
            question=f"Question {i}?",
            choices=tuple(f"choice {i} {letter}" for letter in LETTERS[:choices]),
            answer=i % choices,
            targets={"recall": f"fact {i}"},
        )
        for i in range(count)
    ]


def skeleton(text: str, question: Question) -> str:
    """The wording of a target: what is left when all that belongs to its question is taken out."""
    parts = (*question.choices, str(question.targets["recall"]).rstrip(".!?"))
    for part in sorted((part.strip().rstrip(".") for part in parts), key=len, reverse=True):
        text = text.replace(part, "_")
    for letter in LETTERS[: len(question.choices)]:
        text = text.replace(f"({letter})", "(_)")
    return text


def largest_share(task: Task, questions: list[Question]) -> float:
    wordings = Counter(skeleton(text, q) for q in questions for text in q.targets["analysis"])
    return max(wordings.values()) / wordings.total()


def test_a_rule_writes_what_is_missing() -> None:
    written = with_targets(load_task("obqa"), SPOON).targets
    assert written["recall"] == "Metal is a conductor."
    wrong, right = written["analysis"]
    assert wrong.startswith("metal conducts heat "), "each choice is weighed against the best one"
    assert "soup is salty" in wrong
    assert right.startswith("metal conducts heat ")
    assert "soup is salty" not in right
    assert wrong.endswith(".")
    assert right.endswith(".")


def test_what_a_question_brings_is_kept() -> None:
    own = SPOON.model_copy(update={"targets": {"recall": "Mine.", "analysis": ("no", "yes")}})
    for name in NAMES:
        assert with_targets(load_task(name), own).targets == {"recall": "Mine.", "analysis": ("no", "yes")}
    plain = load_task("three_stage")
    assert with_targets(plain, SPOON).targets == SPOON.targets, "no rule, nothing written"


def test_the_first_text_there_is_becomes_the_recall() -> None:
    task = load_task("csqa")
    assert with_targets(task, SPOON).targets["recall"] == "Metal is a conductor."
    without = SPOON.model_copy(update={"targets": {}})
    assert with_targets(task, without).targets["recall"] == "Heat moves."
    nothing = without.model_copy(update={"extra": {"explanation": None}})
    assert "recall" not in with_targets(task, nothing).targets
    assert [q.id for q in trainable(task, [SPOON, nothing])] == ["spoon"]


def test_up_to_three_facts_of_strategyqa() -> None:
    facts = SPOON.model_copy(update={"targets": {"recall": "One is so. Two is so. Three is so. Four is so."}})
    assert with_targets(load_task("strategyqa"), facts).targets["recall"] == "One is so. Two is so. Three is so."


@pytest.mark.parametrize("name", NAMES)
def test_no_wording_covers_over_a_tenth(name: str) -> None:
    task = load_task(name)
    assert largest_share(task, trainable(task, made_up(task))) <= 0.1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.skipif(not DATA.is_dir(), reason="the real question sets are not here")
def test_no_wording_covers_over_a_tenth_of_the_real_targets(name: str) -> None:
    task = load_task(name)
    questions = load_questions(task, "train", data=DATA / name)
    complete = trainable(task, questions)
    assert len(complete) > 0.9 * len(questions)
    assert largest_share(task, complete) <= 0.1


@pytest.mark.parametrize("name", [*NAMES, "everyday", "three_stage"])
def test_prompts_never_see_gold(name: str) -> None:
    task = load_task(name)
    texts = {"recall": "R", "analysis": "A"}
    question = with_targets(task, SPOON)
    blind = SPOON.model_copy(update={"answer": None, "targets": {}, "extra": {}})
    other = with_targets(task, SPOON.model_copy(update={"answer": 0}))
    for stage in task.stages:
        assert task.prompts(stage, question, texts) == task.prompts(stage, blind, texts)
        assert task.prompts(stage, question, texts) == task.prompts(stage, other, texts)


RULE = """
extends = "three_stage"
name = "mine"
[target_rules.{stage}]
{rule}
"""


@pytest.mark.parametrize(
    ("stage", "rule", "says"),
    [
        ("recal", 'take = ["recall"]', "target_rules names 'recal', which is not a stage"),
        ("analysis", 'take = ["recall"]', "stage analysis: its rule for targets should have `right` and `wrong`"),
        ("recall", 'right = ["a"]\nwrong = ["b"]', "stage recall: its rule for targets should have `take`"),
        ("analysis", 'right = ["a"]', "needs either `take`, or both `right` and `wrong`"),
        ("analysis", 'right = ["{summary}"]\nwrong = ["b"]', "uses {summary}, which is not known there"),
    ],
)
def test_a_rule_that_cannot_be_used(stage: str, rule: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(RULE.format(stage=stage, rule=rule))
    with pytest.raises(TaskError) as error:
        load_task(path)
    assert says in str(error.value)
