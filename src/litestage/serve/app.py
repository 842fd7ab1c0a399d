"""The HTTP app: which path answers what."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from litestage import __version__
from litestage.core.complaints import complaint, problem
from litestage.core.layers import Record
from litestage.serve import staged, text
from litestage.serve.desk import Desk
from litestage.serve.errors import ApiError, Refusal
from litestage.serve.http import IGNORED, ClientGone, Door, EventStream, refusal, unless_gone
from litestage.serve.metrics import Metrics
from litestage.serve.offer import Offer
from litestage.serve.page import page
from litestage.serve.protocol import ChatBody, CompletionBody, DecisionBody, StagedSettings, TextSettings
from litestage.serve.work import Job, Message

Settings = TypeVar("Settings", bound=Record)
GONE = 499
"""What a log says of a client that went away; nobody reads it."""


@dataclass
class Site:
    """What stands behind the app's paths; ``offer`` is there once the model is loaded."""

    desk: Desk
    metrics: Metrics
    created: int
    show_page: bool = True
    key: str | None = None
    most_bytes: int = 1 << 20
    offer: Offer | None = field(default=None)

    def ready(self) -> Offer:
        """Raises `ApiError` while there is nothing to offer."""
        self.desk.check_ready()
        assert self.offer is not None
        return self.offer


def build_app(site: Site, start: Callable[[], Any], stop: Callable[[], Any]) -> FastAPI:
    """``start`` and ``stop`` are called with the event loop running."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        start()
        yield
        stop()

    refusals: dict[int | str, dict[str, Any]] = {
        status: {"description": what, "model": Refusal}
        for status, what in (
            (400, "What was asked for cannot be."),
            (401, "No key, or a wrong one."),
            (403, "Not allowed at this server."),
            (404, "No such model or plan."),
            (408, "Not done within the server's limit."),
            (413, "The body is too large."),
            (422, "A field is not what it should be."),
            (500, "The server failed."),
            (503, "Loading, or too much to do: try again after Retry-After."),
        )
    }
    app = FastAPI(
        title="litestage",
        version=__version__,
        description="A small language model that answers a staged task, with plans that leave sub-layers out.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=refusals,
    )
    app.add_middleware(Door, most_bytes=site.most_bytes, key=site.key, metrics=site.metrics)
    _handle_errors(app)
    _add_generation(app, site)
    _add_rest(app, site)
    return app


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return refusal(error)

    @app.exception_handler(ClientGone)
    async def gone(request: Request, error: ClientGone) -> Response:
        return Response(status_code=GONE)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        what = {
            400: "The body cannot be read as JSON.",
            404: f"There is nothing at {request.url.path}.",
            405: f"{request.url.path} takes no {request.method}.",
        }
        response = refusal(ApiError(error.status_code, what.get(error.status_code, str(error.detail))))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        errors = [one | {"loc": one["loc"][1:]} for one in error.errors()]
        if errors[0]["type"] == "json_invalid":
            return refusal(ApiError(400, f"The body is not JSON: {errors[0]['ctx']['error']}.", code="invalid_json"))
        where, said = complaint(errors, error.body, {})
        return refusal(ApiError(422, f"{'The body' if said[0] == ' ' else ''}{said}.", param=where or None))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return refusal(ApiError(500, "The server failed at this request. Its log says more.", code="internal_error"))


def _add_generation(app: FastAPI, site: Site) -> None:
    @app.post("/v1/completions", summary="A text behind a prompt, at full depth")
    async def completions(request: Request, body: CompletionBody) -> Response:
        offer = site.ready()
        if not offer.is_bare(body.model):
            raise ApiError(
                400,
                f"{body.model} answers questions in stages, by /v1/chat/completions or /v1/decisions. "
                f"For a bare text ask {offer.bare}.",
                param="model",
            )
        asked = await text.completions(offer, body)
        return await _answer(request, site, asked.job, asked, text, bool(body.stream), body.ignored())

    @app.post("/v1/chat/completions", summary="A staged answer, or the model's own chat")
    async def chat(request: Request, body: ChatBody) -> Response:
        offer = site.ready()
        if offer.is_bare(body.model):
            bare = await text.chat(offer, body, _settings(TextSettings, body.litestage))
            return await _answer(request, site, bare.job, bare, text, bool(body.stream), body.ignored())
        asked = staged.chat(offer, body, _settings(StagedSettings, body.litestage))
        ignored = [*body.ignored(), *asked.ignored]
        return await _answer(request, site, asked.job, asked, staged, bool(body.stream), ignored)

    @app.post("/v1/decisions", summary="Typed decisions: a choice, its probabilities, its confidence")
    async def decisions(request: Request, body: DecisionBody) -> Response:
        asked = staged.decisions(site.ready(), body)
        deadline = site.desk.deadline()
        async with aclosing(site.desk.messages(asked.job, deadline)) as messages:
            found = await unless_gone(request.receive, staged.decided(asked, body, messages))
        return JSONResponse(found, headers=_ignored(body.ignored()))


async def _answer(
    request: Request, site: Site, job: Job, asked: Any, form: Any, stream: bool, ignored: Iterable[str]
) -> Response:
    """A request's answer in one piece, or as a stream; ``form`` says how either looks."""
    headers, deadline = _ignored(ignored), site.desk.deadline()
    messages = site.desk.messages(job, deadline)
    if not stream:
        async with aclosing(messages):
            return JSONResponse(await unless_gone(request.receive, form.whole(asked, messages)), headers=headers)
    return EventStream(form.pieces(asked, await _begun(messages)), deadline, headers)


