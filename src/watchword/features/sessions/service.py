"""The verbs on sessions: start, find whose it is, renew, end."""

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any, Literal

from watchword.crypto.sealing import Sealer
from watchword.features.sessions.agents import agent_of
from watchword.features.sessions.devices import Devices, digest_in
from watchword.features.sessions.events import (
    DeviceAdded,
    DeviceNamed,
    FingerprintChanged,
    SessionCarried,
    SessionEnded,
    SessionRenewed,
    SessionsEnded,
    SessionStarted,
    SignInProven,
)
from watchword.features.sessions.mails import LIMIT, NEW_DEVICE, SessionMails
from watchword.features.sessions.records import Session
from watchword.features.sessions.settings import SessionSettings
from watchword.features.sessions.transports import (
    COOKIE_PREFIX,
    CookieTransport,
    Prepared,
    Transport,
    cookie_digest,
    device_digest,
)
from watchword.features.users import User, UserDeleted, Users
from watchword.kernel.clock import Clock
from watchword.kernel.errors import (
    ExpiredToken,
    Fault,
    InvalidInput,
    InvalidToken,
    RevokedToken,
    SessionBoundElsewhere,
    SessionNotFound,
    UserNotFound,
    WatchwordError,
)
from watchword.kernel.ids import new_id
from watchword.kernel.ports import ClientMarks
from watchword.kernel.principal import Binding, Client, Identity, Principal
from watchword.kernel.secrets import Digest, Secret, digest_of, new_secret
from watchword.storage.store import Page, Paging, Store, Where, ge, gt, le, lt, plus, where

_log = logging.getLogger("watchword.sessions")

