"""Users: who somebody is, and what they may change about themselves."""

from datetime import timedelta
from typing import Annotated, Any, TypeVar, Unpack

from fastapi import Depends

from watchword.features.users.endings import ENDS
from watchword.features.users.events import (
    AddressProven,
    RegistrationRepeated,
    RoleGranted,
    RoleRevoked,
    UserChanged,
    UserDeleted,
    UserEnded,
    UserEvent,
    UserRegistered,
)
from watchword.features.users.records import Own, User, user_fields
from watchword.features.users.routes import routes
from watchword.features.users.service import Ending, Users
from watchword.features.users.settings import UserOptions, UserSettings
from watchword.features.users.shapes import (
    Body,
    Email,
    Username,
    UserView,
    given_fields,
    seen,
    view_of,
    writable,
)
from watchword.http.depends import current_user, optional_user
from watchword.kernel.feature import Feature, Job

__all__ = [
    "AddressProven",
    "Body",
    "CurrentUser",
    "Email",
    "Ending",
    "OptionalUser",
    "Own",
    "RegistrationRepeated",
    "RoleGranted",
    "RoleRevoked",
    "User",
    "UserChanged",
    "UserDeleted",
    "UserEnded",
    "UserEvent",
    "UserRegistered",
    "UserView",
    "Username",
    "Users",
    "given_fields",
    "seen",
    "user_fields",
    "users",
    "view_of",
    "writable",
]

CurrentUser = Annotated[User, Depends(current_user)]
"""The signed-in user; a request of nobody is refused with 401."""

OptionalUser = Annotated[User | None, Depends(optional_user)]
"""The signed-in user, or None."""

U = TypeVar("U", bound=User)


def users(kind: type[U] = User, **options: Unpack[UserOptions]) -> Feature[Users[U]]:  # type: ignore[assignment]
    """The feature of users.

    Args:
        kind: your own subclass of `User`, decorated with `user_fields`.
        options: `UserSettings`, by name.
    """

    def service(wiring: Any) -> Users[U]:
        return Users(store=wiring.store, settings=wiring.settings, clock=wiring.clock, kind=kind)

    return Feature(
        name="users",
        service=service,
        settings=UserSettings,
        given=dict(options),
        ends=ENDS,
        records=(kind,),
        routes=routes,
        jobs=lambda service: (
            Job(name="unfinished users", every=timedelta(seconds=10), run=service.finish),
        ),
    )
