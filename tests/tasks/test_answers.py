"""How an answer is read: what a pattern may find, what that stands for, and patterns that can never answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestage.core.errors import DataError, TaskError
from litestage.tasks import LETTERS, Question, Stage, Task, load_questions, load_task

CHOICES = ("a stone", "Cork.", "an anvil", "a key", "a cork")
QUESTION = Question(id="q", question="Which floats?", choices=CHOICES)
YES = Question(id="y", question="Does cork float?", choices=("yes", "no"))


def task(pattern: str, answers: Any = "letters") -> Task:
    return Task(name="t", stages=(Stage(name="s", prompt="{question}"),), answer_pattern=pattern, answers=answers)


@pytest.mark.parametrize(
    ("pattern", "answers", "text", "index"),
    [
        ("(?i)answer is ([a-e])", "letters", "The answer is b", 1),
        ("(?i)answer is ([a-e])", "letters", "THE ANSWER IS D", 3),
        ("answer is ([a-e])", "letters", "answer is e.", 4),
        (r"answer is (\([A-E]\))", "letters", "answer is (C)", 2),
        (r"answer: (.*)", "letters", "answer: **(b)**", 1),
        (r"answer: (\S+)", "letters", "answer: both", None),
        (r"answer is (?P<letter>[A-Z])\b", "letters", "answer is F", None),
        (r"(?:option|choice) ([A-E])", "letters", "choice B, not option A", 1),
        ("([1-5])", "numbers", "It is 3.", 2),
        (r"(\d+)", "numbers", "12", None),
        (r"(\d+)", "numbers", "0", None),
        (r"is (.+?)(?:,|$)", "choices", "it is An  Anvil", 2),
        (r"is (.+?)(?:,|$)", "choices", "it is a cork, since it is light", 4),
        (r"is (.+?)(?:,|$)", "choices", "it is cork", 1),
        (r"is (.+?)(?:,|$)", "choices", "it is a feather", None),
        ("(?i)(yes|no|unknown)", {"yes": "B", "no": "A", "unknown": "E"}, "YES!", 1),
        ("(yes|no)", {"yes": "B", "no": "A"}, "no", 0),
        ("(yes|no|maybe)", {"yes": "B", "no": "A"}, "maybe", None),
    ],
)
def test_what_a_match_stands_for(pattern: str, answers: Any, text: str, index: int | None) -> None:
    assert task(pattern, answers).parse(text, QUESTION) == index


def test_words_that_two_choices_share_are_no_answer_unless_one_is_written_so() -> None:
    twins = Question(id="t", question="?", choices=("Iron", "iron", "tin"))
    asked = task("is (.*)", "choices")
    assert [asked.parse(f"is {text}", twins) for text in ("iron", "Iron", "IRON", "tin")] == [1, 0, None, 2]


@pytest.mark.parametrize(
    ("pattern", "answers", "message"),
    [
        ("(yes|no)", "letters", r"\(yes\|no\).* can never answer.* answers = \"choices\".* \{ yes = \"A\""),
        ("([1-5])", "letters", "can never answer"),
        (r"answer is \((?:option )?(\d)\)", "letters", "can never answer"),
        ("([a-e])", "numbers", "does not match the number of a choice"),
        ("(yes|no)", {"yes": "A", "no": "b"}, "'no' should stand for the letter of a choice.* 'b'"),
        ("(yes|no)", {"yes": "A", "never": "B"}, "'never' is never found"),
        ("(yes|no)", {"yes": "A", "Yes": "B"}, "cannot be told from another"),
        ("(yes|no)", {"yes": "A", "no": "A"}, "two choices or more"),
        ("(a)|(b)", "letters", "one group, .* has 2"),
        ("(a", "letters", "not a regular expression"),
        ("(a)", "digits", "answers"),
    ],
)
def test_a_pattern_that_can_never_answer_is_refused_when_the_task_is_read(
    tmp_path: Path, pattern: str, answers: Any, message: str
) -> None:
    import yaml

    path = tmp_path / "task.yaml"
    content = {"name": "t", "stages": [{"name": "s", "prompt": "{question}"}], "answer_pattern": pattern}
    path.write_text(yaml.safe_dump({**content, "answers": answers}))
    with pytest.raises(TaskError, match=rf"task.yaml: .*{message}"):
        load_task(path)


PATTERNS = st.sampled_from(
    [
        r"the answer is option ([A-Z])\.",
        r"([A-E])",
        r"(?i)([a-e])\b",
        r"\(([A-Z])\)",
        r"[(\[]([B-D])[)\]]",
        r"(?:x|\()?([A-C]\.?)",
        r"(?<=is )([A-D])(?=\.)",
        r"is (?P<letter>(?=\w)\w)",
        r"answer: (.*)",
    ]
)


@given(pattern=PATTERNS, index=st.integers(0, 9))
def test_what_is_said_never_to_be_read_is_never_read(pattern: str, index: int) -> None:
    """Against many texts: none of those that name a choice is read where the task says that nothing could be."""
    question = Question(id="q", question="?", choices=tuple(f"choice {i}" for i in range(10)), answer=index)
    asked, letter = task(pattern), LETTERS[index]
    texts = [
        f"{before}{one}{behind}"
        for before in ("the answer is option ", "(", "[", "is ", "answer: ", "")
        for one in (letter, letter.lower())
        for behind in (".", ")", "]", "", " ")
    ]
    assert asked.can_read(question) == (index in {asked.parse(text, question) for text in texts})


def test_a_question_whose_answer_can_never_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dev.jsonl").write_text('{"id": "1", "question": "?", "choices": ["a", "b", "c"], "answer": 2}\n')
    assert load_questions(task("([A-C])"), "dev", data=tmp_path)
    for asked in (task("([AB])"), task("(yes|no)", {"yes": "A", "no": "B"}), task("([12])", "numbers")):
        with pytest.raises(DataError, match=r"line 1: its answer is \(C\) c, .*never finds"):
            load_questions(asked, "dev", data=tmp_path)
    with pytest.raises(DataError, match="never finds"):
        load_questions(task("([x-z])", "choices"), "dev", data=tmp_path)


def test_a_pattern_that_does_not_come_to_an_end_is_named() -> None:
    asked = task(r"answer is (\w(?:\w|\w\w)*)[!?]")
    assert asked.parse("answer is b!", QUESTION) == 1
    with pytest.raises(TaskError, match=r"answer_pattern .*answer is .* 1 s"):
        asked.parse("answer is " + "abcde" * 60 + "; or?", QUESTION)


@pytest.mark.parametrize(
    "written",
    [
        ("(A) a stone", "(B) a cork"),
        ("A. a stone", "B. a cork"),
        ("a) a stone", "b) a cork"),
        (" (a)a stone", "B: a cork"),
    ],
)
def test_letters_that_choices_bring_stand_in_a_prompt_once(written: tuple[str, ...]) -> None:
    question = Question(id="q", question="Which floats?", choices=written)
    (prompt,) = task("([A-Z])").prompts(Stage(name="s", prompt="{choices}"), question, {})
    assert prompt == "(A) a stone (B) a cork"


@pytest.mark.parametrize(
    "choices",
    [
        ("A. Lincoln", "G. Washington"),
        ("(B) second", "(A) first"),
        ("A", "B"),
        ("(A)", "(B)"),
        ("Aa. x", "B. y"),
        ("A.x", "B.y"),
        ("vitamin A", "vitamin B"),
    ],
)
def test_choices_that_only_look_lettered_stay_as_they_are(choices: tuple[str, ...]) -> None:
    assert Question(id="q", question="?", choices=choices).choices == choices


def test_yes_and_no_are_read_as_the_choices_they_are() -> None:
    asked = task("(?i)answer is (yes|no)", "choices")
    assert [asked.parse(f"So the answer is {text}.", YES) for text in ("yes", "No", "NO")] == [0, 1, 1]
