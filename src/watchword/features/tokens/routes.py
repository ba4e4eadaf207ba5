"""POST /auth/refresh."""

from typing import Annotated

from fastapi import Body as JsonBody
from fastapi import Request
from pydantic import BaseModel, Field

from watchword.features.tokens.service import Tokens
from watchword.features.users import Body
from watchword.http.client import client_of
from watchword.http.problems import documented
from watchword.http.wiring import Mounting
from watchword.kernel.errors import ExpiredToken, InvalidToken, RefreshTokenReused, RevokedToken


class RefreshBody(Body):
    """What POST /auth/refresh takes."""

    refresh_token: Annotated[str, Field(max_length=512)]


class TokenPair(BaseModel):
    """A new pair (RFC 6749 §5.1)."""

    access_token: str
    token_type: str
    expires_in: int = Field(description="seconds")
    refresh_token: str


def routes(tokens: Tokens, mounting: Mounting) -> None:
    """Mount the routes of tokens."""

    @mounting.router.post(
        "/refresh",
        response_model=TokenPair,
        responses=documented(InvalidToken, ExpiredToken, RevokedToken, RefreshTokenReused),
    )
    async def refresh(request: Request, body: Annotated[RefreshBody, JsonBody()]) -> TokenPair:
        """Get the next pair for a refresh token. The token given is used up."""
        pair = await tokens.refresh(body.refresh_token, client=client_of(request))
        return TokenPair(**tokens.body(pair.access_token, pair.refresh_token))
