"""From a file's ``tokenizer.*`` keys to a tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from gguf import TokenType
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from litestage.core import ModelError
from litestage.models.gguf.architectures import NONE, Neutral
from litestage.models.gguf.file import Account

PREFIX = "tokenizer.ggml."
TEMPLATE = "tokenizer.chat_template"
SPACE = "▁"
"""SentencePiece's sign for a space."""

ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*")
REST_WITH_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True, slots=True)
class Pre:
    """How a byte-level vocabulary cuts text before it merges (``tokenizer.ggml.pre``)."""

    pattern: str | None = None
    """What the pieces look like; None is GPT-2's own pattern."""
    single_digits: bool = False
    """Each digit is a piece of its own, before anything else is cut."""
    composed: bool = False
    """Letters with accents are composed first (NFC)."""
    whole_words: bool = False
    """A piece that is a token needs no merges."""
    begins: bool = False
    """A text begins with the BOS token, unless the file says otherwise."""

    def cutter(self) -> Any:
        if self.pattern is not None:
            cut = pre_tokenizers.Split(Regex(self.pattern), "isolated")
            return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        by_words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, by_words]) if self.single_digits else by_words


LLAMA3 = rf"{ENGLISH}|{WORDS}|\p{{N}}{{1,3}}|{REST}"
QWEN = rf"{ENGLISH}|{WORDS}|\p{{N}}|{REST}"
TEKKEN = rf"{CASED[0]}|{CASED[1]}|\p{{N}}|{REST_WITH_SLASH}"
GPT4O = rf"{CASED[0]}{ENGLISH}?|{CASED[1]}{ENGLISH}?|\p{{N}}{{1,3}}|{REST_WITH_SLASH}"
PRE: dict[str, Pre] = {
    "llama-bpe": Pre(LLAMA3, whole_words=True, begins=True),
    "llama3": Pre(LLAMA3, whole_words=True, begins=True),
    "llama-v3": Pre(LLAMA3, whole_words=True, begins=True),
    "smaug-bpe": Pre(LLAMA3),  # also SmolLM3
    "dbrx": Pre(LLAMA3),  # also OLMo 2, Phi-4
    "qwen2": Pre(QWEN, composed=True),
    "deepseek-r1-qwen": Pre(QWEN, composed=True),
    "tekken": Pre(TEKKEN, whole_words=True, begins=True),
    "gpt-4o": Pre(GPT4O),  # also Phi-4-mini
    "gpt-2": Pre(),
    "smollm": Pre(single_digits=True),
    "refact": Pre(single_digits=True),  # also Granite
    "starcoder": Pre(single_digits=True),
}
"""Byte-level vocabularies by ``tokenizer.ggml.pre``. A new one is first compared with its original."""

