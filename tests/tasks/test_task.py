"""Prompts letter by letter, targets, answers and few-shot examples."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from litestage.core.errors import OptionError
from litestage.tasks import LETTERS, Question, Stage, Task, list_choices, load_task

CAR = Question(
    id="car",
    question="An electric car runs on electricity via",
    choices=("gasoline", "electrical conductors"),
    answer=1,
    targets={"recall": "Conductors carry current", "analysis": ("it is a fuel.", "they carry current")},
)
THREE_STAGE = load_task("three_stage")
OBQA = load_task("obqa")
CAR_TEXTS = {"recall": "Current flows.", "analysis": "For option A, it burns. For option B, it flows."}


@pytest.fixture(scope="module")
def task() -> Task:
    return THREE_STAGE


def test_the_three_prompts_letter_by_letter(task: Task) -> None:
    """REFERENCE, section 5."""
    recall, analysis, summary = task.stages
    head = "An electric car runs on electricity via\n(A) gasoline (B) electrical conductors\nRecall:"
    assert task.prompts(recall, CAR, {}) == [head]
    assert task.prompts(analysis, CAR, CAR_TEXTS) == [
        head + " Current flows.\nAnalyze: For option A,",
        head + " Current flows.\nAnalyze: For option B,",
    ]
    assert task.prompts(summary, CAR, CAR_TEXTS) == [
        head + " Current flows.\nAnalyze: For option A, it burns. For option B, it flows.\nSummarize:"
    ]


def test_targets(task: Task) -> None:
    recall, analysis, summary = task.stages
    assert task.targets(recall, CAR) == ["Conductors carry current"]
    assert task.targets(analysis, CAR) == ["it is a fuel.", "they carry current"]
    assert task.targets(summary, CAR) == ["So the answer is option B."]
    unlabelled = Question(id="x", question="?", choices=("a", "b"))
    assert [task.targets(stage, unlabelled) for stage in task.stages] == [None, None, None]


def test_branches_are_joined_in_choice_order_and_end_as_sentences(task: Task) -> None:
    """REFERENCE, section 4: a text that does not end in one of three marks gets a full stop."""
    quoted = task.stage("analysis").join_texts([' it is a "fuel" ', "they 'carry'"], CAR)
    assert quoted == "For option A, it is a \"fuel\" For option B, they 'carry'"
    assert task.stage("analysis").join_texts(["cut short", "whole."], CAR) == (
        "For option A, cut short. For option B, whole."
    )
    assert task.stage("recall").join_texts(["what? "], CAR) == "what?."
    assert task.stage("summary").join_texts([" So the answer is"], CAR) == "So the answer is"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So the answer is option B.", 1),
        ("the answer is option A. No, the answer is option B.", 0),
        ("So the answer is option B", None),
        ("So the answer is option b.", None),
        ("So the answer is B.", None),
        ("So the answer is option C.", None),
        ("", None),
    ],
)
def test_the_answer_is_the_first_match_within_the_choices(task: Task, text: str, answer: int | None) -> None:
    assert task.parse(text, CAR) == answer


def test_without_a_question_every_letter_counts(task: Task) -> None:
    assert [task.parse(f"the answer is option {letter}.") for letter in LETTERS] == list(range(26))


@pytest.mark.parametrize(("pattern", "text"), [("([A-Z]+)", "AB"), ("is( A)?", "it is"), ("([A-Z]*)!", "!")])
def test_a_match_that_is_no_single_letter_is_no_answer(pattern: str, text: str) -> None:
    task = Task(name="t", stages=(Stage(name="s", prompt="{question}"),), answer_pattern=pattern)
    assert task.parse(text) is None


PIECES = st.sampled_from(["the answer is option ", "A", "B", "Z", "b", ".", "the answer is "])


@given(text=st.lists(PIECES, max_size=8).map("".join), choices=st.integers(2, 26))
def test_parse_against_a_slow_reading(text: str, choices: int) -> None:
    question = Question(id="q", question="?", choices=("x",) * choices)
    first = next(
        (text[i + 21] for i in range(len(text)) if re.fullmatch(r"the answer is option [A-Z]\.", text[i : i + 23])),
        None,
    )
    expected = LETTERS.index(first) if first and LETTERS.index(first) < choices else None
    assert THREE_STAGE.parse(text, question) == expected


WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


@dataclasses.dataclass(frozen=True)
class Gold:
    """What prompts must not depend on."""

    answer: int | None
    targets: dict[str, str | tuple[str, ...]]
    extra: dict[str, str]


@st.composite
def golds(draw: st.DrawFn, choices: int) -> Gold:
    return Gold(
        draw(st.none() | st.integers(0, choices - 1)),
        draw(st.dictionaries(st.sampled_from(["recall", "analysis", "summary"]), WORDS | st.tuples(WORDS), max_size=3)),
        draw(st.dictionaries(WORDS, WORDS, max_size=2)),
    )


@given(data=st.data(), shots=st.integers(0, 4))
def test_prompts_never_depend_on_gold(data: st.DataObject, shots: int) -> None:
    """Vary the answer, the targets and everything else that is not question or choices: not a letter changes."""
    task = OBQA.with_shots(shots)
    text = data.draw(WORDS)
    choices = tuple(data.draw(st.lists(WORDS, min_size=2, max_size=6)))
    texts = {"recall": data.draw(WORDS), "analysis": data.draw(WORDS)}
    one, other = (
        Question(id=gold_id, question=text, choices=choices, **dataclasses.asdict(data.draw(golds(len(choices)))))
        for gold_id in ("one", "other")
    )
    for stage in task.stages:
        assert task.prompts(stage, one, texts) == task.prompts(stage, other, texts)


@given(text=WORDS, choices=st.lists(WORDS, min_size=2, max_size=26), recall=WORDS)
def test_braces_and_marks_in_texts_come_through_untouched(text: str, choices: list[str], recall: str) -> None:
    question = Question(id="q", question=text, choices=tuple(choices))
    listed = " ".join(f"({LETTERS[i]}) {choice}" for i, choice in enumerate(choices))
    prompts = THREE_STAGE.prompts(THREE_STAGE.stage("analysis"), question, {"recall": recall})
    assert prompts == [
        text + "\n" + listed + "\nRecall: " + recall + "\nAnalyze: For option " + LETTERS[i] + ","
        for i in range(len(choices))
    ]


def test_choices_are_lettered() -> None:
    assert list_choices(["x", "y z"]) == "(A) x (B) y z"


def test_few_shot_prompts_letter_by_letter(task: Task) -> None:
    other = CAR.model_copy(
        update={"id": "o", "question": "Why?", "answer": 0, "targets": {"recall": "R.", "analysis": ("a.", "b.")}}
    )
    shown = Task(**dict(task) | {"examples": (CAR, other)}).with_shots(2)
    question = Question(id="q", question="Q?", choices=("x", "y", "z"))
    first = "An electric car runs on electricity via\n(A) gasoline (B) electrical conductors\nRecall: Conductors carry "
    second = "Why?\n(A) gasoline (B) electrical conductors\nRecall: R."
    recall, analysis, summary = (
        shown.prompts(stage, question, {"recall": "r.", "analysis": "For option A, n."})[0] for stage in shown.stages
    )
    last = "Q?\n(A) x (B) y (C) z\nRecall:"
    assert recall == f"{first}current\n\n{second}\n\n{last}"
    assert analysis == (
        f"{first}current.\nAnalyze: For option A, it is a fuel.\n\n"
        f"{second}\nAnalyze: For option B, b.\n\n"
        f"{last} r.\nAnalyze: For option A,"
    )
    assert summary == (
        f"{first}current.\nAnalyze: For option A, it is a fuel. For option B, they carry current.\n"
        "Summarize: So the answer is option B.\n\n"
        f"{second}\nAnalyze: For option A, a. For option B, b.\nSummarize: So the answer is option A.\n\n"
        f"{last} r.\nAnalyze: For option A, n.\nSummarize:"
    )


def test_few_shot_stages_stop_at_a_newline_once(task: Task) -> None:
    shown = OBQA.with_shots(1)
    assert [stage.stop for stage in shown.with_shots(2).stages] == [("\n",)] * 3
    assert [stage.stop for stage in OBQA.with_shots(0).stages] == [()] * 3
    assert OBQA.with_shots(0) == OBQA


def test_branches_share_their_examples_and_a_stage_of_the_bare_task_is_the_same_stage() -> None:
    shown = OBQA.with_shots(3)
    header = shown.header(shown.stage("analysis"))
    assert header == shown.header(OBQA.stage("analysis"))
    assert header.count("Analyze:") == 3
    assert all(prompt.startswith(header) for prompt in shown.prompts(shown.stage("analysis"), CAR, CAR_TEXTS))


@pytest.mark.parametrize("count", [-1, 5])
def test_more_shots_than_there_are(count: int) -> None:
    with pytest.raises(OptionError, match=rf"--shots {count} .* task obqa has 4 worked examples\. Choose 0 to 4"):
        OBQA.with_shots(count)


def test_the_stock_of_examples_does_not_change_what_the_task_is_but_showing_them_does() -> None:
    assert OBQA.model_copy(update={"examples": ()}).fingerprint == OBQA.fingerprint
    assert len({OBQA.with_shots(n).fingerprint for n in range(5)}) == 5


def test_a_stage_by_name(task: Task) -> None:
    assert task.stage("analysis") is task.stages[1]
    with pytest.raises(OptionError) as error:
        task.stage("analyse")
    assert str(error.value) == (
        "'analyse' is not a stage of task three_stage. Did you mean analysis? Its stages are recall, analysis, summary."
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "{questoin}"}, r"its prompt uses \{questoin\}, which is not known there; it may use \{choices\}"),
        ({"prompt": "{question.id}"}, r"uses \{question\.id\}"),
        ({"prompt": "{question:{choices}}"}, r"uses \{question:\{choices\}\}"),
        ({"prompt": "{question!r}"}, r"uses \{question!r\}"),
        ({"prompt": "{}"}, r"uses \{\}"),
        ({"prompt": '{"question": 1}'}, "a brace is written twice"),
        ({"prompt": "{question"}, "is not a template"),
        ({"prompt": "{letter}"}, r"uses \{letter\}"),
        ({"prompt": "{s}"}, r"uses \{s\}"),
        ({"item": "{letter} {text}"}, "its item uses"),
        ({"target": "{question}"}, "its target uses"),
    ],
)
def test_templates_use_only_what_is_there(change: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Task(name="t", stages=(Stage(**{"name": "s", "prompt": "{question}"} | change),))


def test_doubled_braces_are_braces() -> None:
    task = Task(name="t", stages=(Stage(name="s", prompt='{{"q": "{question}"}}'),))
    assert task.prompts(task.stages[0], CAR, {}) == ['{"q": "' + CAR.question + '"}']


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"recall": "r."}, "has 0 texts for stage analysis and needs 2"),
        ({"recall": "r.", "analysis": ("a.",)}, "has 1 texts for stage analysis and needs 2"),
        ({"recall": "r\nr.", "analysis": ("a.", "b.")}, "'car' has a line break in its recall"),
    ],
)
def test_an_example_shows_every_stage_on_one_line(task: Task, targets: dict[str, object], message: str) -> None:
    example = CAR.model_copy(update={"targets": targets})
    with pytest.raises(ValidationError, match=message):
        Task(**dict(task) | {"examples": (example,)})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"answer": 2}, "answer is 2, but the 2 choices are numbered 0 to 1"),
        ({"answer": -1}, "answer is -1"),
        ({"choices": ()}, "choices"),
        ({"choices": ("x",) * 27}, "choices"),
    ],
)
def test_a_question_that_cannot_be(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Question(**dict(CAR) | fields)


def test_a_stage_can_be_left_out() -> None:
    task = load_task("three_stage")
    shorter = task.without("recall")
    assert shorter.stage_names == ("analysis", "summary")
    question = Question(id="q", question="Q?", choices=("a", "b"))
    prompts = shorter.prompts(shorter.stages[0], question, {})
    assert prompts == [f"Q?\n(A) a (B) b\nAnalyze: For option {letter}," for letter in "AB"]
    assert shorter.fingerprint != task.fingerprint
    with pytest.raises(OptionError, match="gives the answer"):
        task.without("summary")


def test_no_stage_is_called_what_all_are_called() -> None:
    with pytest.raises(ValidationError, match="cannot be called 'all'"):
        Task(name="mine", stages=(Stage(name="all", prompt="{question}"),))


@pytest.mark.parametrize(
    ("prompt", "left"),
    [
        ("{question}\nHint: {hint}\nAnswer:", "{question}\nAnswer:"),
        ("{question}\nHint:\n{hint}\nAnswer:", "{question}\nAnswer:"),
        ("{question}\n{hint}\nAnswer:", "{question}\nAnswer:"),
        ("{question} Think of {hint} first.\nAnswer:", "{question} Think of first.\nAnswer:"),
        ("{choices} {hint}\nAnswer:", "{choices}\nAnswer:"),
    ],
)
def test_a_label_goes_with_the_text_that_it_announced(prompt: str, left: str) -> None:
    stages = (Stage(name="hint", prompt="{question}"), Stage(name="pick", prompt=prompt))
    task = load_task("three_stage").model_copy(update={"stages": stages})
    assert task.without("hint").stages[0].prompt == left


def test_limits_can_be_changed_by_stage() -> None:
    task = load_task("three_stage").with_limits({"recall": 7})
    assert [stage.max_new_tokens for stage in task.stages] == [7, 200, 200]


def test_a_task_by_choice_is_another_one_and_says_what_may_be_written(task: Task) -> None:
    chosen = task.answering("choice")
    assert chosen.stages[-1].choices(CAR) == ("So the answer is option A.", "So the answer is option B.")
    assert [chosen.parse(text, CAR) for text in chosen.stages[-1].choices(CAR)] == [0, 1]
    assert not task.by_choice
    assert chosen.by_choice
    assert task.fingerprint != chosen.fingerprint, "a plan that was found without it does not fit"
    assert chosen.answering("free") == task
    assert chosen.answering("choice") == chosen
    assert task.stages[-1].choices(CAR) == ()


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"one_of": "So the answer is option A."}, "the same text for every choice"),
        ({"one_of": "It is {letter}."}, "answer_pattern .* reads 'It is A.' as another answer, or none"),
        ({"one_of": "{question} {letter}"}, "its one_of uses .question."),
        ({"one_of": "{letter}", "fan_out": "choices"}, "has a choice already"),
    ],
)
def test_texts_that_do_not_tell_choices_apart_are_refused(task: Task, stage: dict[str, str], said: str) -> None:
    content = task.model_dump()
    at = 1 if "fan_out" in stage else -1  # the last stage cannot fan out
    stages = list(content["stages"])
    stages[at] = stages[at] | stage
    content["stages"] = stages
    with pytest.raises(ValidationError, match=said):
        Task.model_validate(content)


def test_a_task_without_such_texts_says_how_to_write_them(task: Task) -> None:
    last = task.stages[-1].model_copy(update={"target": None})
    with pytest.raises(OptionError, match=r"stage summary .* does not say what its texts may be"):
        task.model_copy(update={"stages": (*task.stages[:-1], last)}).answering("choice")
