"""Bare texts, as OpenAI's two ways of asking for them have it: what a body orders, and what its messages come to."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from litestage.core import Completion, FinishReason, Request, Sampling, TokenIds
from litestage.core.drafts import Drafts
from litestage.engine.scoring import TokenScore
from litestage.serve.envelope import Envelope, Json, usage
from litestage.serve.errors import ApiError
from litestage.serve.offer import LONG, Offer
from litestage.serve.protocol import ByHand, ChatBody, CompletionBody, StreamOptions, TextBody
from litestage.serve.work import Ask, Job, LineDone, Message, Scored, TextLine, Written

MOST_PROMPTS = 1024
REASONS: dict[FinishReason, str] = {
    "eos": "stop",
    "stop": "stop",
    "low_confidence": "stop",
    "settled": "stop",
    "length": "length",
    "no_room": "length",
}
"""How OpenAI calls what ends a text."""


@dataclass(frozen=True, kw_only=True)
class TextRequest(Envelope):
    """A body for bare texts, understood."""

    prompts: tuple[TokenIds, ...]
    texts: tuple[str, ...]
    """The prompts as texts, where they are told again."""
    n: int
    likeliest: int | None

    @property
    def echo(self) -> bool:
        return bool(self.texts)


async def completions(offer: Offer, body: CompletionBody) -> TextRequest:
    """What a body for ``/v1/completions`` orders; raises `ApiError` for what cannot be."""
    if body.echo and body.stream and body.logprobs is not None:
        raise ApiError(400, "echo with logprobs is not told in a stream. Leave out stream.", param="stream")
    if body.max_tokens == 0 and not body.echo:
        raise ApiError(400, "max_tokens is 0 and echo is off, so nothing would be told.", param="max_tokens")
    prompts = await _prompt_ids(offer, body)
    texts = tuple(offer.engine.decode(ids) for ids in prompts) if body.echo else ()
    return _request(offer, body, body.litestage, prompts, texts, limit=body.max_tokens, likeliest=body.logprobs)


async def chat(offer: Offer, body: ChatBody, settings: ByHand) -> TextRequest:
    """What a body for ``/v1/chat/completions`` orders from the bare model."""
    ids = await asyncio.to_thread(offer.encode_chat, body.messages)
    limit = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    likeliest = (body.top_logprobs or 0) if body.logprobs else None
    return _request(offer, body, settings, (offer.check_ids(ids),), (), limit=limit, likeliest=likeliest, chat=True)


async def _prompt_ids(offer: Offer, body: CompletionBody) -> tuple[TokenIds, ...]:
    given = body.prompt
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        prompts: Sequence[Any] = [given]
    else:
        prompts = given
    if not 0 < len(prompts) <= MOST_PROMPTS:
        raise ApiError(400, f"prompt has {len(prompts)} prompts; give 1 to {MOST_PROMPTS}.", param="prompt")

    def encoded() -> tuple[TokenIds, ...]:
        return tuple(offer.encode(one) if isinstance(one, str) else offer.check_ids(tuple(one)) for one in prompts)

    large = sum(map(len, prompts)) >= LONG
    return await asyncio.to_thread(encoded) if large else encoded()


def _request(
    offer: Offer,
    body: TextBody,
    settings: ByHand,
    prompts: tuple[TokenIds, ...],
    texts: tuple[str, ...],
    **how: Any,
) -> TextRequest:
    limit, likeliest, is_chat = how["limit"], how["likeliest"], how.get("chat", False)
    n = body.n or 1
    sampling = Sampling(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=body.top_p or 1.0,
        top_k=max(0, body.top_k or 0),
    )
    plan = offer.by_hand(settings, "litestage")
    seed = secrets.randbits(53) if body.seed is None else body.seed
    lines: list[TextLine] = []
    tokens = 0
    for ids in prompts:
        room = offer.room(ids, "messages" if is_chat else "prompt")
        most = room if limit is None else min(limit, room)
        tokens += n * (len(ids) + most)
        for place in range(n if most else 0):
            request = Request(
                prompt_ids=ids,
                stage_plan=plan,
                max_new_tokens=most,
                stop=body.stops,
                sampling=sampling,
                seed=0 if sampling.is_greedy else _seed(seed, place),
                drafts=Drafts(source="prompt"),  # it has no stage whose memory it could be of
            )
            lines.append(TextLine(Ask(request, stream=bool(body.stream), likeliest=likeliest)))
    scored = prompts if texts and likeliest is not None else ()
    return TextRequest(
        offer=offer,
        model=body.model,
        job=Job(lines, body.model, tokens, scored, likeliest or 0),
        options=body.stream_options or StreamOptions(),
        chat=is_chat,
        prompts=prompts,
        texts=texts,
        n=n,
        likeliest=likeliest,
    )


def _seed(seed: int, place: int) -> int:
    """Each of ``n`` texts has its own; the first the one that was given."""
    if not place:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {place}".encode()).digest()[:7], "big")


async def whole(asked: TextRequest, messages: AsyncIterator[Message]) -> Json:
    """The answer in one piece."""
    done: dict[int, LineDone] = {}
    scored: dict[int, Scored] = {}
    async for message in messages:
        if isinstance(message, LineDone):
            done[message.line] = message
        elif isinstance(message, Scored):
            scored[message.text] = message
    choices = [
        _choice(asked, index, done.get(index), scored.get(index // asked.n))
        for index in range(asked.n * len(asked.prompts))
    ]
    return asked.head() | {"choices": choices, "usage": _usage(asked, (_completion(one) for one in done.values()))}


def _completion(done: LineDone) -> Completion:
    assert isinstance(done.outcome, Completion)
    return done.outcome


def _choice(asked: TextRequest, index: int, done: LineDone | None, scored: Scored | None) -> Json:
    completion = _completion(done) if done else None
    text = completion.text if completion else ""
    reason = REASONS[completion.finish_reason] if completion else "length"
    scores: list[TokenScore | int] = []
    if asked.likeliest is not None:
        first = asked.prompts[index // asked.n][:1] if scored else ()
        scores = [*first, *(scored.scores if scored else ()), *(done.scores if done else ())]
    if asked.chat:
        message = {"role": "assistant", "content": text}
        return {"index": index, "message": message, "logprobs": _chat_logprobs(asked, scores), "finish_reason": reason}
    echoed = asked.texts[index // asked.n] if asked.echo else ""
    logprobs = _logprobs(asked, scores)
    return {"index": index, "text": echoed + text, "logprobs": logprobs, "finish_reason": reason}


def _logprobs(asked: TextRequest, scores: Sequence[TokenScore | int], offset: int = 0) -> Json | None:
    """As ``/v1/completions`` has them; of a text's first token there is no probability."""
    if asked.likeliest is None:
        return None
    label, ids = asked.offer.label, [one if isinstance(one, int) else one.token for one in scores]
    offsets = list(accumulate((_length(asked, id) for id in ids[:-1]), initial=offset))[: len(ids)]
    likeliest = [
        None
        if isinstance(one, int)
        else {label(token): value for token, value in one.likeliest} | {label(one.token): one.logprob}
        for one in scores
    ]
    return {
        "tokens": [label(id) for id in ids],
        "token_logprobs": [None if isinstance(one, int) else one.logprob for one in scores],
        "top_logprobs": likeliest if asked.likeliest else None,
        "text_offset": offsets,
    }


