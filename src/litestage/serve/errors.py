"""What a client is told when it cannot have what it asked for, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from litestage.core import LitestageError, UserError

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class Reason(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Refusal(BaseModel):
    """The body that says so."""

    error: Reason


class ApiError(Exception):
    """A refusal with its HTTP status; ``param`` names the field that is wrong."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.retry_after = status, param, code, retry_after

    @property
    def headers(self) -> Mapping[str, str]:
        more = {"retry-after": str(self.retry_after)} if self.retry_after else {}
        return more | ({"www-authenticate": "Bearer"} if self.status == 401 else {})

    def body(self) -> dict[str, Any]:
        kind = KINDS.get(self.status, "server_error")
        return Refusal(error=Reason(message=str(self), type=kind, param=self.param, code=self.code)).model_dump()


def told(error: Exception) -> ApiError:
    """What a client hears of an error in its own request's work."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UserError):
        return ApiError(400, str(error))
    if isinstance(error, LitestageError):
        return ApiError(500, str(error), code="unanswered")
    return ApiError(500, "The server failed at this request. Its log says more.", code="internal_error")
