"""Question files: every field read, every mistake named by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestage.core.errors import DataError, OptionError
from litestage.tasks import Question, Stage, Task, everyday, load_questions, load_task

SHARED = Path(__file__).parents[3] / "shared" / "data"
THREE_STAGE = load_task("three_stage")
ROW = {"id": "q1", "question": "Q?", "choices": ["a", "b", "c"], "answer": 2}


def write(folder: Path, *rows: Any, name: str = "dev.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_every_field_of_the_schema(tmp_path: Path) -> None:
    row = ROW | {
        "recall": "A fact",
        "analysis": ["x.", "y.", "z."],
        "source": "here",
        "concept": None,
        "hard": True,
        "facts": ["a list is no scalar"],
    }
    assert load_questions(THREE_STAGE, "dev", write(tmp_path, row)) == [
        Question(
            id="q1",
            question="Q?",
            choices=("a", "b", "c"),
            answer=2,
            targets={"recall": "A fact", "analysis": ("x.", "y.", "z.")},
            extra={"source": "here", "concept": None, "hard": True},
        )
    ]


def test_targets_go_by_the_names_of_the_stages(tmp_path: Path) -> None:
    task = Task(name="t", stages=(Stage(name="hint", prompt="x"), Stage(name="answer", prompt="y", target="{letter}")))
    (question,) = load_questions(task, "dev", write(tmp_path, ROW | {"hint": "h", "recall": "r"}))
    assert (question.targets, question.extra, question.answer) == ({"hint": "h"}, {"recall": "r"}, 2)


def test_what_is_null_is_not_there(tmp_path: Path) -> None:
    (question,) = load_questions(THREE_STAGE, "dev", write(tmp_path, ROW | {"recall": None, "analysis": None}))
    assert (question.targets, question.extra) == ({}, {})


def test_a_folder_a_file_a_limit_and_a_blank_line(tmp_path: Path) -> None:
    rows = [ROW | {"id": str(i)} for i in range(4)]
    write(tmp_path, rows[0], "", *rows[1:])
    write(tmp_path, rows[3], name="test.jsonl")
    ids = [question.id for question in load_questions(THREE_STAGE, "dev", str(tmp_path))]
    assert ids == ["0", "1", "2", "3"]
    assert [q.id for q in load_questions(THREE_STAGE, "test", tmp_path)] == ["3"]
    assert [q.id for q in load_questions(THREE_STAGE, "test", tmp_path / "dev.jsonl", limit=2)] == ["0", "1"]
    assert len(load_questions(THREE_STAGE, "dev", tmp_path, limit=99)) == 4


def test_repeated_choices_line_separators_and_byte_order_marks_are_read(tmp_path: Path) -> None:
    row = ROW | {"question": "one\u2028two", "choices": ["a", "a", "b"]}
    (tmp_path / "dev.jsonl").write_text("\ufeff" + json.dumps(row, ensure_ascii=False), encoding="utf-8")
    (question,) = load_questions(THREE_STAGE, "dev", tmp_path)
    assert (question.question, question.choices) == ("one\u2028two", ("a", "a", "b"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "x", ', "it is not JSON (Expecting property name enclosed in double quotes at column 13). Each"),
        ('{"id": ' + "1" * 5000 + "}", "it is not JSON (Exceeds the limit"),
        ("[" * 100_000, "it is not JSON ("),
        ("[1, 2]", "it should be one object with id, question, choices, answer, but is [1, 2]"),
        ({"id": "x"}, "question is missing; a question needs id, question, choices, answer"),
        (ROW | {"answer": None}, "answer is missing"),
        (ROW | {"answer": 3}, "answer is 3, but the 3 choices are numbered 0 to 2"),
        (ROW | {"answer": -1}, "answer is -1, but"),
        (ROW | {"answer": "C"}, "answer should be a whole number, but is 'C'"),
        (ROW | {"answer": True}, "answer should be a whole number, but is True"),
        (ROW | {"answer": 1.0}, "answer should be a whole number, but is 1.0"),
        (ROW | {"id": 7}, "id should be a text, but is 7"),
        (ROW | {"question": " "}, "question is empty"),
        (ROW | {"question": ["Q?"]}, "question should be a text, but is"),
        (ROW | {"choices": []}, "choices is empty"),
        (ROW | {"choices": ["a"], "answer": 0}, "choices has 1 of at least 2 entries"),
        (ROW | {"choices": "abc"}, "choices should be a list, but is 'abc'"),
        (ROW | {"choices": ["a", 2, "c"]}, "choices[1] should be a text, but is 2"),
        (ROW | {"choices": ["a", "", "c"]}, "choices[1] is empty"),
        (ROW | {"choices": ["x"] * 27}, "choices has 27 entries, but there are 26 letters"),
        (ROW | {"recall": 5}, "recall should be a text or null, but is 5"),
        (ROW | {"recall": ["r"]}, "recall should be a text or null, but is ['r']"),
        (ROW | {"analysis": "all"}, "analysis should be a list of texts, one a choice, or null, but is 'all'"),
        (ROW | {"analysis": ["x", None, "z"]}, "analysis should be a list of texts"),
        (ROW | {"analysis": ["x", "y"]}, "analysis has 2 texts, but there are 3 choices: it needs one for each"),
        (ROW | {"id": "q0"}, "id 'q0' stands in "),
        (json.dumps(ROW)[:-1] + ', "answer": 0}', "answer is there twice. Leave one out."),
        (json.dumps(ROW | {"question": "bad \ud800 char"}), "question has half a character at 4, \\ud800"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: Any, message: str) -> None:
    """With one whole question before it, so that the line number means something."""
    write(tmp_path, ROW | {"id": "q0"}, "", line)
    with pytest.raises(DataError) as error:
        load_questions(THREE_STAGE, "dev", tmp_path, limit=1)
    assert str(error.value).startswith(f"{tmp_path}/dev.jsonl, line 3: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_repeated_id_names_both_lines(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dev\.jsonl, line 2: id 'q1' stands in .*/dev\.jsonl, line 1 already"):
        load_questions(THREE_STAGE, "dev", write(tmp_path, ROW, ROW))


def test_a_missing_split_says_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, ROW, name="train.jsonl")
    write(tmp_path, ROW, name="valid.jsonl")
    (tmp_path / "README.md").touch()
    with pytest.raises(DataError) as error:
        load_questions(THREE_STAGE, "dev", tmp_path)
    assert str(error.value) == (
        f"No questions could be read from {tmp_path}/dev.jsonl (No such file or directory). "
        f"{tmp_path} holds train.jsonl, valid.jsonl: check --data and --split."
    )


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is not there: give --data a folder or a \.jsonl file"):
        load_questions(THREE_STAGE, "dev", tmp_path / "nowhere")
    (tmp_path / "data.csv").touch()
    with pytest.raises(DataError, match=r"data\.csv is a file: give --data a folder or a \.jsonl file"):
        load_questions(THREE_STAGE, "dev", tmp_path / "data.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds nothing: check"):
        load_questions(THREE_STAGE, "dev", tmp_path / "empty")
    for number in range(12):
        (tmp_path / "empty" / f"{number:02d}.txt").touch()
    with pytest.raises(DataError, match=r"holds 00\.txt, .*, 07\.txt, \.\.\.: check"):
        load_questions(THREE_STAGE, "dev", tmp_path / "empty")


def test_files_that_hold_no_questions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no dev questions: it is empty"):
        load_questions(THREE_STAGE, "dev", write(tmp_path, "", " "))
    (tmp_path / "test.jsonl").write_bytes(b'{"id": "\xff"}')
    with pytest.raises(DataError, match=r"test\.jsonl is not UTF-8 text \(byte 8\)"):
        load_questions(THREE_STAGE, "test", tmp_path)
    (tmp_path / "train.jsonl").mkdir()
    with pytest.raises(DataError, match=r"train\.jsonl \(Is a directory\)"):
        load_questions(THREE_STAGE, "train", tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tset"}, "--split tset is not known. Did you mean test? Choose train, dev, "),
        ({"split": "dev", "limit": 0}, "--limit 0 would leave no question. Choose 1 or more"),
        ({"split": "dev", "limit": -2}, "--limit -2 would leave no question"),
        ({"split": "dev"}, "Task three_stage has no questions of its own. Give some with --data DIR."),
        ({"split": "dev", "data": "hub:obka"}, "There are no questions at 'hub:obka'. Did you mean obqa? Known there:"),
        ({"split": "dev", "data": "embedded:x"}, "There are no questions at 'embedded:x'. Known there: everyday;"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as error:
        load_questions(THREE_STAGE, **options)
    assert message in str(error.value)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_embedded_set(split: everyday.generate.Split) -> None:
    questions = load_questions(load_task("everyday"), split)
    rows = everyday.questions(split)
    assert [q.id for q in questions] == [row["id"] for row in rows]
    assert questions[7].targets == {"recall": rows[7]["recall"], "analysis": tuple(rows[7]["analysis"])}
    assert questions[7].extra == {name: rows[7][name] for name in ("source", "property", "object", "pair_seen")}
    assert load_questions(load_task("everyday"), split, limit=5) == questions[:5]


COUNTS = {
    "obqa": {"train": (4893, 4893, 0), "dev": (500, 500, 0), "test": (350, 350, 0)},
    "csqa": {"train": (8741, 2629, 2017), "dev": (1000, 277, 236), "test": (1071, 221, 253)},
    "strategyqa": {"train": (1831, 1831, 0), "dev": (229, 229, 0), "test": (149, 149, 0)},
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the public question sets are not beside the project")
@pytest.mark.parametrize("name", list(COUNTS))
def test_the_public_sets_are_read_whole(name: str) -> None:
    """Counts from the table in their README: questions, with recall, with analysis."""
    for split, counts in COUNTS[name].items():
        questions = load_questions(load_task(name), split, SHARED / name)
        with_target = [sum(stage in q.targets for q in questions) for stage in ("recall", "analysis")]
        assert (len(questions), *with_target) == counts


LINES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 4) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from([*ROW, "recall", "analysis", "source"])


@given(change=st.dictionaries(KEYS, LINES, max_size=3), row=st.just(ROW) | LINES)
def test_any_line_gives_a_question_or_a_sentence(
    change: dict[str, Any], row: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    row = row | change if isinstance(row, dict) else row
    folder = write(tmp_path_factory.mktemp("any"), json.dumps(row))
    try:
        (outcome,) = load_questions(THREE_STAGE, "dev", folder)
    except DataError as error:
        assert f"{folder}/dev.jsonl, line 1: " in str(error)  # noqa: PT017 (either outcome is right)
    else:
        assert len(outcome.targets.get("analysis", outcome.choices)) == len(outcome.choices)
        assert outcome.answer in range(len(outcome.choices))
