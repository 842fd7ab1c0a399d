"""Tokens of GGUF files: as the original tokenizers make them, beginning and ending as the files say."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf_files
import pytest
import tiny
from gguf import TokenType
from gguf_files import Contents, contents
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from litestage.core import Chat, ModelError
from litestage.engine import TorchEngine
from litestage.models import LoadedModel, load_model
from litestage.models.gguf.vocabulary import PRE

TEXTS = [
    "A candle gives light because its wick burns in 1998, doesn't it? I'LL SAY SO.",
    "Naïve café: 12345 + 67 = 12,412.\n\n1. First\n\n\n   2. second  \t third\r\n",
    "cafe\u0301 A\u030a 北京 東京 🦙🦙 ½ ² ٣",
    "HTTPServer parseJSON camelCase // path/to/file\n/x",
    "  leading, trailing  ",
    "",
]
texts = st.text(st.sampled_from("abcXYZ 123\n\t'sé\u0301.,/!🦙京ß"), max_size=40)


def write(tmp_path: Path, special: int | None = None, **keys: Any) -> Path:
    """A file of the tiny model with other ``tokenizer.ggml`` keys, and one more ``special`` token."""
    file = contents(tiny.transformers_model("llama"))
    if special is not None:
        file.keys["tokenizer.ggml.token_type"][special] = int(TokenType.CONTROL)
    for key, value in keys.items():
        file.put(f"tokenizer.ggml.{key}", value)
    return file.write(tmp_path / "model.gguf")


def load(path: Path) -> LoadedModel:
    return load_model(str(path), device="cpu")


BEGINS = [
    ({"pre": "llama-bpe", "add_bos_token": None}, True),
    ({"pre": "tekken", "add_bos_token": None}, True),
    ({"pre": "llama-bpe"}, False),
    ({"pre": "smaug-bpe", "add_bos_token": None}, False),
    ({"pre": "qwen2", "add_bos_token": None}, False),
    ({"pre": "qwen2", "add_bos_token": True}, True),
]


@pytest.mark.parametrize(("keys", "begins"), BEGINS)
def test_a_text_begins_with_bos_where_the_vocabulary_has_it_so(
    tmp_path: Path, keys: dict[str, Any], begins: bool
) -> None:
    engine = TorchEngine(load(write(tmp_path, special=7, bos_token_id=7, **keys)))
    plain = tuple(tiny.tokenizer()("A stone")["input_ids"])
    assert engine.encode("A stone") == ((7, *plain) if begins else plain)


def test_no_end_is_put_behind_a_prompt(tmp_path: Path) -> None:
    plain = tiny.tokenizer()("A stone")["input_ids"]
    assert load(write(tmp_path, add_eos_token=True)).tokenizer("A stone")["input_ids"] == plain


def test_ends_of_turns_and_messages_end_texts(tmp_path: Path) -> None:
    """The second token that the model would write ends the text, once a key says that it is an end."""
    prompt = tiny.prompt(21)
    whole = tiny.generate_by_transformers("llama", prompt, 12)
    for key in ("eot_token_id", "eom_token_id"):
        model = load(write(tmp_path, whole[1], **{key: whole[1]}))
        assert model.eos_ids == (tiny.tokenizer().eos_token_id, whole[1])
        (got,) = TorchEngine(model).generate(tiny.requests([prompt], max_new_tokens=12))
        assert got.token_ids == whole[: whole.index(whole[1]) + 1]


def test_control_tokens_end_texts_by_what_they_say(tmp_path: Path) -> None:
    """Files name one end, where folders name several; but a token for unknown text is none."""
    tokenizer = deepcopy(tiny.tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "<|eot_id|>", "<|tool|>"]})
    numbers = [tokenizer.convert_tokens_to_ids(one) for one in ("<|im_end|>", "<|eot_id|>")]
    model = tiny.new_model("llama", vocab_size=len(tokenizer))
    file = contents(model)
    file.keys |= gguf_files.byte_level(tokenizer, model.config)
    eos = tokenizer.eos_token_id
    assert load(file.write(tmp_path / "model.gguf")).eos_ids == (eos, *numbers)
    file.put("tokenizer.ggml.eos_token_id", numbers[0])
    assert load(file.write(tmp_path / "model.gguf")).eos_ids == (numbers[0], eos, numbers[1])
    file.put("tokenizer.ggml.unknown_token_id", eos)
    assert load(file.write(tmp_path / "model.gguf")).eos_ids == tuple(numbers)


@pytest.mark.parametrize("kind", [TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.CONTROL])
def test_tokens_that_are_known_by_their_texts_are_special_whatever_their_type(tmp_path: Path, kind: TokenType) -> None:
    """As llama.cpp has it: such files were converted wrongly, and are many."""
    tokenizer = deepcopy(tiny.tokenizer())
    texts = ["<|im_end|>", "<end_of_turn>", "<|fim_pad|>", "<|file_sep|>", "<|fim_prefix|>", "<|tool|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": texts})
    model = tiny.new_model("llama", vocab_size=len(tokenizer))
    file = contents(model)
    file.keys |= gguf_files.byte_level(tokenizer, model.config)
    number = {text: tokenizer.convert_tokens_to_ids(text) for text in texts}
    for one in number.values():
        file.keys["tokenizer.ggml.token_type"][one] = int(kind)
    file.put("tokenizer.ggml.eos_token_id", number["<|im_end|>"])
    loaded = load(file.write(tmp_path / "model.gguf"))
    assert set(loaded.eos_ids) == {tokenizer.eos_token_id, *(number[text] for text in texts[:4])}
    assert loaded.eos_ids[0] == number["<|im_end|>"]
    for text in texts[:5]:
        assert number[text] in loaded.tokenizer(f"a{text}")["input_ids"]
        assert loaded.tokenizer.decode([number[text]], skip_special_tokens=True) == ""
    assert (number["<|tool|>"] in loaded.tokenizer("a<|tool|>")["input_ids"]) is (kind != TokenType.NORMAL)
    for part in ("pad", "sep"):
        file.put(f"tokenizer.ggml.fim_{part}_token_id", tokenizer.eos_token_id)
    assert set(load(file.write(tmp_path / "model.gguf")).eos_ids) == {
        *(tokenizer.eos_token_id, number["<|im_end|>"], number["<end_of_turn>"])
    }, "a key says which token it is"


def test_some_vocabularies_go_on_behind_what_ends_others(tmp_path: Path) -> None:
    tokenizer = deepcopy(tiny.tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>", "<|return|>", "<|call|>", "<|message|>"]})
    model = tiny.new_model("llama", vocab_size=len(tokenizer))
    file = contents(model)
    file.keys |= gguf_files.byte_level(tokenizer, model.config)
    loaded = load(file.write(tmp_path / "model.gguf"))
    ends = [tokenizer.convert_tokens_to_ids(one) for one in ("<|return|>", "<|call|>")]
    assert set(loaded.eos_ids) == {tokenizer.eos_token_id, *ends}
    shown = loaded.tokenizer.convert_tokens_to_ids("<|message|>")
    assert loaded.tokenizer.decode([shown], skip_special_tokens=True) == "<|message|>"


def test_a_penalty_that_a_file_suggests_is_told_and_not_applied(tmp_path: Path) -> None:
    file = contents(tiny.transformers_model("llama"))
    file.put("general.sampling.penalty_repeat", 1.25)
    with pytest.warns(UserWarning, match=r"penalty_repeat \(it is 1.25; the task"):
        load(file.write(tmp_path / "model.gguf"))


# --- byte-level vocabularies -----------------------------------------------------------------------------------------


def original(pre: str) -> PreTrainedTokenizerFast:
    """A tokenizer trained with the parts that a family's own has: transformers' patterns, or Hugging Face's layouts."""
    mapping = pytest.importorskip("transformers.integrations.gguf.gguf_tokenizer_mapping")
    bpe = Tokenizer(models.BPE(ignore_merges=pre in ("llama-bpe", "llama3", "llama-v3", "tekken")))
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if (pattern := mapping.GGUF_PRE_TOKENIZER_SPLITS.get(pre)) is not None:
        bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), by_bytes])
    elif pre == "gpt-2":
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        digits = pre_tokenizers.Digits(individual_digits=True)
        bpe.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.normalizer = normalizers.NFC() if pre in ("qwen2", "deepseek-r1-qwen") else None
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[tiny.EOS], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(TEXTS * 3, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=tiny.EOS)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.add_tokens(["<think>", "   "])
    return made


