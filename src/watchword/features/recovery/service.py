"""The verbs on recovery: ask for a mail, set another password."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from watchword.features.passwords import Passwords
from watchword.features.recovery.events import PasswordResetRequested
from watchword.features.recovery.records import PasswordReset
from watchword.features.recovery.settings import RecoverySettings
from watchword.features.users import User, UserDeleted, Users
from watchword.kernel.attempts import Attempts
from watchword.kernel.clock import Clock
from watchword.kernel.errors import ExpiredToken, InvalidToken, UserNotFound
from watchword.kernel.ports import ComposedMail, Credential, MailRequest, Postbox
from watchword.kernel.secrets import digest_of, new_secret
from watchword.kernel.settings import spoken
from watchword.storage.errors import Conflict
from watchword.storage.store import Store, gt

PREFIX = "wwp_"
PURPOSE = "reset_password"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Forgotten passwords, in one realm. Also the `reset_password` mail."""

    store: Store
    settings: RecoverySettings
    clock: Clock
    users: Users[Any]
    passwords: Passwords
    postbox: Postbox
    credentials: Sequence[Credential]
    attempts: Attempts

    purpose: str = PURPOSE

    async def request(self, email: str) -> None:
        """Queue a mail for this address, whoever's it may be; the worker looks (I-12).

        Raises:
            InvalidInput: no address.
            MailUnavailable
        """
        address = self.users.address(email)
        self.postbox.ensure_available()
        await self.attempts.count("password_reset_request", account=address.key)
        async with self.store.transaction() as tx:
            await self.postbox.queue(tx, purpose=PURPOSE, address=address.key)
            await tx.announce(
                PasswordResetRequested(realm=tx.realm, at=self.clock.now(), account=address.key)
            )

    async def compose(self, request: MailRequest) -> ComposedMail | None:
        """Mint a token for whoever has the address; the one before is void."""
        user: User | None = await self.users.by_email(request.address)
        if user is None or not user.is_active:
            return None
        token = new_secret(PREFIX)
        await self.store.put(
            PasswordReset(
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
            package="watchword.features.recovery",
            context={
                "token": token.reveal(),
                "link": self._link(token.reveal()),
                "username": user.username,
                "email": user.email,
                "ttl": spoken(self.settings.ttl),
            },
        )

    def _link(self, token: str) -> str | None:
        return None if self.settings.page is None else f"{self.settings.page}#token={token}"

    async def reset(self, token: str, *, new_password: str) -> None:
        """Set another password; every session ends, none begins, no factor is skipped.

        The address is proven by it: on an account whose address was not, whatever was set up
        before goes (I-13).

        Raises:
            InvalidToken, ExpiredToken: nothing happened.
            InvalidInput: the password breaks the policy; the token is still good.
        """
        await self.attempts.count("password_reset")
        digest = digest_of(token, purpose=PURPOSE)
        now = self.clock.now()
        # This look decides nothing: it spares a hash for what cannot work. `take` decides.
        open_reset = await self.store.get(PasswordReset, digest=digest)
        if open_reset is None:
            raise InvalidToken(note="unknown reset token")
        if open_reset.expires_at <= now:
            raise ExpiredToken(note="reset token")
        user: User | None = await self.users.get(open_reset.user_id)
        if user is None or not user.is_active:
            raise InvalidToken(note="the user is gone or disabled")
        hashed = await self.passwords.hashed(new_password, user=user, field="new_password")
        async with self.store.transaction() as tx:
            held = await self.users.hold(user, within=tx)
            taken = held and await tx.take(
                PasswordReset,
                digest=digest,
                email_key=user.email_key,
                epoch=user.epoch,
                expires_at=gt(self.clock.now()),
            )
            if not taken:
                raise InvalidToken(note="spent, or the account changed")
            try:
                await self._set(tx, user, hashed)
            except (Conflict, UserNotFound) as error:
                # Where nothing is undone: it may be another's account by now, or nobody's.
                await self.passwords.withdraw(tx, user.id, hashed)
                raise InvalidToken(note="the account changed") from error

    async def _set(self, tx: Store, user: User, hashed: str) -> None:
        ending = self.users.ending(user.id, why="password_reset", was=user.epoch, within=tx)
        async with ending as ended:
            if not user.is_verified:
                for credential in self.credentials:
                    await credential.forget(tx, user.id)
            await self.passwords.put(tx, user.id, hashed, why="reset")
        # Last: a stop before it leaves nothing proven that a stranger could still get into.
        now_theirs = replace(user, epoch=ended.epoch)
        if await self.users.mark_verified(now_theirs, within=tx) is None:
            raise Conflict("epoch")

    async def forget_user(self, tx: Store, event: UserDeleted) -> None:
        """A user was deleted: so is what they asked for."""
        await tx.take(PasswordReset, user_id=event.user_id)
