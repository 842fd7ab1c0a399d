"""Task files: the built-in ones as the protocol has them, TOML and YAML alike, and a sentence for every mistake."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from litestage.core.errors import TaskError
from litestage.core.request import GREEDY, Sampling
from litestage.tasks import Stage, Task, list_tasks, load_questions, load_task

OWN_TASK = Path(__file__).parents[2] / "docs" / "examples" / "own_task.toml"
SMALL: dict[str, Any] = {"name": "small", "stages": [{"name": "think", "prompt": "{question}"}]}


def write(folder: Path, content: Any, name: str = "task.yaml") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


def test_the_built_in_tasks() -> None:
    assert {task.name: task.questions for task in list_tasks()} == {
        "everyday": "embedded:everyday",
        "obqa": "hub:obqa",
        "csqa": "hub:csqa",
        "strategyqa": "hub:strategyqa",
        "three_stage": None,
    }


def test_everyday_names_the_choice_and_is_the_protocol_otherwise() -> None:
    everyday, protocol = load_task("everyday").stages, load_task("three_stage").stages
    short = {"max_new_tokens": 200}
    assert everyday[0].model_copy(update=short) == protocol[0]
    assert everyday[2].model_copy(update=short) == protocol[2]
    assert everyday[1].prompt == protocol[1].prompt + " {choice}"
    assert everyday[1].item == "For option {letter}, {choice} {text}"


@pytest.mark.parametrize("task", [t for t in list_tasks() if t.name != "everyday"], ids=lambda task: task.name)
def test_the_built_in_tasks_follow_the_protocol(task: Task) -> None:
    """REFERENCE, section 5; prompts and targets are held letter by letter in test_task.py."""
    assert task.stages == load_task("three_stage").stages
    assert task.stage_names == ("recall", "analysis", "summary")
    assert [stage.fan_out for stage in task.stages] == ["none", "choices", "none"]
    assert [stage.sampling for stage in task.stages] == [Sampling(temperature=0.7), Sampling(temperature=0.7), GREEDY]
    assert [stage.max_new_tokens for stage in task.stages] == [200] * 3
    assert [stage.end_sentence for stage in task.stages] == [True, True, False]
    assert [stage.stop for stage in task.stages] == [()] * 3
    assert task.answer_pattern == r"the answer is option ([A-Z])\."
    assert task.shots == ()
    assert not task.chat_template


@pytest.mark.parametrize(("name", "choices"), [("everyday", 4), ("obqa", 4), ("csqa", 5), ("strategyqa", 2)])
def test_worked_examples_are_balanced_and_short(name: str, choices: int) -> None:
    task = load_task(name)
    assert {len(example.choices) for example in task.examples} == {choices}
    assert len(task.examples) % choices == 0
    letters = Counter(example.answer for example in task.examples)
    assert set(letters.values()) == {len(task.examples) // choices}
    for example in task.examples:
        texts = [text for stage in task.stages for text in task.targets(stage, example) or []]
        assert all(text.endswith(".") and len(text) < 130 for text in texts)
        if name != "everyday":
            verdicts = [text.rsplit(" ", 1)[1] for text in example.targets["analysis"]]
            assert [verdict == "right." for verdict in verdicts] == [i == example.answer for i in range(choices)]


@pytest.mark.parametrize("name", ["everyday", "obqa", "csqa", "strategyqa"])
def test_the_analyses_that_few_shot_prompts_show_are_not_all_of_one_verdict(name: str) -> None:
    """With the default of three: each example shows one branch, and the model should see right and wrong."""
    task = load_task(name)
    shown = [example.answer == i % len(example.choices) for i, example in enumerate(task.examples[:3])]
    assert set(shown) == {True, False}


def test_worked_examples_are_none_of_the_questions_they_help_with() -> None:
    task = load_task("everyday")
    asked = {(q.question, frozenset(q.choices)) for split in ("dev", "test") for q in load_questions(task, split)}
    assert not asked & {(example.question, frozenset(example.choices)) for example in task.examples}


def test_toml_and_yaml_say_the_same(tmp_path: Path) -> None:
    toml = write(
        tmp_path,
        """
        name = "two"
        questions = "hub:obqa"
        answer_pattern = 'is ([A-C])'
        [[stages]]
        name = "think"
        prompt = "{question}\\nThink:"
        stop = ["\\n", "END"]
        [[stages]]
        name = "say"
        prompt = "{choices}\\n{think}"
        sampling = { temperature = 0.5, top_p = 0.9 }
        target = "it is {letter}"
        [[examples]]
        question = "Q?"
        choices = ["a", "b"]
        answer = 1
        think = "t"
        """,
        "two.toml",
    )
    yml = write(
        tmp_path,
        """
name: two
questions: hub:obqa
answer_pattern: is ([A-C])
stages:
  - name: think
    prompt: "{question}\\nThink:"
    stop: ["\\n", END]
  - name: say
    prompt: |-
      {choices}
      {think}
    sampling: {temperature: 0.5, top_p: 0.9}
    target: it is {letter}