def read_back(tokenizer: PreTrainedTokenizerFast, pre: str, place: Path) -> Any:
    model = tiny.new_model("llama", vocab_size=len(tokenizer) + 3, num_hidden_layers=1)
    file = contents(model)
    file.keys |= gguf_files.byte_level(tokenizer, model.config, pre)
    return load(file.write(place / "model.gguf")).tokenizer


@pytest.mark.parametrize("pre", PRE)
def test_a_byte_level_vocabulary_makes_the_originals_tokens(tmp_path: Path, pre: str) -> None:
    expected = original(pre)
    got = read_back(expected, pre, tmp_path)
    added = "<|im_start|>user\n<think>a   b</think><|im_end|>x"

    @given(texts)
    def check(text: str) -> None:
        ids = expected(text)["input_ids"]
        begins = [expected.eos_token_id] if got("")["input_ids"] else []
        assert got(text, add_special_tokens=False)["input_ids"] == ids
        assert got(text)["input_ids"] == begins + ids
        assert got.decode(ids) == expected.decode(ids)

    check()
    for text in (*TEXTS, added):
        assert got(text, add_special_tokens=False)["input_ids"] == expected(text)["input_ids"], text
    assert got.convert_tokens_to_ids("<|im_end|>") in got(added)["input_ids"]