def _length(asked: TextRequest, token: int) -> int:
    """Of a token's own text."""
    return len(asked.offer.engine.detokeniser.piece(token))


def _chat_logprobs(asked: TextRequest, scores: Iterable[TokenScore | int]) -> Json | None:
    if asked.likeliest is None:
        return None

    def told(token: int, value: float) -> Json:
        raw = asked.offer.engine.detokeniser.raw(token)
        return {"token": asked.offer.label(token), "logprob": value, "bytes": list(raw)}

    content = [
        told(one.token, one.logprob) | {"top_logprobs": [told(token, value) for token, value in one.likeliest]}
        for one in scores
        if not isinstance(one, int)
    ]
    return {"content": content, "refusal": None}


async def pieces(asked: TextRequest, messages: AsyncGenerator[Message, None]) -> AsyncGenerator[Json, None]:
    """The answer as it is written."""
    written: dict[int, int] = {}
    offsets = dict.fromkeys(range(asked.n * len(asked.prompts)), 0)
    for index in offsets:
        if asked.chat:
            yield _piece(asked, index, {"role": "assistant", "content": ""}, None, written)
        elif asked.echo:
            yield _piece(asked, index, asked.texts[index // asked.n], None, written)
    done: list[Completion] = []
    async for message in messages:
        if isinstance(message, Written):
            written[message.line] = message.tokens
            logprobs = None
            if asked.likeliest is not None and asked.chat:
                logprobs = _chat_logprobs(asked, message.scores)
            elif asked.likeliest is not None:
                logprobs = _logprobs(asked, message.scores, offsets[message.line])
                offsets[message.line] += sum(_length(asked, one.token) for one in message.scores)
            if message.text or logprobs:
                content = {"content": message.text} if asked.chat else message.text
                yield _piece(asked, message.line, content, None, written, logprobs)
        elif isinstance(message, LineDone):
            completion = _completion(message)
            done.append(completion)
            content = {} if asked.chat else ""
            yield _piece(asked, message.line, content, REASONS[completion.finish_reason], written)
    if not asked.job.lines:
        for index in offsets:
            yield _piece(asked, index, "", "length", written)
    if asked.options.include_usage:
        yield asked.last_chunk(_usage(asked, done))


def _piece(
    asked: TextRequest,
    index: int,
    content: str | Json,
    reason: str | None,
    written: dict[int, int],
    logprobs: Json | None = None,
) -> Json:
    chunk = asked.chunk(index, {"delta" if asked.chat else "text": content}, reason, logprobs)
    if asked.options.continuous_usage_stats:
        chunk["usage"] = usage(sum(map(len, asked.prompts)), sum(written.values()))
    return chunk


def _usage(asked: TextRequest, done: Iterable[Completion]) -> Json:
    return usage(sum(map(len, asked.prompts)), sum(len(one.token_ids) for one in done))
