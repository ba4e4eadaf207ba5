"""What a server of its own may refuse beside what the features do."""

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from watchword.http.problems import problem, unexpected
from watchword.kernel.errors import WatchwordError


class NotFound(WatchwordError):
    """There is nothing at this path."""

    code = "not_found"
    status = 404
    title = "There is nothing here"


class MethodNotAllowed(WatchwordError):
    """The path takes other methods."""

    code = "method_not_allowed"
    status = 405
    title = "This method is not allowed here"


class RequestRefused(WatchwordError):
    """The framework below us cannot take the request."""

    code = "request_refused"
    status = 400
    title = "The request is refused"


async def answer_http(_: Request, error: Exception) -> Response:
    """Answer what the framework refuses as a problem."""
    if not isinstance(error, HTTPException):
        raise error
    headers: Mapping[str, str] = error.headers or {}
    kinds: dict[int, type[WatchwordError]] = {404: NotFound, 405: MethodNotAllowed}
    kind = kinds.get(error.status_code, RequestRefused)
    return problem(kind(headers=headers))


async def answer_unexpected(_: Request, error: Exception) -> Response:
    """Answer a fault of ours without a word about it."""
    return unexpected(error)
