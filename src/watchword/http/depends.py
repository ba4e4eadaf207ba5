"""The guards: dependencies that say who is asking, or refuse."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, cast

from fastapi import Depends
from fastapi.openapi.models import OAuth2, OAuthFlowPassword, OAuthFlows
from fastapi.security.base import SecurityBase
from starlette.exceptions import WebSocketException
from starlette.requests import HTTPConnection, Request
from starlette.types import Scope

from watchword.http.body import FORM, content_type, form_of
from watchword.http.gate import COOKIE_SESSION, GATE, IDENTITY, FormPending, Gate, Refusal
from watchword.http.problems import Refused
from watchword.kernel.errors import (
    CsrfRefused,
    EmailNotVerified,
    Forbidden,
    NotAuthenticated,
    NotFresh,
    NotInstalled,
    SessionBoundElsewhere,
    WatchwordError,
)
from watchword.kernel.principal import Credential, Identity, Principal

FRESH_FOR = timedelta(minutes=5)
"""How long a sign-in is fresh enough for what could lock its owner out (I-15)."""


ADMITTED = "watchword.admitted"
"""Where a guard leaves the kinds of credentials that the route takes besides sessions."""

_SESSIONS = frozenset({"session"})
_SPOKEN: Mapping[str, str] = {
    "session": "session of a user",
    "api_key": "API key",
    "service": "service token",
}


async def settled(
    connection: HTTPConnection, *, reads_row: bool = True
) -> Identity | Refusal | None:
    """What the gate found, the CSRF field of a form included.

    Args:
        connection: the request.
        reads_row: ask the store about a token that was only believed so far (I-25).

    Raises:
        NotInstalled: the request came through no gate.
    """
    scope = connection.scope
    if scope["type"] == "websocket":
        raise WebSocketException(1008)
    if IDENTITY not in scope:
        raise NotInstalled
    found: Any = scope[IDENTITY]
    if isinstance(found, FormPending):
        found = await _check_form(cast("Request", connection), found)
        scope[IDENTITY] = found
    if reads_row and isinstance(found, Identity) and not found.is_checked:
        gate: Gate = scope[GATE]
        return await gate.confirm(scope, found)
    return cast("Identity | Refusal | None", found)


async def _check_form(request: Request, pending: FormPending) -> Identity | Refusal:
    if content_type(request) != FORM:
        return Refusal(CsrfRefused(note="no token"), "cookie")
    if hasattr(request, "_form") and getattr(request, "_form", None) is not None:
        token = (await request.form()).get("csrf_token")
    else:
        token = (await form_of(request)).get("csrf_token")
    session = pending.identity.principal.session_id or ""
    if isinstance(token, str) and pending.csrf.fits(session, token):
        return pending.identity
    return Refusal(CsrfRefused(note="no or wrong csrf_token"), "cookie")


class IdentityGuard(SecurityBase):
    """Resolves to the `Identity` of the request; refuses where there is none.

    An instance is a FastAPI security scheme, so that "Authorize" in the interactive API works.
    What it asks and what it gives are methods of their own, so that `lift` can ask them without
    FastAPI's solver.
    """

    reads_row = True  # ask the store where a token was only believed so far (I-25)

    def __init__(self) -> None:
        self.scheme_name = "Watchword"
        self.model = OAuth2(
            flows=OAuthFlows(password=OAuthFlowPassword(tokenUrl="/auth/login", scopes={})),
            description="An access token, or the session cookie.",
        )

    def refusal(self, identity: Identity, scope: Scope) -> WatchwordError | None:
        """Why this identity does not pass; None if it does.

        Sessions pass; API keys and services only where a `requires(accepts=…)` before said so.
        """
        if identity.credential != "session" and identity.credential not in scope.get(ADMITTED, ()):
            return Forbidden(f"this route takes no {_SPOKEN[identity.credential]}")
        return None

    def value(self, identity: Identity) -> Any:
        """What the handler gets."""
        return identity

    async def __call__(self, connection: HTTPConnection) -> Any:
        scope = connection.scope
        found: Any = scope.get(IDENTITY)
        # The way of nearly every request has no await in it.
        if type(found) is not Identity or not found.is_checked:
            found = await self._settle(connection)
        refused = self.refusal(found, scope)
        if refused is not None:
            raise Refused(refused)
        return self.value(found)

    def spare(self, refusal: Refusal) -> Identity | None:  # noqa: ARG002
        """Who passes although refused. Nobody, but for the guard that lets a binding be moved."""
        return None

    async def _settle(self, connection: HTTPConnection) -> Identity:
        try:
            found = await settled(connection, reads_row=self.reads_row)
        except WatchwordError as error:
            raise Refused(error) from None
        if found is None:
            raise Refused(NotAuthenticated())
        if isinstance(found, Identity):
            return found
        spared = self.spare(found)
        if spared is None:
            raise Refused(found.error)
        return spared


class ReauthenticatingGuard(IdentityGuard):
    """Resolves to the `Identity` even where its session is bound elsewhere.

    For whoever is about to prove a factor once more, which moves the binding, and for nothing
    else. CSRF is checked as everywhere.
    """

    def spare(self, refusal: Refusal) -> Identity | None:
        """Who it is, if only the binding does not fit."""
        return refusal.identity


class PrincipalGuard(IdentityGuard):
    """Resolves to the `Principal`."""

    reads_row = False

    def value(self, identity: Identity) -> Principal:
        """The principal."""
        return identity.principal


class ClaimsGuard(IdentityGuard):
    """Resolves to the claims of the access token; refuses whoever came without one."""

    reads_row = False

    def refusal(self, identity: Identity, scope: Scope) -> WatchwordError | None:
        """A cookie and an API key have no claims."""
        if identity.claims is None:
            return NotAuthenticated("bring an access token")
        return super().refusal(identity, scope)

    def value(self, identity: Identity) -> Mapping[str, Any]:
        """The claims, all of them verified."""
        return identity.claims or {}


class UserGuard(IdentityGuard):
    """Resolves to the user; refuses a principal that is none."""

    def refusal(self, identity: Identity, scope: Scope) -> WatchwordError | None:
        """Clients and services are no users."""
        if identity.user is None:
            return Forbidden("only for users")
        return super().refusal(identity, scope)

    def value(self, identity: Identity) -> Any:
        """The user."""
        return identity.user


class OptionalUserGuard(IdentityGuard):
    """Resolves to the user, or None for whoever brings nothing or a cookie that is over.

    A bearer token that proves nothing is refused all the same: whoever sends one means it. So is
    a cookie on a request that fails CSRF, and everything while the store is away.
    """

    async def __call__(self, connection: HTTPConnection) -> Any:
        try:
            found = await settled(connection)
        except WatchwordError as error:
            raise Refused(error) from None
        if isinstance(found, Refusal):
            is_elsewhere = isinstance(found.error, SessionBoundElsewhere)  # it lives
            if found.carriage == "cookie" and found.error.status == 401 and not is_elsewhere:
                return None
            raise Refused(found.error)
        if found is None:
            return None
        refused = self.refusal(found, connection.scope)
        if refused is not None:
            raise Refused(refused)
        return found.user


current_identity = IdentityGuard()
current_principal = PrincipalGuard()
current_claims = ClaimsGuard()
current_user = UserGuard()
reauthenticating = ReauthenticatingGuard()
optional_user = OptionalUserGuard()

CurrentIdentity = Annotated[Identity, Depends(current_identity)]
CurrentPrincipal = Annotated[Principal, Depends(current_principal)]
CurrentClaims = Annotated[Mapping[str, Any], Depends(current_claims)]
"""The claims of the access token that came; a request without one is refused."""
Reauthenticating = Annotated[Identity, Depends(reauthenticating)]
"""Whoever is about to prove a factor again, wherever they come from."""


def session_replaced(request: Request) -> str | None:
    """The session that a sign-in by this request replaces: that of the cookie it came with.

    None where no cookie of a living session came, or where the request may be another site's:
    whoever could make a browser sign in should not be able to sign its user out.
    """
    session_id: str | None = request.scope.get(COOKIE_SESSION)
    return session_id


class Requirement(IdentityGuard):
    """What `requires` makes."""

    def __init__(
        self,
        *,
        role: str | None,
        verified: bool,
        fresh: timedelta | None,
        scope: str | None,
        claims: Callable[[Mapping[str, Any]], bool] | None,
        accepts: frozenset[str],
    ) -> None:
        super().__init__()
        self._role = role
        self._verified = verified
        self._fresh = fresh
        self._scope = scope
        self._claims = claims
        self._accepts = accepts
        self.asks = {
            "role": role,
            "verified": verified or None,
            "fresh": fresh,
            "scope": scope,
            "claims": claims,
            "accepts": None if accepts == _SESSIONS else ", ".join(sorted(accepts)),
        }
        self.reads_row = role is not None or verified or fresh is not None
        self.admits = accepts != _SESSIONS

    def refusal(self, identity: Identity, scope: Scope) -> WatchwordError | None:
        """The first requirement that is not met."""
        principal = identity.principal
        if identity.credential not in self._accepts:
            return Forbidden(f"this route takes no {_SPOKEN[identity.credential]}")
        if self._role is not None and self._role not in principal.roles:
            return Forbidden(note=f"lacks role {self._role}")
        if self._verified and not identity.is_verified:
            return EmailNotVerified()
        if self._fresh is not None:
            gate: Gate = scope[GATE]
            proven = principal.auth_time
            if proven is None or gate.clock.now() - proven > self._fresh:
                return NotFresh(extra={"max_age": int(self._fresh.total_seconds())})
        # A session may all that its user may; a key or a service only what it was made for.
        if (
            self._scope is not None
            and identity.credential != "session"
            and self._scope not in principal.scopes
        ):
            return Forbidden(note=f"lacks scope {self._scope}")
        if self._claims is not None and not (
            identity.claims is not None and self._claims(identity.claims)
        ):
            return Forbidden(note="its claims do not fit")
        if self.admits:
            scope[ADMITTED] = self._accepts
        return None


def requires(
    *permissions: str,
    role: str | None = None,
    verified: bool = False,
    fresh: timedelta | None = None,
    scope: str | None = None,
    claims: Callable[[Mapping[str, Any]], bool] | None = None,
    accepts: Sequence[Credential] = ("session",),
) -> Any:
    """Guard a route or a whole router: `dependencies=[requires(role="admin")]`.

    Args:
        permissions: not understood yet; giving one raises, so that no route is open by mistake.
        role: a role that the principal must hold.
        verified: the user's address must be verified.
        fresh: the last proof of a factor must be no older than this (RFC 9470).
        scope: what an API key or a service must have been made for; a session may it anyway.
        claims: asked with the claims of the access token; False, or no token, is 403.
        accepts: `"session"`, `"api_key"`, `"service"`: whose credentials this route takes.

    Raises:
        TypeError: at import, for a permission, a role that is no text, or an unknown kind.
    """
    if permissions:
        raise TypeError("requires() takes no permissions yet: use role=…, verified=… or fresh=…")
    for name, text in (("role", role), ("scope", scope)):
        if text is not None and not text:
            raise TypeError(f"requires({name}=…) needs a name")
    if isinstance(accepts, str) or not accepts or set(accepts) - _SPOKEN.keys():
        raise TypeError(f"requires(accepts=…) takes a list of {', '.join(sorted(_SPOKEN))}")
    return Depends(
        Requirement(
            role=role,
            verified=verified,
            fresh=fresh,
            scope=scope,
            claims=claims,
            accepts=frozenset(accepts),
        )
    )
