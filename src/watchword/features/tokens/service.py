"""The verbs on tokens: issue, verify, refresh, revoke."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from watchword.crypto.jose import UnknownKid, check_claims, sign, verify
from watchword.crypto.keys import RootSecrets
from watchword.crypto.sealing import SealBroken, derive, open_with_key, seal_with_key
from watchword.features.keys import Keys
from watchword.features.sessions import (
    RefreshTokenReplayed,
    Session,
    Sessions,
    agent_digest,
)
from watchword.features.tokens import inspection, refresh
from watchword.features.tokens.claims import REQUIRED, ClaimsHook, claims_of
from watchword.features.tokens.events import TokenExpired, TokenRefreshed
from watchword.features.tokens.inspection import ACCESS_TYPE, Inspection, Peeked
from watchword.features.tokens.refresh import RefreshToken
from watchword.features.tokens.settings import TokenSettings
from watchword.features.users import User, Users
from watchword.kernel.attempts import Attempts
from watchword.kernel.clock import Clock
from watchword.kernel.errors import (
    ClaimsUnavailable,
    ExpiredToken,
    InvalidToken,
    RefreshTokenReused,
    RevokedToken,
    StoreUnavailable,
)
from watchword.kernel.ids import new_id
from watchword.kernel.principal import Client, Identity, Principal
from watchword.kernel.secrets import Secret, same
from watchword.storage.record import freeze
from watchword.storage.store import Paging, Store, gt, le, where

if TYPE_CHECKING:
    from watchword.features.tokens.transports import TokenTransport

PAIR: Final = "cookie_pair"
PAIR_ACCESS_TTL: Final = timedelta(minutes=15)  # at most, in a cookie (I-03)
PAIR_ACCESS_LETTERS: Final = 4000  # what browsers keep, less the longest name
_JUDGED_AGAIN = 5  # times a refresh is judged when others rotate under it

H = TypeVar("H", bound=ClaimsHook)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The first refresh token of a session, and what its row keeps of it."""

    token: RefreshToken
    fields: Mapping[str, Any]
    idle_expires_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An access token, and the refresh token that gets the next."""

    access_token: str = field(repr=False)
    expires_in: timedelta  # of the access token
    refresh_token: Secret
    session: Session
    user: User


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Access and refresh tokens of one realm."""

    store: Store
    settings: TokenSettings
    clock: Clock
    keys: Keys
    users: Users[Any]
    sessions: Sessions
    secrets: RootSecrets
    issuer: str
    audience: str
    attempts: Attempts
    hooks: list[ClaimsHook] = field(default_factory=list[ClaimsHook])
    transports: "list[TokenTransport]" = field(default_factory=list["TokenTransport"])

    carriage: Literal["bearer", "cookie"] = "bearer"
    prefix: str = ""  # what no other feature takes is a JWT, or nothing

    @property
    def is_pair_on(self) -> bool:
        """May access tokens come in a cookie of their own?"""
        return self.settings.cookie_pair

    # Access tokens

    @property
    def signed_life(self) -> timedelta:
        """How long an access token is believed (`SignedLife`, I-16)."""
        return self.settings.access_ttl + self.settings.leeway

    def claims(self, hook: H) -> H:
        """Add claims of your own to every access token: `@auth.tokens.claims`.

        The hook, a function or a coroutine function, gets the user and the session and returns a
        mapping. It is asked anew at each refresh; if it fails, no token is made.
        """
        self.hooks.append(hook)
        return hook

    async def access_token(
        self, session: Session, user: User, *, audience: str | None = None
    ) -> str:
        """Sign a token that points at this session (RFC 9068 §2.2).

        Args:
            session: that of the user.
            user: as the claims hooks get it.
            audience: one other service, instead of our own: only that one takes it then.

        Raises:
            ClaimsUnavailable: a claims hook failed.
        """
        return (await self._access(session, user, audience))[0]

    async def pair(self, session: Session, user: User, token: RefreshToken) -> Pair:
        """The access token that goes with a refresh token. Raises ClaimsUnavailable."""
        text, lives = await self._access(session, user)
        return Pair(
            access_token=text,
            expires_in=lives,
            refresh_token=token.text,
            session=session,
            user=user,
        )

    async def _access(
        self, session: Session, user: User, audience: str | None = None
    ) -> tuple[str, timedelta]:
        own = await claims_of(self.hooks, user, session, self.settings.required_claims)
        now = self.clock.now()
        ttl = self.settings.access_ttl
        if session.transport == PAIR:
            ttl = min(ttl, PAIR_ACCESS_TTL)
        issued_at = int(now.timestamp())
        expires_at = int(min(now + ttl, session.expires_at).timestamp())
        ours = [*dict.fromkeys((self.audience, *self.settings.audiences))]
        claims: dict[str, object] = {
            "iss": self.issuer,
            "aud": (ours if len(ours) > 1 else self.audience) if audience is None else audience,
            "sub": session.user_id,
            "client_id": session.app,
            "sid": session.id,
            "jti": new_id(now),
            "iat": issued_at,
            "exp": expires_at,
            "scope": "",
        }
        key = await self.keys.signing()
        try:
            text = sign({**own, **claims}, key=key, typ=ACCESS_TYPE)
        except ValueError as error:
            raise ClaimsUnavailable(note=str(error)) from error
        if session.transport == PAIR and len(text) > PAIR_ACCESS_LETTERS:
            raise ClaimsUnavailable(note="the access token is too long for a cookie")
        return text, timedelta(seconds=expires_at - issued_at)

    async def believe(self, presented: str) -> Identity | None:
        """What the signature and the claims say, and nobody's word on whether it still holds.

        Raises:
            InvalidToken, ExpiredToken
        """
        claims = await self.verified(presented)
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
            valid_until=self._valid_until(claims),
            subjects=(("session", session_id), ("user", user_id)),
            claims=freeze(claims),
            is_checked=False,
        )

    async def authenticate(self, presented: str, client: Client) -> Identity:
        """Who presents this access token: the signature, the claims, then the one row (I-02).

        Raises:
            InvalidToken, ExpiredToken, RevokedToken
        """
        claims = await self.verified(presented)
        session = await self._session_named(claims)
        user = await self.users.get(session.user_id)
        identity = self.sessions.identity(
            session, user, "bearer", valid_until=self._valid_until(claims)
        )
        await self.sessions.notice(session, client)
        return replace(identity, claims=freeze(claims))

    async def verified(self, presented: str) -> Mapping[str, object]:
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
            required=self.required,
            others=self.settings.audiences,
        )
        return claims

    @property
    def required(self) -> tuple[str, ...]:
        """Claims without which a token is none of ours."""
        return (*REQUIRED, *self.settings.required_claims)

    def _valid_until(self, claims: Mapping[str, object]) -> datetime:
        expires_at = datetime.fromtimestamp(int(str(claims["exp"])), tz=self.clock.now().tzinfo)
        return expires_at + self.settings.leeway

    async def _session_named(self, claims: Mapping[str, object]) -> Session:
        session = await self.sessions.get(str(claims["sid"]))
        if session is None or session.user_id != claims["sub"]:
            raise RevokedToken(note="no such session")
        if session.app != claims["client_id"]:
            raise InvalidToken(note="client_id is not the session's")
        return session

    # Looking at tokens

    def peek(self, text: str) -> Peeked:
        """What an access token says of itself, whoever made it. Proves nothing.

        Raises:
            InvalidToken: it is no token as we write them.
        """
        return inspection.peeked(text, self.clock.now())

    async def inspect(self, text: str, *, issuer: str | None = None) -> Inspection:
        """Why this access token is taken or refused: every check, and the first that fails.

        Args:
            text: the token, with or without `Bearer` before it.
            issuer: whose tokens to expect, where this process does not serve them itself.
        """
        return await inspection.inspected(self, text, issuer=issuer)

    async def revoke(self, text: str, *, why: str = "revoked") -> bool:
        """End the session of an access or refresh token; False if it was over.

        Raises:
            InvalidToken: or a subclass: the token proves nothing, so it ends nothing.
        """
        if text.startswith((refresh.PREFIX, refresh.REMEMBERED)):
            return await self.sessions.end(await self.session_of(text), why=why)
        session = await self._session_named(await self.verified(text))
        return await self.sessions.end(session.id, why=why)

    # Refresh tokens

    def begin(self, now: datetime, *, remember: bool) -> Begun:
        """A fresh family for a session that is about to start."""
        token = refresh.new_family(remembered=remember)
        expires_at = now + self.settings.family_max_age
        until = min(now + self._idle(token), expires_at)
        return Begun(
            token=token,
            fields={
                "refresh_family": token.family_digest,
                "refresh_current": token.proof_digest,
                "refresh_expires_at": until,
            },
            idle_expires_at=until,
            expires_at=expires_at,
        )

    async def refresh(
        self, presented: str, *, client: Client, session: Session | None = None
    ) -> Pair:
        """Turn a refresh token into the next pair.

        The row is changed by one conditional update, before it was ever read; whoever that does
        not fit reads and is judged anew, so parallel refreshes of one client all get the same
        successor (I-14). Where something may fail after it, the row is read and all of that is
        asked first: a claims hook that fails rotates nothing.

        Args:
            presented: what the client holds.
            client: where the request comes from.
            session: its row, where the caller has just read it.

        Raises:
            InvalidToken: no token of any family.
            ExpiredToken: not used for too long, or the family is too old.
            RevokedToken: the session is over.
            RefreshTokenReused: not the newest of its family. The session is over.
            SessionBoundElsewhere, BrowserChanged: the session is bound to another address or
                browser. Nothing was changed by it.
            ClaimsUnavailable: a claims hook failed; the token given is as good as before.
        """
        await self.attempts.count("refresh", client=client)
        token = refresh.read(presented)
        if session is None and self._may_rotate_unseen:
            pair = await self._rotate_unseen(token, client)
            if pair is not None:
                return pair
        for _ in range(_JUDGED_AGAIN):
            session = session or await self._session_of(token)
            if same(session.refresh_current or "", token.proof_digest):
                pair = await self._rotate(session, token, client)
            else:
                pair = await self._repeat(session, token, client)
            if pair is not None:
                return pair
            session = None
        raise RevokedToken(note="lost every race")

    async def session_named(self, presented: str) -> Session:
        """The session of the family that a refresh token names; nothing is judged yet.

        Raises:
            InvalidToken: no token of any family.
        """
        return await self._session_of(refresh.read(presented))

    async def session_of(self, presented: str) -> str:
        """The session of a refresh token that is current or was just replaced."""
        token = refresh.read(presented)
        session = await self._session_of(token)
        known = (session.refresh_current, session.refresh_previous)
        if not any(same(digest or "", token.proof_digest) for digest in known):
            await self._reused(session)
        return session.id

    def transport_of(self, session: Session) -> "TokenTransport":
        """How the tokens of this session are handed over. Raises RevokedToken: not any more."""
        for each in self.transports:
            if each.name == session.transport:
                return each
        raise RevokedToken(note=f"transport {session.transport} is off")

    @property
    def _may_rotate_unseen(self) -> bool:
        """Does nothing that may fail for long come after the update?

        Whoever asked again past the grace would be taken for a thief. Claims are the app's to
        give; the users may be away while the sessions, kept elsewhere, are not.
        """
        return not (self.hooks or self.settings.required_claims or self.store.is_apart(Session))

    async def _session_of(self, token: RefreshToken) -> Session:
        session = await self.store.get(Session, refresh_family=token.family_digest)
        if session is None:
            raise InvalidToken(note="unknown family")
        return session

    async def _rotate_unseen(self, token: RefreshToken, client: Client) -> Pair | None:
        """The way of nearly every refresh: all that must hold stands in the condition."""
        successor = token.successor()
        session = await self._rotated(token, successor, client, **self._bound_to(client))
        if session is None:
            return None
        # Whoever is gone, disabled or signed out everywhere gets nothing for it.
        try:
            user = await self._alive(session, client)
        except InvalidToken:
            await self._take_back(session, token, successor)
            raise
        pair = await self.pair(session, user, successor)
        await self._told(session, token, successor)
        return pair

    async def _told(self, session: Session, token: RefreshToken, successor: RefreshToken) -> None:
        """Announce a rotation before its successor is handed out, or take it back."""
        try:
            await self._announce(TokenRefreshed, session)
        except StoreUnavailable:
            with suppress(StoreUnavailable):  # away altogether: within the grace they may try again
                await self._take_back(session, token, successor)
            raise

    async def _take_back(
        self, session: Session, token: RefreshToken, successor: RefreshToken
    ) -> None:
        """Nobody got the successor: whoever asks again hears the same, not of a theft."""
        await self.store.update(
            Session,
            where(id=session.id, refresh_current=successor.proof_digest),
            refresh_current=token.proof_digest,
            refresh_previous=None,
            refresh_successor=None,
            refresh_grace_until=None,
        )

    def _bound_to(self, client: Client) -> dict[str, object]:
        """What the row must say of the client, where sessions are bound at all."""
        marks = self.sessions.clients
        shown = marks.binding_of(client)
        bound: dict[str, object] = {}
        if shown.address is not None:
            bound["binding"] = shown.address
        if marks.settings.fingerprint == "reject":
            bound["fingerprint"] = shown.fingerprint
        return bound

    async def _rotate(self, session: Session, token: RefreshToken, client: Client) -> Pair | None:
        user = await self._alive(session, client)
        successor = token.successor()
        pair = await self.pair(session, user, successor)
        # As they were when they were judged; one that was begun before sessions were bound is not.
        bound = self._bound_to(client)
        rotated = await self._rotated(
            token,
            successor,
            client,
            epoch=session.epoch,
            **{name: getattr(session, name) for name in bound},
        )
        if rotated is None:
            return None
        await self._told(rotated, token, successor)
        return replace(pair, session=rotated)

    async def _rotated(
        self, token: RefreshToken, successor: RefreshToken, client: Client, **further: object
    ) -> Session | None:
        now = self.clock.now()
        # Not past the session's absolute end, which is checked wherever this one is.
        until = now + self._idle(token)
        return await self.store.update(
            Session,
            where(
                refresh_family=token.family_digest,
                refresh_current=token.proof_digest,
                ended_at=None,
                refresh_expires_at=gt(now),
                idle_expires_at=gt(now),
                expires_at=gt(now),
                **further,
            ),
            **{
                # Not by the session's id: that is in the row, which nobody has read.
                **self.sessions.seen_fields(client, session_id=token.family_digest),
                "refresh_previous": token.proof_digest,
                "refresh_current": successor.proof_digest,
                "refresh_expires_at": until,
                "refresh_rotated_at": now,
                "refresh_agent": agent_digest(client),
                "refresh_device": client.device,
                "refresh_successor": self._sealed(token, successor),
                "refresh_grace_until": now + self.settings.refresh_grace,
                "idle_expires_at": until,
            },
        )

    def _idle(self, token: RefreshToken) -> timedelta:
        return self.settings.remember_ttl if token.remembered else self.settings.refresh_ttl

    async def _repeat(self, session: Session, token: RefreshToken, client: Client) -> Pair | None:
        """Answer the token just replaced with the same successor, or take it for stolen."""
        now, rotated_at = self.clock.now(), session.refresh_rotated_at
        is_asked_again = (
            same(session.refresh_previous or "", token.proof_digest)
            and session.refresh_agent == agent_digest(client)
            and session.refresh_device == client.device
        )
        if session.ended_at is not None:
            # Whoever comes late to a sign-out has copied nothing.
            lately = rotated_at is not None and now < rotated_at + self.settings.refresh_grace
            if is_asked_again and lately:
                raise RevokedToken(note=session.ended_why)
            await self._reused(session)
        grace_until = session.refresh_grace_until
        in_grace = is_asked_again and grace_until is not None and now < grace_until
        if not in_grace or session.refresh_successor is None:
            await self._reused(session)
        user = await self._alive(session, client)
        successor = self._opened(token, session.refresh_successor or "")
        return await self.pair(session, user, successor)

    async def _alive(self, session: Session, client: Client) -> User:
        user: User | None = await self.users.get(session.user_id)
        expires_at = session.refresh_expires_at
        try:
            self.sessions.check(session, user)
            if expires_at is None or expires_at <= self.clock.now():
                raise ExpiredToken(note="refresh token")
        except ExpiredToken:
            await self._announce(TokenExpired, session)
            raise
        if user is None:
            raise RevokedToken(note="the user is gone")
        self.transport_of(session)
        await self.sessions.check_client(session, client)
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

    async def _announce(self, kind: type[TokenRefreshed | TokenExpired], session: Session) -> None:
        await self.store.announce(
            kind(
                realm=self.store.realm,
                at=self.clock.now(),
                session_id=session.id,
                user_id=session.user_id,
            )
        )

    def _sealed(self, token: RefreshToken, successor: RefreshToken) -> str:
        return seal_with_key(
            self._grace_keys(token)[0], successor.proof.reveal().encode(), **self._place(token)
        )

    def _opened(self, token: RefreshToken, sealed: str) -> RefreshToken:
        for key in self._grace_keys(token):
            try:
                proof = open_with_key(key, sealed, **self._place(token))
            except SealBroken:
                continue
            return RefreshToken(token.family, Secret(proof.decode()), token.remembered)
        raise RevokedToken(note="the successor cannot be opened")

    def _place(self, token: RefreshToken) -> dict[str, str]:
        return {
            "realm": self.store.realm,
            "record": "session",
            "key": token.family_digest,
            "field": "refresh_successor",
        }

    def _grace_keys(self, token: RefreshToken) -> list[bytes]:
        """Under every root secret, the current one first: its change signs nobody out."""
        # Who reads the database alone cannot open it: the token itself is half of the key.
        text = token.text.reveal().encode()
        subkeys = self.secrets.subkeys("refresh-grace")
        return [derive(subkey, text, "refresh-successor") for subkey in subkeys]

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
