"""Which other origins' scripts may read our answers: those that are named, and no others."""

from collections.abc import Sequence
from datetime import timedelta

from starlette.responses import Response

from watchword.kernel.errors import OriginNotAllowed
from watchword.kernel.settings import CorsSettings

Headers = Sequence[tuple[bytes, bytes]]

_LONGEST_ASKED = 4096  # bytes of header names that one question may hold


class Cors:
    """The CORS protocol (Fetch §3.3) for one App.

    It lets scripts read, and nothing more: that a request by cookie comes from one of these
    origins does not make it ours, so what it would change stays refused (I-21).
    """

    def __init__(self, settings: CorsSettings) -> None:
        self.covers_all = settings.host_routes
        self._is_any = "*" in settings.allow_origins
        self._origins = frozenset(each.encode("ascii") for each in settings.allow_origins)
        self._methods = frozenset(each.encode("ascii") for each in settings.allow_methods)
        self._headers = frozenset(each.lower().encode("ascii") for each in settings.allow_headers)
        self._credentials = settings.allow_credentials
        self._exposed = ", ".join(settings.expose_headers).encode("ascii")
        self._preflight = {
            "Access-Control-Allow-Methods": ", ".join(settings.allow_methods),
            "Access-Control-Allow-Headers": ", ".join(settings.allow_headers),
            "Access-Control-Max-Age": str(settings.max_age // timedelta(seconds=1)),
        }

    def preflight(self, headers: Headers, origin: bytes | None) -> Response | None:
        """The answer to a question of a browser; None where it is no such question.

        Raises:
            OriginNotAllowed: not this origin, or not with this method or these headers.
        """
        methods = [value for name, value in headers if name == b"access-control-request-method"]
        if origin is None or not methods:
            return None
        if not self._allows(origin):
            raise OriginNotAllowed(note="origin")
        if len(methods) > 1 or methods[0] not in self._methods:
            raise OriginNotAllowed(note="method")
        asked = b",".join(
            value for name, value in headers if name == b"access-control-request-headers"
        )
        if len(asked) > _LONGEST_ASKED:
            raise OriginNotAllowed(note="headers")
        names = {each.strip().lower() for each in asked.split(b",")} - {b""}
        if not names <= self._headers:
            raise OriginNotAllowed(note="headers")
        return Response(status_code=204, headers=self._preflight)

    def added(self, headers: Headers, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        """An answer's headers, and what lets this origin read it, if it may.

        `Vary` stands in every answer: a cache in between must not give one origin's to another.
        """
        made = list(headers)
        said = {name.lower() for name, _ in headers}
        varies = b",".join(value for name, value in headers if name.lower() == b"vary").lower()
        if not {each.strip() for each in varies.split(b",")} & {b"origin", b"*"}:
            made.append((b"vary", b"Origin"))
        if (
            origin is None
            or not self._allows(origin)
            or b"access-control-allow-origin" in said  # the app speaks for itself
        ):
            return made
        made.append((b"access-control-allow-origin", b"*" if self._is_any else origin))
        if self._credentials:
            made.append((b"access-control-allow-credentials", b"true"))
        if self._exposed:
            made.append((b"access-control-expose-headers", self._exposed))
        return made

    def _allows(self, origin: bytes) -> bool:
        return self._is_any or origin in self._origins
