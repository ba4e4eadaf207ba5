"""What an editor shows of each public name. The assertions are the type checker's."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, assert_type

from fastapi import Depends, Request

from watchword import (
    CurrentClaims,
    CurrentPrincipal,
    CurrentUser,
    Event,
    OptionalUser,
    Own,
    Principal,
    User,
    Watchword,
    current_user,
    requires,
    user_fields,
)
from watchword.features.api_keys import ApiKeys, IssuedKey
from watchword.features.email_change import EmailChanges
from watchword.features.keys import Keys
from watchword.features.mail import Mail
from watchword.features.passwords import Passwords, passwords
from watchword.features.recovery import Recovery
from watchword.features.services import Services
from watchword.features.sessions import Sessions
from watchword.features.tokens import Tokens
from watchword.features.transfer import Transfer
from watchword.features.users import Users
from watchword.features.verification import Verification
from watchword.kernel.feature import Feature
from watchword.storage.store import Page


@user_fields
class Member(User):
    """A user with a field of its own."""

    nickname: Annotated[str, Own(read="self", write="self")] = ""


Me = Annotated[Member, Depends(current_user)]


async def handler(user: CurrentUser, principal: CurrentPrincipal, maybe: OptionalUser) -> str:
    """A handler sees plain types."""
    assert_type(user, User)
    assert_type(user.email, str)
    assert_type(principal, Principal)
    assert_type(maybe, User | None)
    return user.email


async def claims_handler(claims: CurrentClaims) -> str:
    """Claims are read, and nothing is put into them."""
    assert_type(claims, Mapping[str, Any])
    return str(claims["sub"])


def signed(auth: Watchword, request: Request) -> None:
    """Signed values are texts."""
    assert_type(auth.signer("mine").sign("x"), str)
    assert_type(auth.signed_cookie("cart", lives=timedelta(days=1)).read(request), str | None)


async def own_handler(me: Me) -> str:
    """A user's own subclass flows through."""
    assert_type(me, Member)
    return me.nickname


async def services(auth: Watchword, own: Watchword[Member]) -> None:
    """Every service is typed, and so is what it returns."""
    assert_type(auth.users, Users[User])
    assert_type(own.users, Users[Member])
    assert_type(await own.users.get("x"), Member | None)
    assert_type(await own.users.page(), Page[Member])
    assert_type(auth.passwords, Passwords)
    assert_type(auth.sessions, Sessions)
    assert_type(auth.tokens, Tokens)
    assert_type(auth.keys, Keys)
    assert_type(auth.mail, Mail)
    assert_type(auth.verification, Verification)
    assert_type(auth.recovery, Recovery)
    assert_type(auth.email_changes, EmailChanges)
    assert_type(auth.transfer, Transfer)
    assert_type(auth.api_keys, ApiKeys)
    assert_type(auth.services, Services)
    assert_type(await auth.services.token("billing", audience="reports"), str)
    assert_type(auth.feature(Mail), Mail)
    ada = await own.users.create(email="ada@example.com", nickname="Ada")
    assert_type(await own.api_keys.create(ada, name="nightly"), IssuedKey)


def made(environment: dict[str, str]) -> None:
    """The type parameter follows the argument."""
    options = {"secret": "a-secret-of-more-than-thirty-letters-0123456789"}
    assert_type(
        Watchword(
            "sqlite://", environment="development", environ=environment, secret=options["secret"]
        ),
        Watchword[User],
    )
    assert_type(
        Watchword(
            "sqlite://",
            user=Member,
            environment="development",
            environ=environment,
            secret=options["secret"],
        ),
        Watchword[Member],
    )
    assert_type(passwords(min_length=14), Feature[Passwords])


async def heard(auth: Watchword) -> None:
    """A hook keeps its signature."""

    @auth.on(Event)
    async def hook(event: Event) -> None:
        assert_type(event.realm, str)

    await hook(Event(realm="main", at=(await auth.users.find("x")).created_at))


def test_the_examples_above_are_built() -> None:
    """Both instances exist side by side."""
    made({})
    assert requires(role="admin") is not None