async def _begun(messages: AsyncGenerator[Message, None]) -> AsyncGenerator[Message, None]:
    """The same messages, once there is a first: what is refused is refused before a stream begins."""
    try:
        first = await anext(messages)
    except StopAsyncIteration:
        return messages

    async def all_of_them() -> AsyncGenerator[Message, None]:
        async with aclosing(messages):
            yield first
            async for message in messages:
                yield message

    return all_of_them()


def _ignored(names: Iterable[str]) -> dict[str, str]:
    told = ", ".join(ascii(name)[1:-1] for name in names)  # a header has no control characters
    return {IGNORED: told[:1000]} if told else {}


def _settings(kind: type[Settings], given: dict[str, Any] | None) -> Settings:
    try:
        return kind.model_validate(given or {})
    except ValidationError as error:
        where = problem(error, given, {"": kind.model_fields})
        raise ApiError(422, f"litestage: {where}.", param="litestage") from None


def _add_rest(app: FastAPI, site: Site) -> None:
    @app.get("/v1/models", summary="What can be asked here")
    async def models() -> Any:
        offer = site.ready()
        return {"object": "list", "data": [_model(site, offer, name) for name in offer.models]}

    @app.get("/v1/models/{name}", summary="One of the models")
    async def model(name: str) -> Any:
        offer = site.ready()
        offer.is_bare(name)
        return _model(site, offer, name)

    @app.get("/health", summary="Whether requests are answered")
    async def health() -> Response:
        state = site.desk.state
        return JSONResponse({"status": state}, status_code=200 if state == "ready" else 503)

    @app.get("/metrics", summary="For Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(site.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/version")
    async def version() -> dict[str, str]:
        return {"version": __version__}

    if site.show_page:

        @app.get("/", summary="A page to ask and watch", response_class=HTMLResponse)
        async def root() -> Response:
            document, headers = page()
            return HTMLResponse(document, headers=headers)

        @app.get("/examples", summary="Questions that the page shows")
        async def examples() -> list[dict[str, Any]]:
            return site.ready().examples


def _model(site: Site, offer: Offer, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": site.created,
        "owned_by": "litestage",
        "root": offer.engine.identity.id,
        "max_model_len": offer.engine.max_context,
        "litestage": offer.describe(name, offer.models[name])
        | {"requests": {"most": site.desk.most_requests, "most_tokens": site.desk.most_tokens}},
    }