SPECIAL = {"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id", "pad": "padding_token_id"}
"""Special tokens of a tokenizer, and their keys."""
NO_TOKEN = 0xFFFFFFFF
"""What some converters write where there is no padding token: minus one in 32 bits."""
ENDS = {
    "eos_token_id": "ends a text",
    "eot_token_id": "ends a text (end of turn)",
    "eom_token_id": "ends a text (end of message)",
    **dict.fromkeys((f"fim_{part}_token_id" for part in ("pad", "rep", "sep")), "ends a text (in code with gaps)"),
}
ORDINARY = (TokenType.NORMAL, TokenType.BYTE)
"""Types of tokens that any text is made of: none of them is special."""
ENDING_TEXTS = frozenset(
    {
        *("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|end_of_text|>", "<|endoftext|>"),
        *("</s>", "<eos>", "[EOS]", "<EOT>", "_<EOT>", "[EOT]", "<end_of_utterance>", "<｜end▁of▁sentence｜>"),
        *("<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<turn|>", "<|tool_response>", "[e~["),
    }
)
"""Tokens that end a text whether or not a key names them, and whatever type they have: a file has one
``eos_token_id``, where the models' own settings often name several. As in llama.cpp."""
NOT_ENDING = (
    ({"<|return|>", "<|call|>"}, "<|end|>"),
    ({"<|flush|>", "<|call|>"}, "<|end|>"),
    ({"<|flush|>", "<|calls|>"}, "<|end|>"),
    ({"<|tool_response>"}, "</s>"),
)
"""Where a vocabulary has all of some tokens, another one ends nothing."""
FILLING = {
    "fim_pre": ("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>"),
    "fim_suf": ("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>"),
    "fim_mid": ("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>"),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
"""Tokens for filling gaps in code: special by their text where no key names one, whatever type they have."""
OLD_NAMES = {"fim_pre": "prefix", "fim_suf": "suffix", "fim_mid": "middle"}
"""Of keys of these tokens."""
SHOWN = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
"""Tokens whose text is part of what is written, whatever type they have."""
UNSTRIPPED = ("<unk>", "<s>", "<|endoftext|>")
"""Special tokens that leave the white space behind them even in Phi-3."""
NEUTRAL: dict[str, Neutral] = {
    "add_sep_token": Neutral((False,), "a separator would be put behind each text."),
    "remove_extra_whitespaces": Neutral((False,), "spaces would be taken out of texts, which is not done here."),
    "precompiled_charsmap": Neutral(NONE, "letters would be replaced by a table, which is not done here."),
    "token_type_count": Neutral(NONE, "texts have segments, as in BERT."),
    "normalizer.lowercase": Neutral((False,), "texts would be put into lower case, which is not done here."),
    "normalizer.strip_accents": Neutral((False,), "accents would be taken off, which is not done here."),
}
UNUSED = {
    "add_eos_token": "says how texts ended in training; a prompt is to go on",
    "scores": "byte-level vocabularies merge by their list of merges",
    **dict.fromkeys(("seperator_token_id", "mask_token_id", "cls_token_id"), "a token that no prompt needs"),
    **dict.fromkeys((f"fim_{part}_token_id" for part in ("pre", "suf", "mid")), "for filling gaps in code"),
    **dict.fromkeys((f"{part}_token_id" for part in ("prefix", "suffix", "middle")), "for filling gaps in code"),
}
"""Keys that change no prompt, and why."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a file says about tokens."""

    source: str
    tokens: Sequence[str]
    types: Sequence[int]
    merges: Sequence[tuple[str, str]]
    pre: Pre | None
    """None for SentencePiece."""
    ids: Mapping[str, int]
    """Of special tokens, by their short names."""
    ends: tuple[int, ...]
    """Tokens that end a text."""
    begins: bool
    """With the BOS token."""
    space_first: bool
    """Texts begin with a space (SentencePiece)."""
    strips_right: bool
    chat_template: str | dict[str, str] | None
    """One, or several by name; the one without a name is called ``default`` then."""

    def of_type(self, *types: TokenType) -> list[str]:
        return [token for token, kind in zip(self.tokens, self.types, strict=True) if kind in types]

    def tokenizer(self) -> PreTrainedTokenizerFast:
        try:
            backend = self._byte_level(self.pre) if self.pre is not None else self._sentencepiece()
        except Exception as error:  # the library checks merges against tokens, and raises plain exceptions
            said = str(error).strip().splitlines()[0].rstrip(".")
            raise ModelError(f"{self.source} holds merges that do not fit its tokens ({said}).") from None
        special = self.of_type(TokenType.CONTROL, TokenType.UNKNOWN)
        stripped = self.strips_right and self.pre is None
        backend.add_special_tokens(
            [AddedToken(one, normalized=False, rstrip=stripped and one not in UNSTRIPPED) for one in special]
        )
        backend.add_tokens([AddedToken(one, normalized=False) for one in self.of_type(TokenType.USER_DEFINED)])
        names = {f"{name}_token": self.tokens[i] for name, i in self.ids.items()}
        made = PreTrainedTokenizerFast(
            tokenizer_object=backend, chat_template=self.chat_template, clean_up_tokenization_spaces=False, **names
        )
        if self.begins:
            bos = self.tokens[self.ids["bos"]]
            made.backend_tokenizer.post_processor = processors.TemplateProcessing(
                single=[bos, "$A"], pair=[bos, "$A", "$B:1"], special_tokens=[(bos, self.ids["bos"])]
            )
        return made

    def _byte_level(self, pre: Pre) -> Tokenizer:
        numbers = {token: i for i, token in enumerate(self.tokens)}
        backend = Tokenizer(models.BPE(vocab=numbers, merges=list(self.merges), ignore_merges=pre.whole_words))
        backend.normalizer = normalizers.NFC() if pre.composed else None
        backend.pre_tokenizer = pre.cutter()
        backend.decoder = decoders.Sequence([*self._texts_as_they_are(), decoders.ByteLevel()])
        return backend

    def _texts_as_they_are(self) -> list[Any]:
        """Special tokens are texts, not signs of bytes. Where one could be read as such signs too, its text is put
        into them first."""
        signs = {*pre_tokenizers.ByteLevel.alphabet()}
        special = set(TokenType) - {*ORDINARY, TokenType.UNUSED}
        mistaken = [token for token in self.of_type(*special) if not token.isascii() and signs.issuperset(token)]
        into_signs = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return [
            decoders.Replace(Regex(rf"\A{re.escape(token)}\z"), into_signs.pre_tokenize_str(token)[0][0])
            for token in mistaken
        ]

    def _sentencepiece(self) -> Tokenizer:
        numbers = {token: i for i, token in enumerate(self.tokens)}
        unknown = next(iter(self.of_type(TokenType.UNKNOWN)), None)
        bytewise = bool(self.of_type(TokenType.BYTE))
        backend = Tokenizer(
            models.BPE(
                vocab=numbers, merges=list(self.merges), unk_token=unknown, fuse_unk=True, byte_fallback=bytewise
            )
        )
        first = [normalizers.Prepend(SPACE)] if self.space_first else []
        backend.normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", SPACE)])
        last = [decoders.Strip(" ", 1, 0)] if self.space_first else []
        backend.decoder = decoders.Sequence(
            [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *last]
        )
        return backend


def read_vocabulary(account: Account, rows: int, strips_right: bool) -> Vocabulary:
    """What the keys say; what cannot be taken over is noted as refused. ``rows`` are the embedding's."""
    tokens, types = _tokens(account, rows)
    kind = _required(account, "model", "the kind of vocabulary", "a text")
    if kind not in ("gpt2", "llama"):
        account.refuse(
            f"{PREFIX}model", f"vocabularies of the kind {kind!r} are not read; byte-level and SentencePiece BPE are."
        )
    byte_level = kind == "gpt2"
    pre = _pre(account, byte_level)
    merges = _merges(account, tokens, types, byte_level)
    _note_unused(account)
    named = {name: _token(account, key, f"the {name.upper()} token", tokens, types) for name, key in SPECIAL.items()}
    ids = {name: number for name, number in named.items() if number is not None}
    begins = account.use(f"{PREFIX}add_bos_token", "whether a text begins with the BOS token", "yes or no")
    begins = (pre.begins if pre is not None else True) if begins is None else bool(begins)
    if begins and "bos" not in ids:
        account.lack("key", f"{PREFIX}bos_token_id", "a BOS token comes before each text.")
    space_first = account.use(f"{PREFIX}add_space_prefix", "whether a text begins with a space", "yes or no")
    if byte_level and space_first:
        account.refuse(
            f"{PREFIX}add_space_prefix", "a byte-level vocabulary with a space before each text is not read."
        )
    return Vocabulary(
        source=account.file.source,
        tokens=tokens,
        types=types,
        merges=merges,
        pre=pre,
        ids=ids,
        ends=_ends(account, tokens, types, ids),
        begins=begins,
        space_first=space_first is None or bool(space_first),
        strips_right=strips_right or _is_named_phi3(account),
        chat_template=_chat_template(account),
    )


def _is_named_phi3(account: Account) -> bool:
    """Models of this name that were put into another family's form: llama.cpp goes by the name."""
    key = "general.name"
    if not re.search("phi-?3", str(account.file.value(key)).lower()):
        return False
    account.note("key", key, "used", "in models of this name special tokens take in the white space behind them")
    return True


def _required(account: Account, key: str, why: str, form: str) -> Any:
    value = account.use(f"{PREFIX}{key}", why, form)
    if value is None:
        account.lack("key", f"{PREFIX}{key}", f"it says {why}. Fetch a newer conversion.")
    return value


def _tokens(account: Account, rows: int) -> tuple[list[str], list[int]]:
    tokens = _required(account, "tokens", "the texts of its tokens", "a list of texts")
    tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]
    types = _required(account, "token_type", "which of its tokens are special", "a list of numbers")
    if len(tokens) > rows:
        account.refuse(f"{PREFIX}tokens", f"there are {len(tokens)} tokens, and rows for {rows} in the embedding.")
    if len(types) != len(tokens):
        account.refuse(f"{PREFIX}token_type", f"it has {len(types)} entries for {len(tokens)} tokens.")
    if len(set(tokens)) != len(tokens):
        twice = next(token for i, token in enumerate(tokens) if token in tokens[:i])
        account.refuse(f"{PREFIX}tokens", f"the token {twice!r} is there twice.")
    if odd := next((one for one in zip(tokens, types, strict=False) if one[1] not in list(TokenType)), None):
        account.refuse(f"{PREFIX}token_type", f"{odd[1]}, the type of the token {odd[0]!r}, is not known here.")
    return tokens, _known_types(account, tokens, [*types, *[int(TokenType.NORMAL)] * len(tokens)])


