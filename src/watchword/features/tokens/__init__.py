"""Tokens: signed access tokens that point at a session, and rotated refresh tokens."""

from datetime import timedelta
from typing import Any, Unpack

from watchword.features.keys import Keys
from watchword.features.sessions import Sessions, Transport
from watchword.features.tokens.claims import ClaimsHook
from watchword.features.tokens.endings import ENDS
from watchword.features.tokens.events import TokenExpired, TokenRefreshed
from watchword.features.tokens.inspection import Check, Inspection, Peeked, bare
from watchword.features.tokens.routes import routes
from watchword.features.tokens.service import Pair, Tokens
from watchword.features.tokens.settings import TokenOptions, TokenSettings
from watchword.features.tokens.transports import transports_of
from watchword.features.users import Users
from watchword.kernel.feature import Feature, Job
from watchword.kernel.ports import AccessCookie, Authenticator, RefreshTokens, SignedLife

__all__ = [
    "Check",
    "ClaimsHook",
    "Inspection",
    "Pair",
    "Peeked",
    "TokenExpired",
    "TokenRefreshed",
    "Tokens",
    "bare",
    "tokens",
]


def tokens(*, claims: ClaimsHook | None = None, **options: Unpack[TokenOptions]) -> Feature[Tokens]:
    """The feature of bearer tokens.

    Args:
        claims: asked at each token for claims of your own; see `Tokens.claims`.
        options: the settings.
    """

    def service(wiring: Any) -> Tokens:
        made = Tokens(
            store=wiring.store,
            settings=wiring.settings,
            clock=wiring.clock,
            keys=wiring.get(Keys),
            users=wiring.get(Users),
            sessions=wiring.get(Sessions),
            secrets=wiring.secrets,
            issuer=wiring.issuer,
            audience=wiring.audience,
            attempts=wiring.attempts,
            hooks=[] if claims is None else [claims],
        )
        made.transports.extend(transports_of(made, cookies=wiring.cookies, csrf=wiring.csrf))
        return made

    def offers(service: Tokens) -> dict[type, object]:
        always: dict[type, object] = {
            Authenticator: service,
            Transport: tuple(service.transports),
            RefreshTokens: service,
            SignedLife: service,
        }
        # Only where it is switched on does the gate read access tokens from a cookie (I-03).
        return always | ({AccessCookie: service} if service.is_pair_on else {})

    return Feature(
        name="tokens",
        needs=("users", "sessions", "keys"),
        service=service,
        settings=TokenSettings,
        given=dict(options),
        ends=ENDS,
        offers=offers,
        routes=routes,
        jobs=lambda service: (
            Job(
                name="refresh grace",
                every=timedelta(seconds=5),
                run=service.forget_successors,
            ),
        ),
    )
