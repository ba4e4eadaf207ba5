"""The verbs on services: grant, end, sign a token, and who presents one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from watchword.crypto.jose import UnknownKid, check_claims, sign, verify
from watchword.features.keys import Keys
from watchword.features.services.errors import ServiceAlreadyExists, ServiceNotFound
from watchword.features.services.events import ServiceEnded, ServiceGranted
from watchword.features.services.records import ServiceGrant
from watchword.features.services.settings import ServiceSettings
from watchword.kernel.clock import Clock
from watchword.kernel.errors import ExpiredToken, Fault, InvalidInput, InvalidToken, RevokedToken
from watchword.kernel.ids import new_id
from watchword.kernel.principal import Client, Identity, Principal
from watchword.kernel.settings import format_duration
from watchword.storage.errors import Conflict
from watchword.storage.record import freeze
from watchword.storage.store import Page, Paging, Store, where

PREFIX: Final = "wwx_"
"""Stands before the JWT. Without it a bearer credential is judged as a user's access token."""

TOKEN_TYPE: Final = "service+jwt"  # noqa: S105  a media type
SUBJECT: Final = "service:"
LONGEST: Final = timedelta(hours=24)
REQUIRED: Final = ("iss", "aud", "sub", "jti", "iat", "exp", "scope", "gid")

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,100}")  # RFC 6749 §3.3, and a bound
_AUDIENCE: Final = re.compile(r"[\x21-\x7e]{1,256}")
_MOST: Final = 20  # audiences, or scopes, of one service


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Services of one realm, and tokens between them."""

    store: Store
    settings: ServiceSettings
    clock: Clock
    keys: Keys
    issuer: str
    audience: str  # of this app: the one that it takes tokens for
    client_id: str

    carriage: Literal["bearer", "cookie"] = "bearer"
    prefix: str = PREFIX

    @property
    def signed_life(self) -> timedelta:
        """How long a token of a service is believed at most (`SignedLife`, I-16)."""
        return LONGEST + self.settings.leeway

    async def grant(
        self,
        name: str,
        *,
        audience: str | Sequence[str],
        scopes: Sequence[str] = (),
        expires_at: datetime | None = None,
    ) -> ServiceGrant:
        """Let a service call others.

        Args:
            name: a slug: lower-case letters, digits and hyphens, at most 63.
            audience: whom it may call: the `audience` of their apps.
            scopes: what it may there, where a route asks `requires(scope=…)`.
            expires_at: when that is over; None: when it is ended.

        Raises:
            ServiceAlreadyExists
            InvalidInput: a field that cannot be.
        """
        now = self.clock.now()
        audiences = (audience,) if isinstance(audience, str) else tuple(dict.fromkeys(audience))
        granted = ServiceGrant(
            realm=self.store.realm,
            id=new_id(now),
            name=name,
            live_as=name,
            audiences=audiences,
            scopes=tuple(dict.fromkeys(scopes)),
            created_at=now,
            expires_at=expires_at,
        )
        if faults := _faults_of(granted, now):
            raise InvalidInput(faults)
        try:
            async with self.store.transaction() as tx:
                await tx.insert(granted)
                await tx.announce(
                    ServiceGranted(
                        realm=tx.realm,
                        at=now,
                        grant_id=granted.id,
                        name=name,
                        audiences=granted.audiences,
                        scopes=granted.scopes,
                    )
                )
        except Conflict as conflict:
            raise ServiceAlreadyExists(note=conflict.field) from conflict
        return granted

    async def find(self, name: str) -> ServiceGrant:
        """The service of this name that has not ended.

        Raises:
            ServiceNotFound
        """
        granted = await self.store.get(ServiceGrant, live_as=name)
        if granted is None:
            raise ServiceNotFound
        return granted

    async def page(self, *, limit: int = 100, after: str | None = None) -> Page[ServiceGrant]:
        """Services in the order in which they came, those that ended included."""
        paging = Paging(order=("created_at", "id"), limit=limit, after=after)
        return await self.store.find(ServiceGrant, paging)

    async def end(self, name: str) -> None:
        """End a service: its tokens are refused at once here, elsewhere within the feed's bound.

        The name may be granted anew; tokens of before stay refused.

        Raises:
            ServiceNotFound
        """
        now = self.clock.now()
        async with self.store.transaction() as tx:
            ended = await tx.update(ServiceGrant, where(live_as=name), live_as=None, ended_at=now)
            if ended is not None:
                await tx.announce(
                    ServiceEnded(realm=tx.realm, at=now, grant_id=ended.id, name=name)
                )
        if ended is None:
            raise ServiceNotFound

    async def token(self, name: str, *, audience: str, ttl: timedelta | None = None) -> str:
        """Sign a token of this service for exactly one other.

        Args:
            name: the service that calls.
            audience: the one that is called, among those granted.
            ttl: at most 24 hours; by default the setting's.

        Raises:
            ServiceNotFound: no such service, or its time is over.
            InvalidInput: an audience that was not granted, or a `ttl` that cannot be.
        """
        now = self.clock.now()
        granted = await self.find(name)
        if granted.expires_at is not None and granted.expires_at <= now:
            raise ServiceNotFound(note="expired")
        lives = self.settings.ttl if ttl is None else ttl
        faults: list[Fault] = []
        if audience not in granted.audiences:
            faults.append(Fault("audience", "audience_unknown", "was not granted to this service"))
        if not timedelta(seconds=1) <= lives <= LONGEST:
            most = format_duration(LONGEST)
            faults.append(Fault("ttl", "ttl_limited", f"is not from 1s to {most}"))
        if faults:
            raise InvalidInput(faults)
        expires_at = min(now + lives, granted.expires_at or now + lives)
        claims: dict[str, object] = {
            "iss": self.issuer,
            "aud": audience,
            "sub": SUBJECT + granted.name,
            "jti": new_id(now),
            "iat": int(now.timestamp()),
            "exp": int(expires_at.timestamp()),
            "scope": " ".join(granted.scopes),
            "gid": granted.id,
        }
        return PREFIX + sign(claims, key=await self.keys.signing(), typ=TOKEN_TYPE)

    async def believe(self, presented: str) -> Identity | None:  # noqa: ARG002
        """Nothing: whatever tokens of users are believed, a service's grant is read."""
        return None

    async def authenticate(self, presented: str, client: Client) -> Identity:  # noqa: ARG002
        """Which service presents this token: the signature, the claims, then its grant (I-02).

        Raises:
            InvalidToken, ExpiredToken, RevokedToken
        """
        claims = await self._claims(presented)
        granted = await self.store.get(ServiceGrant, id=_text(claims, "gid"))
        if granted is None or granted.ended_at is not None:
            raise RevokedToken(note="the service has ended")
        if granted.expires_at is not None and granted.expires_at <= self.clock.now():
            raise ExpiredToken(note="the service's grant")
        if claims["sub"] != SUBJECT + granted.name or self.audience not in granted.audiences:
            raise InvalidToken(note="not what its grant says")
        expires_at = datetime.fromtimestamp(int(str(claims["exp"])), tz=self.clock.now().tzinfo)
        until = expires_at + self.settings.leeway
        return Identity(
            principal=Principal(
                realm=self.store.realm,
                kind="service",
                id=SUBJECT + granted.name,
                session_id=None,
                client_id=self.client_id,
                roles=frozenset(),
                scopes=frozenset(_text(claims, "scope").split()).intersection(granted.scopes),
                amr=(),
                auth_time=None,
            ),
            user=None,
            is_verified=False,
            carriage="bearer",
            valid_until=until if granted.expires_at is None else min(until, granted.expires_at),
            subjects=(("client", granted.id),),
            credential="service",
            claims=freeze(claims),
        )

    async def _claims(self, presented: str) -> Mapping[str, object]:
        """The claims of a service token for this app, all checked but for its grant.

        Raises:
            InvalidToken, ExpiredToken
        """
        if not presented.startswith(PREFIX):
            raise InvalidToken(note="not a service token")
        jwt = presented.removeprefix(PREFIX)
        await self.keys.refresh()
        try:
            claims = verify(jwt, keys=self.keys.verifying, typ=TOKEN_TYPE)
        except UnknownKid:
            await self.keys.refresh(for_unknown=True)
            claims = verify(jwt, keys=self.keys.verifying, typ=TOKEN_TYPE)
        check_claims(
            claims,
            issuer=self.issuer,
            audience=self.audience,
            now=self.clock.now(),
            leeway=self.settings.leeway,
            required=REQUIRED,
        )
        if not _text(claims, "sub").startswith(SUBJECT) or not _text(claims, "gid"):
            raise InvalidToken(note="no service's")
        if not isinstance(claims["scope"], str):
            raise InvalidToken(note="scope has the wrong type")
        return claims


