"""How tokens are handed over: in the answer, in cookies, or one of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from starlette.responses import Response

from watchword.features.sessions import Prepared, Session
from watchword.features.tokens.service import PAIR, Pair, Tokens
from watchword.features.users import User
from watchword.http.cookies import Cookies
from watchword.http.csrf import Csrf
from watchword.kernel.errors import ClaimsUnavailable

BEARER: Final = "bearer"
HYBRID: Final = "hybrid"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTransport:
    """Access and refresh token, each in the answer's JSON or in its cookie."""

    name: str
    tokens: Tokens
    cookies: Cookies
    csrf: Csrf

    @property
    def has_refresh_cookie(self) -> bool:
        """Does the refresh token travel in its cookie?"""
        return self.name != BEARER

    @property
    def has_access_cookie(self) -> bool:
        """Does the access token, too?"""
        return self.name == PAIR

    def prepare(self, now: datetime, *, remember: bool) -> Prepared:
        """A fresh family for a session that is about to start."""
        begun = self.tokens.begin(now, remember=remember)

        async def deliver(session: Session, user: User, response: Response) -> Mapping[str, Any]:
            try:
                pair = await self.tokens.pair(session, user, begun.token)
            except ClaimsUnavailable:
                # Nobody will ever hold a token of it.
                await self.tokens.sessions.end(session.id, why="claims_unavailable")
                raise
            return self.hand_over(pair, response)

        return Prepared(
            fields=begun.fields,
            idle_expires_at=begun.idle_expires_at,
            expires_at=begun.expires_at,
            deliver=deliver,
        )

    def hand_over(self, pair: Pair, response: Response) -> Mapping[str, Any]:
        """Set the cookies of this transport, clear those of the others; the JSON (RFC 6749 §5.1).

        The CSRF token lives as long as the refresh token that it goes with: it is all that a
        browser has in hand when it comes back after a week.
        """
        content: dict[str, Any] = {"expires_in": int(pair.expires_in.total_seconds())}
        if not self.has_access_cookie:
            content |= {"access_token": pair.access_token, "token_type": "Bearer"}
        if not self.has_refresh_cookie:
            content["refresh_token"] = pair.refresh_token.reveal()
            return content
        session = pair.session
        until = min(session.refresh_expires_at or session.expires_at, session.expires_at)
        lives = until - self.tokens.clock.now()
        self.cookies.refresh.set(response, pair.refresh_token.reveal(), lives=lives)
        self.cookies.csrf.set(response, self.csrf.token_for(session.id), lives=lives)
        self.cookies.session.clear(response)
        if self.has_access_cookie:
            self.cookies.access.set(response, pair.access_token, lives=pair.expires_in)
        else:
            self.cookies.access.clear(response)
        return content


def transports_of(tokens: Tokens, *, cookies: Cookies, csrf: Csrf) -> list[TokenTransport]:
    """Those that the settings allow: `cookie_pair` only where it is asked for (I-03)."""
    names = (BEARER, HYBRID, PAIR) if tokens.is_pair_on else (BEARER, HYBRID)
    return [TokenTransport(name=name, tokens=tokens, cookies=cookies, csrf=csrf) for name in names]