def _known_types(account: Account, tokens: Sequence[str], types: Sequence[int]) -> list[int]:
    """Types as llama.cpp takes them: tokens that are known by their texts are special, whatever the file says."""
    known = dict.fromkeys([*ENDING_TEXTS, *_filling(account, FILLING)], TokenType.CONTROL)
    known |= dict.fromkeys(SHOWN, TokenType.USER_DEFINED)
    return [
        kind if kind == TokenType.UNKNOWN else int(known.get(token, kind))
        for token, kind in zip(tokens, types, strict=False)
    ]


def _filling(account: Account, kinds: Iterable[str]) -> list[str]:
    """Texts of tokens for gaps in code, of kinds that no key names."""
    named = {
        kind
        for kind in kinds
        if any(f"{PREFIX}{name}_token_id" in account.file.fields for name in (kind, OLD_NAMES.get(kind)))
    }
    return [text for kind in kinds if kind not in named for text in FILLING[kind]]


def _pre(account: Account, byte_level: bool) -> Pre | None:
    if not byte_level:
        if f"{PREFIX}pre" in account.file.fields:
            account.note("key", f"{PREFIX}pre", "harmless", "SentencePiece cuts no text before it merges")
        return None
    name = _required(account, "pre", "how text is cut before tokens are merged", "a text")
    if name not in PRE:
        account.refuse(
            f"{PREFIX}pre", f"{name!r} is no way of cutting text that is known here. Known: {', '.join(PRE)}."
        )
    return PRE.get(name, Pre())