examples:
  - {question: "Q?", choices: [a, b], answer: 1, think: t}
""",
        "two.yml",
    )
    assert load_task(toml) == load_task(str(yml))
    assert load_task(toml).examples[0].targets == {"think": "t"}
    assert load_task(yml).with_shots(1).prompts(load_task(yml).stages[0], load_task(yml).examples[0], {}) == [
        "Q?\nThink: t\n\nQ?\nThink:"
    ]


PROMPT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20).map(
    lambda text: "{question} " + text.replace("{", "{{").replace("}", "}}")
)


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    names = draw(st.lists(st.from_regex(r"[a-f]{1,6}", fullmatch=True), min_size=1, max_size=4, unique=True))
    stages = tuple(
        Stage(
            name=name,
            prompt=draw(PROMPT),
            fan_out=draw(st.sampled_from(["none"] if name == names[-1] else ["none", "choices"])),
            end_sentence=draw(st.booleans()),
            max_new_tokens=draw(st.integers(1, 500)),
            stop=tuple(draw(st.lists(st.sampled_from(["\n", "END", '"']), max_size=2))),
            sampling=Sampling(temperature=draw(st.floats(0, 2)), top_k=draw(st.integers(0, 50))),
        )
        for name in names
    )
    return Task(name="t", description=draw(PROMPT), stages=stages, chat_template=draw(st.booleans()))


def toml_value(value: Any) -> str:
    """A TOML value on one line; JSON's quoting of text is TOML's too."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items() if item is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


@given(task=tasks())
def test_round_trip(task: Task, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("round")
    content = task.model_dump(mode="json", exclude={"shots", "examples"})
    toml = "\n".join(f"{key} = {toml_value(value)}" for key, value in content.items() if value is not None)
    assert load_task(write(folder, content)) == task
    assert load_task(write(folder, toml, "task.toml")) == task


def test_extending_a_task_takes_what_is_not_said(tmp_path: Path) -> None:
    path = write(tmp_path, {"extends": "obqa", "name": "mine", "questions": "here"})
    task = load_task(path)
    assert task.name == "mine"
    assert task.questions == str(tmp_path / "here")
    assert (task.stages, task.examples) == (load_task("obqa").stages, load_task("obqa").examples)
    assert load_task(write(tmp_path, {"extends": "task.yaml", "name": "again"}, "b.yaml")).questions == task.questions
    other = {"extends": "obqa", "name": "other", "stages": SMALL["stages"], "examples": []}
    assert load_task(write(tmp_path, other, "c.yaml")).examples == ()


def test_the_example_task_of_the_documentation() -> None:
    task = load_task(OWN_TASK)
    assert [stage.fan_out for stage in task.stages] == ["none", "none"]
    assert len(task.examples) == 3
    for split in ("dev", "test"):
        questions = load_questions(task, split)
        assert len(questions) == 20
        for question in questions:
            (target,) = task.targets(task.stages[-1], question) or []
            assert task.parse(target, question) == question.answer
            assert task.targets(task.stages[0], question)
    counts = Counter(q.answer for split in ("dev", "test") for q in load_questions(task, split))
    assert set(counts) == {0, 1, 2}
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("obqaa", "There is no task 'obqaa'. Did you mean obqa? Built in are everyday, obqa, csqa,"),
        ("my_task.json", "a task of your own is the path of a .toml, .yaml or .yml file"),
        ("nowhere/my.toml", "No task could be read from nowhere/my.toml (No such file or directory)"),
    ],
)
def test_names_that_are_not_there(name: str, message: str) -> None:
    with pytest.raises(TaskError) as error:
        load_task(name)
    assert message in str(error.value)