_NEWEST_FIRST = ("started_at", "id")
_SEEN_EVERY = timedelta(hours=1)  # a remembered session's user sees when it was used last
_BATCH = 200
_TOLD_IN = timedelta(days=1)  # so long one mail of sessions that were too many lasts,
_TOLD_OF = 5  # and of so many devices that are new is told
_SEALED = "v1."


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
    clients: ClientMarks
    sealer: Sealer
    devices: Devices
    mails: SessionMails

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
        proven_at: datetime | None = None,
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
            proven_at: when the last factor was proven; None: just now.

        Raises:
            RefusedByHook: a gate of the application said no.
        """
        await self.store.events.ask(
            SignInProven(
                realm=self.store.realm,
                at=self.clock.now(),
                user_id=user.id,
                email=user.email,
                amr=amr,
                transport=transport.name,
                address=client.address,
                user_agent=client.user_agent,
            )
        )
        now = self.clock.now()
        prepared = transport.prepare(now, remember=remember)
        device = client.device
        if transport.name != "bearer":  # those that set cookies
            given = client.device_cookie or self.clients.new_device()
            prepared, device = self.cookie.with_device(prepared, given), device_digest(given)
        session_id = new_id(now)
        session = Session(
            realm=self.store.realm,
            id=session_id,
            user_id=user.id,
            epoch=user.epoch,
            amr=amr,
            auth_time=proven_at or now,
            transport=transport.name,
            app=self.client_id,
            agent_digest=agent_digest(client),
            remembered=remember,
            device=device,
            binding=self.clients.binding_of(client).address,
            fingerprint=self.clients.binding_of(client).fingerprint,
            started_at=now,
            **self._seen(client, _row_of(session_id, prepared.fields)),
            idle_expires_at=min(prepared.idle_expires_at, prepared.expires_at),
            expires_at=prepared.expires_at,
            delete_at=prepared.expires_at + self.settings.kept_after_end,
            **prepared.fields,
        )
        async with self.store.transaction() as tx:
            known = await self.devices.met(
                tx,
                user.id,
                digest_in(session),
                user_agent=session.user_agent,
                epoch=session.epoch,
            )
            if known is not None:
                session = replace(session, device_name=known.name)
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
                await self.end(replaces, why="signed_in_again", within=tx)
            if known is None:
                await self._met_first(tx, user, session)
        await self._cap(user)
        return Started(session=session, user=user, prepared=prepared)

    async def _met_first(self, tx: Store, user: User, session: Session) -> None:
        known = await self.devices.add(tx, session)
        if len(known) < 2:  # nobody who was seen elsewhere before
            return
        agent = agent_of(session.user_agent)
        await tx.announce(
            DeviceAdded(
                realm=tx.realm,
                at=session.started_at,
                session_id=session.id,
                user_id=user.id,
                browser=agent.browser,
                system=agent.system,
            )
        )
        # Who has the password and keeps no cookie is new each time, and no mailbox should fill.
        since = session.started_at - _TOLD_IN
        if sum(each.first_seen_at > since for each in known) <= _TOLD_OF:
            await self.mails.queue(tx, user, NEW_DEVICE, session.id)

    async def _cap(self, user: User) -> None:
        """End all but the newest N. Inserted first, ended after: racers see each other (I-18)."""
        most = self.settings.max_sessions
        page = await self._living(user, limit=most + 50)
        if len(page.items) <= most:
            return
        told = await self._told_of_cap(user)
        for session in page.items[most:]:
            async with self.store.transaction() as tx:
                ended = await self.end(session.id, why="too_many_sessions", within=tx)
                if ended and not told:
                    told = True
                    await self.mails.queue(tx, user, LIMIT, session.id)

    async def _told_of_cap(self, user: User) -> bool:
        """Was one of theirs ended by the cap lately? Whoever never signs out does it each time."""
        lately = await self.store.find(
            Session,
            Paging(order=("ended_at", "started_at", "id"), descending=True, limit=1),
            user_id=user.id,
            ended_at=ge(self.clock.now() - _TOLD_IN),
            ended_why="too_many_sessions",
        )
        return bool(lately.items)

    async def _living(self, user: User, *, limit: int, after: str | None = None) -> Page[Session]:
        now = self.clock.now()
        return await self.store.find(
            Session,
            Paging(order=_NEWEST_FIRST, descending=True, limit=limit, after=after),
            user_id=user.id,
            ended_at=None,
            epoch=user.epoch,
            expires_at=gt(now),
            idle_expires_at=gt(now),
        )

    async def page(
        self, user: User, *, limit: int = 100, after: str | None = None
    ) -> Page[Session]:
        """The sessions of a user that live, the newest first.

        Raises:
            InvalidInput: `after` is no cursor of this list.
        """
        return await self._living(user, limit=limit, after=after)

    async def everyones(
        self, *, limit: int = 100, after: str | None = None
    ) -> Page[tuple[Session, User]]:
        """The sessions of everybody that live, the newest first, for operators.

        Those whose user ended them all are left out of the page afterwards: it may be short.

        Raises:
            InvalidInput: `after` is no cursor of this list.
        """
        now = self.clock.now()
        page = await self.store.find(
            Session,
            Paging(order=("id",), descending=True, limit=limit, after=after),
            ended_at=None,
            expires_at=gt(now),
            idle_expires_at=gt(now),
        )
        users: dict[str, User | None] = {}
        living: list[tuple[Session, User]] = []
        for session in page.items:
            if session.user_id not in users:
                users[session.user_id] = await self.users.get(session.user_id)
            user = users[session.user_id]
            if user is not None and user.is_active and session.epoch == user.epoch:
                living.append((session, user))
        return Page(tuple(living), page.next)

    async def end(
        self,
        session_id: str,
        *,
        why: str,
        user_id: str | None = None,
        by: str | None = None,
        within: Store | None = None,
    ) -> bool:
        """End a session, in a short transaction of its own unless told otherwise (I-04).

        Args:
            session_id: which.
            why: for the event.
            user_id: only if it is this user's.
            by: the id of the user who asked for it.
            within: the transaction.

        Returns:
            Whether this call ended it; False if it was over already or never was.
        """
        theirs = {} if user_id is None else {"user_id": user_id}
        return await self._end(
            where(id=session_id, ended_at=None, **theirs), why=why, by=by, within=within
        )

    async def _end(
        self, which: Where, *, why: str, by: str | None = None, within: Store | None = None
    ) -> bool:
        now = self.clock.now()
        async with (within or self.store).transaction() as tx:
            ended = await tx.update(
                Session,
                which,
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
                    realm=tx.realm,
                    at=now,
                    session_id=ended.id,
                    user_id=ended.user_id,
                    why=why,
                    by=by,
                )
            )
        return True

    async def end_all(
        self, user_id: str, *, why: str, by: str | None = None, keep: str | None = None
    ) -> None:
        """End every session of a user by raising the epoch (I-01); keep one, if asked to.

        Args:
            user_id: whose.
            why: for the events.
            by: the id of the user who asked for it.
            keep: the session that goes on.

        Raises:
            UserNotFound
            RevokedToken: the one to keep was over already; so are all the others now.
        """
        kept = keep is None
        async with self.store.transaction() as tx:
            epoch = await self.users.end_all(user_id, why=why, within=tx)
            if keep is not None:
                kept = await self.keep(keep, was=epoch - 1, epoch=epoch, within=tx)
            await tx.announce(
                SessionsEnded(
                    realm=tx.realm,
                    at=self.clock.now(),
                    user_id=user_id,
                    why=why,
                    by=by,
                    kept=keep if kept else None,
                )
            )
        # They are over by now. Their rows say so too, for whoever looks at one later.
        page = await self.store.find(
            Session,
            Paging(order=_NEWEST_FIRST, descending=True, limit=_BATCH),
            user_id=user_id,
            ended_at=None,
            epoch=lt(epoch),
        )
        for session in page.items:
            await self._end(where(id=session.id, ended_at=None, epoch=lt(epoch)), why=why, by=by)
        if not kept:
            raise RevokedToken(note="the session to keep had ended")

    async def end_since(
        self, since: datetime | None, *, why: str = "operator"
    ) -> AsyncGenerator[tuple[int, int]]:
        """End every session that was alive at or after an instant, whatever its row says now.

        After a failover to a replica that lagged, what was ended since then may live again
        (I-19). So the epoch of every user is raised who has a session that was not over by then.

        Args:
            since: the instant; None ends all of every user, whether they have a session or only
                what one began, such as an API key.
            why: for the events.

        Yields:
            After each page of users: how many were looked at, and of how many all has ended.
        """
        looked, ended, after = 0, 0, None
        while True:
            page = await self.users.page(limit=_BATCH, after=after)
            for user in page.items:
                if since is None or await self._was_alive(user.id, since):
                    with suppress(UserNotFound):  # deleted meanwhile
                        await self._end_whatever_epoch(user.id, why=why)
                        ended += 1
            looked += len(page.items)
            yield looked, ended
            after = page.next
            if after is None:
                return

    async def _end_whatever_epoch(self, user_id: str, *, why: str) -> None:
        """End all, and by their rows those that epochs do not tell from new ones.

        Sessions that are kept apart do not fail over with their users: one of the time that was
        lost may have begun under the very epoch that is raised to now.
        """
        began = self.clock.now()
        await self.end_all(user_id, why=why)
        more = True
        while more:
            page = await self.store.find(
                Session,
                Paging(order=_NEWEST_FIRST, descending=True, limit=_BATCH),
                user_id=user_id,
                ended_at=None,
                started_at=le(began),
                expires_at=gt(began),
                idle_expires_at=gt(began),
            )
            for session in page.items:
                await self._end(where(id=session.id, ended_at=None), why=why)
            more = page.next is not None

    async def _was_alive(self, user_id: str, since: datetime) -> bool:
        paging = Paging(order=_NEWEST_FIRST, descending=True, limit=1)
        asked = {"user_id": user_id, "expires_at": gt(since)}
        open_still = await self.store.find(Session, paging, ended_at=None, **asked)
        if open_still.items:
            return True
        return bool((await self.store.find(Session, paging, ended_at=ge(since), **asked)).items)

    async def name_device(self, user_id: str, session_id: str, name: str | None) -> Session:
        """Call the device of a session of this user something; None takes the name away.

        Raises:
            SessionNotFound: it is over, never was, or is another's.
        """
        named = await self.store.update(
            Session, where(id=session_id, user_id=user_id, ended_at=None), device_name=name
        )
        if named is None:
            raise SessionNotFound
        await self.store.announce(
            DeviceNamed(
                realm=self.store.realm,
                at=self.clock.now(),
                session_id=session_id,
                user_id=user_id,
            )
        )
        await self.devices.name(named, name)
        paging = Paging(order=_NEWEST_FIRST, descending=True, limit=_BATCH)
        page = await self.store.find(Session, paging, user_id=user_id, ended_at=None)
        for other in page.items:
            if digest_in(other) == digest_in(named) and other.device_name != name:
                await self.store.update(Session, where(id=other.id), device_name=name)
        return named

    async def keep(self, session_id: str, *, was: int, epoch: int, within: Store) -> bool:
        """Carry one session over a raised epoch (I-01); False if it had ended by then.

        Only one that began under `was` is carried: another raise in between has ended it.
        """
        # Kept apart it is carried after the commit: were the epoch not raised after all, its row
        # would wait for the next raise, and live when that ends everything.
        is_apart = within.is_apart(Session)
        kept = await within.update(
            Session,
            where(id=session_id, ended_at=None, epoch=was),
            epoch=was if is_apart else epoch,
        )
        if kept is None:
            return False
        if not is_apart:
            await self.devices.carry(within, kept, was=was, epoch=epoch)
        else:
            await within.announce(
                SessionCarried(
                    realm=within.realm,
                    at=self.clock.now(),
                    session_id=session_id,
                    user_id=kept.user_id,
                    was=was,
                    epoch=epoch,
                )
            )
        return True

    async def carry(self, event: SessionCarried) -> None:
        """The epoch is raised: let the session that was kept live under it."""
        store = self.store.in_realm(event.realm)
        carried = await store.update(
            Session, where(id=event.session_id, ended_at=None, epoch=event.was), epoch=event.epoch
        )
        if carried is not None:
            await self.devices.carry(store, carried, was=event.was, epoch=event.epoch)

    async def renew(
        self,
        session: Session,
        *,
        amr: tuple[str, ...],
        client: Client,
        proven_at: datetime | None = None,
    ) -> Secret | None:
        """A factor was proven again: the session is fresh and its cookie is replaced.

        Args:
            session: as read before.
            amr: the factors that were proven.
            client: where the request comes from; the session's binding moves there.
            proven_at: when the last of them was; None: just now.

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
                auth_time=proven_at or now,
                binding=self.clients.binding_of(client).address,
                fingerprint=self.clients.binding_of(client).fingerprint,
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

    async def authenticate(self, presented: str, client: Client) -> Identity:
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
            valid_until=self.clock.now() + self._touched_every(session),
        )
        if self._refusal(session, client) is None:  # else the gate refuses it: it is not used
            await self._touch(session, client)
            await self.notice(session, client)
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
            binding=self._binding(session),
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

    def _binding(self, session: Session) -> Binding | None:
        """What the gate checks at every request of this session."""
        modes = self.clients.settings
        bound = Binding(
            address=None if modes.address == "off" else session.binding,
            fingerprint=session.fingerprint if modes.fingerprint == "reject" else None,
        )
        return None if bound == Binding() else bound

    def _refusal(self, session: Session, client: Client) -> SessionBoundElsewhere | None:
        wanted = self._binding(session)
        return None if wanted is None else self.clients.refusal(wanted, client)

    async def check_client(self, session: Session, client: Client) -> None:
        """May this client use the session? For whoever does not come through the gate: refresh.

        Raises:
            SessionBoundElsewhere, BrowserChanged: nothing was changed by it.
        """
        refused = self._refusal(session, client)
        if refused is not None:
            raise refused
        await self.notice(session, client)

    async def notice(self, session: Session, client: Client) -> None:
        """Announce, once, that a session looks like another browser's now; it goes on.

        Nothing is said of a client that the session is not for: it does not use it.
        """
        shown = self.clients.binding_of(client).fingerprint
        if (
            self.clients.settings.fingerprint != "warn"
            or session.fingerprint is None
            or session.fingerprint == shown
            or self._refusal(session, client) is not None
        ):
            return
        async with self.store.transaction() as tx:
            moved = await tx.update(
                Session,
                where(id=session.id, ended_at=None, fingerprint=session.fingerprint),
                fingerprint=shown,
            )
            if moved is None:  # somebody else said so
                return
            _log.warning("session %s is used by what looks like another browser", session.id)
            await tx.announce(
                FingerprintChanged(
                    realm=tx.realm,
                    at=self.clock.now(),
                    session_id=session.id,
                    user_id=session.user_id,
                    user_agent=client.user_agent,
                )
            )

    def seen_fields(self, client: Client, *, session_id: str) -> Mapping[str, Any]:
        """What a refresh puts into the row besides its own: when, from where, by what; one more.

        Reads nothing, so that it goes into the one update that is made anyway.

        Args:
            client: what refreshes.
            session_id: what the address is sealed to, so that it opens in this row only: the
                digest of the refresh family, since a refresh knows no other name of its row.
        """
        return {**self._seen(client, session_id), "refresh_rotations": plus(1)}

    def _seen(self, client: Client, row: str) -> Mapping[str, Any]:
        return {
            "seen_at": self.clock.now(),
            "address": self._address(client, row),
            "user_agent": client.user_agent,
        }

    def address(self, session: Session) -> str | None:
        """Where it was used last, as its user may see it; None where that is not known.

        Not known: kept as a hash, or sealed under a secret that is not configured here.
        """
        kept = session.address
        if kept is None:
            return None
        try:
            if not kept.startswith(_SEALED):
                return str(ip_address(kept))
            row = session.refresh_family or session.id
            return self.sealer.open(kept, **self._place(row)).decode()
        except (WatchwordError, ValueError):
            return None

    def _address(self, client: Client, session_id: str) -> str | None:
        match self.settings.ip_mode:
            case _ if client.address is None:
                return None
            case "plain":
                return client.address
            case "hash":
                return self.clients.hashed(client.address)
            case "sealed":
                return self.sealer.seal(client.address.encode(), **self._place(session_id))

    def _place(self, row: str) -> Mapping[str, str]:
        return {
            "realm": self.store.realm,
            "record": "session",
            "key": row,
            "field": "address",
        }

    def _idle_of(self, session: Session) -> timedelta:
        settings = self.settings
        return settings.remember_idle if session.remembered else settings.idle_timeout

    def _touched_every(self, session: Session) -> timedelta:
        return min(self._idle_of(session) / 10, _SEEN_EVERY)

    async def _touch(self, session: Session, client: Client) -> None:
        """Move the idle end, but not at every request: ten times an idle timeout, or hourly."""
        now = self.clock.now()
        if now - session.seen_at < self._touched_every(session):
            return
        await self.store.update(
            Session,
            where(id=session.id, ended_at=None, seen_at=session.seen_at),
            idle_expires_at=min(now + self._idle_of(session), session.expires_at),
            **self._seen(client, session.refresh_family or session.id),
        )

    async def forget_user(self, tx: Store, event: UserDeleted) -> None:
        """A user was deleted: so are their sessions."""
        await self.devices.forget_user(tx, event.user_id)
        await tx.erase(Session, user_id=event.user_id)


def _row_of(session_id: str, fields: Mapping[str, Any]) -> str:
    return fields.get("refresh_family") or session_id


def agent_digest(client: Client) -> Digest:
    """What a client calls itself, as a digest: replayable, so only ever a hint."""
    return digest_of(client.user_agent, purpose="user-agent")