@pytest.mark.parametrize("pre", ["llama-bpe", "tekken", "dbrx", "qwen2", "smaug-bpe"])
def test_a_word_that_no_merges_make_is_a_token_where_the_vocabulary_has_it_so(tmp_path: Path, pre: str) -> None:
    file = contents(tiny.new_model("llama", num_hidden_layers=1))
    tokens = file.keys["tokenizer.ggml.tokens"]
    tokens[-1] = "Ġzebra"
    file.put("tokenizer.ggml.merges", ["Ġ z"])
    tokens[-2] = "Ġz"
    file.put("tokenizer.ggml.pre", pre)
    ids = load(file.write(tmp_path / "model.gguf")).tokenizer(" zebra", add_special_tokens=False)["input_ids"]
    whole = pre in ("llama-bpe", "tekken")  # the program that made the format asks no merges of these alone
    assert (ids == [len(tokens) - 1]) is whole
    assert (ids[0] == len(tokens) - 2) is not whole


def test_of_a_merge_that_is_there_twice_the_first_place_counts(tmp_path: Path) -> None:
    file = contents(tiny.new_model("llama", num_hidden_layers=1))
    file.keys["tokenizer.ggml.tokens"][-2:] = ["qx", "xz"]
    file.put("tokenizer.ggml.merges", ["q x", "x z", "q x"])
    assert load(file.write(tmp_path / "model.gguf")).tokenizer.tokenize("qxz") == ["qx", "z"]


def test_texts_of_special_tokens_are_read_as_they_are(tmp_path: Path) -> None:
    """Also where their letters are those that stand for bytes; between them stand such bytes."""
    tokenizer = deepcopy(tiny.tokenizer())
    own = ["zü", "¿(ÿ.)", "Ġa", "x y", "<é>"]
    tokenizer.add_tokens(own[:4])
    tokenizer.add_special_tokens({"additional_special_tokens": own[4:]})
    got = read_back(tokenizer, "gpt-2", tmp_path)
    for text in own:
        assert got.decode([got.convert_tokens_to_ids(text)]) == text
    mixed = "ü zé" + "a".join(own) + "é 京"
    assert got.decode(got(mixed)["input_ids"]) == mixed


def test_ways_of_cutting_text_differ() -> None:
    """On these texts each way cuts otherwise than the rest, so that none could be taken for another above."""
    ways = ("llama-bpe", "qwen2", "tekken", "gpt-4o", "gpt-2", "smollm")
    cut = {tuple(str(PRE[pre].cutter().pre_tokenize_str(text)) for text in TEXTS) for pre in ways}
    assert len(cut) == len(ways)


# --- SentencePiece ---------------------------------------------------------------------------------------------------

