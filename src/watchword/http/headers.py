"""Headers that keep an answer what it is: data, read by whoever asked, and nothing else."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final, Literal

from starlette.responses import Response

from watchword.kernel.settings import HeaderSettings, HstsSettings

API: Final[Mapping[str, str]] = {
    # JSON that holds markup stays JSON, wherever it is opened (ASVS 3.2.1).
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Pairs = Sequence[tuple[bytes, bytes]]
Sort = Literal["page", "data", "other"]


def seal(response: Response) -> Response:
    """Give an answer of our API its headers; what it says itself stays."""
    for name, value in API.items():
        response.headers.setdefault(name, value)
    return response


def hsts_value(settings: HstsSettings) -> str:
    """Strict-Transport-Security (RFC 6797 §6.1) as these settings have it."""
    value = f"max-age={settings.max_age // timedelta(seconds=1)}"
    if settings.include_subdomains:
        value += "; includeSubDomains"
    return f"{value}; preload" if settings.preload else value


def new_nonce() -> str:
    """What the scripts of one page carry (CSP 3 §8.1): 128 random bits, never used again."""
    return secrets.token_urlsafe(16)


def page_headers(
    nonce: str, *, form_action: Sequence[str] = ("'self'",), report_to: str | None = None
) -> dict[str, str]:
    """The headers of a page of ours.

    Args:
        nonce: of this answer's scripts; a fresh one for each, by `new_nonce`.
        form_action: where its forms may lead, redirects included: the consent page of an OAuth
            client names that client's origin.
        report_to: an endpoint's name, as `Reporting-Endpoints` has it.

    Source: ASVS 3.4.3, 3.4.5 to 3.4.8.
    """
    forms = " ".join(form_action) or "'none'"
    policy = [
        "default-src 'none'",
        f"script-src 'nonce-{nonce}'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        f"form-action {forms}",
    ]
    if report_to is not None:
        policy.append(f"report-to {report_to}")
    return {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


class HeaderSets:
    """What is added to each sort of answer, put together once."""

    def __init__(self, settings: HeaderSettings, *, hsts: str | None) -> None:
        self._sets = {
            (is_ours, is_https, sort): _encoded(
                _named(settings, is_ours=is_ours, sort=sort),
                hsts if is_https else None,
            )
            for is_ours in (True, False)
            for is_https in (True, False)
            for sort in ("page", "data", "other")
        }

    def added(
        self,
        headers: Pairs,
        is_ours: bool,  # noqa: FBT001  by place: it is asked at every request
        is_https: bool,  # noqa: FBT001
    ) -> list[tuple[bytes, bytes]]:
        """The headers of an answer and what it lacks; none is replaced, none is folded."""
        if len(headers) == 2 and headers[0][0] == _LENGTH and headers[1][0] == _TYPE:
            kind = headers[1][1]  # as most answers are
            sort = _SORTS.get(kind) or _sort_of(kind)
            return [*headers, *self._sets[is_ours, is_https, sort][1]]
        said = {name.lower(): value for name, value in headers}
        names, pairs = self._sets[is_ours, is_https, _sort_of(said.get(_TYPE))]
        if names.isdisjoint(said):
            return [*headers, *pairs]
        return [*headers, *(pair for pair in pairs if pair[0] not in said)]


_LENGTH: Final = b"content-length"
_TYPE: Final = b"content-type"
_SORTS: Final[Mapping[bytes, Sort]] = {
    b"application/json": "data",
    b"text/html; charset=utf-8": "page",
    b"text/plain; charset=utf-8": "other",
}


def _sort_of(kind: bytes | None) -> Sort:
    if kind is None:
        return "other"
    kind = kind.lower()
    if b"json" in kind:
        return "data"
    is_page = kind.startswith((b"text/html", b"application/xhtml", b"image/svg"))
    return "page" if is_page else "other"


def _named(settings: HeaderSettings, *, is_ours: bool, sort: Sort) -> dict[str, str]:
    named: dict[str, str] = {}
    if is_ours:
        named |= {**API, "Cache-Control": "no-store"}
    if not settings.enabled:
        return named
    wanted = {
        "X-Content-Type-Options": settings.content_type_options,
        "X-Frame-Options": settings.frame_options,
        "Referrer-Policy": settings.referrer_policy,
        "Permissions-Policy": settings.permissions_policy,
        "X-XSS-Protection": settings.xss_protection,
    }
    if sort == "page":
        wanted["Cross-Origin-Opener-Policy"] = settings.opener_policy
        wanted["Content-Security-Policy"] = settings.csp
    elif sort == "data":
        wanted["Content-Security-Policy"] = settings.csp_data
    return {name: value for name, value in wanted.items() if value != "off"} | named


def _encoded(
    named: Mapping[str, str], hsts: str | None
) -> tuple[frozenset[bytes], list[tuple[bytes, bytes]]]:
    pairs = [(name.lower().encode(), value.encode()) for name, value in named.items()]
    if hsts is not None:
        pairs.append((b"strict-transport-security", hsts.encode()))
    return frozenset(name for name, _ in pairs), pairs
