"""The verbs on users."""

import dataclasses
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from watchword.features.users.events import (
    AddressProven,
    UserChanged,
    UserDeleted,
    UserDisabled,
    UserEnabled,
    UserEnded,
    UserRegistered,
)
from watchword.features.users.records import User
from watchword.features.users.settings import UserSettings
from watchword.kernel.address import Address, address_of
from watchword.kernel.clock import Clock
from watchword.kernel.errors import Fault, FieldError, InvalidInput, UserAlreadyExists, UserNotFound
from watchword.kernel.ids import new_id
from watchword.storage.errors import Conflict
from watchword.storage.record import freeze, to_json
from watchword.storage.store import Page, Paging, Store, plus, where

U = TypeVar("U", bound=User)

_FIXED = frozenset({"realm", "id", "email_key", "epoch", "created_at", "updated_at"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Users(Generic[U]):
    """Users of one realm."""

    store: Store
    settings: UserSettings
    clock: Clock
    kind: type[U]

    @property
    def records(self) -> tuple[type, ...]:
        """The record that stands for users here: `User` or the app's own subclass."""
        return (self.kind,)

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
            "id": str(id) if id is not None else new_id(now),
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
                await tx.insert(user)
                await tx.announce(
                    UserRegistered(
                        realm=tx.realm,
                        at=now,
                        user_id=user.id,
                        email=user.email,
                        by_themselves=by_themselves,
                    )
                )
        except Conflict as conflict:
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

    async def by_email(self, email: str) -> U | None:
        """The user of this address, in whatever case; None too for what is no address."""
        try:
            key = address_of(email).key
        except FieldError:
            key = ""  # nobody's; asked all the same, so that nonsense takes as long
        return await self.store.get(self.kind, email_key=key)

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
        async with self.store.transaction() as tx:
            user = await tx.update(
                self.kind, where(id=user_id), updated_at=self.clock.now(), **changes
            )
            if user is None:
                raise UserNotFound
            await tx.announce(UserChanged(realm=tx.realm, at=self.clock.now(), user_id=user_id))
        return user

    async def end_all(self, user_id: str, *, why: str, within: Store | None = None) -> int:
        """Raise the epoch: every session, code and grant begun before is over (I-01).

        Returns:
            The new epoch. A session that is kept is set to it by the caller, in the same
            transaction.
        """
        async with (within or self.store).transaction() as tx:
            user = await tx.update(
                self.kind, where(id=user_id), epoch=plus(1), updated_at=self.clock.now()
            )
            if user is None:
                raise UserNotFound
            await tx.announce(
                UserEnded(realm=tx.realm, at=self.clock.now(), user_id=user_id, why=why)
            )
        return user.epoch

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
        """
        async with self.store.transaction() as tx:
            if await tx.take(self.kind, id=user_id) is None:
                raise UserNotFound
            await tx.announce(UserDeleted(realm=tx.realm, at=self.clock.now(), user_id=user_id))

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
