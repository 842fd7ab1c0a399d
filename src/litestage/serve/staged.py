"""Staged answers: a question with its choices goes through the task's stages, as a chat or as a typed decision."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from litestage.core import DataError, StageTrace, Trace, names
from litestage.core.drafts import Drafts, DraftSource
from litestage.evaluation import majority
from litestage.jobs.answer import read_question
from litestage.pipeline import Spine, Votes
from litestage.serve.envelope import Envelope, Json, usage
from litestage.serve.errors import ApiError
from litestage.serve.offer import Offer
from litestage.serve.protocol import ChatBody, DecisionBody, StagedSettings, StreamOptions
from litestage.serve.work import Job, LineDone, Message, StageBegun, StageDone, VoteLine, Written
from litestage.tasks import LETTERS, Question, check_text


@dataclass(frozen=True, kw_only=True)
class StagedRequest(Envelope):
    """A body for staged answers, understood."""

    plan: str
    questions: tuple[Question, ...]
    votes: int
    """Of each question."""
    choices: int
    """Answers that are told: one, or each vote's own."""
    seed: int | None
    """What votes are drawn by; None where texts are greedy."""
    trace: bool
    drafts: DraftSource
    """From what it is drafted, at most."""
    ignored: tuple[str, ...] = ()
    begun: float = field(default_factory=time.perf_counter)


