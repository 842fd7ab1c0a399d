"""What every request goes through: limits before the body is read, a key, a deadline, and somebody who watches whether
the client is still there."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from litestage.serve.errors import ApiError
from litestage.serve.metrics import Metrics

Result = TypeVar("Result")
IGNORED = "x-litestage-ignored"
"""The header that names fields which changed nothing."""
KEEP_ALIVE = 10.0
"""Seconds of silence after which a stream says that it is still there."""
LINGER = 5.0
"""Seconds for which a body that is too large is dropped, until its connection is."""
END = "[DONE]"


class ClientGone(Exception):  # noqa: N818
    """Nobody reads the answer any more."""


def refusal(error: ApiError) -> JSONResponse:
    headers = dict(error.headers) | ({"connection": "close"} if error.status == 413 else {})  # the rest is not read
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


class Door:
    """Refuses what is too large, and who has no key, before anything is read or parsed."""

    def __init__(self, app: ASGIApp, *, most_bytes: int, key: str | None, metrics: Metrics) -> None:
        self._app, self._most, self._key, self._metrics = app, most_bytes, key, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        read, refused = 0, False

        async def refuse(error: ApiError) -> None:
            nonlocal refused
            refused = True
            self._count(error.status)
            if error.status == 413:
                await _turn_away(refusal(error), receive, send)
            else:
                await refusal(error)(scope, receive, send)

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most and not refused:
                await refuse(self._too_large())
                raise ClientGone
            return message

        async def counted(message: Message) -> None:
            if refused:  # what the app says of a body that it did not get
                return
            if message["type"] == "http.response.start":
                self._count(message["status"])
            await send(message)

        try:
            self._check(scope["path"], dict(scope["headers"]))
        except ApiError as error:
            await refuse(error)
            return
        await self._app(scope, limited, counted)

    def _count(self, status: int) -> None:
        if status >= 400:
            self._metrics.refused.labels(str(status)).inc()

    def _check(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self._key is not None and path.startswith("/v1/"):
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._key.encode()):
                raise ApiError(401, "This server wants its key: Authorization: Bearer KEY.", code="invalid_api_key")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._most:
            raise self._too_large()

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"The body is larger than {self._most} bytes, the most that this server reads.",
            code="too_large",
        )


async def _turn_away(response: Response, receive: Receive, send: Send) -> None:
    """Answer who still writes: most clients read only then, so that what they write is dropped for a while."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await _chunk(send, bytes(response.body))
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            while (await receive()).get("more_body"):
                pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def unless_gone(receive: Receive, work: Awaitable[Result]) -> Result:
    """The result of ``work``; raises `ClientGone`, and cancels it, when the client goes away before."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        await _ended(gone, task)


async def _ended(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs, and wait until it has stopped."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events: each a JSON document, and one that says that it was the last.

    ``events`` is closed when the client goes away, when it has not read all before ``deadline`` (by the loop's clock),
    or when it is through. An error behind the first byte is an event of its own.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[dict[str, Any], None], deadline: float, headers: dict[str, str]) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"} | headers)
        del self.headers["content-length"]
        self._events, self._deadline = events, deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout_at(self._deadline + KEEP_ALIVE):  # also for who does not read
                await unless_gone(receive, self._stream(send))
        except (ClientGone, TimeoutError):
            pass
        finally:
            await self._events.aclose()

    async def _stream(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        waiting: asyncio.Future[dict[str, Any]] | None = None
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(anext(self._events))
                done, _ = await asyncio.wait((waiting,), timeout=KEEP_ALIVE)
                if not done:
                    await _chunk(send, b": still at work\n\n")
                    continue
                event, waiting = waiting, None
                await _chunk(send, _event(json.dumps(event.result(), ensure_ascii=False, separators=(",", ":"))))
        except StopAsyncIteration:
            pass
        except ApiError as error:
            await _chunk(send, _event(json.dumps(error.body())))
        finally:
            if waiting is not None:
                await _ended(waiting)
        await _chunk(send, _event(END))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _event(text: str) -> bytes:
    return f"data: {text}\n\n".encode()


async def _chunk(send: Callable[[Message], Awaitable[None]], body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