def _text(claims: Mapping[str, object], name: str) -> str:
    """A claim that is a text; anything else is an empty one."""
    value = claims[name]
    return value if isinstance(value, str) else ""


def _faults_of(granted: ServiceGrant, now: datetime) -> list[Fault]:
    faults: list[Fault] = []
    if _NAME.fullmatch(granted.name) is None:
        detail = "must be lower-case letters, digits and hyphens, at most 63"
        faults.append(Fault("name", "name_invalid", detail))
    if not 0 < len(granted.audiences) <= _MOST:
        faults.append(Fault("audience", "audience_invalid", f"must be 1 to {_MOST}"))
    if any(_AUDIENCE.fullmatch(each) is None for each in granted.audiences):
        detail = "must be 1 to 256 printable ASCII letters without spaces"
        faults.append(Fault("audience", "audience_invalid", detail))
    if len(granted.scopes) > _MOST or any(
        _SCOPE.fullmatch(each) is None for each in granted.scopes
    ):
        detail = f"must be at most {_MOST}, of 1 to 100 ASCII letters without space, quote or \\"
        faults.append(Fault("scopes", "scope_invalid", detail))
    if granted.expires_at is not None and granted.expires_at.tzinfo is None:
        faults.append(Fault("expires_at", "timezone_missing", "must say its time zone"))
    elif granted.expires_at is not None and granted.expires_at <= now:
        faults.append(Fault("expires_at", "expiry_past", "is over already"))
    return faults