FOR_TEXTS = ("temperature", "top_p", "top_k", "stop", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs")
"""Fields that say how a bare text is drawn: a task's stages say it themselves."""


def chat(offer: Offer, body: ChatBody, settings: StagedSettings) -> StagedRequest:
    """What a body for ``/v1/chat/completions`` orders from a task; raises `ApiError` for what cannot be."""
    if body.n is not None and settings.votes is not None and body.n != settings.votes:
        raise ApiError(400, f"n says {body.n} votes and litestage.votes {settings.votes}.", param="litestage.votes")
    last = body.messages[-1]
    if last.role != "user":
        raise ApiError(400, "The last message must be the user's, with a question and its choices.", param="messages")
    try:
        question = read_question(last.text, ())
    except DataError as error:
        raise ApiError(400, str(error), param="messages", code="no_question") from None
    ignored = [name for name in FOR_TEXTS if name in body.model_fields_set and getattr(body, name) is not None]
    ignored += [f"messages[{place}]" for place in range(len(body.messages) - 1)]
    return _request(
        offer,
        body.model,
        (question,),
        settings,
        votes=body.n or settings.votes or 1,
        choices=body.n or 1,
        seed=body.seed,
        options=body.stream_options or StreamOptions(),
        stream=bool(body.stream),
        ignored=tuple(ignored),
    )


def decisions(offer: Offer, body: DecisionBody) -> StagedRequest:
    """What a body for ``/v1/decisions`` orders."""
    questions = []
    for place, one in enumerate(body.questions):
        words = " ".join(part for part in (body.context.strip(), one.instructions.strip()) if part)
        choices = tuple(option.words for option in one.choices)
        try:
            for name, text in (("the question", words), *(("a choice", choice) for choice in choices)):
                check_text(name, text)
        except ValueError as error:
            raise ApiError(400, f"questions[{place}]: {error}.", param=f"questions[{place}]") from None
        questions.append(Question(id=f"question {place}", question=words, choices=choices))
    return _request(
        offer,
        body.model,
        tuple(questions),
        body.litestage,
        votes=body.litestage.votes or 1,
        choices=1,
        seed=body.seed,
        options=StreamOptions(),
        stream=False,
        ignored=(),
    )


def _request(
    offer: Offer, model: str, questions: tuple[Question, ...], settings: StagedSettings, **how: Any
) -> StagedRequest:
    if offer.is_bare(model):
        raise ApiError(
            400,
            f"{model} has no stages. Ask {offer.task.name}, or {offer.task.name}:PLAN.",
            param="model",
        )
    name, plan = offer.plan(model, settings)
    if settings.drafts is not None and settings.drafts not in offer.drafts:
        raise ApiError(
            400,
            f"litestage.drafts is {settings.drafts!r}; this server drafts from {', '.join(offer.drafts)}.",
            param="litestage.drafts",
        )
    drafts = settings.drafts or offer.drafts[-1]
    votes = how["votes"]
    seed = None if votes == 1 else secrets.randbits(53) if how["seed"] is None else how["seed"]
    own = Drafts(source=drafts, family=secrets.token_hex(8))
    spine = Spine(offer.engine, offer.task, plan, Votes(None if votes == 1 else votes, seed or 0), own)
    stream = how["stream"]
    lines = [VoteLine(spine.start(question, vote), stream) for question in questions for vote in range(votes)]
    tokens = votes * sum(most_tokens(spine, question) for question in questions)
    return StagedRequest(
        offer=offer,
        model=model,
        plan=name,
        questions=questions,
        votes=votes,
        choices=how["choices"],
        seed=seed,
        trace=settings.trace,
        drafts=drafts,
        options=how["options"],
        job=Job(lines, model, tokens),
        ignored=how["ignored"],
    )


def most_tokens(spine: Spine, question: Question) -> int:
    """That all stages of a question may come to: worked examples, the question and what stages before wrote are read.

    No branch is longer than the context.
    """
    engine, task = spine.engine, spine.task
    words, written, most = len(question.question) + sum(map(len, question.choices)), 0, 0
    for stage in task.stages:
        header = len(engine.encode(task.header(stage))) if task.shots else 0
        branches = stage.branches(question)
        most += branches * min(engine.max_context, header + words + written + stage.max_new_tokens)
        written += branches * stage.max_new_tokens
    return most


class Reasoning:
    """A vote's texts in one, branch behind branch, told as they grow: what a branch writes waits for those before."""

    def __init__(self) -> None:
        self.text = ""
        """All that was told."""
        self._stage = ""
        self._branches: list[str] = []
        self._at = 0
        """The branch that is being told."""
        self._told = 0
        """Characters of it."""

    def begin(self, stage: str, branches: int) -> str:
        """A stage has begun; what is new of the whole."""
        self._stage, self._branches, self._at, self._told = stage, [""] * branches, 0, 0
        return self._more(("\n" if self.text else "") + f"{stage}: {self._label()}")

    def write(self, branch: int, text: str) -> str:
        """A branch goes on; what is new of the whole."""
        self._branches[branch] += text
        return self._rest() if branch == self._at else ""

    def end(self, stage: str) -> str:
        """A stage is done; what is left of it."""
        if self._stage != stage:  # it had no room
            return self._more(("\n" if self.text else "") + f"{stage}: (no room)")
        parts = [self._rest()]
        while self._at < len(self._branches) - 1:
            self._at, self._told = self._at + 1, 0
            parts += [self._more(f" {self._label()}"), self._rest()]
        return "".join(parts)

    def _label(self) -> str:
        return f"({LETTERS[self._at]}) " if len(self._branches) > 1 else ""

    def _rest(self) -> str:
        rest = self._branches[self._at].lstrip()[self._told :]
        self._told += len(rest)
        return self._more(rest)

    def _more(self, text: str) -> str:
        self.text += text
        return text


def reasoning(stages: Sequence[StageTrace]) -> str:
    """All stages' texts in one, as a stream's pieces come to."""
    whole = Reasoning()
    for stage in stages:
        if not stage.no_room:
            whole.begin(stage.name, len(stage.completions))
            for branch, completion in enumerate(stage.completions):
                whole.write(branch, completion.text)
        whole.end(stage.name)
    return whole.text


def content(question: Question, answer: int | None) -> str:
    """The answer as a chat's content: its letter and its words; empty where no text could be read as one."""
    return "" if answer is None else f"({LETTERS[answer]}) {question.choices[answer]}"


def shares(question: Question, traces: Sequence[Trace]) -> list[float]:
    """Each choice's probability: the model's own, over votes, where the answer is one by choice.

    Else its share of the votes; those that could not be read are nobody's.
    """
    if all(trace.choices for trace in traces):
        return [sum(some) / len(traces) for some in zip(*(trace.choices for trace in traces), strict=True)]
    counts = Counter(trace.answer for trace in traces)
    return [counts[choice] / len(traces) for choice in range(len(question.choices))]


def summary(asked: StagedRequest, question: Question, traces: Sequence[Trace]) -> Json:
    """``litestage`` in an answer."""
    answer = majority([trace.answer for trace in traces])
    told: Json = {
        "plan": asked.plan,
        "answer": None if answer is None else LETTERS[answer],
        "votes": [None if trace.answer is None else LETTERS[trace.answer] for trace in traces],
        "probabilities": dict(zip(LETTERS, shares(question, traces), strict=False)),
        "drafts": asked.drafts,
        "seed": asked.seed,
        "seconds": round(time.perf_counter() - asked.begun, 6),
    }
    if asked.trace:
        told["traces"] = [trace.model_dump(mode="json") for trace in traces]
    return told


def tokens(traces: Sequence[Trace]) -> Json:
    """What votes took, in OpenAI's form; all they wrote but their answers is reasoning."""
    stages = [stage for trace in traces for stage in trace.stages]
    written = sum(len(one.token_ids) for stage in stages for one in stage.completions)
    last = sum(len(one.token_ids) for trace in traces for one in trace.stages[-1].completions)
    told = usage(sum(sum(stage.prompt_tokens) for stage in stages), written)
    return told | {"completion_tokens_details": {"reasoning_tokens": written - last}}


async def _traces(messages: AsyncIterator[Message]) -> dict[int, Trace]:
    done: dict[int, Trace] = {}
    async for message in messages:
        if isinstance(message, LineDone):
            assert isinstance(message.outcome, Trace)
            done[message.line] = message.outcome
    return done


async def whole(asked: StagedRequest, messages: AsyncIterator[Message]) -> Json:
    """A chat's answer in one piece."""
    done = await _traces(messages)
    traces, question = [done[line] for line in sorted(done)], asked.questions[0]
    answer = majority([trace.answer for trace in traces])
    told = traces if asked.choices > 1 else [_first_with(traces, answer)]
    choices = [
        {
            "index": index,
            "message": {
                "role": "assistant",
                "content": content(question, trace.answer),
                "reasoning_content": reasoning(trace.stages),
            },
            "logprobs": None,
            "finish_reason": "length" if trace.no_room else "stop",
        }
        for index, trace in enumerate(told)
    ]
    more = {"usage": tokens(traces), "litestage": summary(asked, question, traces)}
    return asked.head() | {"choices": choices} | more


def _first_with(traces: Sequence[Trace], answer: int | None) -> Trace:
    return next(trace for trace in traces if trace.answer == answer)


async def decided(asked: StagedRequest, body: DecisionBody, messages: AsyncIterator[Message]) -> Json:
    """The answers to typed questions."""
    done = await _traces(messages)
    by_question = [
        [done[place * asked.votes + vote] for vote in range(asked.votes)] for place in range(len(asked.questions))
    ]
    answers = []
    for one, question, traces in zip(body.questions, asked.questions, by_question, strict=True):
        answer, probabilities = majority([trace.answer for trace in traces]), shares(question, traces)
        answers.append(
            {
                "type": "choice",
                "name": one.name,
                "choice": None if answer is None else one.choices[answer].value,
                "probabilities": [
                    {"value": option.value, "probability": share}
                    for option, share in zip(one.choices, probabilities, strict=True)
                ],
                "confidence": 0.0 if answer is None else probabilities[answer],
                "litestage": summary(asked, question, traces),
            }
        )
    spent = tokens([done[line] for line in sorted(done)])
    return {
        "id": f"decision-{asked.number}",
        "object": "decision",
        "created": asked.created,
        "model": asked.model,
        "answers": answers,
        "usage": {
            "input_tokens": spent["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": spent["completion_tokens"],
            "output_tokens_details": spent["completion_tokens_details"],
            "total_tokens": spent["total_tokens"],
        },
    }


async def pieces(asked: StagedRequest, messages: AsyncGenerator[Message, None]) -> AsyncGenerator[Json, None]:
    """A chat's answer as its stages are written.

    Of votes that come to one answer, the first one's stages are told; ``litestage`` in a chunk tells of all.
    """
    question = asked.questions[0]
    lines = range(asked.choices)
    texts = {line: Reasoning() for line in lines}
    done: dict[int, Trace] = {}
    for line in lines:
        yield _piece(asked, line, {"role": "assistant"})
    async for message in messages:
        line = getattr(message, "line", 0)
        piece, event = "", _event(message) if asked.trace else None
        if line in texts:
            text = texts[line]
            if isinstance(message, StageBegun):
                piece = text.begin(message.stage, message.branches)
            elif isinstance(message, Written):
                piece = text.write(message.branch, message.text)
            elif isinstance(message, StageDone):
                piece = text.end(message.stage.name)
        if isinstance(message, LineDone):
            assert isinstance(message.outcome, Trace)
            done[line] = message.outcome
            if asked.choices > 1:
                yield _piece(asked, line, {"content": content(question, message.outcome.answer)})
                yield _piece(asked, line, {}, "length" if message.outcome.no_room else "stop")
        if piece or event:
            delta = {"reasoning_content": piece} if piece else {}
            yield _piece(asked, line if line in texts else 0, delta, event=event)
    traces = [done[line] for line in sorted(done)]
    answer = majority([trace.answer for trace in traces])
    told = summary(asked, question, traces)
    if asked.choices == 1:
        yield _piece(asked, 0, {"content": content(question, answer)})
        reason = "length" if _first_with(traces, answer).no_room else "stop"
        yield _piece(asked, 0, {}, reason, event=told)
    if asked.options.include_usage:
        more = {"litestage": told} if asked.choices > 1 else {}
        yield asked.last_chunk(tokens(traces)) | more


def _event(message: Message) -> Json | None:
    """What a stream tells of a stage under way, to whoever asked for the trace."""
    if isinstance(message, StageBegun):
        segments = [
            {"first_step": one.first_step, "sub_layers": names(one.skipped)} for one in message.plan.schedule.segments
        ]
        return {"vote": message.line, "stage": message.stage, "branches": message.branches, "skipped": segments}
    if isinstance(message, Written):
        where = {"vote": message.line, "stage": message.stage, "branch": message.branch}
        return where | {"text": message.text, "tokens": message.tokens, "new": message.new}
    if isinstance(message, StageDone):
        stage = message.stage
        ended = [one.finish_reason for one in stage.completions]
        counts = [len(one.token_ids) for one in stage.completions]
        return {
            "vote": message.line,
            "stage": stage.name,
            "seconds": round(message.seconds, 6),
            "decode_seconds": round(message.decode_seconds, 6),
            "tokens": counts,
            "accepted": message.accepted,
            "ended": ended,
            "texts": [one.text for one in stage.completions],
        }
    return None


def _piece(asked: StagedRequest, index: int, delta: Json, reason: str | None = None, event: Json | None = None) -> Json:
    return asked.chunk(index, {"delta": delta}, reason) | ({} if event is None else {"litestage": event})