def stage(**change: Any) -> dict[str, Any]:
    return {"name": "t", "stages": [{"name": "think", "prompt": "{question}"} | change]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1, 2", "is not YAML: expected ',' or ']', but got '<stream end>' (at line 1, column 9)"),
        ("just words", "should hold the fields of a task (name, stages, ...), but holds 'just words'."),
        ("", "but holds None"),
        ({"stages": SMALL["stages"]}, "name is missing"),
        ({"name": "t"}, "stages is missing"),
        ({"name": "t", "stages": []}, "stages is empty"),
        ({"name": "t", "stages": {"name": "x"}}, "stages should be a list, but is {'name': 'x'}"),
        ({"name": "a task", "stages": SMALL["stages"]}, "name is 'a task', which does not look as it should"),
        ({**SMALL, "stage": 1}, "stage is not a field there. Did you mean stages? The fields are extends, name,"),
        ({**SMALL, "shots": 3}, "shots is not a field there. Write examples as [[examples]]"),
        ({**SMALL, "answer_pattern": "is ("}, "answer_pattern: 'is (' is not a regular expression: missing )"),
        ({**SMALL, "answer_pattern": "is [A-Z]"}, "must have one group, around the answer, but has 0"),
        ({"name": "t", "stages": [{"prompt": "x"}]}, "stages[0].name is missing"),
        (stage(promt="x"), "stages.think.promt is not a field there. Did you mean prompt? The fields are name, prompt"),
        (stage(fan_out="choice"), "stages.think.fan_out should be 'none' or 'choices', but is 'choice'"),
        (stage(stop="\n"), "stages.think.stop should be a list, but is '\\n'"),
        (stage(max_new_tokens=0), "stages.think.max_new_tokens should be greater than or equal to 1, but is 0"),
        (stage(stop=["\n", ""]), "stages.think.stop[1] should have at least 1 character, but is ''"),
        (stage(max_new_tokens="40"), "stages.think.max_new_tokens should be a whole number, but is '40'"),
        (stage(max_new_tokens="many"), "stages.think.max_new_tokens should be a whole number, but is 'many'"),
        (stage(sampling={"temprature": 1}), "stages.think.sampling.temprature is not a field there. Did you mean temp"),
        (stage(prompt="{questoin}"), "stage think: its prompt uses {questoin}, which is not known there"),
        ({"name": "t", "stages": SMALL["stages"] * 2}, "two things are called 'think': rename the stage"),
        ({**SMALL, "extends": "obca"}, "extends: There is no task 'obca'. Did you mean obqa?"),
        ({**SMALL, "extends": ["obqa"]}, "extends should be the name or path of one task, but is ['obqa']"),
        ({**SMALL, "extends": "task.yaml"}, "extends 'task.yaml', which extends this file in turn"),
        ({**SMALL, "extends": "obqa"}, "example 'obqa-example-1' has 0 texts for stage think and needs 1"),
        ({**SMALL, "examples": "mine"}, 'examples should be a list of questions ([[examples]]) or "embedded:everyday"'),
        ({**SMALL, "examples": [{"question": "?"}]}, "examples[0]: choices is missing; a question needs"),
        ({**SMALL, "examples": [3]}, "examples[0]: it should be one object"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, content: Any, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(TaskError) as error:
        load_task(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_toml_mistake_is_named_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"is not TOML: .*\(at line 2, column 7\)"):
        load_task(write(tmp_path, 'name = "t"\nstages\n', "t.toml"))


def test_toml_that_ends_too_early_is_named_by_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"is not TOML: .*\(at line 3, the end of the file\)"):
        load_task(write(tmp_path, 'name = "t"\n\nstages = [\n', "t.toml"))


def test_a_key_that_yaml_has_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"is not YAML: 'name' is there twice \(at line 2, column 1\)"):
        load_task(write(tmp_path, "name: t\nname: u\n", "t.yaml"))


def test_yaml_that_holds_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"t\.yaml is nested too deeply, or holds itself"):
        load_task(write(tmp_path, "name: t\nstages: &a [*a]\n", "t.yaml"))


@pytest.mark.parametrize("name", ["t.toml", "t.yaml"])
def test_a_mark_that_some_editors_put_in_front_is_passed_over(tmp_path: Path, name: str) -> None:
    content = 'name = "t"\nextends = "obqa"\n' if name.endswith("toml") else "name: t\nextends: obqa\n"
    assert load_task(write(tmp_path, "\ufeff" + content, name)).name == "t"


def test_a_file_without_its_suffix_is_offered(tmp_path: Path) -> None:
    write(tmp_path, 'name = "t"\n', "own_task.toml")
    with pytest.raises(TaskError, match=r"no task '.*own_task'. Did you mean .*own_task\.toml\?"):
        load_task(tmp_path / "own_task")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(TaskError, match="is not UTF-8 text"):
        load_task(path)


def test_files_that_extend_each_other(tmp_path: Path) -> None:
    write(tmp_path, {"name": "a", "extends": "b.yaml"}, "a.yaml")
    write(tmp_path, {"name": "b", "extends": "a.yaml"}, "b.yaml")
    with pytest.raises(TaskError, match="extends this file in turn"):
        load_task(tmp_path / "a.yaml")


def test_a_mistake_in_the_extended_file_is_named_there(tmp_path: Path) -> None:
    write(tmp_path, {"name": "a", "stages": []}, "a.yaml")
    with pytest.raises(TaskError, match=r"/a\.yaml: stages is empty"):
        load_task(write(tmp_path, {"name": "b", "extends": "a.yaml"}, "b.yaml"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.text(max_size=5) | st.sampled_from(["{question}", "choices"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["name", "stages", "extends", "examples", "questions", "answer_pattern", "prompt", "x"])


@given(content=st.dictionaries(FIELDS, VALUES, max_size=5), part=st.dictionaries(FIELDS, VALUES, max_size=4))
def test_any_content_gives_a_task_or_a_sentence(
    content: dict[str, Any], part: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(
        tmp_path_factory.mktemp("any"), {"name": "t", "stages": [{"name": "s", "prompt": "p"} | part]} | content
    )
    try:
        outcome: Task | str = load_task(path)
    except TaskError as error:
        outcome = str(error)
    assert isinstance(outcome, Task) or outcome.startswith(str(path))
