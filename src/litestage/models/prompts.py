"""Prompts as token ids: training learns behind exactly what inference sends, because both ask here."""

from __future__ import annotations

import datetime
import inspect
import random
import re
import string
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from litestage.core import Chat, ModelError, TaskError, TokenIds

Turns = list[dict[str, str]]


class Taught(NamedTuple):
    """A prompt as inference sends it, and what training asks for behind it, with the token that ends a text."""

    prompt: TokenIds
    target: TokenIds


class PromptEncoder:
    """Token ids of prompts, bare or as a turn in the model's chat template.

    ``vocabulary`` is how many tokens the model has an embedding of, ``ends`` are those that end a text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str, vocabulary: int, ends: tuple[int, ...]) -> None:
        self._tokenizer, self._name, self._vocabulary, self.ends = tokenizer, name, vocabulary, ends

    def encode(self, texts: Sequence[str], chat: Chat | None = None) -> list[TokenIds]:
        """Token ids, with the tokenizer's own special tokens in front, or those of the chat template.

        Raises `ModelError` where the chat template cannot be used, or the model has no embedding of a token, and
        `TaskError` for what the task should say of the template, or should not.
        """
        return self._encoded([self._shown(text, chat) for text in texts], bare=chat is None)

    def teach(self, texts: Sequence[str], targets: Sequence[str], chat: Chat | None = None) -> list[Taught]:
        """Prompts, and targets as what follows them. In a chat template that is the assistant's turn."""
        prompts = [self._shown(text, chat) for text in texts]
        said = [self._said(*each, chat) for each in zip(texts, prompts, targets, strict=True)]
        heads = self._encoded(prompts, bare=chat is None)
        wholes = self._encoded([p + more for p, (more, _) in zip(prompts, said, strict=True)], bare=chat is None)
        tails = self._ids([more for more, _ in said], special=False)
        return [
            Taught(head, (*_continuation(head, whole, tail), end))
            for head, whole, tail, (_, end) in zip(heads, wholes, tails, said, strict=True)
        ]

    def _encoded(self, prompts: Sequence[str], bare: bool) -> list[TokenIds]:
        """A template writes its special tokens itself; in front of a bare text the tokenizer puts its own."""
        made = [self._open(ids) if bare else ids for ids in self._ids(prompts, special=bare)]
        return [self._checked(ids, text) for ids, text in zip(made, prompts, strict=True)]

    def _ids(self, texts: Sequence[str], special: bool = True) -> list[TokenIds]:
        try:
            return [tuple(ids) for ids in self._tokenizer(list(texts), add_special_tokens=special)["input_ids"]]
        except Exception as error:  # the tokenizers' library raises plain exceptions
            raise ModelError(
                f"The tokenizer of {self._name} can make no tokens of a prompt: {_reason(error)}. Check that the "
                "tokenizer's files are complete and belong to each other."
            ) from error

    @cached_property
    def _around(self) -> tuple[int, int]:
        """How many special tokens the tokenizer puts in front of a text and behind it."""
        (whole,), (bare,) = self._ids(["a"]), self._ids(["a"], special=False)
        front = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), len(whole) - len(bare))
        return front, len(whole) - front - len(bare)

    @cached_property
    def end_behind(self) -> int | None:
        """The end that the tokenizer puts behind a text, which a prompt goes without: it is to be continued."""
        (whole,) = self._ids(["a"])
        ends = (*self.ends, self._tokenizer.eos_token_id)
        return whole[-1] if self._around[1] and whole[-1] in ends else None

    def _open(self, ids: TokenIds) -> TokenIds:
        """Without the end behind a text. Nor does a prompt begin twice where the task's own words begin with the token
        that the tokenizer puts in front."""
        front, behind = self._around
        if behind and ids[-1] == self.end_behind:
            ids = ids[: len(ids) - behind]
        twice = front and len(ids) > front and ids[front] == ids[0] == self._tokenizer.bos_token_id
        return ids[front:] if twice else ids

    def _checked(self, ids: TokenIds, text: str) -> TokenIds:
        if text.strip() and set(ids) <= {self._tokenizer.bos_token_id, self._tokenizer.unk_token_id}:
            self._check_read(text)
        if (last := max(ids, default=0)) >= self._vocabulary:
            raise ModelError(
                f"The tokenizer of {self._name} makes token {last} of a prompt "
                f"({self._tokenizer.convert_ids_to_tokens(last)!r}), but the model has an embedding of "
                f"{self._vocabulary} tokens, numbered from 0. Use the tokenizer that the model was trained with, or a "
                "model that was trained with this chat template."
            )
        return ids

    def _check_read(self, text: str) -> None:
        """Refuse a tokenizer that makes nothing of a text, as one whose files are of two kinds."""
        ((*made,),) = self._ids([text], special=False)
        unknown = self._tokenizer.unk_token_id
        if not made or (set(made) == {unknown} and unknown != self._tokenizer.eos_token_id):
            raise ModelError(
                f"The tokenizer of {self._name} makes {'unknown tokens alone' if made else 'no token'} of the prompt "
                f"{text.strip()[:40]!r}..., so the model would read nothing. Check that the tokenizer's files are "
                "complete and belong to each other."
            )

    def _said(self, text: str, prompt: str, target: str, chat: Chat | None) -> tuple[str, int]:
        """What the model should write behind a prompt, and the token that should end it.

        A chat template may put something between its prompt and an answer, and end an assistant's turn its own way.
        """
        target = target.strip()
        if chat is None:
            return " " + target, self.ends[0]
        whole = self._render([*_turns(text, chat), {"role": "assistant", "content": target}], chat, answer=False)
        at = whole.rfind(target)
        if not whole.startswith(prompt) or at < len(prompt):
            return target, self.ends[0]
        behind = self._ids([whole[at + len(target) :]], special=False)[0][:1]
        return whole[len(prompt) : at + len(target)], behind[0] if behind and behind[0] in self.ends else self.ends[0]

    def _shown(self, text: str, chat: Chat | None) -> str:
        """The prompt as the tokenizer gets it: in the chat template, ready for the model to answer."""
        if chat is None:
            return text
        written = self._render(_turns(text, chat), chat, answer=True)
        for what, part, instead in (
            ("prompt", text, "Run the task without chat_template."),
            ("system prompt", chat.system, "Take system_prompt out, or run the task without chat_template."),
        ):
            if part.strip() not in written:
                raise ModelError(
                    f"The chat template of {self._name} does not show the task's {what} as it is "
                    f"({part.strip()[:40]!r}...), so the model would not read it. {instead}"
                )
        return written

    def _render(self, turns: Turns, chat: Chat, answer: bool) -> str:
        template = self._template(chat)
        before = random.getstate() if CHANCE.search(template) else None
        try:
            written: str = self._tokenizer.apply_chat_template(
                turns,
                chat_template=_dated(template, chat),
                add_generation_prompt=answer,
                tokenize=False,
                **dict(chat.arguments),
            )
        except Exception as error:  # a template is a program of others, and raises whatever it goes wrong with
            if NO_DATE in str(error):
                raise TaskError(
                    f"The chat template of {self._name} writes today's date into prompts, so they would be others "
                    "tomorrow, and results of two different tasks would share one name. Write date = 2026-01-31, or "
                    "any other day, into the task file: prompts then keep that day."
                ) from None
            raise ModelError(
                f"The chat template of {self._name} cannot write a prompt of this task: {_reason(error)}. Correct the "
                "template, give it what it asks for in chat_template_kwargs, or run the task without chat_template."
            ) from error
        drawn = before is not None and random.getstate() != before
        if drawn or (ADDRESS.search(written) and not any(ADDRESS.search(turn["content"]) for turn in turns)):
            what = "draws words at random" if drawn else "writes where something lies in memory"
            raise ModelError(
                f"The chat template of {self._name} {what}, so a prompt would be another one each time. Correct the "
                "template, or run the task without chat_template."
            )
        return written

    def _template(self, chat: Chat) -> str:
        """The template that the task asks for; refuses one that is not there, and arguments that it does not read."""
        templates = self._tokenizer.chat_template
        if not templates:
            raise ModelError(f"The task asks for a chat template, and {self._name} has none.")
        named = templates if isinstance(templates, dict) else {}
        if (chat.template or "default") not in named and (named or chat.template):
            have = f"those called {', '.join(sorted(named))}" if named else "one without a name"
            asked = f"one called {chat.template!r}" if chat.template else "its default one"
            raise ModelError(
                f"The task asks for a chat template, {asked}, and {self._name} has {have}. "
                'Write chat_template = "NAME" for one of several, or chat_template = true for one without a name.'
            )
        template: str = named[chat.template or "default"] if named else templates
        for name, _ in chat.arguments:
            if name in OWN_ARGUMENTS or not re.search(rf"\b{re.escape(name)}\b", template):
                raise TaskError(
                    f"chat_template_kwargs gives {name}, which the chat template of {self._name} does not read, so it "
                    "would change nothing. Take it out, or correct its name."
                )
        return template