SPACE = "\u2581"
SPECIALS = ["<unk>", "<s>", "</s>"]
PIECES = [*"etaoinshrlducmfwypvbgkjqxz", SPACE, ".", ",", "1", "2", "(", ")", "A", "th", "he", "the", f"{SPACE}t", "in"]
PIECES += [
    f"{SPACE}the",
    "an",
    "and",
    f"{SPACE}and",
    "er",
    "ing",
    f"{SPACE}{SPACE}",
    f"{SPACE}a",
    "re",
    "on",
    "é",
    "er.",
]
BYTES = [f"<0x{value:02X}>" for value in range(256)]


def sentencepiece(architecture: str = "llama", **keys: Any) -> Contents:
    """A file whose later pieces have lower scores, as SentencePiece writes them."""
    tokens = [*SPECIALS, *BYTES, *PIECES, "<|user|>", "<|end|>", "<table>", "   "]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    types += [TokenType.NORMAL] * len(PIECES) + [TokenType.CONTROL] * 2 + [TokenType.USER_DEFINED] * 2
    family = "phi3" if architecture == "phi3" else "llama"
    file = contents(tiny.new_model(family, vocab_size=len(tokens), num_hidden_layers=1))
    file.keys = {key: value for key, value in file.keys.items() if not key.startswith("tokenizer.")}
    own = {
        "model": "llama",
        "pre": "default",
        "tokens": tokens,
        "token_type": [int(one) for one in types],
        "scores": [0.0] * 259 + [-float(i) for i in range(len(PIECES))] + [-1000.0] * 4,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
        "padding_token_id": 0,
    }
    file.keys |= {f"tokenizer.ggml.{key}": value for key, value in (own | keys).items()}
    return file


def by_scores(text: str, file: Contents) -> list[int]:
    """The slow oracle: of all neighbours that make a piece, those with the best score are joined, again and again."""
    tokens = file.keys["tokenizer.ggml.tokens"]
    number = {token: i for i, token in enumerate(tokens)}
    score = {piece: -i for i, piece in enumerate(PIECES)}
    parts = list(text.replace(" ", SPACE))
    while True:
        joins = [(score[a + b], -i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in score]
        if not joins:
            break
        at = -max(joins)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    by_byte = [[number[part]] if part in score else [number[BYTES[b]] for b in part.encode()] for part in parts]
    return [one for part in by_byte for one in part]


@pytest.mark.parametrize("space_first", [True, False, None])
def test_a_sentencepiece_vocabulary_joins_by_scores(tmp_path: Path, space_first: bool | None) -> None:
    keys = {} if space_first is None else {"add_space_prefix": space_first}
    file = sentencepiece(**keys)
    got = load(file.write(tmp_path / "model.gguf")).tokenizer
    first = "" if space_first is False else " "

    @given(
        st.text(st.sampled_from("theandring. (12)é🦙\n"), min_size=1, max_size=30).filter(
            lambda text: "   " not in text
        )
    )
    def check(text: str) -> None:
        assert got(text)["input_ids"] == [1, *by_scores(first + text, file)]
        assert got.decode(got(text)["input_ids"], skip_special_tokens=True) == text

    check()
    assert got("")["input_ids"] == [1]
    number = {token: i for i, token in enumerate(file.keys["tokenizer.ggml.tokens"])}
    user, table, spaces = number["<|user|>"], number["<table>"], number["   "]
    joined = [
        *by_scores(first + "the", file),
        user,
        *by_scores(first + "an", file),
        table,
        *by_scores(first + "in", file),
    ]
    assert got("the<|user|>an<table>in")["input_ids"] == [1, *joined]
    assert spaces in got("a   b")["input_ids"]


def test_a_sentencepiece_vocabulary_with_merges_of_its_own_uses_them(tmp_path: Path) -> None:
    file = sentencepiece(merges=["t h", "th e"], scores=[0.0] * (259 + len(PIECES) + 4))
    tokens = load(file.write(tmp_path / "model.gguf")).tokenizer.tokenize("theand")
    assert tokens == [SPACE, "the", "a", "n", "d"]


@pytest.mark.parametrize("kind", [TokenType.UNUSED, TokenType.USER_DEFINED, TokenType.CONTROL])
def test_pieces_of_other_types_are_merged_by_their_texts_all_the_same(tmp_path: Path, kind: TokenType) -> None:
    """As llama.cpp merges them."""
    file = sentencepiece()
    whole = load(file.write(tmp_path / "model.gguf")).tokenizer("the  . and")["input_ids"]
    for text in (f"{SPACE}the", SPACE * 2):
        piece = file.keys["tokenizer.ggml.tokens"].index(text)
        assert piece in whole
        file.keys["tokenizer.ggml.token_type"][piece] = int(kind)
    assert load(file.write(tmp_path / "model.gguf")).tokenizer("the  . and")["input_ids"] == whole


@pytest.mark.parametrize(
    ("piece", "sentence"),
    [
        ("日本", "tokens: '日本' is merged from '[日本]'"),
        ("京t", "tokens: '京t' is merged from '京'"),
        (f"{SPACE}the京", "tokens: .*京' is merged from '京'"),
        ("the日本", None),
        ("the\u2003x", None),
    ],
)
def test_a_piece_that_letters_alone_would_make_is_refused(tmp_path: Path, piece: str, sentence: str | None) -> None:
    """llama.cpp merges letters that are no pieces of their own. Not even by those does it reach the last two."""
    file = sentencepiece()
    at = file.keys["tokenizer.ggml.tokens"].index("ing")
    file.keys["tokenizer.ggml.tokens"][at] = piece
    path = file.write(tmp_path / "model.gguf")
    if sentence is None:
        assert at not in load(path).tokenizer(piece)["input_ids"]
        return
    with pytest.raises(ModelError, match=sentence):
        load(path)


def test_without_the_word_sign_as_a_piece_no_word_can_be_made(tmp_path: Path) -> None:
    file = sentencepiece()
    tokens = file.keys["tokenizer.ggml.tokens"]
    tokens[tokens.index(SPACE)] = "Q"
    with pytest.raises(ModelError, match=rf"tokens: '{SPACE}t' is merged from '{SPACE}'"):
        load(file.write(tmp_path / "model.gguf"))


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [([-1000.0], "scores: they are all the same"), ([-2.5, -3.25], "scores: they are logarithms .*Unigram")],
)
def test_scores_that_are_no_ranks_are_refused(tmp_path: Path, scores: list[float], sentence: str) -> None:
    """As of files that were converted without the tokenizer's own file, and of Unigram vocabularies."""
    several = [scores[i % len(scores)] for i in range(259 + len(PIECES) + 4)]
    with pytest.raises(ModelError, match=sentence):
        load(sentencepiece(scores=several).write(tmp_path / "model.gguf"))


