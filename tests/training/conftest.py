"""Small things to train on: a few everyday questions, a tokenizer learnt from them, models of two blocks."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from litestage.models.prompts import PromptEncoder
from litestage.tasks import Question, Task, load_questions, load_task
from litestage.training.initialise import train_tokenizer
from litestage.training.packing import texts_of
from litestage.training.recipe import ModelRecipe


@pytest.fixture(scope="session")
def task() -> Task:
    return load_task("everyday")


@pytest.fixture(scope="session")
def questions(task: Task) -> list[Question]:
    return load_questions(task, "train", limit=64)


@pytest.fixture(scope="session")
def tokenizer(task: Task, questions: list[Question]) -> PreTrainedTokenizerFast:
    texts = (text for question in questions for pair in texts_of(task, question) for text in pair)
    return train_tokenizer(texts, vocab_size=700, max_length=512)


@pytest.fixture(scope="session")
def encoder(tokenizer: PreTrainedTokenizerFast) -> PromptEncoder:
    return PromptEncoder(tokenizer, "tiny", len(tokenizer), (tokenizer.eos_token_id,))


@pytest.fixture(scope="session")
def tiny() -> ModelRecipe:
    return ModelRecipe(
        hidden_size=32,
        num_hidden_layers=2,
        intermediate_size=48,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,  # far from uniform predictions, so that a wrong mask or position shows
    )
