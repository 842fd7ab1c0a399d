"""Prompts as token ids: what transformers makes of a chat template, and the same in training as in inference."""

from __future__ import annotations

import datetime
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from tokenizers import Regex, Tokenizer, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from litestage.core import Chat, DataError, ModelError, Plan, TaskError
from litestage.engine import TorchEngine
from litestage.models import load_model
from litestage.models.check import check_model
from litestage.models.prompts import PromptEncoder, prompt_encoder
from litestage.pipeline import run
from litestage.tasks import Question, Stage, Task
from litestage.training.packing import examples_of

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
TRIMS_AND_OPENS = (
    "{{ bos_token }}{% for m in messages %}{{ '[' + m.role + '] ' + m.content | trim + ' ' }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)
DATED = "{{ 'Today is ' + strftime_now('%d %B %Y') + '. ' }}" + CHATML
TEXT = "\nWhich of these floats? (A) a stone (B) a cork\nAnswer: "
TEXTS = [TEXT, "Why?"]
THINKS_NOT = Chat(arguments=(("enable_thinking", False),))
DAY = Chat(date=datetime.date(2026, 1, 31))
ENDS = ("<|im_start|>", "<|im_end|>")


def tokenizer(
    template: Any = None, front: bool = False, behind: bool = False, **tokens: Any
) -> PreTrainedTokenizerFast:
    """The tiny one with a chat template, whose BOS stands in front of a text and EOS behind it where asked."""
    made = deepcopy(tiny.tokenizer())
    made.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": list(ENDS)} | tokens)
    around = ("<s> " if front else "") + "$A" + (f" {tiny.EOS}" if behind else "")
    special = [(token, made.convert_tokens_to_ids(token)) for token in ("<s>", tiny.EOS)]
    made.backend_tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(single=around, special_tokens=special)]
    )
    made.chat_template = template
    return made


def encoder(made: PreTrainedTokenizerFast, vocabulary: int = 1000, name: str = "some model") -> PromptEncoder:
    return PromptEncoder(made, name, vocabulary, (made.eos_token_id, made.convert_tokens_to_ids("<|im_end|>")))


@pytest.mark.parametrize("front", [False, True])
@pytest.mark.parametrize(
    ("template", "chat", "arguments"),
    [
        (CHATML, Chat(), {}),
        (CHATML, THINKS_NOT, {"enable_thinking": False}),
        (CHATML, Chat(system="Be brief."), {}),
        (TRIMS_AND_OPENS, Chat(), {}),
        ({"default": CHATML, "plain": TRIMS_AND_OPENS}, Chat(), {}),
        ({"brief": CHATML, "plain": TRIMS_AND_OPENS}, Chat(template="plain"), {"chat_template": "plain"}),
    ],
)
def test_a_chat_templates_ids_are_those_of_transformers(
    template: Any, chat: Chat, arguments: dict[str, Any], front: bool
) -> None:
    made = tokenizer(template, front)
    system = [{"role": "system", "content": chat.system}] if chat.system else []
    expected = [
        made.apply_chat_template(
            [*system, {"role": "user", "content": text}], add_generation_prompt=True, return_dict=False, **arguments
        )
        for text in TEXTS
    ]
    assert encoder(made).encode(TEXTS, chat) == [tuple(ids) for ids in expected]
    assert all(ids.count(made.bos_token_id) <= 1 for ids in expected)


def test_a_bare_prompt_has_the_tokens_in_front_of_it_once_and_none_behind() -> None:
    bare = encoder(tokenizer()).encode(TEXTS)
    bos = tokenizer().bos_token_id
    for behind in (False, True):
        assert encoder(tokenizer(behind=behind)).encode(TEXTS) == bare
        asked = encoder(tokenizer(front=True, behind=behind))
        assert asked.encode(TEXTS) == [(bos, *ids) for ids in bare]
        assert asked.encode([f"<s>{text}" for text in TEXTS]) == [(bos, *ids) for ids in bare]
        assert asked.encode([f"{TEXT}{tiny.EOS}"])[0][-1] == tokenizer().eos_token_id, "the task's own stays"


def test_the_day_is_the_tasks() -> None:
    made = tokenizer(DATED)
    (ids,) = encoder(made).encode([TEXT], DAY)
    assert "Today is 31 January 2026." in made.decode(ids)
    for form in (
        "%Y-%m-%d",
        "%-d/%-m %y",
        "%A, %b %d",
        "100 %% on %j",
        "%H:%M:%S",
        "%T %R %G-%V %e %_d %^a",
        "no directive",
    ):
        (ids,) = encoder(tokenizer(f"\n{{{{ strftime_now({form!r}) }}}}|{CHATML}")).encode([TEXT], DAY)
        assert made.decode(ids).split("|")[0] == "\n" + datetime.datetime(2026, 1, 31).strftime(form)
    with pytest.raises(TaskError, match=r"today's date.* date = \d{4}-\d\d-\d\d"):
        encoder(made).encode([TEXT], Chat())
    written = "{{ date_string if date_string is defined else strftime_now('%d') }}" + CHATML
    own = Chat(arguments=(("date_string", "a Monday"),))
    assert "a Monday" in made.decode(encoder(tokenizer(written)).encode([TEXT], own)[0])