OWN_ARGUMENTS = frozenset(
    [*inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters, "messages", "strftime_now"]
)
"""What `apply_chat_template` takes for itself."""
NO_DATE = "the task has no date"
DIRECTIVES = [f"%{flag}{letter}" for flag in ("-", "_", "0", "^", "#", "") for letter in string.ascii_letters]
"""What `strftime` may make something of; which of them, the system says."""
TIME_ZONE = "s"
"""The letter of a directive that says another time on another machine."""
CHANCE = re.compile(r"random|lipsum")
"""In a template that may draw."""
ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}>")
"""How Python writes an object that has no better name."""


def prompt_encoder(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> PromptEncoder:
    """Of a transformers model."""
    return PromptEncoder(tokenizer, name, model.get_input_embeddings().weight.shape[0], eos_ids(model, tokenizer))


def eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """All token ids that end a generation, as transformers has them: those that the model's settings name, else the
    tokenizer's own. That one is first where it is among them, since the first replaces a token on exit."""
    configured = model.generation_config.eos_token_id if model.generation_config else None
    several = configured if isinstance(configured, list) else [configured]
    rows = model.get_input_embeddings().weight.shape[0]
    own = tokenizer.eos_token_id
    named, by_tokenizer = ([i for i in ids if i is not None and 0 <= i < rows] for ids in (several, [own]))
    found = tuple(sorted(dict.fromkeys(named or by_tokenizer), key=lambda i: i != own))  # others no model can write
    if not found and (beyond := [i for i in (*several, own) if i is not None and i >= rows]):
        raise ModelError(
            f"The token that ends a text, {beyond[0]}, is beyond the model's embedding of {rows} tokens, so no text "
            "could end by itself. Name one that the model has as eos_token_id in its generation_config.json."
        )
    if not found:
        raise ModelError(
            "The model names no end-of-sequence token, so a generation could not end by itself, nor learn to. Name one "
            "as eos_token in its tokenizer_config.json, or as eos_token_id in its generation_config.json."
        )
    return found


def _turns(text: str, chat: Chat) -> Turns:
    system = [{"role": "system", "content": chat.system}] if chat.system else []
    return [*system, {"role": "user", "content": text}]


def _dated(template: str, chat: Chat) -> str:
    """The template with a clock that stands still: transformers' own says today, and takes no other one."""
    if "strftime_now" not in template:
        return template
    if chat.date is None:
        said = f"{{{{ raise_exception({NO_DATE!r}) }}}}"
    else:
        written = _written(datetime.datetime.combine(chat.date, datetime.time()))
        said = (
            "{% set now = namespace(text=format | replace('%%', '\0')) %}"
            f"{{% for part, said in {written!r} %}}{{% set now.text = now.text | replace(part, said) %}}{{% endfor %}}"
            "{% if '%' in now.text %}"
            "{{ raise_exception('it asks for the day as ' ~ format ~ ', which is not known here') }}{% endif %}"
            "{{ now.text | replace('\0', '%') }}"
        )
    # The empty text keeps a line break that the template may begin with.
    return f"{{% macro strftime_now(format) %}}{said}{{% endmacro %}}{{{{ '' }}}}{template}"


def _written(day: datetime.datetime) -> list[tuple[str, str]]:
    """What each directive says of a day."""
    said = []
    for part in DIRECTIVES:
        with suppress(ValueError):  # some systems refuse what others leave as it is
            said.append((part, day.strftime(part)))
    return [(part, text) for part, text in said if text != part and not part.endswith(TIME_ZONE)]


def _continuation(head: TokenIds, whole: TokenIds, tail: TokenIds) -> TokenIds:
    """A target's ids after its prompt, from both encoded together: a tokenizer of Llama's kind puts one space too many
    before a text of its own. Where the two merge at the seam, the target encoded alone."""
    return whole[len(head) :] if whole[: len(head)] == head else tail


def _reason(error: Exception) -> str:
    line = getattr(error, "lineno", None)
    said = (str(error).strip() or type(error).__name__).split("\n")[0].rstrip(".")
    return f"{said} (line {line} of it)" if line else said
