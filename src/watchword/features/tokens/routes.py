"""POST /auth/refresh."""

from typing import Annotated

from fastapi import Body as JsonBody
from fastapi import Request, Response
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from watchword.features.sessions import Session
from watchword.features.tokens.service import Pair, Tokens
from watchword.features.users import Body
from watchword.http.client import client_of
from watchword.http.cookies import read_cookie
from watchword.http.csrf import Csrf
from watchword.http.gate import path_of
from watchword.http.problems import documented, problem
from watchword.http.wiring import Mounting
from watchword.kernel.errors import (
    BrowserChanged,
    ClaimsUnavailable,
    ConflictingCredentials,
    CsrfRefused,
    ExpiredToken,
    InvalidToken,
    NotAuthenticated,
    RefreshTokenReused,
    RevokedToken,
    SessionBoundElsewhere,
    WatchwordError,
)
from watchword.kernel.secrets import same


class RefreshBody(Body):
    """What POST /auth/refresh takes; nothing, where a cookie brings the token."""

    refresh_token: Annotated[str | None, Field(max_length=512)] = None


class TokenPair(BaseModel):
    """What the session's transport puts into the answer (RFC 6749 §5.1)."""

    access_token: str | None = Field(default=None, description="not with cookie_pair")
    token_type: str | None = None
    expires_in: int = Field(description="of the access token, seconds")
    refresh_token: str | None = Field(default=None, description="with bearer only")


def routes(tokens: Tokens, mounting: Mounting) -> None:
    """Mount the routes of tokens."""
    cookies, csrf = mounting.wiring.cookies, mounting.wiring.csrf
    name = cookies.refresh.name.encode()

    @mounting.router.post(
        "/refresh",
        response_model=TokenPair,
        responses=documented(
            NotAuthenticated,
            InvalidToken,
            ExpiredToken,
            RevokedToken,
            RefreshTokenReused,
            ConflictingCredentials,
            CsrfRefused,
            SessionBoundElsewhere,
            BrowserChanged,
            ClaimsUnavailable,
        ),
    )
    async def refresh(
        request: Request, body: Annotated[RefreshBody | None, JsonBody()] = None
    ) -> Response:
        """Get the next pair for a refresh token. The token given is used up.

        The token comes in the body, or in its cookie; then with the CSRF token of its session.
        """
        held = read_cookie(request.scope["headers"], name)
        if len(held) > 1:
            raise InvalidToken(note="cookie given twice")
        cookie = held[0].decode("latin-1") if held else None
        presented = body.refresh_token if body else None
        if presented is not None:
            if cookie is not None and not same(cookie, presented):
                raise ConflictingCredentials(note="refresh tokens of body and cookie differ")
            return await _by_body(tokens, csrf, request, presented)
        if cookie is None:
            raise NotAuthenticated("bring a refresh token")
        try:
            return await _by_cookie(tokens, csrf, request, cookie)
        except WatchwordError as error:
            if error.status != 401 or isinstance(error, BrowserChanged):  # the session lives
                raise
            refused = problem(error)
            cookies.refresh.clear(refused)
            cookies.access.clear(refused)
            return refused


async def _by_body(tokens: Tokens, csrf: Csrf, request: Request, presented: str) -> Response:
    """Another site's page may bring a token of its own, and not leave its session behind here."""
    session: Session | None = None
    if csrf.is_cross_site(request.scope["headers"]):
        session = await tokens.session_named(presented)
        if tokens.transport_of(session).has_refresh_cookie:
            raise CsrfRefused(note="refresh from another site, answered with cookies")
    pair = await tokens.refresh(presented, client=client_of(request), session=session)
    return _answer(tokens, pair)


async def _by_cookie(tokens: Tokens, csrf: Csrf, request: Request, cookie: str) -> Response:
    """Browsers send cookies unasked: nothing is rotated or ended before it is clear who asks."""
    if csrf.is_cross_site(request.scope["headers"]):
        raise CsrfRefused(note="refresh from another site")
    session = await tokens.session_named(cookie)
    if not tokens.transport_of(session).has_refresh_cookie:
        raise InvalidToken(note="a refresh token that belongs in no cookie")
    given = request.headers.getlist("x-csrf-token")
    if not csrf.is_exempt(path_of(request.scope)) and not (
        len(given) == 1 and csrf.fits(session.id, given[0], ttl=tokens.settings.family_max_age)
    ):
        raise CsrfRefused(note="no CSRF token of the refresh token's session")
    pair = await tokens.refresh(cookie, client=client_of(request), session=session)
    return _answer(tokens, pair)


def _answer(tokens: Tokens, pair: Pair) -> Response:
    """The next pair, carried as the session's transport says."""
    response = Response()
    content = JSONResponse(tokens.transport_of(pair.session).hand_over(pair, response))
    content.raw_headers.extend(each for each in response.raw_headers if each[0] == b"set-cookie")
    content.headers["Cache-Control"] = "no-store"
    return content
