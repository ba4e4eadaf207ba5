"""Which cookies we set, with which attributes; one table for setting and clearing (DEF-34)."""

from collections.abc import Container
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from starlette.responses import Response

from watchword.kernel.settings import CookieSettings

MAX_COOKIES = 16 * 1024
"""Bytes of a request's cookies that are read; past that, none is."""

MAX_COOKIE = 4096
"""Bytes of a name and a value that browsers keep (RFC 6265bis §5.6)."""

LONGEST = timedelta(days=400)
"""How long browsers keep a cookie at most (RFC 6265bis §5.5)."""

Lead = Literal["__Host-", "__Secure-"]

Jar = dict[bytes, list[bytes]]
"""Every value that came under a name."""


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
        """Give it to the browser; `lives=None` is until the browser closes.

        Raises:
            ValueError: larger than browsers keep: it would be dropped without a word.
        """
        if len(self.name) + len(value) > MAX_COOKIE:
            raise ValueError(f"a cookie has at most {MAX_COOKIE} bytes")
        response.set_cookie(
            self.name,
            value,
            max_age=None if lives is None else max(1, int(min(lives, LONGEST).total_seconds())),
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
    refresh: Cookie
    access: Cookie
    device: Cookie

    def clear(self, response: Response) -> None:
        """Take back all that a sign-in gives; the device stays known."""
        for cookie in (self.session, self.csrf, self.refresh, self.access):
            cookie.clear(response)


def cookies_for(settings: CookieSettings, *, prefix: str, secure: bool) -> Cookies:
    """The table.

    Args:
        settings: what they are called.
        prefix: where our routes stand: the refresh token is sent nowhere else (DEF-34).
        secure: False only on plain http at loopback in development.
    """

    def cookie(
        name: str,
        lead: Lead = "__Host-",
        *,
        path: str = "/",
        http_only: bool = True,
        same_site: Literal["lax", "strict"] = "lax",
    ) -> Cookie:
        made = cookie_of(name, lead, path=path, secure=secure)
        return replace(made, http_only=http_only, same_site=same_site)

    return Cookies(
        session=cookie(settings.session, same_site=settings.session_same_site),
        csrf=cookie(settings.csrf, http_only=False),
        refresh=cookie(settings.refresh, "__Secure-", path=prefix, same_site="strict"),
        access=cookie(settings.access),
        device=cookie(settings.device),
    )


def cookie_of(name: str, lead: Lead, *, path: str, secure: bool) -> Cookie:
    """One that scripts cannot read and that other sites' links bring along."""
    return Cookie(
        name=f"{lead if secure else ''}{name}",
        path=path,
        http_only=True,
        same_site="lax",
        secure=secure,
    )


def joined(cookies: bytes, more: bytes) -> bytes:
    """Two Cookie headers as one (RFC 9113 §8.2.3); what is too large already grows no further."""
    return cookies if len(cookies) > MAX_COOKIES else b"; ".join((cookies, more))


def jar_of(cookies: bytes, names: Container[bytes]) -> Jar:
    """The cookies of these names in a Cookie header.

    Names are compared byte by byte. Nothing is unquoted and nothing but the space between two
    is dropped, so that no other name can pass for one of ours.
    """
    jar: Jar = {}
    for part in cookies.split(b";"):
        name, equals, value = part.strip(b" \t").partition(b"=")
        if equals and name in names:
            jar.setdefault(name, []).append(value)
    return jar


def read_cookie(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """Every value that the request carries under this name; more than one is a refusal (I-21).

    None where the cookies are larger than is read.
    """
    cookies: bytes | None = None
    for header, value in headers:
        if header == b"cookie":
            cookies = value if cookies is None else joined(cookies, value)
    if cookies is None or len(cookies) > MAX_COOKIES or name not in cookies:
        return []
    return jar_of(cookies, (name,)).get(name, [])