def _merges(account: Account, tokens: list[str], types: list[int], byte_level: bool) -> list[tuple[str, str]]:
    """The file's own, or those that follow from SentencePiece's scores: of any two tokens that make a third, those
    that make the one of the highest score come first."""
    if byte_level or f"{PREFIX}merges" in account.file.fields:
        written = _required(account, "merges", "which tokens make up a longer one", "a list of texts")
        pairs = [tuple(merge.split(" ", 1)) for merge in written]
        if any(len(pair) != 2 for pair in pairs):
            account.refuse(f"{PREFIX}merges", "one of them is not of two tokens.")
        once = dict.fromkeys((pair[0], pair[1]) for pair in pairs if len(pair) == 2)
        return list(once)  # the first place of a merge counts, as in llama.cpp
    scores = _required(account, "scores", "which tokens are merged first", "a list of numbers")
    if len(scores) != len(tokens):
        account.refuse(f"{PREFIX}scores", f"it has {len(scores)} entries for {len(tokens)} tokens.")
    merged = (TokenType.NORMAL, TokenType.UNUSED)
    kinds = dict(zip(tokens, types, strict=True))
    # A special token with the sign is not found in the text as it is, where spaces stand, but merges make it.
    plain = {token: i for i, token in enumerate(tokens) if kinds[token] in merged or SPACE in token}
    ranks = [scores[i] for token, i in plain.items() if len(token) > 1 and kinds[token] in merged and i < len(scores)]
    _check_ranks(account, ranks)
    _check_letters(account, plain, set(tokens))
    ranked = sorted(plain.items(), key=lambda one: (-scores[one[1]] if one[1] < len(scores) else 0.0, one[1]))
    return [
        (token[:at], token[at:])
        for token, _ in ranked
        for at in range(len(token) - 1, 0, -1)
        if token[:at] in plain and token[at:] in plain
    ]


