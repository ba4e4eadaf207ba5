"""HTTP as uvicorn reads it, with bounds on what comes before a body and after it."""

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD: Final = 64 * 1024  # bytes of request line and headers; browsers stay under 16 KiB

PATIENCE: Final = 20  # seconds that a head may take, and the rest of a body that was answered


class BoundedHttp(HttpToolsProtocol):
    """Hangs up on a head or trailers that do not end; the parser would collect them for ever.

    Nor is there for ever to send a head in, or a body whose answer is out: a line every few seconds
    would hold the connection. How long a body may take that is still read, the app says.

    What arrives together with a head's first byte is not counted: it may end another request.
    Trailers, the headers after a chunked body, are dropped: nobody asked for them, and a proxy in
    front has checked the headers before the body only.
    """

    _in_head = False
    _in_chunk_head = False  # a chunk began, and no byte of it came: the last one has trailers
    _part = 0  # the number of this head or chunk
    _size = 0  # what came of it, of pieces that hold nothing else
    _trailers = 0  # what came of trailers that were whole
    _in_body = False  # a head is whole, and its body is not
    _is_socket = False  # another protocol has the connection, and may be silent on it
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody is there; now a head must come."""
        super().connection_made(transport)
        self._hurry()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._wait()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came in, unless it is too much."""
        if self.transport.is_closing():
            return
        before, was_in_body = self._part, self._in_body
        part = self._part if self._is_in_lines else None
        super().data_received(data)
        if self._is_socket:
            return
        if self._in_head or (before == self._part and not (was_in_body or self._in_body)):
            self._hurry()  # for the rest of it; or for more than an empty line
        if self._is_in_lines and part == self._part:
            self._size += len(data)
            if self._size > MAX_HEAD:
                self.transport.close()

    def handle_websocket_upgrade(self) -> None:
        """A websocket begins; uvicorn reads on by another class."""
        self._is_socket = True
        self._wait()
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head, self._in_chunk_head = True, False
        self._trailers = 0
        self._next_part()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, drop a trailer."""
        if self._in_head:
            super().on_header(name, value)
            return
        self._trailers += len(name) + len(value) + 4
        if self._trailers > MAX_HEAD:
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Its body begins."""
        self._in_head, self._in_body = False, True
        self._wait()
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """A piece of the body begins, or its trailers do."""
        self._in_chunk_head = True
        self._next_part()

    def on_body(self, body: bytes) -> None:
        """It was a piece of the body."""
        self._in_chunk_head = False
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has ended."""
        self._in_chunk_head = self._in_body = False
        self._wait()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is out; nobody reads what may still come of the body."""
        super().on_response_complete()
        if self._in_body:
            self._hurry()

    def _hurry(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(PATIENCE, self._give_up)

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.cycle and not self.cycle.response_complete:
            self._hurry()  # an answer is on its way to an earlier request
        elif not self.transport.is_closing():
            self.transport.close()

    @property
    def _is_in_lines(self) -> bool:
        return self._in_head or self._in_chunk_head

    def _next_part(self) -> None:
        self._part += 1
        self._size = 0
