"""HTTP as uvicorn reads it, with a bound on what comes before a body."""

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD: Final = 64 * 1024  # bytes of request line and headers; browsers stay under 16 KiB


class BoundedHttp(HttpToolsProtocol):
    """Hangs up on a head that does not end; the parser itself would collect it for ever.

    What arrives together with the head's first byte is not counted: it may end another request.
    """

    _in_head = False
    _head = 0

    def data_received(self, data: bytes) -> None:
        """Take what came in, unless it is too much."""
        went_on = self._in_head
        if went_on and self._head > MAX_HEAD:
            self.transport.close()
            return
        super().data_received(data)
        if went_on and self._in_head:
            self._head += len(data)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head, self._head = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its body begins."""
        self._in_head = False
        super().on_headers_complete()