@pytest.mark.parametrize(
    ("template", "chat", "sentence"),
    [
        (None, Chat(), "some model has none"),
        ({}, Chat(), "some model has none"),
        ({"brief": CHATML, "tool_use": CHATML}, Chat(), "its default one, .* those called brief, tool_use"),
        ({"brief": CHATML}, Chat(template="short"), "one called 'short', .* those called brief"),
        (CHATML, Chat(template="short"), "one called 'short', .* has one without a name"),
        ("{{ raise_exception('Roles must alternate') }}", Chat(), "some model cannot .*: Roles must alternate"),
        ("{% for m in messages %}\n{{ m.content }", Chat(), r"some model cannot .*line 2 of it"),
        ("{{ messages[0].parts[0].text }}", Chat(), "some model cannot .*parts"),
        ("{{ messages[0].content + 1 }}", Chat(), "some model cannot"),
        ("{% for c in messages[0].content %}{{ c.text }}{% endfor %}", Chat(), "does not show the task's prompt"),
        ("{{ ['Sir', 'Madam'] | random }}" + CHATML, Chat(), "draws words at random"),
        ("{{ lipsum(1) }}" + CHATML, Chat(), "draws words at random"),
        ("{{ messages | map(attribute='role') }}" + CHATML, Chat(), "writes where something lies in memory"),
        ("{{ strftime_now('%s') }}" + CHATML, DAY, "asks for the day as %s"),
        ("{{ strftime_now('%5Y') }}" + CHATML, DAY, "asks for the day as %5Y"),
        ("Hello", Chat(), "does not show the task's prompt"),
        (
            "{{ messages[-1].content }}",
            Chat(system="Be brief."),
            "does not show the task's system prompt .*'Be brief.'",
        ),
    ],
)
def test_a_chat_template_that_cannot_be_used_is_a_sentence(template: Any, chat: Chat, sentence: str) -> None:
    with pytest.raises(ModelError, match=f"(?s){sentence}"):
        encoder(tokenizer(template)).encode([TEXT], chat)


def test_a_template_that_could_draw_and_does_not_is_used() -> None:
    asked = encoder(tokenizer("{% if tools %}{{ [1, 2] | random }}{% endif %}" + CHATML)).encode(TEXTS, Chat())
    assert asked == encoder(tokenizer(CHATML)).encode(TEXTS, Chat())
    told = "At <x at 0x7f8bc7efbfd0> floats?"
    assert told in tokenizer().decode(encoder(tokenizer(CHATML)).encode([told], Chat())[0])


@pytest.mark.parametrize("name", ["enable_thinkin", "tokenize", "messages", "strftime_now", "tools"])
def test_an_argument_that_the_template_does_not_read_is_refused(name: str) -> None:
    with pytest.raises(TaskError, match=f"chat_template_kwargs gives {name}, .* does not read"):
        encoder(tokenizer(DATED + "{{ tools }}")).encode([TEXT], Chat(arguments=((name, False),)))


@pytest.mark.parametrize("chat", [None, Chat()])
def test_tokens_beyond_the_embedding_are_named(chat: Chat | None) -> None:
    made = tokenizer(CHATML)
    last = made.convert_tokens_to_ids("<|im_end|>")
    text = TEXT if chat else f"{TEXT}<|im_end|>"
    assert max(encoder(made, last + 1).encode([text], chat)[0]) == last
    with pytest.raises(ModelError, match=rf"token {last} .*'<\|im_end\|>'.* {last} tokens"):
        encoder(made, last).encode([text], chat)
    with pytest.raises(ModelError, match="an embedding of"):
        TorchEngine(replace(tiny.loaded("llama"), tokenizer=made)).encode(text, chat)


TASK = {
    "name": "two_steps",
    "stages": (
        Stage(name="hint", prompt="{question}\n{choices}\nHint:", max_new_tokens=3),
        Stage(name="pick", prompt="{question}\nHint: {hint}\nOption {letter}:", fan_out="choices", max_new_tokens=3),
        Stage(name="sum_up", prompt="{question}\n{choices}\nSummarize:", target="It is {letter}.", max_new_tokens=3),
    ),
}
QUESTION = Question(
    id="one",
    question="Which of these would float on water?",
    choices=("a stone", "a cork"),
    answer=1,
    targets={"hint": "Cork is light", "pick": ("no", "yes")},
)