def test_phi3s_special_tokens_take_in_the_white_space_behind_them(tmp_path: Path) -> None:
    for architecture, name, kept in (
        ("llama", "A model", True),
        ("phi3", "A model", False),
        ("llama", "Phi-3-mini in Llama's form", False),
    ):
        file = sentencepiece(architecture)
        file.put("general.name", name)
        got = load(file.write(tmp_path / "model.gguf")).tokenizer
        ids = got("<|user|>\nthe<s> an")["input_ids"]
        assert (ids == got("<|user|>the<s> an")["input_ids"]) is not kept
        assert ids != got("<|user|>\nthe<s>an")["input_ids"]


# --- chat templates --------------------------------------------------------------------------------------------------


def test_a_task_can_ask_for_a_chat_template_by_name(tmp_path: Path) -> None:
    template = tiny.tokenizer_with_chat().chat_template
    file = contents(tiny.transformers_model("llama"))
    file.put("tokenizer.chat_template", template)
    file.put("tokenizer.chat_template.tool_use", "tools: {{ messages[-1].content }}")
    file.put("tokenizer.chat_templates", ["tool_use"])
    engine = TorchEngine(load(file.write(tmp_path / "model.gguf")))
    assert engine.encode("Hi", Chat()) == engine.encode("user: Hi\nassistant:")
    assert engine.encode("Hi", Chat(template="tool_use")) == engine.encode("tools: Hi")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another kind": ({"model": "t5"}, r"tokenizer.ggml.model: .*'t5'"),
    "no kind": ({"model": None}, r"lacks the key tokenizer.ggml.model"),
    "unknown cutting": ({"pre": "falcon-h9"}, r"tokenizer.ggml.pre: 'falcon-h9'.*Known: llama-bpe,"),
    "no cutting": ({"pre": None}, r"lacks the key tokenizer.ggml.pre"),
    "default cutting": ({"pre": "default"}, r"tokenizer.ggml.pre: 'default'"),
    "no types": ({"token_type": None}, r"lacks the key tokenizer.ggml.token_type"),
    "no merges": ({"merges": None}, r"lacks the key tokenizer.ggml.merges"),
    "strange merges": ({"merges": ["zz yy"]}, r"merges that do not fit its tokens"),
    "half a merge": ({"merges": ["ab"]}, r"tokenizer.ggml.merges: .*two tokens"),
    "fewer types": ({"token_type": [1, 1]}, r"tokenizer.ggml.token_type: it has 2 entries for 320"),
    "an id beyond": ({"eot_token_id": 999}, r"tokenizer.ggml.eot_token_id: there is no token 999"),
    "a pad beyond": ({"padding_token_id": 999}, r"tokenizer.ggml.padding_token_id: there is no token 999"),
    "bos without one": ({"bos_token_id": None, "add_bos_token": True}, r"lacks the key tokenizer.ggml.bos_token_id"),
    "an ordinary end": ({"eos_token_id": 40}, r"tokenizer.ggml.eos_token_id: it is 40, .* an ordinary one"),
    "an ordinary end of turn": ({"eot_token_id": 40}, r"tokenizer.ggml.eot_token_id: it is 40, .* an ordinary one"),
    "a type of the future": ({"token_type": [1] * 319 + [9]}, r"tokenizer.ggml.token_type: 9, the type of the token"),
    "numbers for texts": ({"tokens": [1, 2, 3]}, r"tokenizer.ggml.tokens: it is \[1, 2, 3\], and a list of texts"),
    "a text for a number": ({"eos_token_id": "end"}, r"eos_token_id: it is end, and a whole number"),
    "a list for a text": ({"pre": ["gpt-2"]}, r"tokenizer.ggml.pre: it is \['gpt-2'\], and a text"),
    "a space": ({"add_space_prefix": True}, r"tokenizer.ggml.add_space_prefix: "),
    "squeezed spaces": ({"remove_extra_whitespaces": True}, r"remove_extra_whitespaces: spaces"),
    "a table of letters": ({"precompiled_charsmap": [1, 2, 3]}, r"precompiled_charsmap: letters"),
    "separators": ({"add_sep_token": True}, r"add_sep_token: a separator"),
    "lower case": ({"normalizer.lowercase": True}, r"normalizer.lowercase: "),
    "another tokenizer": ({"future_key": 3}, r"tokenizer.ggml.future_key: "),
}


