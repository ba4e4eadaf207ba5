"""What happens to users."""

from dataclasses import dataclass
from typing import ClassVar

from watchword.kernel.events import Event
from watchword.kernel.principal import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEvent(Event):
    """Something that happened to one user."""

    user_id: str

    def subjects(self) -> tuple[Subject, ...]:
        """The user."""
        return (("user", self.user_id),)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRegistered(UserEvent):
    """A user was made. `by_themselves`: they signed up and their address is not proven."""

    audited: ClassVar[tuple[str, ...]] = ("by_themselves",)

    email: str
    by_themselves: bool

    def audited_as(self) -> str:
        """Somebody was registered."""
        return "register"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChanged(UserEvent):
    """A field of the user changed."""

    evicts: ClassVar[bool] = True
    audited: ClassVar[tuple[str, ...]] = ("fields",)

    fields: tuple[str, ...] = ()  # their names


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleGranted(UserEvent):
    """The user has further roles. What evicts is that the user changed."""

    audited: ClassVar[tuple[str, ...]] = ("roles", "old_roles", "new_roles")

    roles: tuple[str, ...]  # those that are new
    old_roles: tuple[str, ...]
    new_roles: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRevoked(UserEvent):
    """The user has fewer roles. What evicts is that the user changed."""

    audited: ClassVar[tuple[str, ...]] = ("roles", "old_roles", "new_roles")

    roles: tuple[str, ...]  # those that are gone
    old_roles: tuple[str, ...]
    new_roles: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEnded(UserEvent):
    """The user's epoch was raised: all that began before is over (I-01)."""

    evicts: ClassVar[bool] = True
    audited: ClassVar[tuple[str, ...]] = ("why",)

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDisabled(UserEvent):
    """The account was switched off."""

    evicts: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEnabled(UserEvent):
    """The account was switched on again."""

    evicts: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDeleted(UserEvent):
    """The user is gone; every feature removes what it kept of them."""

    evicts: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressProven(UserEvent):
    """The user showed that mail to the address reaches them."""

    evicts: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationRepeated(UserEvent):
    """An address was registered that is somebody's already; its owner may be told by mail."""

    email: str
    is_verified: bool