def _check_ranks(account: Account, scores: Sequence[float]) -> None:
    """Scores of a BPE vocabulary are ranks: whole numbers, each token with its own."""
    if any(score != int(score) for score in scores):
        account.refuse(
            f"{PREFIX}scores", "they are logarithms (a Unigram vocabulary), by which texts are cut in another way."
        )
    elif len(set(scores)) == 1 < len(scores):
        account.refuse(f"{PREFIX}scores", "they are all the same, so they do not say which tokens are merged first.")


def _check_letters(account: Account, plain: Mapping[str, int], tokens: Set[str]) -> None:
    """A letter that is no token becomes bytes before anything is merged here, and llama.cpp merges it as a letter."""
    missing = {letter for token in plain for letter in token} - tokens

    def is_reached(token: str) -> bool:
        parts = ((token[:at], token[at:]) for at in range(1, len(token)))
        return any({a, b} & missing and all(part in plain or part in missing for part in (a, b)) for a, b in parts)

    for token in plain:
        if (letters := missing.intersection(token)) and is_reached(token):
            why = f"{token!r} is merged from {min(letters)!r}, which is no token, and only tokens are merged here."
            account.refuse(f"{PREFIX}tokens", why)
            break


def _note_unused(account: Account) -> None:
    for key, why in UNUSED.items():
        name = f"{PREFIX}{key}"
        if name in account.file.fields:
            account.note("key", name, "harmless", why)
    for key, rule in NEUTRAL.items():
        name = f"{PREFIX}{key}"
        value = account.file.value(name)
        if value is None:
            continue
        if value == [] or value in rule.values:
            account.note("key", name, "harmless", "at this value it changes nothing")
        else:
            account.refuse(name, rule.otherwise)


def _chat_template(account: Account) -> str | dict[str, str] | None:
    default: str | None = account.use(TEMPLATE, "the form of a chat", "a text")
    account.use(f"{TEMPLATE}s", "names of other forms of a chat", "a list of texts")
    named = {
        name.removeprefix(f"{TEMPLATE}."): account.use(name, "a form of a chat that a task can ask for", "a text")
        for name in account.file.fields
        if name.startswith(f"{TEMPLATE}.")
    }
    return named | ({"default": default} if default else {}) if named else default


def _token(account: Account, key: str, why: str, tokens: Sequence[str], types: Sequence[int]) -> int | None:
    """The number of a token that has a task of its own, which must not be one that any text is made of."""
    number: int | None = account.use(f"{PREFIX}{key}", why, "a whole number")
    if number is None or (key == SPECIAL["pad"] and number == NO_TOKEN):
        return None
    if number >= len(tokens):
        account.refuse(f"{PREFIX}{key}", f"there is no token {number}: the file has {len(tokens)}.")
        return None
    if types[number] in ORDINARY:
        why = f"it is {number}, and by token_type that token, {tokens[number]!r}, is an ordinary one."
        account.refuse(f"{PREFIX}{key}", why)
    return number


def _ends(account: Account, tokens: list[str], types: list[int], ids: Mapping[str, int]) -> tuple[int, ...]:
    """Those that keys name, and special tokens whose text says it, but for one that stands for unknown text."""
    ends = [_token(account, key, why, tokens, types) for key, why in ENDS.items()]
    texts = {*ENDING_TEXTS, *_filling(account, ("fim_pad", "fim_rep", "fim_sep"))}
    texts -= {but for others, but in NOT_ENDING if others <= set(tokens)}
    by_text = [
        i
        for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if token in texts and kind != TokenType.UNKNOWN and i != ids.get("unk")
    ]
    return tuple(dict.fromkeys(i for i in [*ends, *by_text] if i is not None))
