"""The paper's models end to end, as tiny models of their very architectures and tokenizer kinds: the committed recipes
fine-tune them, and search and compare take what comes out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

from litestage.jobs.compare import compare
from litestage.jobs.finetune import finetune
from litestage.jobs.options import CompareOptions, SearchSettings, TrainingOptions
from litestage.jobs.search import search
from litestage.jobs.session import load
from litestage.models import load_model
from litestage.models.prompts import PromptEncoder
from litestage.tasks import load_questions, load_task
from litestage.training.packing import examples_of, texts_of

TASK = load_task("everyday")
TEXTS = [" ".join(pair) for q in load_questions(TASK, "train", limit=64) for pair in texts_of(TASK, q)]


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """As TinyLlama's: words begin with a low line, unknown characters fall back to bytes, and a BOS goes in front."""
    special = ["<unk>", "<s>", "</s>"]
    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    bpe.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")  # keeps this small training fast
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    bpe.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=900, special_tokens=[*special, *alphabet], show_progress=False)
    )
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """As Qwen2.5-Instruct's: byte-level, no BOS, and a turn ends with a token of its own."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def tiny(name: str, folder: Path) -> Path:
    """A random model as the named one is built, with far fewer and narrower blocks."""
    tokenizer = llama_tokenizer() if name == "tinyllama-1.1b" else qwen_tokenizer()
    sizes = {"vocab_size": len(tokenizer), "num_hidden_layers": 4, "intermediate_size": 64}
    if name == "tinyllama-1.1b":  # 32 query heads and 4 of keys and values, head and embedding apart
        config = LlamaConfig(
            **sizes,
            hidden_size=64,
            num_attention_heads=32,
            num_key_value_heads=4,
            max_position_embeddings=2048,
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
            bos_token_id=1,
            eos_token_id=2,
        )
    else:  # 14 query heads and 2 of keys and values, biases on all three, head and embedding tied
        config = Qwen2Config(
            **sizes,
            hidden_size=56,
            num_attention_heads=14,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            rope_theta=1e6,
            tie_word_embeddings=True,
        )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    if name == "qwen2.5-0.5b":
        model.generation_config = GenerationConfig(eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["tinyllama-1.1b", "qwen2.5-0.5b"])
def test_finetune_search_and_compare(name: str, tmp_path: Path) -> None:
    base, tuned = tiny(name, tmp_path / "base"), tmp_path / "tuned"
    report = finetune(TrainingOptions(recipe=name, model=str(base), limit=16, validation=4, epochs=1), tuned)
    assert report.recipe.order == "cycles"
    assert report.trained_parameters == report.parameters
    session = load(model=str(tuned))
    session.task = session.task.with_limits(dict.fromkeys(TASK.stage_names, 6))  # a random model rambles
    found = search(session.at(tmp_path / "plan"), SearchSettings(preset="paper", step=4), session.questions("dev", 4))
    assert set(found.plan.stages) == set(TASK.stage_names)
    options = CompareOptions(
        methods=("litestage", "adaskip"), search_limit=4, wall=2, blocks=(1,), max_drops=(5.0,), step=4
    )
    compared = compare(session.at(tmp_path / "compare"), options, limit=4)
    assert {"litestage", "adaskip"} <= {system.method for system in compared.results}


@pytest.mark.parametrize("name", ["tinyllama-1.1b", "qwen2.5-0.5b"])
def test_targets_are_what_the_tokenizer_makes_of_prompt_and_target_together(name: str, tmp_path: Path) -> None:
    tokenizer = llama_tokenizer() if name == "tinyllama-1.1b" else qwen_tokenizer()
    question = load_questions(TASK, "train", limit=1)[0]
    pairs = list(texts_of(TASK, question))
    encoder = PromptEncoder(tokenizer, name, len(tokenizer), (tokenizer.eos_token_id,))
    for (prompt, target), example in zip(pairs, examples_of(TASK, question, encoder), strict=True):
        assert list(example.prompt) == tokenizer(prompt)["input_ids"]
        assert [*example.prompt, *example.target[:-1]] == tokenizer(f"{prompt} {target}")["input_ids"]
        assert example.target[-1] == tokenizer.eos_token_id
        written = tokenizer.decode(example.target, skip_special_tokens=True)
        assert written.strip() == target


def test_every_end_of_a_turn_ends_a_text(tmp_path: Path) -> None:
    model = load_model(str(tiny("qwen2.5-0.5b", tmp_path)))
    assert model.eos_ids == (2, 0)
