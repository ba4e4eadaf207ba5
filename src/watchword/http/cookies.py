"""Which cookies we set, with which attributes; one table for setting and clearing (DEF-34)."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from starlette.responses import Response


@dataclass(frozen=True, slots=True)
class Cookie:
    """A cookie's fixed attributes.

    Source: RFC 6265bis §4.1.3: `__Host-` demands Secure, Path=/ and no Domain.
    """

    name: str  # with its prefix
    path: str
    http_only: bool
    same_site: Literal["lax", "strict"]
    secure: bool

    def set(self, response: Response, value: str, *, lives: timedelta | None) -> None:
        """Give it to the browser; `lives=None` is until the browser closes."""
        response.set_cookie(
            self.name,
            value,
            max_age=None if lives is None else max(1, int(lives.total_seconds())),
            path=self.path,
            secure=self.secure,
            httponly=self.http_only,
            samesite=self.same_site,
        )

    def clear(self, response: Response) -> None:
        """Take it back: same attributes, so that the browser deletes the same cookie."""
        response.set_cookie(
            self.name,
            "",
            max_age=0,
            path=self.path,
            secure=self.secure,
            httponly=self.http_only,
            samesite=self.same_site,
        )


@dataclass(frozen=True, slots=True)
class Cookies:
    """The cookies of one App."""

    session: Cookie
    csrf: Cookie


def cookies_for(*, secure: bool) -> Cookies:
    """The table. `secure=False` only on plain http at loopback in development."""
    host = "__Host-" if secure else ""
    return Cookies(
        session=Cookie(
            name=f"{host}session", path="/", http_only=True, same_site="lax", secure=secure
        ),
        csrf=Cookie(name=f"{host}csrf", path="/", http_only=False, same_site="lax", secure=secure),
    )


def read_cookie(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """Every value that the request carries under this name; more than one is a refusal (I-21)."""
    values: list[bytes] = []
    for header, value in headers:
        if header == b"cookie" and name in value:
            for part in value.split(b";"):
                key, equals, text = part.strip(b" \t").partition(b"=")
                if equals and key.strip() == name:
                    values.append(text.strip())
    return values
