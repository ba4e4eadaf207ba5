"""Which cookies we set, with which attributes; one table for setting and clearing (DEF-34)."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from starlette.responses import Response

from watchword.kernel.settings import CookieSettings


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
        lead: str = "__Host-",
        *,
        path: str = "/",
        http_only: bool = True,
        same_site: Literal["lax", "strict"] = "lax",
    ) -> Cookie:
        return Cookie(
            name=f"{lead if secure else ''}{name}",
            path=path,
            http_only=http_only,
            same_site=same_site,
            secure=secure,
        )

    return Cookies(
        session=cookie(settings.session, same_site=settings.session_same_site),
        csrf=cookie(settings.csrf, http_only=False),
        refresh=cookie(settings.refresh, "__Secure-", path=prefix, same_site="strict"),
        access=cookie(settings.access),
        device=cookie(settings.device),
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
