"""Text of token ids, and where a stop string ends it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache, partial

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What a token that holds a part of a character decodes to."""
STOP_TOKENS = 16
"""Fewest tokens at the end of a text that are searched for a stop string; no token is shorter than a byte of it."""
PIECES = 1 << 16
"""Tokens whose own text is remembered."""


class Detokeniser:
    """Texts have no special tokens, but a stop string may be one (``<|im_end|>``): it is looked for in both."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._piece = lru_cache(maxsize=PIECES)(partial(_piece, tokenizer))

    def piece(self, token: int) -> str:
        """A token's own text, also a special one's."""
        return self._piece(token)

    def raw(self, token: int) -> bytes:
        """A token's own bytes, which may be a part of a character."""
        piece = self._piece(token)
        if BROKEN not in piece:
            return piece.encode()
        name: str = self._tokenizer.convert_ids_to_tokens(token)
        if byte := re.fullmatch("<0x([0-9A-F]{2})>", name):
            return bytes.fromhex(byte[1])
        table = {char: value for value, char in bytes_to_unicode().items()}
        return bytes(table[char] for char in name) if table.keys() >= set(name) else piece.encode()

    def text(self, tokens: Sequence[int]) -> str:
        """Without special tokens."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def stops(self, tokens: Sequence[int], stop: Sequence[str]) -> bool:
        """Whether a stop string ends in the last token."""
        if not stop or not self._may_complete(tokens[-1], stop):
            return False
        tail = tokens[self._tail(tokens, stop) :]
        return any(mark in text for text in (self.text(tail), self._with_special(tail)) for mark in stop)

    def until(self, tokens: Sequence[int], stop: Sequence[str]) -> str:
        """The text before the first stop string; all of it where there is none."""
        text, whole = self.text(tokens), self._with_special(tokens)
        cuts = [text.index(mark) for mark in stop if mark in text]
        cuts += [self._length_before(tokens, whole.index(mark)) for mark in stop if mark in whole]
        return text[: min(cuts)] if cuts else text

    def settled(self, tokens: Sequence[int], stop: Sequence[str]) -> str:
        """The text that no later token changes: without half a character or what may become a stop string."""
        text = self.text(tokens)
        end = len(text.rstrip(BROKEN))
        if getattr(self._tokenizer, "clean_up_tokenization_spaces", False):
            end = min(end, text.rfind(" ") if " " in text else end)  # what follows may draw nearer
        if stop and (begun := max(_begun(text, mark) for mark in stop)):
            end = min(end, len(text) - begun)
        if stop and (begun := max(_begun(whole := self._with_special(tokens), mark) for mark in stop)):
            end = min(end, self._length_before(tokens, len(whole) - begun))
        return text[:end]

    def _may_complete(self, token: int, stop: Sequence[str]) -> bool:
        """Whether a text may contain a stop string since this token: most have no letter that ends one.

        Decoding the end of every row in every step would cost as much as a small model's step itself.
        """
        piece = self._piece(token)  # decoders may drop a token's first space when it is alone
        return BROKEN in piece or any(mark[-1] in piece or mark[-1] == " " for mark in stop)

    def _tail(self, tokens: Sequence[int], stop: Sequence[str]) -> int:
        """Where to start reading: before the longest stop string, and not inside a character.

        Some tokenizers make nothing of a whole run of bytes that begins in the middle of one.
        """
        start = max(0, len(tokens) - 1 - max(STOP_TOKENS, *(len(mark.encode()) for mark in stop)))
        while start and BROKEN in self._piece(tokens[start]):
            start -= 1
        return start

    def _length_before(self, tokens: Sequence[int], at: int) -> int:
        """How much of the text without special tokens lies before a place in the one with them."""
        read = next(n for n in range(1, len(tokens) + 1) if len(self._with_special(tokens[:n])) > at)
        behind = len(self._with_special(tokens[:read])) - at
        special = self._piece(tokens[read - 1]) and not self.text(tokens[read - 1 : read])
        return len(self.text(tokens[:read])) - (0 if special else behind)

    def _with_special(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=False)
        return text


class TextStream:
    """A text told in pieces; together they are the whole text."""

    def __init__(self, detokeniser: Detokeniser, stop: Sequence[str]) -> None:
        self._detokeniser, self._stop, self._told = detokeniser, stop, 0

    def next(self, tokens: Sequence[int]) -> str:
        """What these tokens settle of the text, behind what was told before."""
        return self.last(self._detokeniser.settled(tokens, self._stop))

    def last(self, text: str) -> str:
        """What is left of a text."""
        piece = text[self._told :]
        self._told += len(piece)
        return piece


def _begun(text: str, mark: str) -> int:
    """How many characters at a text's end may be the beginning of a stop string."""
    return max((size for size in range(1, len(mark)) if text.endswith(mark[:size])), default=0)


def _piece(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """A token's own text. (Not a method: its cache would keep the engine alive.)"""
    text: str = tokenizer.decode((token,), skip_special_tokens=False)
    return text
