"""Stages and tasks as data: what is asked of the model, in which words, and how its answer is read."""

from __future__ import annotations

import datetime
import re
import string
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from litestage.core.complaints import did_you_mean, problem
from litestage.core.errors import OptionError
from litestage.core.layers import Record
from litestage.core.plan import content_hash
from litestage.core.request import GREEDY, Chat, Sampling
from litestage.tasks import answers
from litestage.tasks.answers import Answers
from litestage.tasks.question import LETTERS, Question

BRANCH_FIELDS = frozenset({"letter", "choice"})
QUESTION_FIELDS = frozenset({"question", "choices"})
ANSWER_FIELDS = frozenset({"answer", "answer_letter"})
SINCE = ("answers", "chat_template_kwargs", "system_prompt", "date")
"""Fields that tasks did not always have: where one is not used, fingerprints are what they were."""
EXAMPLE = Question(id="example", question="Which?", choices=("first", "second"))
"""What a task is tried on before there are questions."""
_LABEL = re.compile(r"\s*|[^{}]*:\s*")


class Stage(Record):
    """One kind of generation.

    Templates use ``{question}``, ``{choices}`` ("(A) first (B) second"), the name of any earlier stage, and, in a
    stage that fans out, ``{letter}`` and ``{choice}``.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    prompt: str
    fan_out: Literal["none", "choices"] = "none"
    item: str = "{text}"
    """How one branch's ``{text}`` reads in later prompts."""
    join: str = " "
    """What stands between branches."""
    end_sentence: bool = False
    """Append "." to a text that does not end in ``.``, ``"`` or ``'`` (as TinyThinker does)."""
    max_new_tokens: int = Field(default=200, ge=1)
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    sampling: Sampling = GREEDY
    """How votes are drawn; without votes every stage is greedy."""
    one_of: str | None = None
    """The only texts that the stage may write, one for each choice: a template with ``{letter}`` or ``{choice}``."""
    target: str | None = None
    """Training target with the right answer's ``{letter}`` and ``{choice}``; None takes the question's own text."""

    def branches(self, question: Question) -> int:
        return len(question.choices) if self.fan_out == "choices" else 1

    def choices(self, question: Question) -> tuple[str, ...]:
        """The texts that it may write, in the order of the question's choices; none where it is free."""
        if self.one_of is None:
            return ()
        return tuple(self.one_of.format(**_branch_fields(question, i)) for i in range(len(question.choices)))

    def join_texts(self, texts: Sequence[str], question: Question) -> str:
        """What later stages see: each branch through ``item``, joined in choice order."""
        return self.join.join(
            self.item.format(text=self._finish(text), **_branch_fields(question, i)) for i, text in enumerate(texts)
        )

    def _finish(self, text: str) -> str:
        text = text.strip()
        return text + "." if self.end_sentence and not text.endswith((".", '"', "'")) else text


class TargetRule(Record):
    """How a stage's training target is written where a question has none of its own: see `tasks.targets`.

    Either ``take``, for a stage without fan-out, or ``right`` and ``wrong``, wordings for each choice with
    ``{choice}``, ``{letter}``, ``{answer}`` and ``{answer_letter}`` (the right choice) and earlier stages' targets.
    """

    take: tuple[str, ...] = ()
    """Fields of the question whose text will do, the best first."""
    sentences: int = Field(default=1, ge=1)
    """How many sentences of that text at most."""
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_kind(self) -> TargetRule:
        if bool(self.take) == bool(self.right) or bool(self.right) != bool(self.wrong):
            raise ValueError("a rule for targets needs either `take`, or both `right` and `wrong`")
        return self


