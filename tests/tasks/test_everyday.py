"""The everyday set is used to compare runs, so its promises are checked in full."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from litestage.tasks.everyday import generate, knowledge, questions

Question = dict[str, Any]
FIELDS = {
    "id",
    "question",
    "choices",
    "answer",
    "recall",
    "analysis",
    "source",
    "property",
    "object",
    "pair_seen",
}


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Question]]:
    return {
        "train": questions("train"),
        "dev": questions("dev"),
        "test": questions("test"),
    }


def every(splits: dict[str, list[Question]]) -> list[Question]:
    return [question for split in splits.values() for question in split]


def test_sizes(splits: dict[str, list[Question]]) -> None:
    sizes = {name: len(split) for name, split in splits.items()}
    assert sizes == {"train": 16_000, "dev": 400, "test": 600}


def test_the_table_is_large_and_clear_enough() -> None:
    table = knowledge()
    assert len(table.things) >= 160
    assert len(table.properties) == 25
    for prop in table.properties:
        assert len(set(prop.questions)) >= 6
        assert len(prop.recall) >= 2
        assert all(prop.has in recall for recall in prop.recall)
        assert sum(prop.key in thing.true for thing in table.things) >= 15
        assert sum(thing.lacks(prop.key) for thing in table.things) >= 80


def test_the_same_questions_come_every_time(splits: dict[str, list[Question]]) -> None:
    generate._test_cases.cache_clear()
    generate._dev_cases.cache_clear()
    assert questions("train") == splits["train"]
    assert questions("dev") == splits["dev"]
    assert questions("test") == splits["test"]


@pytest.mark.parametrize("limit", [0, 1, 50])
def test_a_limit_only_cuts_the_end(splits: dict[str, list[Question]], limit: int) -> None:
    assert questions("train", limit) == splits["train"][:limit]
    assert questions("test", limit) == splits["test"][:limit]


def test_an_unknown_split_is_named_in_the_error() -> None:
    with pytest.raises(ValueError, match=r"'valid'.*train, dev, test"):
        questions("valid")  # type: ignore[arg-type]


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        questions("test", -1)


def test_schema(splits: dict[str, list[Question]]) -> None:
    for name, split in splits.items():
        for number, question in enumerate(split):
            assert set(question) == FIELDS
            assert question["id"] == f"everyday-{name}-{number:05d}"
            assert question["source"] == f"litestage everyday, {name}"
            assert question["question"].endswith("?")
            assert "{" not in question["question"]
            assert len(set(question["choices"])) == len(question["choices"]) == 4


def test_exactly_one_choice_is_true_and_none_is_doubtful(
    splits: dict[str, list[Question]],
) -> None:
    things = {thing.phrase: thing for thing in knowledge().things}
    for question in every(splits):
        for position, phrase in enumerate(question["choices"]):
            thing = things[phrase]
            if position == question["answer"]:
                assert question["property"] in thing.true
                assert question["object"] == thing.name
            else:
                assert thing.lacks(question["property"])


def test_an_analysis_says_every_true_fact_then_the_verdict(
    splits: dict[str, list[Question]],
) -> None:
    things = {thing.phrase: thing for thing in knowledge().things}
    properties = {prop.key: prop for prop in knowledge().properties}
    for question in every(splits):
        asked = properties[question["property"]]
        for position, phrase in enumerate(question["choices"]):
            right = position == question["answer"]
            facts, verdict = question["analysis"][position].split(". It ")
            assert re.split(r", | and ", facts) == [properties[key].has for key in things[phrase].true]
            assert verdict == (
                f"{asked.has}, so this choice is right." if right else f"{asked.lacks}, so this choice is wrong."
            )


def test_no_question_is_asked_twice(splits: dict[str, list[Question]]) -> None:
    asked = [(q["question"], frozenset(q["choices"])) for q in every(splits)]
    assert len(set(asked)) == len(asked)


def test_no_combination_is_in_two_splits(splits: dict[str, list[Question]]) -> None:
    combinations = [{(q["property"], frozenset(q["choices"])) for q in split} for split in splits.values()]
    assert len(set.union(*combinations)) == sum(map(len, combinations))


def test_held_out_pairs_are_never_asked_in_training(
    splits: dict[str, list[Question]],
) -> None:
    phrases = {thing.name: thing.phrase for thing in knowledge().things}
    held_out = {(phrases[name], key) for name, key in generate.held_out_pairs()}
    assert 0.18 <= len(held_out) / len(knowledge().pairs) <= 0.22
    for question in splits["train"]:
        key = question["property"]
        assert all((choice, key) not in held_out for choice in question["choices"])


def test_pair_seen_tells_whether_training_asks_about_the_pair(
    splits: dict[str, list[Question]],
) -> None:
    held_out = generate.held_out_pairs()
    for question in every(splits):
        pair = (question["object"], question["property"])
        assert question["pair_seen"] == (pair not in held_out)


@pytest.mark.parametrize("name", ["dev", "test"])
def test_a_fifth_of_the_questions_or_more_are_on_held_out_pairs(splits: dict[str, list[Question]], name: str) -> None:
    unseen = sum(not question["pair_seen"] for question in splits[name])
    assert 0.2 <= unseen / len(splits[name]) <= 0.35


def test_training_states_every_held_out_fact(
    splits: dict[str, list[Question]],
) -> None:
    things = {thing.phrase: thing for thing in knowledge().things}
    clauses = {prop.key: prop.has for prop in knowledge().properties}
    stated = Counter(
        (things[choice].name, fact)
        for question in splits["train"]
        for choice, text in zip(question["choices"], question["analysis"], strict=True)
        for fact in re.split(r", | and ", text.split(". It ")[0])
    )
    for name, key in generate.held_out_pairs():
        assert stated[name, clauses[key]] >= 100


def test_a_question_never_contains_the_clause(
    splits: dict[str, list[Question]],
) -> None:
    clauses = {prop.key: prop.has for prop in knowledge().properties}
    for question in every(splits):
        assert clauses[question["property"]] not in question["question"].lower()


@pytest.mark.parametrize("name", ["train", "dev", "test"])
def test_answer_positions_are_balanced(splits: dict[str, list[Question]], name: str) -> None:
    positions = Counter(question["answer"] for question in splits[name])
    for position in range(4):
        assert abs(positions[position] / len(splits[name]) - 0.25) <= 0.03


def table(*things: generate.Thing) -> generate.Knowledge:
    wings = generate.Property("fly", "can fly", "cannot fly", ("Birds can fly.",), ("What is up there?",))
    return generate.Knowledge((wings,), things)


@pytest.mark.parametrize(
    ("things", "message"),
    [
        ([generate.Thing("owl", "an", ("swim",), ())], "unknown properties"),
        ([generate.Thing("owl", "an", ("fly",), ("fly",))], "twice"),
        ([generate.Thing("owl", "an", (), ())], "no true property"),
        ([generate.Thing("owl", "el", ("fly",), ())], "unknown article"),
        ([generate.Thing("owl", "an", ("fly",), ())] * 2, "repeats a thing"),
        ([generate.Thing("owl", "an", ("fly",), ())], "1 true and 0 false"),
    ],
)
def test_a_broken_table_is_refused(things: list[generate.Thing], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate._check(table(*things))


def test_main_prints_json_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["generate", "--split", "test", "--limit", "2"])
    generate.main()
    assert len(capsys.readouterr().out.splitlines()) == 2
