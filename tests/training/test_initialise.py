from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from litestage.training import initialise
from litestage.training.initialise import END_OF_TEXT
from litestage.training.recipe import ModelRecipe, TokenizerRecipe


@given(text=st.text(max_size=40).filter(lambda text: END_OF_TEXT not in text))
def test_any_text_comes_back(text: str, tokenizer) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_common_words_are_one_token_and_nothing_is_put_in_front(tokenizer) -> None:
    assert tokenizer.convert_ids_to_tokens(tokenizer("Recall: People")["input_ids"])[:2] == ["Recall", ":"]
    assert len(tokenizer(" something that is made")["input_ids"]) == 4
    assert tokenizer("")["input_ids"] == []
    assert tokenizer.eos_token_id == tokenizer.pad_token_id
    assert tokenizer.bos_token is None


def test_a_saved_tokenizer_encodes_the_same(tokenizer, tmp_path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Which of these, Zoë?\n(A) a saw  (B) ☃"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert (loaded.eos_token_id, loaded.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)


def test_the_seed_fixes_the_weights_and_leaves_other_draws_alone(task, questions, tiny: ModelRecipe) -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        model, tokenizer = initialise(TokenizerRecipe(vocab_size=400), tiny, seed, task, questions[:8])
        assert model.config.vocab_size == len(tokenizer)
        assert model.config.eos_token_id == tokenizer.eos_token_id
        return model.state_dict()

    before = torch.get_rng_state()
    first, second, other = weights(1), weights(1), weights(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])
