"""A new tokenizer and a new model from a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from litestage.tasks.question import Question
from litestage.tasks.task import Task
from litestage.training.packing import texts_of
from litestage.training.recipe import ModelRecipe, TokenizerRecipe

END_OF_TEXT = "<|endoftext|>"


def initialise(
    tokens: TokenizerRecipe, shape: ModelRecipe, seed: int, task: Task, questions: Sequence[Question]
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """An untrained float32 model and the tokenizer learnt from the task's texts, both fixed by the seed."""
    texts = (text for question in questions for pair in texts_of(task, question) for text in pair)
    tokenizer = train_tokenizer(texts, tokens.vocab_size, shape.max_position_embeddings)
    return new_model(shape, tokenizer, seed), tokenizer


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE: any text encodes, and nothing is put in front of it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def new_model(recipe: ModelRecipe, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """Random float32 weights of the recipe's shape; the vocabulary is the tokenizer's."""
    config = AutoConfig.for_model(
        **recipe.model_dump(),
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model
