"""The verbs on verification: ask for a mail, prove the address."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from watchword.features.users import (
    RegistrationRepeated,
    User,
    UserDeleted,
    UserRegistered,
    Users,
)
from watchword.features.verification.events import VerificationRequested
from watchword.features.verification.records import EmailVerification
from watchword.features.verification.settings import Mode, VerificationSettings
from watchword.kernel.attempts import Attempts
from watchword.kernel.clock import Clock
from watchword.kernel.errors import (
    EmailNotVerified,
    ExpiredToken,
    InvalidCredentials,
    InvalidToken,
    MailUnavailable,
)
from watchword.kernel.ports import ComposedMail, Credential, MailRequest, Owed, Postbox
from watchword.kernel.secrets import digest_of, new_secret
from watchword.kernel.settings import spoken
from watchword.storage.store import Store, gt

PREFIX = "wwv_"
PURPOSE = "verify_email"
ALREADY = "already_registered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Proof of addresses, in one realm. Also the `verify_email` mail and a sign-in step."""

    store: Store
    settings: VerificationSettings
    clock: Clock
    users: Users[Any]
    postbox: Postbox
    credentials: Sequence[Credential]
    mode: Mode
    attempts: Attempts

    purpose: str = PURPOSE
    step: str = "verified_address"
    after: tuple[str, ...] = ()

    @property
    def silent(self) -> bool:
        """Registration says nothing of accounts where the address must be proven anyway."""
        return self.mode == "required"

    async def owed(self, user: User, *, proven: object, purpose: str) -> Owed | None:  # noqa: ARG002
        """As a sign-in step: an unproven address does not sign in where proof is required."""
        if purpose != "sign_in" or self.mode != "required" or user.is_verified:
            return None
        return Owed(error=EmailNotVerified())

    async def request(self, email: str) -> None:
        """Queue a mail for this address, whoever's it may be; the worker looks (I-12).

        Raises:
            InvalidInput: no address.
            MailUnavailable
        """
        address = self.users.address(email)
        self.postbox.ensure_available()
        await self.attempts.count("verify_email_request", account=address.key)
        async with self.store.transaction() as tx:
            await self.postbox.queue(tx, purpose=PURPOSE, address=address.key)
            await tx.announce(
                VerificationRequested(realm=tx.realm, at=self.clock.now(), account=address.key)
            )

    async def registered(self, tx: Store, event: UserRegistered) -> None:
        """Somebody signed up: mail them, with the user's row or not at all."""
        if event.by_themselves and self.mode != "off":
            address = self.users.address(event.email)
            with contextlib.suppress(MailUnavailable):
                if self.mode == "optional":
                    self.postbox.ensure_available()
                await self.postbox.queue(tx, purpose=PURPOSE, address=address.key)

    async def registered_again(self, tx: Store, event: RegistrationRepeated) -> None:
        """An address was registered that is somebody's: its owner hears of it, nobody else."""
        purpose = ALREADY if event.is_verified else PURPOSE
        address = self.users.address(event.email)
        await self.postbox.queue(tx, purpose=purpose, address=address.key)

    async def compose(self, request: MailRequest) -> ComposedMail | None:
        """Mint a token for whoever has the address and has not proven it."""
        user: User | None = await self.users.by_email(request.address)
        if user is None or user.is_verified or not user.is_active:
            return None
        token = new_secret(PREFIX)
        await self.store.put(
            EmailVerification(
                realm=self.store.realm,
                user_id=user.id,
                digest=digest_of(token, purpose=PURPOSE),
                email_key=user.email_key,
                epoch=user.epoch,
                expires_at=self.clock.now() + self.settings.ttl,
            )
        )
        return ComposedMail(
            recipient=user.email,
            template=PURPOSE,
            package="watchword.features.verification",
            context={
                "token": token.reveal(),
                "link": self._link(token.reveal()),
                "username": user.username,
                "email": user.email,
                "ttl": spoken(self.settings.ttl),
            },
        )

    def _link(self, token: str) -> str | None:
        # After a #, so that it stays out of servers' logs and Referer headers.
        return None if self.settings.page is None else f"{self.settings.page}#token={token}"

    async def verify(
        self, token: str, *, password: str | None = None, acting: str | None = None
    ) -> None:
        """Prove an address.

        Whoever brings neither the account's session nor its password takes an unproven account
        over from whoever set it up: sessions end and credentials go (I-13).

        Args:
            token: from the mail.
            password: the account's, if known.
            acting: the id of the user whose session came with the request.

        Raises:
            InvalidToken, ExpiredToken: nothing happened.
            InvalidCredentials: the password is wrong; nothing was spent.
        """
        await self.attempts.count("verify_email")
        digest = digest_of(token, purpose=PURPOSE)
        now = self.clock.now()
        owed = await self.store.get(EmailVerification, digest=digest)
        if owed is None:
            raise InvalidToken(note="unknown verification token")
        if owed.expires_at <= now:
            raise ExpiredToken(note="verification token")
        user: User | None = await self.users.get(owed.user_id)
        if user is None or not user.is_active:
            raise InvalidToken(note="the user is gone or disabled")
        is_theirs = user.is_verified or acting == user.id
        if not is_theirs and password is not None:
            for credential in self.credentials:
                is_theirs = is_theirs or await credential.prove(user, password)
            if not is_theirs:
                raise InvalidCredentials(note="verification with a wrong password")
        async with self.store.transaction() as tx:
            held = await self.users.hold(user, within=tx)
            taken = held and await tx.take(
                EmailVerification,
                digest=digest,
                email_key=user.email_key,
                epoch=user.epoch,
                expires_at=gt(now),
            )
            if not taken:
                raise InvalidToken(note="spent, or the account changed")
            if not is_theirs:
                async with self.users.ending(user.id, why="address_proven", within=tx) as ending:
                    for credential in self.credentials:
                        await credential.forget(tx, user.id)
                user = replace(user, epoch=ending.epoch)
            # Last: a stop before it leaves nothing proven that a stranger could still get into.
            if await self.users.mark_verified(user, within=tx) is None:
                raise InvalidToken(note="the account changed")

    async def forget_user(self, tx: Store, event: UserDeleted) -> None:
        """A user was deleted: so is what they owed."""
        await tx.take(EmailVerification, user_id=event.user_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlreadyRegistered:
    """The mail to somebody whose proven address was registered once more."""

    users: Users[Any]

    purpose: str = ALREADY

    async def compose(self, request: MailRequest) -> ComposedMail | None:
        """Tell the owner; there is no token in it."""
        user: User | None = await self.users.by_email(request.address)
        if user is None or not user.is_active:
            return None
        return ComposedMail(
            recipient=user.email,
            template=self.purpose,
            package="watchword.features.verification",
            context={"email": user.email, "username": user.username},
        )