@pytest.mark.parametrize("what", REFUSED)
def test_tokens_that_would_be_others_are_refused(tmp_path: Path, what: str) -> None:
    keys, sentence = REFUSED[what]
    with pytest.raises(ModelError, match=sentence):
        load(write(tmp_path, **keys))


def test_keys_that_change_no_prompt_are_let_be(tmp_path: Path) -> None:
    keys = {f"fim_{part}_token_id": 3 for part in ("pre", "suf", "mid")}
    keys |= {"seperator_token_id": 1, "mask_token_id": 2, "remove_extra_whitespaces": False, "scores": [0.0] * 320}
    plain = tiny.tokenizer()("A stone")["input_ids"]
    assert load(write(tmp_path, **keys)).tokenizer("A stone")["input_ids"] == plain


def test_a_token_that_is_there_twice_or_beyond_the_embedding_is_refused(tmp_path: Path) -> None:
    file = contents(tiny.transformers_model("llama"))
    tokens = file.keys["tokenizer.ggml.tokens"]
    file.keys["tokenizer.ggml.tokens"] = [*tokens[:-1], tokens[5]]
    with pytest.raises(ModelError, match=r"tokenizer.ggml.tokens: .* is there twice"):
        load(file.write(tmp_path / "model.gguf"))
    file.keys["tokenizer.ggml.tokens"] = [*tokens, "more"]
    file.keys["tokenizer.ggml.token_type"].append(1)
    with pytest.raises(ModelError, match=r"tokenizer.ggml.tokens: there are 321 tokens, and rows for 320"):
        load(file.write(tmp_path / "model.gguf"))
