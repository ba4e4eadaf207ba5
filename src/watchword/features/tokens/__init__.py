"""Tokens: signed access tokens that point at a session, and rotated refresh tokens."""

from datetime import timedelta
from typing import Any, Unpack

from watchword.features.keys import Keys
from watchword.features.sessions import Sessions, Transport
from watchword.features.tokens.routes import routes
from watchword.features.tokens.service import Pair, Tokens
from watchword.features.tokens.settings import TokenOptions, TokenSettings
from watchword.features.users import Users
from watchword.kernel.feature import Feature, Job
from watchword.kernel.ports import Authenticator, RefreshTokens

__all__ = ["Pair", "Tokens", "tokens"]


def tokens(**options: Unpack[TokenOptions]) -> Feature[Tokens]:
    """The feature of bearer tokens."""

    def service(wiring: Any) -> Tokens:
        return Tokens(
            store=wiring.store,
            settings=wiring.settings,
            clock=wiring.clock,
            keys=wiring.get(Keys),
            users=wiring.get(Users),
            sessions=wiring.get(Sessions),
            secrets=wiring.secrets,
            issuer=wiring.issuer,
            audience=wiring.audience,
        )

    return Feature(
        name="tokens",
        needs=("users", "sessions", "keys"),
        service=service,
        settings=TokenSettings,
        given=dict(options),
        offers=lambda service: {
            Authenticator: service,
            Transport: service,
            RefreshTokens: service,
        },
        routes=routes,
        jobs=lambda service: (
            Job(
                name="refresh grace",
                every=timedelta(seconds=5),
                run=service.forget_successors,
            ),
        ),
    )
