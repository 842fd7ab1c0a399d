"""Where a stop string ends a text: against decoding all of it after every token, by tokenizers of two kinds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from litestage.engine.detokeniser import Detokeniser

SPECIAL = ("<|im_end|>", "<|tool|>")
TEXTS = ["The wick burns.\n\nThe wax melts; the flame ends there.", "a cork, an anvil, a key: option B"]


@cache
def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """One of bytes; one of characters that falls back to bytes, and drops a text's first space, as Llama 2's does."""
    if kind == "bytes":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        made.train_from_iterator(
            TEXTS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
        )
    else:
        vocab = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(set("".join(TEXTS)) - {" ", "\n"}), "▁"]
        made = Tokenizer(
            models.BPE({piece: i for i, piece in enumerate(vocab)}, [], unk_token="<unk>", byte_fallback=True)
        )
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    made.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False)


def ends(kind: str, tokens: Sequence[int], stop: Sequence[str]) -> tuple[int, str] | None:
    """The slow oracle: how many tokens it takes until a stop string is there, and the text before it."""
    made = tokenizer(kind)
    for count in range(1, len(tokens) + 1):
        plain, whole = made.decode(tokens[:count], skip_special_tokens=True), made.decode(tokens[:count])
        if any(mark in plain or mark in whole for mark in stop):
            before = [plain[: plain.index(mark)] for mark in stop if mark in plain]
            special = {i for m in re.finditer("|".join(map(re.escape, SPECIAL)), whole) for i in range(*m.span())}
            before += [
                "".join(letter for i, letter in enumerate(whole[: whole.index(mark)]) if i not in special)
                for mark in stop
                if mark in whole
            ]
            text = min(before, key=len)
            return count, text if plain.startswith(" ") else text.removeprefix(" ")  # no text begins with Llama 2's
    return None


def found(kind: str, tokens: Sequence[int], stop: Sequence[str]) -> tuple[int, str] | None:
    detokeniser = Detokeniser(tokenizer(kind))
    count = next((n for n in range(1, len(tokens) + 1) if detokeniser.stops(tokens[:n], stop)), None)
    return None if count is None else (count, detokeniser.until(tokens[:count], stop))


@pytest.mark.parametrize("kind", ["bytes", "characters"])
@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(st.sampled_from([*SPECIAL, *"abk .;\n", "é", "光", "🕯", " an", "the wax"]), min_size=1, max_size=40),
    first=st.integers(0, 30),
    length=st.integers(1, 24),
    others=st.lists(st.sampled_from(["\n\n", SPECIAL[0], "end|", "never said"]), max_size=2),
)
@example(parts=["光"] * 9 + ["🕯"], first=9, length=1, others=[])
@example(parts=["k", SPECIAL[1], "a"], first=0, length=12, others=[])
@example(parts=["a", "\n", SPECIAL[0]], first=1, length=11, others=[])
@example(parts=[" "] * 18, first=0, length=18, others=[])
def test_every_stop_string_is_found_at_its_last_token(
    kind: str, parts: list[str], first: int, length: int, others: list[str]
) -> None:
    text = "".join(parts)
    tokens = tokenizer(kind).encode(text, add_special_tokens=False)
    stop = [text[first : first + length] or "\n", *others]
    assert found(kind, tokens, stop) == ends(kind, tokens, stop)


@pytest.mark.parametrize("kind", ["bytes", "characters"])
@pytest.mark.parametrize(
    ("stop", "text"),
    [("<|im_end|>", "a key "), (" <|im_end|>", "a key"), ("im_end", "a key "), ("key <|tool|>", None), ("a ke", "")],
)
def test_a_special_token_is_a_stop_string_and_no_part_of_the_text(kind: str, stop: str, text: str | None) -> None:
    tokens = tokenizer(kind).encode("a key <|im_end|>", add_special_tokens=False)
    end = found(kind, tokens, [stop])
    assert (end and end[1]) == text
    if text:
        assert end is not None
        assert end[0] == len(tokens)
