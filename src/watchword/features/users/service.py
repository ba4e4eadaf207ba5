"""The verbs on users."""

import dataclasses
import logging
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Generic, Literal, TypeVar, cast
from uuid import UUID

from watchword.features.users.events import (
    AddressProven,
    RoleGranted,
    RoleRevoked,
    UserChanged,
    UserDeleted,
    UserDisabled,
    UserEnabled,
    UserEnded,
    UserRegistered,
)
from watchword.features.users.records import User, UserIntent, fresh_id
from watchword.features.users.settings import UserSettings
from watchword.kernel.address import Address, address_of
from watchword.kernel.clock import Clock
from watchword.kernel.errors import (
    Fault,
    FieldError,
    InvalidInput,
    StoreUnavailable,
    UserAlreadyExists,
    UserInUse,
    UserNotFound,
    WatchwordError,
)
from watchword.kernel.ids import new_id
from watchword.storage.errors import Conflict, Referenced
from watchword.storage.record import freeze, to_json
from watchword.storage.store import Page, Paging, Store, le, plus, where

U = TypeVar("U", bound=User)

_log = logging.getLogger("watchword.users")

_FINISHED_AFTER = timedelta(seconds=30)  # by then whoever began it has ended it, or has died
_FIXED = frozenset({"realm", "id", "email_key", "epoch", "created_at", "updated_at"})


