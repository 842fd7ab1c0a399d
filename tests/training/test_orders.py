from __future__ import annotations

from collections import Counter

import pytest

from litestage.core import DataError, OptionError
from litestage.tasks import Question, Task
from litestage.training.orders import make_order
from litestage.training.packing import examples_of, pack
from litestage.training.recipe import TrainingRecipe


def key(packed) -> bytes:
    return packed.token.tobytes()


def whole(task, question, encoder) -> bytes:
    return key(pack(examples_of(task, question, encoder)))


def test_a_packed_epoch_takes_each_question_once_in_a_new_order(task, questions, encoder) -> None:
    order = make_order(TrainingRecipe(epochs=2, batch_size=6), task, questions, encoder, 512)
    assert order.steps_per_epoch == 11  # 64 questions
    epochs = [[key(p) for step in range(11) for p in order.packs(11 * epoch + step)] for epoch in (0, 1)]
    everyone = Counter(whole(task, question, encoder) for question in questions)
    assert Counter(epochs[0]) == Counter(epochs[1]) == everyone
    assert epochs[0] != epochs[1]


def test_a_step_is_the_same_whatever_was_asked_before(task, questions, encoder) -> None:
    for order in ("packed", "cycles"):
        recipe = TrainingRecipe(epochs=3, batch_size=5, order=order, interval=2, seed=7)
        first = make_order(recipe, task, questions, encoder, 512)
        for step in range(25):
            first.packs(step)
        resumed = make_order(recipe, task, questions, encoder, 512)
        assert [key(p) for p in resumed.packs(25)] == [key(p) for p in first.packs(25)]


def test_questions_of_a_step_have_about_one_length(task, questions, encoder) -> None:
    order = make_order(TrainingRecipe(epochs=1, batch_size=8), task, questions, encoder, 512)
    padded = used = 0
    for step in range(order.steps_per_epoch):
        lengths = [len(packed) for packed in order.packs(step)]
        padded, used = padded + max(lengths) * len(lengths), used + sum(lengths)
    assert padded < 1.06 * used


def test_a_rarer_stage_is_taught_by_each_nth_step_alone(task: Task, questions, encoder) -> None:
    recipe = TrainingRecipe(epochs=1, batch_size=8, every={"summary": 3})
    order = make_order(recipe, task, questions, encoder, 512)
    end = [len(examples_of(task, question, encoder)[-1].target) for question in questions]
    assert len(set(end)) == 1
    full = make_order(TrainingRecipe(epochs=1, batch_size=8), task, questions, encoder, 512)
    missing = [
        sum(len(p.label) for p in full.packs(step)) - sum(len(p.label) for p in order.packs(step)) for step in range(8)
    ]
    assert missing == [0, 8 * end[0], 8 * end[0]] * 2 + [0, 8 * end[0]]


def test_a_step_draws_as_many_branches_as_asked(task: Task, questions, encoder) -> None:
    recipe = TrainingRecipe(epochs=2, batch_size=8, branches={"analysis": 1})
    order = make_order(recipe, task, questions, encoder, 512)
    full = make_order(TrainingRecipe(epochs=2, batch_size=8), task, questions, encoder, 512)
    one = examples_of(task, questions[0], encoder)
    assert [len([e for e in one if e.stage == stage]) for stage in range(3)] == [1, 4, 1]
    for step in (0, order.steps_per_epoch):
        drawn = [Counter(p.label.tolist()) for p in order.packs(step)]
        every = [Counter(p.label.tolist()) for p in full.packs(step)]
        assert all(few < all_ and few.total() < 0.7 * all_.total() for few, all_ in zip(drawn, every, strict=True))
    again = make_order(recipe, task, questions, encoder, 512)
    assert [key(p) for p in again.packs(5)] == [key(p) for p in order.packs(5)]
    with pytest.raises(OptionError, match="`branches` names 'analyses', which is not a stage"):
        make_order(TrainingRecipe(steps=1, branches={"analyses": 1}), task, questions, encoder, 512)


def test_cycles_give_each_stage_its_turn_on_the_same_questions(task, questions, encoder) -> None:
    """REFERENCE 5: interval recall steps, interval x options analysis steps, interval summary steps."""
    recipe = TrainingRecipe(epochs=1, batch_size=4, order="cycles", interval=2)
    order = make_order(recipe, task, questions[:16], encoder, 512)
    assert order.steps_per_epoch == 2 * (2 + 2 * 4 + 2)
    summary = len(examples_of(task, questions[0], encoder)[-1].target)
    steps = [order.packs(step) for step in range(12)]
    assert all(len(step) == 4 for step in steps)
    assert [all(len(p.label) == summary for p in step) for step in steps] == [False] * 10 + [True] * 2
    texts = {
        whole_part(task, question, encoder, stage): (question.id, stage)
        for question in questions[:16]
        for stage in range(3)
    }
    found = [{texts[part] for p in step for part in texts if key(p) in part} for step in steps]
    stages = [{stage for _, stage in step} for step in found]
    assert stages == [{0}] * 2 + [{1}] * 8 + [{2}] * 2
    by_stage = [{q for step in found for q, s in step if s == stage} for stage in range(3)]
    assert by_stage[0] == by_stage[1] == by_stage[2]
    assert len(by_stage[0]) == 8


def whole_part(task, question, encoder, stage: int) -> frozenset[bytes]:
    return frozenset(key(pack([e])) for e in examples_of(task, question, encoder) if e.stage == stage)


def test_what_cannot_be_trained_on_is_refused(task: Task, questions: list[Question], encoder) -> None:
    recipe = TrainingRecipe(steps=1)
    with pytest.raises(DataError, match="no questions to train on"):
        make_order(recipe, task, [], encoder, 512)
    with pytest.raises(DataError, match=rf"{questions[0].id} makes a sequence of \d+ tokens .* reads 100 at most"):
        make_order(recipe, task, questions, encoder, 100)
    with pytest.raises(OptionError, match="'sumary', which is not a stage of task everyday"):
        make_order(TrainingRecipe(steps=1, every={"sumary": 2}), task, questions, encoder, 512)
    every = {"recall": 2, "analysis": 3, "summary": 2}
    with pytest.raises(OptionError, match="steps without any stage"):
        make_order(TrainingRecipe(steps=1, every=every), task, questions, encoder, 512)
