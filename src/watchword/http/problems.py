"""Refusals as problem details (RFC 9457), the same shape wherever they arise."""

import itertools
import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from watchword.http.headers import seal
from watchword.kernel.clock import SystemClock
from watchword.kernel.errors import (
    BrowserChanged,
    Fault,
    FieldError,
    InvalidInput,
    InvalidToken,
    MalformedBody,
    NotFresh,
    StoreUnavailable,
    TooManyAttempts,
    WatchwordError,
)
from watchword.kernel.ids import new_id
from watchword.kernel.occasion import occasion

_log = logging.getLogger("watchword.http")

MEDIA_TYPE = "application/problem+json"
MAX_FAULTS = 20  # named in one answer


class Refused(HTTPException):
    """A WatchwordError on its way out of a guard.

    It is an HTTPException so that a mounted sub-application that never heard of us still
    answers with the right status and headers.
    """

    def __init__(self, error: WatchwordError) -> None:
        super().__init__(error.status, error.title, dict(headers_of(error)))
        self.error = error


def headers_of(error: WatchwordError) -> Mapping[str, str]:
    """The headers that belong to a refusal.

    Source: RFC 6750 §3: every 401 carries a challenge; the error code only where a token was
    presented. RFC 9470 §3: `max_age` in the challenge.
    """
    headers = {"Cache-Control": "no-store", **error.headers}
    if error.status == 401:
        challenge = "Bearer"
        if isinstance(error, InvalidToken | BrowserChanged):
            challenge += f' error="invalid_token", error_description="{error.title}"'
        elif isinstance(error, NotFresh):
            challenge += f' error="{error.code}"'
            if "max_age" in error.extra:
                challenge += f', max_age="{error.extra["max_age"]}"'
        headers["WWW-Authenticate"] = challenge
    return headers


def problem(error: WatchwordError) -> Response:
    """The answer to a refused request."""
    now = occasion()
    request_id = new_id(SystemClock().now()) if now is None else now.request_id
    if error.status >= 500 or error.note:
        level = logging.WARNING if error.status >= 500 else logging.INFO
        note = _one_line(error.note or error.title)
        _log.log(level, "refused: %s (%s) request=%s", error.code, note, request_id)
    body: dict[str, object] = {
        "type": f"urn:watchword:error:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail or error.title,
        "code": error.code,
        "request_id": request_id,
        **error.extra,
    }
    answer = Response(
        json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"),
        status_code=error.status,
        headers={**headers_of(error), "X-Request-ID": request_id},
        media_type=MEDIA_TYPE,
    )
    return seal(answer)


def _one_line(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode().replace("\r", " ").replace("\n", " ")


async def answer_error(request: Request, error: Exception) -> Response:
    """Exception handler for `WatchwordError` and `Refused`: answers, and has it noted."""
    refused = error.error if isinstance(error, Refused) else error
    if not isinstance(refused, WatchwordError):
        raise error
    gate = request.scope.get("watchword.gate")
    if gate is not None:
        await gate.note_refusal(refused)
    return problem(refused)


async def answer_websocket_error(*_: object) -> None:
    """Websocket routes refuse by closing; there is no body to answer with."""


def unexpected(error: Exception) -> Response:
    """A 500 that says nothing of what went wrong, and a log entry that does."""
    _log.error("unexpected %s", type(error).__name__, exc_info=error)
    return problem(WatchwordError())


FIELD_CODES = {  # what we call some of pydantic's findings
    "missing": "missing",
    "extra_forbidden": "unknown_field",
    "string_unicode": "not_a_text",
    "json_invalid": "malformed_body",
}


def from_validation(error: RequestValidationError) -> WatchwordError:
    """What FastAPI found wrong, without echoing what was sent (16.2.5)."""
    faults: list[Fault] = []
    for item in error.errors()[:MAX_FAULTS]:
        entry: Mapping[str, Any] = item
        kind = str(entry.get("type", "invalid"))
        place = [str(part) for part in entry.get("loc", ()) if part not in ("body", "query")]
        if kind == "json_invalid":
            return MalformedBody()
        context = entry.get("ctx", {})
        code, detail = FIELD_CODES.get(kind, kind), str(entry.get("msg", "is not valid"))
        if kind == "value_error" and isinstance(context.get("error"), FieldError):
            code, detail = context["error"].code, context["error"].detail
        faults.append(Fault(field_of(place), code, detail))
    return InvalidInput(faults)


def field_of(names: Iterable[str]) -> str:
    """A field's name for the one who sent it; however long theirs was, ours is not."""
    return ".".join(name[:64] for name in itertools.islice(names, 8))[:200] or "body"


_ANYWHERE = (MalformedBody, InvalidInput, TooManyAttempts, StoreUnavailable)


def documented(*errors: type[WatchwordError]) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route: every refusal, listed in OpenAPI with its code."""
    by_status: dict[int, list[type[WatchwordError]]] = {}
    for error in dict.fromkeys((*errors, *_ANYWHERE)):
        by_status.setdefault(error.status, []).append(error)
    return {
        status: {
            "description": " · ".join(f"`{error.code}`: {error.title}" for error in kinds),
            "content": {
                MEDIA_TYPE: {
                    "schema": PROBLEM_SCHEMA,
                    "examples": {
                        error.code: {
                            "value": {
                                "type": f"urn:watchword:error:{error.code}",
                                "title": error.title,
                                "status": status,
                                "detail": error.title,
                                "code": error.code,
                                "request_id": "01hzz3v9k5w0",
                            }
                        }
                        for error in kinds
                    },
                }
            },
        }
        for status, kinds in sorted(by_status.items())
    }


PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "type": "object",
    "description": "RFC 9457 problem details",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "stable; match on this"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "field": {"type": "string"},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}