class Task(Record):
    """Stages in order and the pattern that finds the answer in the last one's text."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    description: str = ""
    stages: tuple[Stage, ...] = Field(min_length=1)
    answer_pattern: str = r"the answer is option ([A-Z])\."
    answers: Answers = "letters"
    """What the pattern's group finds, and so how it is read."""
    questions: str | None = None
    """Where the questions come from when no ``--data`` is given: ``embedded:NAME``, ``hub:NAME`` or a folder."""
    examples: tuple[Question, ...] = ()
    """Worked examples at hand for models that were not trained on the task; `with_shots` shows some of them."""
    shots: tuple[Question, ...] = ()
    """The worked examples in front of every prompt."""
    chat_template: bool | Annotated[str, Field(min_length=1)] = False
    """Whether prompts are a user's turn in the model's chat template; a name takes that one of several."""
    chat_template_kwargs: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """What the chat template is given besides, such as ``enable_thinking``."""
    system_prompt: str = ""
    """What the system's turn in front of a prompt says."""
    date: datetime.date | None = None
    """The day that a chat template is told when it asks."""
    target_rules: dict[str, TargetRule] = Field(default_factory=dict)
    """By stage: training targets for questions that have none."""

    @field_validator("answer_pattern")
    @classmethod
    def _one_group(cls, pattern: str) -> str:
        if (groups := answers.groups(pattern)) != 1:
            raise ValueError(
                f"{pattern!r} must have one group, around the answer, but has {groups}: write (?:...) for the others"
            )
        return pattern

    @model_validator(mode="after")
    def _can_answer(self) -> Task:
        answers.check(self.answer_pattern, self.answers)
        return self

    @field_validator("date", mode="before")
    @classmethod
    def _written_date(cls, value: object) -> object:
        """TOML and YAML have dates of their own; one in quotes is meant as well."""
        if isinstance(value, str):
            try:
                return datetime.date.fromisoformat(value)
            except ValueError:
                raise ValueError(f"{value!r} is not a day, which is written 2026-01-31") from None
        return value

    @model_validator(mode="after")
    def _template_is_asked_for(self) -> Task:
        given = [name for name in ("chat_template_kwargs", "system_prompt", "date") if getattr(self, name)]
        if given and not self.chat_template:
            raise ValueError(f"{given[0]} is for a chat template, and the task asks for none: add chat_template = true")
        return self

    @model_validator(mode="after")
    def _known_fields(self) -> Task:
        seen: set[str] = set()
        for stage in self.stages:
            if stage.name == "all":
                raise ValueError("a stage cannot be called 'all', which is what all of them together are called")
            if stage.name in seen or stage.name in QUESTION_FIELDS | BRANCH_FIELDS:
                raise ValueError(f"two things are called {stage.name!r}: rename the stage")
            branch = BRANCH_FIELDS if stage.fan_out == "choices" else frozenset()
            _check_fields(stage.name, "prompt", stage.prompt, QUESTION_FIELDS | branch | seen)
            _check_fields(stage.name, "item", stage.item, {"text"} | branch)
            _check_fields(stage.name, "target", stage.target or "", set(BRANCH_FIELDS))
            _check_fields(stage.name, "one_of", stage.one_of or "", set(BRANCH_FIELDS))
            self._check_rule(stage, seen)
            seen.add(stage.name)
        if unknown := sorted(set(self.target_rules) - seen):
            raise ValueError(f"target_rules names {unknown[0]!r}, which is not a stage of the task")
        return self

    def _check_rule(self, stage: Stage, seen: set[str]) -> None:
        if (rule := self.target_rules.get(stage.name)) is None:
            return
        if bool(rule.right) != (stage.fan_out == "choices"):
            kind = "`right` and `wrong`" if stage.fan_out == "choices" else "`take`"
            raise ValueError(f"stage {stage.name}: its rule for targets should have {kind}")
        for wording in (*rule.right, *rule.wrong):
            _check_fields(stage.name, "target", wording, {*BRANCH_FIELDS, *ANSWER_FIELDS, *seen})

    @model_validator(mode="after")
    def _one_answer(self) -> Task:
        if (last := self.stages[-1]).fan_out != "none":
            raise ValueError(
                f"stage {last.name} is the last one and fans out, so a question would have several answers: "
                "add a stage that sums up"
            )
        return self

    @model_validator(mode="after")
    def _choices_are_read(self) -> Task:
        for stage in self.stages:
            if stage.one_of is None:
                continue
            if stage.fan_out == "choices":
                raise ValueError(f"stage {stage.name} fans out, so each branch has a choice already: take one_of out")
            texts = stage.choices(EXAMPLE)
            if len(set(texts)) < len(texts):
                raise ValueError(
                    f"stage {stage.name}: its one_of is the same text for every choice: use {{letter}} or {{choice}}"
                )
            if stage == self.stages[-1] and (
                lost := next((text for i, text in enumerate(texts) if self.parse(text, EXAMPLE) != i), None)
            ):
                raise ValueError(
                    f"stage {stage.name}: of its one_of, answer_pattern {self.answer_pattern!r} reads {lost!r} as "
                    "another answer, or none: change one of the two"
                )
        return self

    @model_validator(mode="after")
    def _complete_examples(self) -> Task:
        for example in self.examples:
            for stage in self.stages:
                _check_example(stage, example.id, self.targets(stage, example) or [], stage.branches(example))
        return self

    @property
    def stage_names(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that shapes prompts and answers."""
        fields = type(self).model_fields
        unused = {name for name in SINCE if getattr(self, name) == fields[name].get_default(call_default_factory=True)}
        content = self.model_dump(
            mode="json", exclude={"description", "questions", "examples", "target_rules"} | unused
        )
        for stage in content["stages"]:
            if stage["one_of"] is None:
                del stage["one_of"]
        return content_hash(content)

    @property
    def by_choice(self) -> bool:
        """Whether some stage's text is one of a set."""
        return any(stage.one_of is not None for stage in self.stages)

    @property
    def chat(self) -> Chat | None:
        """How prompts become turns of the model's chat template; None where they do not."""
        if not self.chat_template:
            return None
        return Chat(
            template=self.chat_template if isinstance(self.chat_template, str) else None,
            system=self.system_prompt,
            arguments=tuple(sorted(self.chat_template_kwargs.items())),
            date=self.date,
        )

    def stage(self, name: str) -> Stage:
        """The stage of this name; raises `OptionError` when there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise OptionError(
            f"{name!r} is not a stage of task {self.name}.{did_you_mean(name, self.stage_names)} "
            f"Its stages are {', '.join(self.stage_names)}."
        )

    def prompts(self, stage: Stage, question: Question, texts: Mapping[str, str]) -> list[str]:
        """The stage's prompt for each branch; ``texts`` holds what earlier stages wrote."""
        fields = {"question": question.question, "choices": list_choices(question.choices), **texts}
        header = self.header(stage)
        return [
            header + stage.prompt.format(**fields, **_branch_fields(question, branch))
            for branch in range(stage.branches(question))
        ]

    def targets(self, stage: Stage, question: Question) -> list[str] | None:
        """The text that training asks for in each branch; None when the question has none."""
        if stage.target is not None:
            if question.answer is None:
                return None
            return [stage.target.format(**_branch_fields(question, question.answer))] * stage.branches(question)
        target = question.targets.get(stage.name)
        return [target] if isinstance(target, str) else list(target) if target else None

    def parse(self, text: str, question: Question | None = None) -> int | None:
        """Index of the answer: what the first match of the pattern stands for.

        None when nothing matches, or when it stands for none of the choices of ``question``. Raises `TaskError` for a
        pattern that takes longer than `answers.SECONDS`.
        """
        found = answers.find(self.answer_pattern, text)
        choices = question.choices if question else ("",) * len(LETTERS)
        return None if found is None else answers.read(found, self.answers, choices)

    def can_read(self, question: Question) -> bool:
        """Whether some text could be read as the right answer of the question."""
        if (right := question.answer) is None:
            return True
        return answers.can_read(self.answer_pattern, self.answers, right, question.choices[right])

    def with_shots(self, count: int) -> Task:
        """The task with its first ``count`` worked examples in front of every prompt; each answer ends at a newline.

        Raises `OptionError` for a count below 0 or above the number of examples.
        """
        examples = self.examples or self.shots
        if not 0 <= count <= len(examples):
            have = "one worked example" if len(examples) == 1 else f"{len(examples) or 'no'} worked examples"
            few = f"0 to {len(examples)}" if examples else "0"
            raise OptionError(
                f"--shots {count} cannot be had: task {self.name} has {have}. "
                f"Choose {few}, or add [[examples]] to its task file."
            )
        if not count:
            return self.model_copy(update={"shots": ()})
        stages = tuple(stage.model_copy(update={"stop": _with_newline(stage.stop)}) for stage in self.stages)
        return self.model_copy(update={"shots": examples[:count], "stages": stages})

    def without(self, name: str) -> Task:
        """The task with one stage left out: later prompts lose its text, with the line of a label that announced it.

        Raises `OptionError` for the last stage, which answers.
        """
        left_out = self.stage(name)
        if left_out == self.stages[-1]:
            raise OptionError(f"Stage {name} cannot be left out of task {self.name}: it gives the answer.")
        stages = tuple(
            stage.model_copy(update={"prompt": _without_text(stage.prompt, name)})
            for stage in self.stages
            if stage != left_out
        )
        return self.model_copy(update={"stages": stages})

    def with_limits(self, limits: Mapping[str, int]) -> Task:
        """The task with other limits of new tokens for some stages, by name."""
        stages = tuple(
            stage.model_copy(update={"max_new_tokens": limits.get(stage.name, stage.max_new_tokens)})
            for stage in self.stages
        )
        return self.model_copy(update={"stages": stages})

    def answering(self, how: Literal["free", "choice"]) -> Task:
        """The task whose last stage writes what it likes, or one of its target's texts, one for each choice.

        Raises `OptionError` where the task does not say what those are.
        """
        last = self.stages[-1]
        if how == "choice" and last.one_of is None and last.target is None:
            raise OptionError(
                f"--answering choice: stage {last.name} of task {self.name} does not say what its texts may be. "
                'Give it one_of = "So the answer is option {letter}." in the task file.'
            )
        if how == "free":
            stages = [stage.model_copy(update={"one_of": None}) for stage in self.stages]
        else:
            stages = [*self.stages[:-1], last.model_copy(update={"one_of": last.one_of or last.target})]
        try:
            return type(self).model_validate(dict(self) | {"stages": tuple(stages)})
        except ValidationError as error:
            raise OptionError(f"--answering {how}: task {self.name}: {problem(error, None, {})}.") from None

    def header(self, stage: Stage) -> str:
        """The worked examples in front of every prompt of the stage."""
        return "".join(self._shot(stage, question, i) + "\n\n" for i, question in enumerate(self.shots))

    def _shot(self, stage: Stage, question: Question, index: int) -> str:
        """A worked example of one stage; a stage that fans out shows another branch in each example."""
        texts: dict[str, str] = {}
        bare = self.model_copy(update={"shots": ()})
        for earlier in self.stages[: self.stage_names.index(stage.name)]:
            texts[earlier.name] = earlier.join_texts(bare.targets(earlier, question) or [], question)
        branch = index % stage.branches(question)
        prompt = bare.prompts(stage, question, texts)[branch]
        return f"{prompt} {(bare.targets(stage, question) or [''])[branch]}"


def _without_text(prompt: str, name: str) -> str:
    """A label with nothing behind it would be one more thing for the model to answer."""
    lines: list[str] = []
    for line in prompt.split("\n"):
        rest = re.sub(rf" ?\{{{name}\}}", "", line)
        if rest == line or not _LABEL.fullmatch(rest):
            lines.append(rest)
        elif not rest.strip() and lines and _LABEL.fullmatch(lines[-1]):
            lines.pop()
    return "\n".join(lines)


def list_choices(choices: Sequence[str]) -> str:
    return " ".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def _branch_fields(question: Question, branch: int) -> dict[str, str]:
    return {"letter": LETTERS[branch], "choice": question.choices[branch]}


def _with_newline(stop: tuple[str, ...]) -> tuple[str, ...]:
    return stop if "\n" in stop else (*stop, "\n")


def _check_example(stage: Stage, example: str, targets: Sequence[str], branches: int) -> None:
    if len(targets) != branches:
        raise ValueError(
            f"example {example!r} has {len(targets)} texts for stage {stage.name} and needs {branches}: "
            "a worked example shows every stage"
        )
    if any("\n" in target for target in targets):
        raise ValueError(f"example {example!r} has a line break in its {stage.name}, where few-shot answers end")


def _check_fields(stage: str, part: str, template: str, known: set[str] | frozenset[str]) -> None:
    try:
        fields = [field for field in string.Formatter().parse(template) if field[1] is not None]
    except ValueError as error:
        raise ValueError(f"stage {stage}: its {part} is not a template: {error} (a brace is written twice)") from None
    for _, name, spec, conversion in fields:
        if name not in known or spec or conversion:
            written = f"{name}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}"
            raise ValueError(
                f"stage {stage}: its {part} uses {{{written}}}, which is not known there; it may use "
                + ", ".join(f"{{{field}}}" for field in sorted(known))
                + " (a brace is written twice)"
            )
