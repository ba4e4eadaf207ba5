"""The verbs on tokens: issue, verify, refresh."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from watchword.crypto.jose import UnknownKid, check_claims, sign, verify
from watchword.crypto.keys import RootSecrets
from watchword.crypto.sealing import SealBroken, derive, open_with_key, seal_with_key
from watchword.features.keys import Keys
from watchword.features.sessions import (
    Prepared,
    RefreshTokenReplayed,
    Session,
    Sessions,
    agent_digest,
)
from watchword.features.tokens import refresh
from watchword.features.tokens.refresh import RefreshToken
from watchword.features.tokens.settings import TokenSettings
from watchword.features.users import User, Users
from watchword.kernel.clock import Clock
from watchword.kernel.errors import ExpiredToken, InvalidToken, RefreshTokenReused, RevokedToken
from watchword.kernel.ids import new_id
from watchword.kernel.principal import Client, Identity, Principal
from watchword.kernel.secrets import Digest, Secret, same
from watchword.storage.record import freeze
from watchword.storage.store import Paging, Store, gt, le, where

ACCESS_TYPE = "at+jwt"  # RFC 9068 §2.1
REQUIRED = ("iss", "aud", "sub", "client_id", "sid", "jti", "iat", "exp", "scope")
_JUDGED_AGAIN = 5  # times a refresh is judged when others rotate under it


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An access token, and the refresh token that gets the next."""

    access_token: str
    refresh_token: Secret
    session: Session
    user: User


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Bearer tokens of one realm: the `bearer` transport of sessions."""

    store: Store
    settings: TokenSettings
    clock: Clock
    keys: Keys
    users: Users[Any]
    sessions: Sessions
    secrets: RootSecrets
    issuer: str
    audience: str

    name: str = "bearer"
    carriage: Literal["bearer", "cookie"] = "bearer"
    prefix: str = ""  # what no other feature takes is a JWT, or nothing

    # As a transport

    def prepare(self, now: datetime, *, remember: bool) -> Prepared:  # noqa: ARG002
        """A fresh family for a session that is about to start."""
        token = refresh.new_family()
        expires_at = now + self.settings.family_max_age
        until = min(now + self.settings.refresh_ttl, expires_at)

        async def deliver(session: Session, user: User, _: object) -> Mapping[str, Any]:
            return self.body(await self.access_token(session, user), token.text)

        return Prepared(
            fields={
                "refresh_family": token.family_digest,
                "refresh_current": token.proof_digest,
                "refresh_expires_at": until,
            },
            idle_expires_at=until,
            expires_at=expires_at,
            deliver=deliver,
        )

    def body(self, access_token: str, refresh_token: Secret) -> dict[str, Any]:
        """The JSON of a pair (RFC 6749 §5.1)."""
        return {
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": int(self.settings.access_ttl.total_seconds()),
            "refresh_token": refresh_token.reveal(),
        }

    # Access tokens

    async def access_token(self, session: Session, user: User) -> str:  # noqa: ARG002
        """Sign a token that points at this session (RFC 9068 §2.2)."""
        now = self.clock.now()
        expires_at = min(now + self.settings.access_ttl, session.expires_at)
        claims: dict[str, object] = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": session.user_id,
            "client_id": session.app,
            "sid": session.id,
            "jti": new_id(now),
            "iat": int(now.timestamp()),
            "exp": int(expires_at.timestamp()),
            "scope": "",
        }
        return sign(claims, key=self.keys.active(), typ=ACCESS_TYPE)

    async def believe(self, presented: str) -> Identity | None:
        """What the signature and the claims say, and nobody's word on whether it still holds.

        Raises:
            InvalidToken, ExpiredToken
        """
        claims = await self.claims(presented)
        expires_at = datetime.fromtimestamp(int(str(claims["exp"])), tz=self.clock.now().tzinfo)
        session_id, user_id = str(claims["sid"]), str(claims["sub"])
        return Identity(
            principal=Principal(
                realm=self.store.realm,
                kind="user",
                id=user_id,
                session_id=session_id,
                client_id=str(claims["client_id"]),
                roles=frozenset(),
                scopes=frozenset(),
                amr=(),
                auth_time=None,
            ),
            user=None,
            is_verified=False,
            carriage="bearer",
            valid_until=expires_at + self.settings.leeway,
            subjects=(("session", session_id), ("user", user_id)),
            claims=freeze(claims),
            is_checked=False,
        )

    async def authenticate(self, presented: str, client: Client) -> Identity:  # noqa: ARG002
        """Who presents this access token: the signature, the claims, then the one row (I-02).

        Raises:
            InvalidToken, ExpiredToken, RevokedToken
        """
        claims = await self.claims(presented)
        session_id, user_id = str(claims["sid"]), str(claims["sub"])
        session = await self.sessions.get(session_id)
        if session is None or session.user_id != user_id:
            raise RevokedToken(note="no such session")
        if session.app != claims["client_id"]:
            raise InvalidToken(note="client_id is not the session's")
        user = await self.users.get(user_id)
        expires_at = datetime.fromtimestamp(int(str(claims["exp"])), tz=self.clock.now().tzinfo)
        identity = self.sessions.identity(
            session, user, "bearer", valid_until=expires_at + self.settings.leeway
        )
        return replace(identity, claims=freeze(claims))

    async def claims(self, presented: str) -> Mapping[str, object]:
        """The claims of an access token, all of them checked but for the session they name.

        Raises:
            InvalidToken, ExpiredToken
        """
        await self.keys.refresh()
        try:
            claims = verify(presented, keys=self.keys.verifying, typ=ACCESS_TYPE)
        except UnknownKid:
            await self.keys.refresh(for_unknown=True)
            claims = verify(presented, keys=self.keys.verifying, typ=ACCESS_TYPE)
        check_claims(
            claims,
            issuer=self.issuer,
            audience=self.audience,
            now=self.clock.now(),
            leeway=self.settings.leeway,
            required=REQUIRED,
        )
        return claims

    # Refresh tokens

    async def refresh(self, presented: str, *, client: Client) -> Pair:
        """Turn a refresh token into the next pair.

        The row is changed by one conditional update; whoever loses it reads again and is judged
        anew, so parallel refreshes of one client all get the same successor (I-14).

        Raises:
            InvalidToken: no token of any family.
            ExpiredToken: not used for too long, or the family is too old.
            RevokedToken: the session is over.
            RefreshTokenReused: not the newest of its family. The session is over.
        """
        token = refresh.read(presented)
        agent = agent_digest(client)
        for _ in range(_JUDGED_AGAIN):
            session = await self._session_of(token)
            if same(session.refresh_current or "", token.proof_digest):
                pair = await self._rotate(session, token, agent)
            else:
                pair = await self._repeat(session, token, agent)
            if pair is not None:
                return pair
        raise RevokedToken(note="lost every race")

    async def session_of(self, presented: str) -> str:
        """The session of a refresh token that is current or was just replaced."""
        token = refresh.read(presented)
        session = await self._session_of(token)
        known = (session.refresh_current, session.refresh_previous)
        if not any(same(digest or "", token.proof_digest) for digest in known):
            await self._reused(session)
        return session.id

    async def _session_of(self, token: RefreshToken) -> Session:
        session = await self.store.get(Session, refresh_family=token.family_digest)
        if session is None:
            raise InvalidToken(note="unknown family")
        return session

    async def _rotate(self, session: Session, token: RefreshToken, agent: Digest) -> Pair | None:
        now = self.clock.now()
        user = await self._alive(session)
        successor = token.successor()
        until = min(now + self.settings.refresh_ttl, session.expires_at)
        rotated = await self.store.update(
            Session,
            where(
                id=session.id,
                refresh_current=token.proof_digest,
                ended_at=None,
                epoch=session.epoch,
                refresh_expires_at=gt(now),
                expires_at=gt(now),
            ),
            refresh_previous=token.proof_digest,
            refresh_current=successor.proof_digest,
            refresh_expires_at=until,
            refresh_rotated_at=now,
            refresh_agent=agent,
            refresh_successor=self._sealed(session, token, successor),
            refresh_grace_until=now + self.settings.refresh_grace,
            idle_expires_at=until,
            seen_at=now,
        )
        if rotated is None:
            return None
        return Pair(
            access_token=await self.access_token(rotated, user),
            refresh_token=successor.text,
            session=rotated,
            user=user,
        )

    async def _repeat(self, session: Session, token: RefreshToken, agent: Digest) -> Pair | None:
        """Answer the token just replaced with the same successor, or take it for stolen."""
        grace_until = session.refresh_grace_until
        in_grace = (
            same(session.refresh_previous or "", token.proof_digest)
            and session.ended_at is None
            and grace_until is not None
            and self.clock.now() < grace_until
            and session.refresh_successor is not None
            and session.refresh_agent == agent
        )
        if not in_grace or session.refresh_successor is None:
            await self._reused(session)
        user = await self._alive(session)
        successor = self._opened(session, token, session.refresh_successor or "")
        return Pair(
            access_token=await self.access_token(session, user),
            refresh_token=successor.text,
            session=session,
            user=user,
        )

    async def _alive(self, session: Session) -> User:
        user: User | None = await self.users.get(session.user_id)
        self.sessions.check(session, user)
        expires_at = session.refresh_expires_at
        if expires_at is None or expires_at <= self.clock.now():
            raise ExpiredToken(note="refresh token")
        if user is None:
            raise RevokedToken(note="the user is gone")
        return user

    async def _reused(self, session: Session) -> None:
        """End the session, commit that, and only then say so (I-04)."""
        async with self.store.transaction() as tx:
            await self.sessions.end(session.id, why="refresh_token_reused", within=tx)
            await tx.announce(
                RefreshTokenReplayed(
                    realm=tx.realm,
                    at=self.clock.now(),
                    session_id=session.id,
                    user_id=session.user_id,
                )
            )
        raise RefreshTokenReused(note=f"session {session.id}")

    def _sealed(self, session: Session, token: RefreshToken, successor: RefreshToken) -> str:
        return seal_with_key(
            self._grace_key(token),
            successor.proof.reveal().encode(),
            realm=session.realm,
            record="session",
            key=session.id,
            field="refresh_successor",
        )

    def _opened(self, session: Session, token: RefreshToken, sealed: str) -> RefreshToken:
        try:
            proof = open_with_key(
                self._grace_key(token),
                sealed,
                realm=session.realm,
                record="session",
                key=session.id,
                field="refresh_successor",
            )
        except SealBroken as error:
            raise RevokedToken(note="the successor cannot be opened") from error
        return RefreshToken(token.family, Secret(proof.decode()))

    def _grace_key(self, token: RefreshToken) -> bytes:
        # Who reads the database alone cannot open it: the token itself is half of the key.
        subkey = self.secrets.subkey("refresh-grace")
        return derive(subkey, token.text.reveal().encode(), "refresh-successor")

    async def forget_successors(self) -> bool:
        """Erase successors whose grace is over, in bounded batches."""
        now = self.clock.now()
        # In the order of the index: by id, SQLite walks through all of a realm.
        paging = Paging(order=("refresh_grace_until", "id"), limit=200)
        page = await self.store.find(Session, paging, refresh_grace_until=le(now))
        for session in page.items:
            await self.store.update(
                Session,
                where(id=session.id, refresh_grace_until=session.refresh_grace_until),
                refresh_successor=None,
                refresh_grace_until=None,
            )
        return page.next is not None