@dataclass(slots=True)
class Ending:
    """A change of what proves a user, and the epoch that leaves everything before it behind."""

    epoch: int
    raises: int = 1  # how often the epoch was raised for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Users(Generic[U]):
    """Users of one realm."""

    store: Store
    settings: UserSettings
    clock: Clock
    kind: type[U]

    @property
    def records(self) -> tuple[type, ...]:
        """The record that stands for users here, `User` or the app's own subclass, and intents."""
        return (self.kind, UserIntent)

    def joining(self, connection: Any) -> "Users[U]":
        """The same verbs inside a transaction of the caller's own (SQLAlchemy, async).

        What `create` and `change` write commits or rolls back with the caller's rows.
        """
        return replace(self, store=self.store.joining(connection))

    def within(self, transaction: Store) -> "Users[U]":
        """The same verbs inside a transaction that another service opened."""
        return replace(self, store=transaction)

    async def create(
        self,
        *,
        email: str,
        username: str | None = None,
        roles: tuple[str, ...] = (),
        user_settings: Mapping[str, Any] | None = None,
        is_verified: bool = False,
        id: str | int | UUID | None = None,  # noqa: A002  what the field is called
        by_themselves: bool = False,
        **own: Any,
    ) -> U:
        """Make a user.

        Args:
            email: exactly one address.
            username: a name to show.
            roles: any names; none are given by default.
            user_settings: JSON, bounded by `settings_limit`.
            is_verified: the caller vouches for the address.
            id: keep an id of your own; whatever it was, it is a text from here on (DEF-22).
            by_themselves: a stranger asked for it: nothing about them is proven.
            own: the fields of your own subclass.

        Raises:
            UserAlreadyExists: the address is taken, in whatever case it is written.
            InvalidInput: a field that cannot be.
        """
        address = self.address(email)
        now = self.clock.now()
        if username is None and self.settings.username_required:
            raise InvalidInput([Fault("username", "missing", "is required")])
        self._check_settings(user_settings)
        unknown = set(own) - {field.name for field in dataclasses.fields(self.kind)}
        if unknown or own.keys() & _FIXED:
            raise TypeError(f"{self.kind.__name__} has no such field to set: {sorted(own)}")
        fields: dict[str, Any] = {
            "realm": self.store.realm,
            "id": str(id) if id is not None else fresh_id(self.kind, now),
            "email": address.email,
            "email_key": address.key,
            "username": username,
            "roles": tuple(roles),
            # Not 0: a session of a user whose id is used once more must not fit the new one.
            "epoch": secrets.randbits(31),
            "is_verified": is_verified,
            "created_at": now,
            "updated_at": now,
            **own,
        }
        if user_settings is not None:
            fields["user_settings"] = freeze(user_settings)  # the caller's own dict may change
        user = self.kind(**fields)
        try:
            async with self.store.transaction() as tx:
                user = await tx.insert(user)
                registered = UserRegistered(
                    realm=tx.realm,
                    at=now,
                    user_id=user.id,
                    email=user.email,
                    by_themselves=by_themselves,
                )
                try:
                    await tx.announce(registered)
                    await self._announce_roles(tx, user.id, (), user.roles)
                except WatchwordError:  # a partner refuses the address
                    if not tx.is_transactional:
                        await tx.take(self.kind, id=user.id)
                    raise
        except Conflict as conflict:
            if conflict.field not in ("id", "email", "email_key"):
                raise _taken(conflict) from conflict
            raise UserAlreadyExists(note=conflict.field) from conflict
        return user

    def address(self, email: str) -> Address:
        """Read an address. Raises InvalidInput naming `email`."""
        try:
            return address_of(email)
        except FieldError as error:
            raise InvalidInput([Fault("email", error.code, error.detail)]) from error

    async def get(self, user_id: str) -> U | None:
        """The user of this id."""
        return await self.store.get(self.kind, id=user_id)

    def key_of(self, email: str) -> str:
        """The form in which an address is looked up; empty for what is none: nobody has that."""
        try:
            return address_of(email).key
        except FieldError:
            return ""

    async def by_email(self, email: str) -> U | None:
        """The user of this address, in whatever case; None too for what is no address."""
        # Asked for nonsense too, so that it takes as long.
        return await self.store.get(self.kind, email_key=self.key_of(email))

    async def find(self, name: str) -> U:
        """The user of this address or id, for operators.

        Raises:
            UserNotFound
        """
        user = await self.by_email(name) if "@" in name else await self.get(name)
        if user is None:
            raise UserNotFound
        return user

    async def page(self, *, limit: int = 100, after: str | None = None) -> Page[U]:
        """Users in the order in which they came."""
        return await self.store.find(
            self.kind, Paging(order=("created_at", "id"), limit=limit, after=after)
        )

    async def change(self, user_id: str, /, **changes: Any) -> U:
        """Set fields of a user. The address, the epoch and the switch have verbs of their own.

        Raises:
            UserNotFound, InvalidInput
        """
        if changes.keys() & (_FIXED | {"email", "is_verified", "is_active"}):
            raise TypeError("these fields have verbs of their own")
        if "user_settings" in changes:
            self._check_settings(changes["user_settings"])
        try:
            async with self.store.transaction() as tx:
                user = await self._changed(tx, user_id, changes)
                await tx.announce(
                    UserChanged(
                        realm=tx.realm,
                        at=self.clock.now(),
                        user_id=user_id,
                        fields=tuple(sorted(changes)),
                    )
                )
        except Conflict as conflict:
            raise _taken(conflict) from conflict
        return user

    async def _changed(self, tx: Store, user_id: str, changes: Mapping[str, Any]) -> U:
        # What they were is for the events alone; roles in a table of others may be written in
        # ways that no condition would match.
        before = await tx.get(self.kind, id=user_id) if "roles" in changes else None
        user = await tx.update(self.kind, where(id=user_id), updated_at=self.clock.now(), **changes)
        if user is None:
            raise UserNotFound
        if before is not None:
            await self._announce_roles(tx, user_id, before.roles, user.roles)
        return user

    async def _announce_roles(
        self, tx: Store, user_id: str, old: tuple[str, ...], new: tuple[str, ...]
    ) -> None:
        about: dict[str, Any] = {
            "realm": tx.realm,
            "at": self.clock.now(),
            "user_id": user_id,
            "old_roles": tuple(old),
            "new_roles": tuple(new),
        }
        if granted := tuple(role for role in new if role not in old):
            await tx.announce(RoleGranted(**about, roles=granted))
        if revoked := tuple(role for role in old if role not in new):
            await tx.announce(RoleRevoked(**about, roles=revoked))

    async def end_all(self, user_id: str, *, why: str, within: Store | None = None) -> int:
        """Raise the epoch: every session, code and grant begun before is over (I-01).

        Returns:
            The new epoch. A session that is kept is set to it by the caller, in the same
            transaction.
        """
        async with (within or self.store).transaction() as tx:
            return await self._end(tx, user_id, why=why, was=None)

    async def _end(self, tx: Store, user_id: str, *, why: str, was: int | None) -> int:
        now = self.clock.now()
        still = {} if was is None else {"epoch": was}
        user = await tx.update(self.kind, where(id=user_id, **still), epoch=plus(1), updated_at=now)
        if user is None:
            raise UserNotFound if was is None else Conflict("epoch")
        await tx.announce(UserEnded(realm=tx.realm, at=now, user_id=user_id, why=why))
        return user.epoch

    @asynccontextmanager
    async def ending(
        self, user_id: str, *, why: str, was: int | None = None, within: Store | None = None
    ) -> AsyncGenerator[Ending]:
        """End all that began before, around a change of what proves the user (I-01).

        Where the change and the epoch cannot commit together, the epoch is raised before and
        after: a sign-in that checked the old password in between is dead at birth. Should this
        process stop in the middle, a worker raises it (`finish`).

        Args:
            user_id: whose.
            why: for the event.
            was: the epoch that the change rests on, if it does; of two at once one is made.
            within: the transaction.

        Yields:
            Its `epoch` is final after the block.

        Raises:
            UserNotFound
            Conflict: the epoch is not `was` any more; nothing happened.
        """
        async with (within or self.store).transaction() as tx:
            if tx.is_transactional:
                yield Ending(await self._end(tx, user_id, why=why, was=was))
                return
            intent = await self._intend(tx, "end", user_id)
            try:
                ending = Ending(await self._end(tx, user_id, why=why, was=was))
                try:
                    yield ending
                finally:
                    ending.epoch = await self._raise(tx, user_id)
                    ending.raises = 2
            except (Conflict, UserNotFound):
                await tx.take(UserIntent, id=intent.id)
                raise
            await tx.take(UserIntent, id=intent.id)

    async def hold(self, user: User, *, within: Store) -> bool:
        """Take the user's row, before others are written: False if it changed since it was read.

        Every transaction over several rows begins with it, so that no two lock each other out.
        """
        held = await within.update(
            self.kind,
            where(id=user.id, email_key=user.email_key, epoch=user.epoch),
            updated_at=self.clock.now(),
        )
        return held is not None

    async def _intend(
        self, tx: Store, purpose: Literal["end", "delete"], user_id: str
    ) -> UserIntent:
        now = self.clock.now()
        user = await tx.get(self.kind, id=user_id)
        if user is None:
            raise UserNotFound
        intent = UserIntent(
            realm=tx.realm,
            id=new_id(now),
            user_id=user_id,
            user_since=user.created_at,
            purpose=purpose,
            due_at=now + _FINISHED_AFTER,
        )
        await tx.insert(intent)
        return intent

    async def _raise(self, tx: Store, user_id: str) -> int:
        user = await tx.update(
            self.kind, where(id=user_id), epoch=plus(1), updated_at=self.clock.now()
        )
        if user is None:
            raise UserNotFound
        return user.epoch

    async def finish(self) -> bool:
        """Complete what a process left behind when it stopped; True if there is more.

        Only where the database has no transactions is there anything.
        """
        now = self.clock.now()
        paging = Paging(order=("due_at", "id"), limit=100)
        page = await self.store.find(UserIntent, paging, due_at=le(now))
        for intent in page.items:
            # Of several workers one has it; what fails waits, and holds up nothing else.
            mine = await self.store.update(
                UserIntent,
                where(id=intent.id, due_at=intent.due_at),
                due_at=now + _FINISHED_AFTER,
            )
            if mine is not None:
                await self._complete(intent)
        return page.next is not None

    async def _complete(self, intent: UserIntent) -> None:
        about = (intent.purpose, intent.user_id)
        _log.warning("completing %r of user %s, left by another", *about)
        user = await self.get(intent.user_id)
        try:
            if user is not None and user.created_at == intent.user_since:
                if intent.purpose == "end":
                    await self.end_all(intent.user_id, why="interrupted")
                else:
                    await self._delete(intent.user_id, intent)
        except UserNotFound:
            pass
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  a partner's, which is not ours
            _log.warning("%r of user %s failed: %s", *about, type(error).__name__)
            return
        await self.store.take(UserIntent, id=intent.id)

    async def disable(self, user_id: str) -> U:
        """Switch an account off; whatever it had open is over at once."""
        return await self._switch(user_id, active=False)

    async def enable(self, user_id: str) -> U:
        """Switch an account on again. What was over stays over."""
        return await self._switch(user_id, active=True)

    async def _switch(self, user_id: str, *, active: bool) -> U:
        now = self.clock.now()
        async with self.store.transaction() as tx:
            user = await tx.update(
                self.kind,
                where(id=user_id),
                is_active=active,
                updated_at=now,
                epoch=plus(0 if active else 1),
            )
            if user is None:
                raise UserNotFound
            kind = UserEnabled if active else UserDisabled
            await tx.announce(kind(realm=tx.realm, at=now, user_id=user_id))
        return user

    async def mark_verified(self, user: User, *, within: Store) -> U | None:
        """The address is proven; None if user, address or epoch changed meanwhile."""
        now = self.clock.now()
        found = await within.update(
            self.kind,
            where(id=user.id, email_key=user.email_key, epoch=user.epoch),
            is_verified=True,
            updated_at=now,
        )
        if found is not None and not user.is_verified:
            await within.announce(AddressProven(realm=within.realm, at=now, user_id=user.id))
        return found

    async def readdress(self, user: User, address: Address, *, within: Store) -> U | None:
        """Give the user another, proven address; None if user, address or epoch changed.

        Raises:
            Conflict: the address is taken.
        """
        now = self.clock.now()
        found = await within.update(
            self.kind,
            where(id=user.id, email_key=user.email_key, epoch=user.epoch),
            email=address.email,
            email_key=address.key,
            is_verified=True,
            epoch=plus(1),
            updated_at=now,
        )
        if found is not None:
            await within.announce(
                UserEnded(realm=within.realm, at=now, user_id=user.id, why="email_changed")
            )
        return found

    async def give_back(self, changed: User, former: User, *, within: Store) -> None:
        """Take `readdress` back, whatever else happened since. It proves nothing.

        Raises:
            Conflict: the former address is taken.
        """
        await within.update(
            self.kind,
            where(id=former.id, email_key=changed.email_key),
            email=former.email,
            email_key=former.email_key,
            is_verified=former.is_verified,
            epoch=plus(1),
            updated_at=self.clock.now(),
        )

    async def restore_address(self, user_id: str, address: Address, *, within: Store) -> U | None:
        """Give a user a former address back, whatever happened since; None if the user is gone.

        Raises:
            Conflict: the address is taken.
        """
        now = self.clock.now()
        found = await within.update(
            self.kind,
            where(id=user_id),
            email=address.email,
            email_key=address.key,
            is_verified=True,
            epoch=plus(1),
            updated_at=now,
        )
        if found is not None:
            await within.announce(
                UserEnded(realm=within.realm, at=now, user_id=user_id, why="email_restored")
            )
        return found

    async def delete(self, user_id: str) -> None:
        """Remove a user and all that any feature kept of them.

        Raises:
            UserNotFound
            UserInUse: the users are rows of an application's own table, and others of its rows
                point at this one. Nothing was removed.
        """
        try:
            await self._delete(user_id)
        except Referenced as error:
            raise UserInUse from error

    async def _delete(self, user_id: str, intent: UserIntent | None = None) -> None:
        now = self.clock.now()
        async with self.store.transaction() as tx:
            if intent is None and not tx.is_transactional:
                intent = await self._intend(tx, "delete", user_id)
            same: dict[str, Any] = {} if intent is None else {"created_at": intent.user_since}
            # The row goes last: until then it says that all of theirs is over.
            user = await tx.update(
                self.kind, where(id=user_id, **same), is_active=False, epoch=plus(1), updated_at=now
            )
            if user is not None:
                await tx.announce(UserDeleted(realm=tx.realm, at=now, user_id=user_id))
                user = await tx.take(self.kind, id=user_id, **same)
            if intent is not None:
                await tx.take(UserIntent, id=intent.id)
            if user is None:
                raise UserNotFound

    def _check_settings(self, user_settings: Any) -> None:
        if user_settings is None:
            return
        field = "user_settings"
        if not isinstance(user_settings, Mapping):
            raise InvalidInput([Fault(field, "not_an_object", "must be an object")])
        try:
            size = len(to_json(dict(cast("Mapping[str, Any]", user_settings))).encode())
        except (TypeError, ValueError) as error:
            raise InvalidInput([Fault(field, "not_json", "holds what is no JSON")]) from error
        if size > self.settings.settings_limit:
            detail = f"is over {self.settings.settings_limit} bytes"
            raise InvalidInput([Fault(field, "settings_too_large", detail)])


def _taken(conflict: Conflict) -> InvalidInput:
    """A key of the application's own, on a column that it maps."""
    return InvalidInput([Fault(conflict.field, "taken", "is taken")])