@pytest.mark.parametrize("around", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize(
    ("template", "options"),
    [
        (None, {}),
        (CHATML, {"chat_template": True}),
        (CHATML, {"chat_template": True, "chat_template_kwargs": {"enable_thinking": False}}),
        (TRIMS_AND_OPENS, {"chat_template": True}),
        ({"a": DATED}, {"chat_template": "a", "system_prompt": "Be brief.", "date": DAY.date}),
    ],
)
def test_training_learns_behind_the_ids_that_inference_sends(
    template: Any, options: dict[str, Any], around: tuple[bool, bool]
) -> None:
    """The prompts of inference are those of a run whose stages wrote exactly the training targets."""
    task = Task(**TASK, **options)
    model = tiny.new_model("llama")
    made = tokenizer(template, *around)
    model.resize_token_embeddings(len(made))
    examples = examples_of(task, QUESTION, prompt_encoder(model, made, "tiny"))
    engine = TorchEngine(tiny.from_transformers(model, made, "tiny", device="cpu"))
    texts: dict[str, str] = {}
    sent = []
    for stage in task.stages:
        sent += [engine.encode(prompt, task.chat) for prompt in task.prompts(stage, QUESTION, texts)]
        texts[stage.name] = stage.join_texts(task.targets(stage, QUESTION) or [], QUESTION)
    assert [example.prompt for example in examples] == sent
    plan = Plan.full_depth(engine.identity, task.name, task.fingerprint)
    (trace,) = run(engine, task, [QUESTION], plan)
    assert trace.stages[0].prompt_tokens == (len(sent[0]),)


@pytest.mark.parametrize(
    ("template", "chat", "behind"),
    [
        (None, None, (" Cork floats.", tiny.EOS)),
        (CHATML, Chat(), ("Cork floats.", "<|im_end|>")),
        (CHATML, THINKS_NOT, ("Cork floats.", tiny.EOS)),
        (TRIMS_AND_OPENS, Chat(), (" Cork floats.", tiny.EOS)),
    ],
)
def test_what_is_learnt_is_what_the_template_puts_behind_the_prompt(
    template: Any, chat: Chat | None, behind: tuple[str, str]
) -> None:
    """An answer stands where an assistant's turn has it, and ends as one does, where the model ends a text so."""
    made = tokenizer(template, front=True)
    ((prompt, target),) = encoder(made).teach([TEXT], [" Cork floats. "], chat)
    assert [made.decode(target[:-1]), made.decode(target[-1:])] == list(behind)
    assert encoder(made).encode([TEXT], chat) == [prompt]
    assert target == tuple(made("".join(behind), add_special_tokens=False)["input_ids"])


def test_a_tokenizer_without_an_end_of_text_takes_the_models() -> None:
    made = deepcopy(tokenizer())
    made.eos_token = None
    model = tiny.new_model("llama")
    model.resize_token_embeddings(len(made))
    learnt = examples_of(Task(**TASK), QUESTION, prompt_encoder(model, made, "tiny"))
    assert {example.target[-1] for example in learnt} == {tiny.tokenizer().eos_token_id}
    model.generation_config.eos_token_id = None
    with pytest.raises(ModelError, match=r"no end-of-sequence token.*eos_token"):
        prompt_encoder(model, made, "tiny")


def test_prompts_too_long_in_the_template_are_refused_before_they_run() -> None:
    task = Task(**TASK, chat_template=True, system_prompt="Be brief. " * 200)
    engine = TorchEngine(replace(tiny.loaded("llama"), tokenizer=tiny.tokenizer_with_chat()))
    with pytest.raises(DataError, match="Question one: its hint prompt has"):
        run(engine, task, [QUESTION], Plan.full_depth(engine.identity, task.name, task.fingerprint))


def test_a_tokenizer_that_makes_nothing_of_a_prompt_is_refused() -> None:
    """As one whose files are of two kinds: no prompt would be read."""
    made = deepcopy(tokenizer())
    made.backend_tokenizer.normalizer = normalizers.Replace(Regex("."), "")
    with pytest.raises(ModelError, match=r"some model makes no token of the prompt 'Which"):
        encoder(made).encode(["Which floats?"])
    assert encoder(tokenizer()).encode([""]) == [()]
    unknown = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    words = PreTrainedTokenizerFast(tokenizer_object=unknown, unk_token="<unk>")
    with pytest.raises(ModelError, match=r"makes unknown tokens alone of the prompt 'b'"):
        PromptEncoder(words, "some model", 1000, (1,)).encode(["b"])


def test_the_end_behind_a_text_is_taken_off_a_prompt_and_told(tmp_path: Path) -> None:
    folder = tiny.saved(tmp_path)
    tokenizer(front=False, behind=True).save_pretrained(folder)
    plain = tiny.tokenizer()("Hi")["input_ids"]
    assert load_model(str(folder), device="cpu").prompts.encode(["Hi"]) == [tuple(plain)]
    (entry,) = (one for one in check_model(str(folder)).ledger.entries if "post_processor" in one.name)
    assert (entry.verdict, "taken off" in entry.why) == ("harmless", True)
    assert not any("post_processor" in one.name for one in check_model("everyday").ledger.entries)
