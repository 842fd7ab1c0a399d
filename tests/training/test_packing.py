from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import tiny as families
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from litestage.core import DataError
from litestage.models.prompts import PromptEncoder
from litestage.tasks import Question, Task
from litestage.training.initialise import new_model
from litestage.training.loop import target_logits, target_loss
from litestage.training.packing import Batch, Example, collate, examples_of, pack, texts_of
from litestage.training.recipe import ModelRecipe

tokens = st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple)
example_lists = st.lists(st.builds(Example, st.just(0), tokens, tokens), min_size=1, max_size=6)


def running_order(examples: list[Example]) -> list[Example]:
    return sorted(examples, key=lambda e: (e.prompt + e.target, len(e.prompt)))


def separate_logits(model: PreTrainedModel, examples: list[Example]) -> torch.Tensor:
    """The oracle: every prompt with its target alone in a plain causal forward."""
    rows = []
    for example in running_order(examples):
        ids = torch.tensor([example.prompt + example.target])
        rows.append(model(input_ids=ids).logits[0, len(example.prompt) - 1 : -1])
    return torch.cat(rows)


@pytest.fixture(scope="module")
def batches(task: Task, questions: list[Question], encoder: PromptEncoder) -> list[list[Example]]:
    return [examples_of(task, question, encoder) for question in questions[:3]]


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_questions_equal_separate_sequences(
    model_type, attention, batches, tokenizer, tiny: ModelRecipe
) -> None:
    model = new_model(tiny.model_copy(update={"model_type": model_type}), tokenizer, seed=3).eval()
    with torch.no_grad():
        separate = torch.cat([separate_logits(model, examples) for examples in batches])
        model.set_attn_implementation(attention)
        batch = collate([pack(examples) for examples in batches])
        assert batch.input_ids.numel() < 0.5 * sum(len(e.prompt + e.target) for b in batches for e in b)
        assert separate.argmax(-1).unique().numel() >= 8
        torch.testing.assert_close(target_logits(model, batch), separate, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(target_loss(model, batch), F.cross_entropy(separate, batch.label))


@pytest.mark.parametrize("family", [name for name in families.FAMILIES if "window" not in name])
def test_packed_logits_are_those_of_the_family(family: str) -> None:
    """Caps and scales of the head's output included; no sequence is longer than the sliding window."""
    model = families.transformers_model(family)
    shared, *branches = (families.prompt(3, seed=seed) for seed in range(4))
    examples = [Example(0, shared, branch) for branch in branches]
    with torch.no_grad():
        logits = target_logits(model, collate([pack(examples)]))
        torch.testing.assert_close(logits, separate_logits(model, examples), atol=5e-5, rtol=1e-4)


def causal_mask(batch: Batch) -> Batch:
    width = batch.input_ids.shape[1]
    return replace(batch, mask=torch.ones(width, width, dtype=torch.bool).tril().expand_as(batch.mask))


def running_positions(batch: Batch) -> Batch:
    return replace(batch, position_ids=torch.arange(batch.input_ids.shape[1]).expand_as(batch.position_ids))


def source_one_late(batch: Batch) -> Batch:
    return replace(batch, source=(batch.source + 1) % batch.input_ids.numel())


@pytest.mark.parametrize("fault", [causal_mask, running_positions, source_one_late])
def test_the_comparison_catches_a_wrong_mask_position_or_source(fault, batches, tokenizer, tiny: ModelRecipe) -> None:
    model = new_model(tiny, tokenizer, seed=3).eval()
    batch = collate([pack(examples) for examples in batches])
    with torch.no_grad():
        right, wrong = target_logits(model, batch), target_logits(model, fault(batch))
    assert (right - wrong).abs().max() > 0.1


@given(example_lists)
def test_every_target_token_is_predicted_from_exactly_its_own_past(examples: list[Example]) -> None:
    packed = pack(examples)
    mask = collate([packed]).mask[0, 0].numpy()
    seen = []
    for source, label in zip(packed.source, packed.label, strict=True):
        past = mask[source].nonzero()[0]
        assert list(packed.position[past]) == list(range(len(past)))
        seen.append((tuple(packed.token[past]), int(label)))
    expected = [
        ((e.prompt + e.target)[:cut], (e.prompt + e.target)[cut])
        for e in examples
        for cut in range(len(e.prompt), len(e.prompt + e.target))
    ]
    assert Counter(seen) == Counter(expected)


@given(example_lists)
def test_each_shared_beginning_stands_once(examples: list[Example]) -> None:
    inputs = [(e.prompt + e.target)[:-1] for e in examples]
    assert len(pack(examples)) == len({ids[:cut] for ids in inputs for cut in range(1, len(ids) + 1)})


@given(st.lists(example_lists, min_size=1, max_size=4))
def test_rows_of_a_batch_do_not_see_their_padding(rows: list[list[Example]]) -> None:
    packs = [pack(examples) for examples in rows]
    batch = collate(packs)
    for row, packed in enumerate(packs):
        alone = collate([packed])
        size = len(packed)
        assert torch.equal(batch.mask[row, 0, :size, :size], alone.mask[0, 0])
        assert not batch.mask[row, 0, :size, size:].any()
        assert batch.mask[row, 0].diagonal().all()  # a row that saw nothing would be NaN
    assert len(batch.source) == sum(len(packed.source) for packed in packs)


def test_prompt_and_target_are_encoded_as_generation_meets_them(task, questions, tokenizer, encoder) -> None:
    for question in questions[:8]:
        pairs, examples = list(texts_of(task, question)), examples_of(task, question, encoder)
        assert [e.stage for e in examples] == [0, 1, 1, 1, 1, 2]
        for (prompt, target), example in zip(pairs, examples, strict=True):
            assert list(example.prompt) == tokenizer(prompt)["input_ids"]
            assert example.target[-1] == tokenizer.eos_token_id not in example.target[:-1]
            assert tokenizer.decode(example.prompt + example.target[:-1]) == f"{prompt} {target}"


def test_later_prompts_hold_the_gold_texts_of_earlier_stages(task: Task, questions: list[Question]) -> None:
    question = questions[0]
    recall, *analyses, summary = [prompt for prompt, _ in texts_of(task, question)]
    gold = [str(question.targets["recall"]), *question.targets["analysis"]]
    assert not any(text in recall for text in gold)
    assert all(gold[0] in prompt for prompt in analyses)
    assert all(text in summary for text in gold)


def test_a_question_without_a_target_is_named(task: Task, questions: list[Question], encoder) -> None:
    bare = questions[0].model_copy(update={"targets": {"recall": "Saws cut."}})
    with pytest.raises(DataError, match=rf"{bare.id} has 0 targets for stage analysis, which asks 4 prompts"):
        examples_of(task, bare, encoder)
