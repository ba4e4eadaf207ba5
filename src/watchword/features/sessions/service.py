"""The verbs on sessions: start, find whose it is, renew, end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from watchword.features.sessions.events import SessionEnded, SessionRenewed, SessionStarted
from watchword.features.sessions.records import Session
from watchword.features.sessions.settings import SessionSettings
from watchword.features.sessions.transports import (
    COOKIE_PREFIX,
    CookieTransport,
    Prepared,
    Transport,
    cookie_digest,
)
from watchword.features.users import User, UserDeleted, Users
from watchword.http.client import Clients
from watchword.kernel.clock import Clock
from watchword.kernel.errors import (
    ExpiredToken,
    Fault,
    InvalidInput,
    InvalidToken,
    RevokedToken,
)
from watchword.kernel.ids import new_id
from watchword.kernel.principal import Client, Identity, Principal
from watchword.kernel.secrets import Digest, Secret, digest_of, new_secret
from watchword.storage.store import Paging, Store, gt, where


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A session that just began, and how to hand it over."""

    session: Session
    user: User  # as it was when the first factor was asked for
    prepared: Prepared


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Sessions of one realm."""

    store: Store
    settings: SessionSettings
    clock: Clock
    users: Users[Any]
    client_id: str
    transports: Sequence[Transport]
    cookie: CookieTransport
    clients: Clients

    carriage: Literal["bearer", "cookie"] = "cookie"
    prefix: str = COOKIE_PREFIX

    def transport(self, name: str) -> Transport:
        """The transport of this name. Raises InvalidInput naming `transport`."""
        for each in self.transports:
            if each.name == name:
                return each
        known = ", ".join(sorted(each.name for each in self.transports))
        fault = Fault("transport", "transport_unknown", f"is not one of {known}")
        raise InvalidInput([fault])

    @property
    def default_transport(self) -> str:
        """What a sign-in that names none gets: tokens, if there are any."""
        names = [each.name for each in self.transports]
        return "bearer" if "bearer" in names else names[0]

    async def start(
        self,
        user: User,
        *,
        amr: tuple[str, ...],
        transport: Transport,
        client: Client,
        remember: bool = False,
        replaces: str | None = None,
    ) -> Started:
        """Begin a session of this user.

        Args:
            user: as read *before* the first factor was checked: the session begins under that
                epoch, so one whose password was reset meanwhile is dead at birth (I-01).
            amr: the factors that were proven.
            transport: how it is carried.
            client: where the request comes from.
            remember: for the longer of the transport's two profiles.
            replaces: the session that this browser had before; it ends.
        """
        now = self.clock.now()
        prepared = transport.prepare(now, remember=remember)
        session = Session(
            realm=self.store.realm,
            id=new_id(now),
            user_id=user.id,
            epoch=user.epoch,
            amr=amr,
            auth_time=now,
            transport=transport.name,
            app=self.client_id,
            address=self._address(client),
            user_agent=client.user_agent,
            agent_digest=agent_digest(client),
            remembered=remember,
            device=client.device,
            fingerprint=client.fingerprint,
            binding=self.clients.binding_of(client).address,
            started_at=now,
            seen_at=now,
            idle_expires_at=min(prepared.idle_expires_at, prepared.expires_at),
            expires_at=prepared.expires_at,
            delete_at=prepared.expires_at + self.settings.kept_after_end,
            **prepared.fields,
        )
        async with self.store.transaction() as tx:
            await tx.insert(session)
            await tx.announce(
                SessionStarted(
                    realm=tx.realm,
                    at=now,
                    session_id=session.id,
                    user_id=user.id,
                    amr=amr,
                    transport=transport.name,
                )
            )
        if replaces is not None:
            await self.end(replaces, why="signed_in_again")
        await self._cap(user.id)
        return Started(session=session, user=user, prepared=prepared)

    async def _cap(self, user_id: str) -> None:
        """End all but the newest N. Inserted first, ended after: racers see each other (I-18)."""
        paging = Paging(
            order=("started_at", "id"), descending=True, limit=self.settings.max_sessions + 50
        )
        page = await self.store.find(
            Session, paging, user_id=user_id, ended_at=None, expires_at=gt(self.clock.now())
        )
        for session in page.items[self.settings.max_sessions :]:
            await self.end(session.id, why="too_many_sessions")

    async def end(self, session_id: str, *, why: str, within: Store | None = None) -> bool:
        """End a session, in a short transaction of its own unless told otherwise (I-04).

        Returns:
            Whether this call ended it; False if it was over already or never was.
        """
        now = self.clock.now()
        async with (within or self.store).transaction() as tx:
            ended = await tx.update(
                Session,
                where(id=session_id, ended_at=None),
                ended_at=now,
                ended_why=why,
                delete_at=now + self.settings.kept_after_end,
                refresh_successor=None,
                refresh_grace_until=None,
            )
            if ended is None:
                return False
            await tx.announce(
                SessionEnded(
                    realm=tx.realm, at=now, session_id=session_id, user_id=ended.user_id, why=why
                )
            )
        return True

    async def keep(self, session_id: str, *, was: int, epoch: int, within: Store) -> bool:
        """Carry one session over a raised epoch (I-01); False if it had ended by then.

        Only one that began under `was` is carried: another raise in between has ended it.
        """
        kept = await within.update(
            Session, where(id=session_id, ended_at=None, epoch=was), epoch=epoch
        )
        return kept is not None

    async def renew(
        self, session: Session, *, amr: tuple[str, ...], client: Client
    ) -> Secret | None:
        """A factor was proven again, now: the session is fresh and its cookie is replaced.

        Returns:
            The new cookie's value, for a session that has a cookie.

        Raises:
            RevokedToken: the session ended meanwhile.
        """
        now = self.clock.now()
        cookie = None if session.cookie_digest is None else new_secret(COOKIE_PREFIX)
        replaced: Mapping[str, object] = (
            {} if cookie is None else {"cookie_digest": cookie_digest(cookie)}
        )
        async with self.store.transaction() as tx:
            renewed = await tx.update(
                Session,
                where(
                    id=session.id,
                    ended_at=None,
                    epoch=session.epoch,
                    cookie_digest=session.cookie_digest,
                ),
                amr=amr,
                auth_time=now,
                binding=self.clients.binding_of(client).address,
                fingerprint=client.fingerprint,
                **replaced,
            )
            if renewed is None:
                raise RevokedToken(note="ended while it was renewed")
            await tx.announce(
                SessionRenewed(
                    realm=tx.realm, at=now, session_id=session.id, user_id=session.user_id
                )
            )
        return cookie

    async def get(self, session_id: str) -> Session | None:
        """The session of this id, over or not."""
        return await self.store.get(Session, id=session_id)

    async def believe(self, presented: str) -> Identity | None:  # noqa: ARG002
        """Nothing: a session cookie says nothing by itself."""
        return None

    async def authenticate(self, presented: str, client: Client) -> Identity:  # noqa: ARG002
        """Whose session cookie this is.

        Raises:
            InvalidToken, ExpiredToken, RevokedToken
        """
        if not presented.startswith(COOKIE_PREFIX):
            raise InvalidToken(note="not a session cookie")  # a JWT in it proves nothing (I-03)
        session = await self.store.get(Session, cookie_digest=cookie_digest(presented))
        if session is None:
            raise InvalidToken(note="unknown session cookie")
        # Believed no longer than it may go untouched: what is answered from the gate's cache
        # moves no idle end.
        identity = self.identity(
            session,
            await self.users.get(session.user_id),
            "cookie",
            valid_until=self.clock.now() + self._touched_every,
        )
        await self._touch(session)
        return identity

    def identity(
        self,
        session: Session,
        user: User | None,
        carriage: Literal["bearer", "cookie"],
        *,
        valid_until: datetime | None = None,
    ) -> Identity:
        """Who acts in this session, if it lives.

        Raises:
            RevokedToken, ExpiredToken
        """
        self.check(session, user)
        if user is None:
            raise RevokedToken(note="the user is gone")
        until = min(session.idle_expires_at, session.expires_at)
        return Identity(
            principal=Principal(
                realm=session.realm,
                kind="user",
                id=user.id,
                session_id=session.id,
                client_id=session.app,
                roles=frozenset(user.roles),
                scopes=frozenset(),
                amr=session.amr,
                auth_time=session.auth_time,
            ),
            user=user,
            is_verified=user.is_verified,
            carriage=carriage,
            valid_until=until if valid_until is None else min(until, valid_until),
            subjects=(("session", session.id), ("user", user.id)),
        )

    def check(self, session: Session, user: User | None) -> None:
        """Does this session live? The one place that says so.

        Raises:
            RevokedToken: it was ended, its user is gone or switched off, or the epoch was raised.
            ExpiredToken: idle too long, or at its absolute end.
        """
        if session.ended_at is not None:
            raise RevokedToken(note=session.ended_why)
        if user is None or not user.is_active or session.epoch != user.epoch:
            raise RevokedToken(note="user gone, disabled, or epoch raised")
        now = self.clock.now()
        if session.expires_at <= now or session.idle_expires_at <= now:
            raise ExpiredToken(note="session")

    @property
    def _touched_every(self) -> timedelta:
        return self.settings.idle_timeout / 10

    async def _touch(self, session: Session) -> None:
        """Move the idle end, but not at every request: at most ten times an idle timeout."""
        now = self.clock.now()
        if now - session.seen_at < self._touched_every:
            return
        await self.store.update(
            Session,
            where(id=session.id, ended_at=None, seen_at=session.seen_at),
            seen_at=now,
            idle_expires_at=min(now + self.settings.idle_timeout, session.expires_at),
        )

    async def forget_user(self, tx: Store, event: UserDeleted) -> None:
        """A user was deleted: so are their sessions."""
        await tx.erase(Session, user_id=event.user_id)

    def _address(self, client: Client) -> str | None:
        if client.address is None or self.settings.ip_mode == "plain":
            return client.address
        return self.clients.hashed(client.address)


def agent_digest(client: Client) -> Digest:
    """What a client calls itself, as a digest: replayable, so only ever a hint."""
    return digest_of(client.user_agent, purpose="user-agent")
