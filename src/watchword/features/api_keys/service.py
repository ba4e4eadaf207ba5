"""The verbs on API keys: create, list, rotate, end, and whose one is."""

import asyncio
import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from watchword.features.api_keys.errors import ApiKeyNotFound, ApiKeyReplaced, ApiKeysLimited
from watchword.features.api_keys.events import ApiKeyCreated, ApiKeyEnded, ApiKeyRotated
from watchword.features.api_keys.records import ApiKey
from watchword.features.api_keys.settings import ApiKeySettings
from watchword.features.users import User, UserDeleted, Users
from watchword.kernel.attempts import Attempts
from watchword.kernel.clock import Clock
from watchword.kernel.errors import (
    ExpiredToken,
    Fault,
    InvalidInput,
    InvalidToken,
    RevokedToken,
    StoreUnavailable,
)
from watchword.kernel.ids import new_id
from watchword.kernel.principal import Client, Identity, Principal
from watchword.kernel.secrets import Digest, Secret, digest_of, new_secret
from watchword.kernel.settings import format_duration
from watchword.storage.store import Page, Paging, Store, gt, where

PREFIX: Final = "wwk_"
MAX_SCOPES: Final = 50  # of one key
LONGEST_NAME: Final = 100

_FORM: Final = re.compile(r"wwk_[A-Za-z0-9_-]{43}")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,100}")  # RFC 6749 §3.3, and a bound
_HINT: Final = 4  # letters
_NOTED_EVERY: Final = timedelta(minutes=5)  # a key in steady use costs one write in that time
_NOTED_WITHIN: Final = 0.25  # seconds that a request waits for it
_KEPT: Final = timedelta(days=1)  # the row of a key that is over: "expired", not "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedKey:
    """A key that was just made. This is the one time that anybody sees it."""

    key: Secret
    record: ApiKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeys:
    """API keys of one realm."""

    store: Store
    settings: ApiKeySettings
    clock: Clock
    users: Users[Any]
    client_id: str
    attempts: Attempts

    carriage: Literal["bearer", "cookie"] = "bearer"
    prefix: str = PREFIX
    _noting: dict[str, asyncio.Task[None]] = field(default_factory=dict[str, asyncio.Task[None]])

    async def create(
        self,
        user: User,
        *,
        name: str,
        scopes: Sequence[str] = (),
        expires_in: timedelta | None = None,
        expires_at: datetime | None = None,
    ) -> IssuedKey:
        """Make a key of this user.

        Args:
            user: as their session was judged: a key made while their password was reset begins
                under the epoch before, and is dead at birth (I-01).
            name: for people; need not be unique.
            scopes: what it may, where a route asks `requires(scope=…)`; none by default.
            expires_in: at most `max_ttl`; by default `ttl`.
            expires_at: instead.

        Raises:
            ApiKeysLimited
            InvalidInput: a field that cannot be.
        """
        await self.attempts.count("api_keys", account=user.email_key)
        now = self.clock.now()
        faults = [*self._name_faults(name), *self._scope_faults(scopes)]
        lives, expiry_faults = self._lives(expires_in, expires_at, now)
        if faults or expiry_faults:
            raise InvalidInput([*faults, *expiry_faults])
        issued = self._made(
            user_id=user.id,
            epoch=user.epoch,
            name=name,
            scopes=tuple(dict.fromkeys(scopes)),
            now=now,
            lives=lives,
        )
        key = issued.record
        about: dict[str, Any] = {
            "key_id": key.id,
            "user_id": user.id,
            "realm": key.realm,
            "at": now,
        }
        async with self.store.transaction() as tx:
            await tx.insert(key)
            await tx.announce(ApiKeyCreated(**about, name=name, scopes=key.scopes))
        # Committed first, counted after: the last of any racers sees them all, so there is never
        # one too many (I-18). Whoever sees too many takes its own back, which nobody has seen.
        # One in its overlap goes with its successor, so there are twice as many at most; but not
        # where successors are ended again and again.
        most = self.settings.max_keys
        if await self._count(user, successor_id=None) > most or await self._count(user) > 2 * most:
            async with self.store.transaction() as tx:
                await tx.take(ApiKey, id=key.id)
                await tx.announce(ApiKeyEnded(**about, why="too_many_keys"))
            raise ApiKeysLimited
        return issued

    async def _count(self, user: User, **named: object) -> int:
        """How many live; `successor_id=None`: without those in their overlap."""
        return await self.store.count(
            ApiKey,
            user_id=user.id,
            epoch=user.epoch,
            ended_at=None,
            expires_at=gt(self.clock.now()),
            **named,
        )

    async def page(self, user: User, *, limit: int = 100, after: str | None = None) -> Page[ApiKey]:
        """The keys of a user that live, the newest first."""
        paging = Paging(order=("created_at", "id"), descending=True, limit=limit, after=after)
        return await self.store.find(
            ApiKey,
            paging,
            user_id=user.id,
            epoch=user.epoch,
            ended_at=None,
            expires_at=gt(self.clock.now()),
        )

    async def rotate(
        self, user: User, key_id: str, *, overlap: timedelta | None = None
    ) -> IssuedKey:
        """Make a successor of the same name, scopes and length of life.

        The key itself lives until the overlap is over, or its own end if that is sooner. The one
        that it took over from, if that still lives, ends: of one key there are never three.

        Args:
            user: whose.
            key_id: which.
            overlap: at most `max_overlap`; 0 ends it now.

        Raises:
            ApiKeyNotFound: unknown, over, or another's.
            ApiKeyReplaced: it has a successor; of two that rotate at once one gets this.
            InvalidInput
        """
        now = self.clock.now()
        if overlap is None:
            overlap = min(self.settings.overlap, self.settings.max_overlap)
        if not timedelta(0) <= overlap <= self.settings.max_overlap:
            most = format_duration(self.settings.max_overlap)
            raise InvalidInput([Fault("overlap", "overlap_limited", f"is not from 0s to {most}")])
        old = await self._living(user, key_id, now)
        if old.successor_id is not None:
            raise ApiKeyReplaced
        lives = min(old.expires_at - old.created_at, self.settings.max_ttl)
        issued = self._made(
            user_id=user.id,
            epoch=user.epoch,
            name=old.name,
            scopes=old.scopes,
            now=now,
            lives=lives,
            predecessor_id=old.id,
        )
        until = min(old.expires_at, now + overlap)
        async with self.store.transaction() as tx:
            # The old one's row decides, so it comes last (I-04). A stop in between leaves a row
            # whose key nobody was given.
            await tx.insert(issued.record)
            replaced = await tx.update(
                ApiKey,
                where(id=old.id, ended_at=None, successor_id=None, epoch=user.epoch),
                successor_id=issued.record.id,
                expires_at=until,
                delete_at=until + _KEPT,
            )
            if replaced is None:
                await tx.take(ApiKey, id=issued.record.id)
            else:
                await tx.announce(
                    ApiKeyRotated(
                        realm=tx.realm,
                        at=now,
                        key_id=old.id,
                        user_id=user.id,
                        successor_id=issued.record.id,
                    )
                )
                if old.predecessor_id is not None:
                    await self._end(tx, old.predecessor_id, user_id=user.id, why="rotated_again")
        if replaced is None:
            await self._living(user, key_id, now)  # ended meanwhile?
            raise ApiKeyReplaced(note="another was first")
        return issued

    async def end(self, key_id: str, *, why: str, user_id: str | None = None) -> None:
        """End a key; it is refused at once here, and elsewhere within the feed's bound.

        Args:
            key_id: which.
            why: for the event and the log.
            user_id: whose it must be.

        Raises:
            ApiKeyNotFound: unknown, ended already, or another's.
        """
        async with self.store.transaction() as tx:
            ended = await self._end(tx, key_id, user_id=user_id, why=why)
        if not ended:
            raise ApiKeyNotFound

    async def _end(self, tx: Store, key_id: str, *, user_id: str | None, why: str) -> bool:
        now = self.clock.now()
        owned = {} if user_id is None else {"user_id": user_id}
        ended = await tx.update(
            ApiKey,
            where(id=key_id, ended_at=None, **owned),
            ended_at=now,
            ended_why=why,
            delete_at=now + _KEPT,
        )
        if ended is None:
            return False
        await tx.announce(
            ApiKeyEnded(realm=tx.realm, at=now, key_id=key_id, user_id=ended.user_id, why=why)
        )
        return True

    async def _living(self, user: User, key_id: str, now: datetime) -> ApiKey:
        key = await self.store.get(
            ApiKey, id=key_id, user_id=user.id, epoch=user.epoch, ended_at=None, expires_at=gt(now)
        )
        if key is None:
            raise ApiKeyNotFound
        return key

    async def believe(self, presented: str) -> Identity | None:  # noqa: ARG002
        """Nothing: a key says nothing by itself."""
        return None

    async def authenticate(self, presented: str, client: Client) -> Identity:  # noqa: ARG002
        """Whose key this is, and what it may: the one row, and its user's (I-02).

        Raises:
            InvalidToken, ExpiredToken, RevokedToken
        """
        if _FORM.fullmatch(presented) is None:
            raise InvalidToken(note="not an API key")
        key = await self.store.get(ApiKey, digest=_digest(presented))
        if key is None:
            raise InvalidToken(note="unknown API key")
        user: User | None = await self.users.get(key.user_id)
        now = self.clock.now()
        if key.ended_at is not None:
            raise RevokedToken(note=key.ended_why)
        if user is None or not user.is_active or key.epoch != user.epoch:
            raise RevokedToken(note="user gone, disabled, or epoch raised")
        if key.expires_at <= now:
            raise ExpiredToken(note="API key")
        await self._note_use(key, now)
        return Identity(
            principal=Principal(
                realm=key.realm,
                kind="user",
                id=user.id,
                session_id=None,
                client_id=self.client_id,
                roles=frozenset(user.roles),
                scopes=frozenset(key.scopes),
                amr=(),
                auth_time=None,  # nobody proved anything now: never fresh (I-15)
            ),
            user=user,
            is_verified=user.is_verified,
            carriage="bearer",
            valid_until=key.expires_at,
            subjects=(("api_key", key.id), ("user", user.id)),
            credential="api_key",
        )

    async def _note_use(self, key: ApiKey, now: datetime) -> None:
        """Write when it was used, but not at every request, and never at a request's cost."""
        if key.last_used_at is not None and now - key.last_used_at < _NOTED_EVERY:
            return
        if key.id not in self._noting:
            noting = asyncio.create_task(self._noted(key, now))
            self._noting[key.id] = noting
            noting.add_done_callback(lambda _: self._noting.pop(key.id))
            # SQLite waits as long as another process writes; the request does not.
            await asyncio.wait((noting,), timeout=_NOTED_WITHIN)

    async def _noted(self, key: ApiKey, now: datetime) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self.store.update(
                ApiKey, where(id=key.id, last_used_at=key.last_used_at), last_used_at=now
            )

    async def forget_user(self, tx: Store, event: UserDeleted) -> None:
        """A user was deleted: so are their keys."""
        await tx.erase(ApiKey, user_id=event.user_id)

    def _made(self, *, now: datetime, lives: timedelta, **fields: Any) -> IssuedKey:
        key = new_secret(PREFIX)
        expires_at = now + lives
        record = ApiKey(
            realm=self.store.realm,
            id=new_id(now),
            hint=key.reveal()[len(PREFIX) :][:_HINT],
            digest=_digest(key),
            created_at=now,
            expires_at=expires_at,
            delete_at=expires_at + _KEPT,
            **fields,
        )
        return IssuedKey(key=key, record=record)

    def _name_faults(self, name: str) -> list[Fault]:
        if 0 < len(name) <= LONGEST_NAME and name.isprintable():
            return []
        detail = f"must have 1 to {LONGEST_NAME} printable letters"
        return [Fault("name", "name_invalid", detail)]

    def _scope_faults(self, scopes: Sequence[str]) -> list[Fault]:
        if len(scopes) > MAX_SCOPES:
            return [Fault("scopes", "scopes_limited", f"are more than {MAX_SCOPES}")]
        faults: list[Fault] = []
        for place, scope in enumerate(scopes):
            if _SCOPE.fullmatch(scope) is None:
                detail = "must have 1 to 100 ASCII letters, none of them a space, a quote or \\"
                faults.append(Fault(f"scopes.{place}", "scope_invalid", detail))
            elif self.settings.scopes and scope not in self.settings.scopes:
                faults.append(Fault(f"scopes.{place}", "scope_unknown", "is no scope of this app"))
        return faults

    def _lives(
        self, expires_in: timedelta | None, expires_at: datetime | None, now: datetime
    ) -> tuple[timedelta, list[Fault]]:
        """How long a key is to live, and what is wrong with that."""
        field = "expires_in" if expires_at is None else "expires_at"
        if expires_at is not None and expires_in is not None:
            return timedelta(0), [Fault("expires_in", "given_twice", "or expires_at, not both")]
        if expires_at is not None and expires_at.tzinfo is None:
            return timedelta(0), [Fault(field, "timezone_missing", "must say its time zone")]
        if expires_at is not None:
            expires_in = expires_at - now
        lives = min(self.settings.ttl, self.settings.max_ttl) if expires_in is None else expires_in
        if lives <= timedelta(0):
            return lives, [Fault(field, "expiry_past", "is over already")]
        if lives > self.settings.max_ttl:
            most = format_duration(self.settings.max_ttl)
            return lives, [Fault(field, "expiry_limited", f"is more than {most} from now")]
        return lives, []


def _digest(key: Secret | str) -> Digest:
    return digest_of(key, purpose="api-key")
