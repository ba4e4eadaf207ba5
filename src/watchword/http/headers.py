"""Headers that keep an answer what it is: data, read by whoever asked, and nothing else."""

from collections.abc import Awaitable, Mapping
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

API: Final[Mapping[str, str]] = {
    # JSON that holds markup stays JSON, wherever it is opened (ASVS 3.2.1).
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

HSTS: Final = "max-age=31536000; includeSubDomains"
"""A year, sub-domains included, no preload: that is a commitment for its owner to make."""


def seal(response: Response) -> Response:
    """Give an answer of our API its headers; what it says itself stays."""
    for name, value in API.items():
        response.headers.setdefault(name, value)
    return response


class StrictTransport:
    """ASGI middleware: every answer of an https server says that it is one (ASVS 3.4.1)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Add the header to whatever is answered, errors included."""
        if scope["type"] != "http":
            return self.app(scope, receive, send)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("Strict-Transport-Security", HSTS)
            await send(message)

        return self.app(scope, receive, sending)
