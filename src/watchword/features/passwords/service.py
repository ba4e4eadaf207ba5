"""The verbs on passwords: register, sign in, set, check, change."""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from watchword.crypto.hashing import Hasher, Verdict
from watchword.features.passwords.events import PasswordChanged
from watchword.features.passwords.policy import MAX_BYTES, faults_of, normal
from watchword.features.passwords.records import Password
from watchword.features.passwords.settings import PasswordSettings
from watchword.features.sessions import Sessions
from watchword.features.sign_in import SignIns
from watchword.features.users import Ending, RegistrationRepeated, User, UserDeleted, Users
from watchword.kernel.attempts import Attempts
from watchword.kernel.clock import Clock
from watchword.kernel.errors import (
    InvalidClient,
    InvalidCredentials,
    InvalidInput,
    RegistrationClosed,
    RevokedToken,
    UserAlreadyExists,
    UserNotFound,
    WatchwordError,
)
from watchword.kernel.ids import new_id
from watchword.kernel.ports import Registrations
from watchword.kernel.secrets import digest_of, same
from watchword.storage.errors import Conflict
from watchword.storage.store import Store, where

_log = logging.getLogger("watchword.passwords")

_NOBODY = "-"  # no user's id
_SHORT = 12  # code points; less than that is worth a word at the start


@dataclass(frozen=True, slots=True, kw_only=True)
class Passwords:
    """Passwords of one realm."""

    store: Store
    settings: PasswordSettings
    clock: Clock
    users: Users[Any]
    sessions: Sessions
    hasher: Hasher
    sign_ins: SignIns
    registrations: Sequence[Registrations]
    attempts: Attempts

    method: str = "pwd"  # RFC 8176 §2

    async def open(self) -> None:
        """Say at the start what is weaker than it should be."""
        if self.settings.min_length < _SHORT:
            _log.warning(
                "passwords.min_length is %d: without a second factor %d is the least to ask for",
                self.settings.min_length,
                _SHORT,
            )

    async def register(self, *, email: str, password: str, **fields: Any) -> User | None:
        """Sign a stranger up.

        Returns:
            The user; None where strangers are to learn nothing (`email_verification =
            "required"`): then the same work is done for a known address as for an unknown one.

        Raises:
            InvalidInput: every fault of the password, or another field.
            UserAlreadyExists: only where that may be said.
            RegistrationClosed
        """
        if self.settings.registration == "closed":
            raise RegistrationClosed
        self.check_policy(password, field="password")
        await self.attempts.count("register", account=self.users.address(email).key)
        silent = any(each.silent for each in self.registrations)
        hashed = await self.hasher.hash(normal(password))
        # Decides nothing but the order of work: the unique key decides. Where all is silent a
        # known address must not cost a failed insert more than an unknown one.
        owner: User | None = await self.users.by_email(email) if silent else None
        if owner is None:
            try:
                user = await self._create(hashed, email=email, by_themselves=True, **fields)
            except UserAlreadyExists:
                if not silent:
                    raise
                owner = await self.users.by_email(email)
            else:
                return None if silent else user
        if owner is not None:
            await self._registered_again(owner)
        return None

    async def _create(self, hashed: str, *, email: str, **fields: Any) -> User:
        if not self.store.is_transactional:
            return await self._create_last(hashed, email=email, **fields)
        async with self.store.transaction() as tx:
            user: User = await self.users.within(tx).create(email=email, **fields)
            await tx.insert(self._record(user.id, hashed))
        return user

    async def _create_last(self, hashed: str, *, email: str, **fields: Any) -> User:
        """Without a transaction the user comes last.

        A stop in between leaves the hash of nobody, and not an account without a way in.
        """
        given = fields.pop("id", None)
        user_id = new_id(self.clock.now()) if given is None else str(given)
        if given is not None and await self.users.get(user_id) is not None:
            raise UserAlreadyExists(note="id")  # they must not have this password for a moment
        try:
            await self.store.insert(self._record(user_id, hashed))
        except Conflict as conflict:
            raise UserAlreadyExists(note="id") from conflict
        try:
            user: User = await self.users.create(email=email, id=user_id, **fields)
        except WatchwordError:
            await self.withdraw(self.store, user_id, hashed)
            raise
        return user

    async def _registered_again(self, owner: User) -> None:
        now = self.clock.now()
        async with self.store.transaction() as tx:
            # As many statements as making a user takes, on rows of nobody (I-12).
            await tx.update(self.users.kind, where(id=_NOBODY), updated_at=now)
            await tx.update(Password, where(user_id=_NOBODY), set_at=now)
            await tx.announce(
                RegistrationRepeated(
                    realm=tx.realm,
                    at=now,
                    email=owner.email,
                    user_id=owner.id,
                    is_verified=owner.is_verified,
                )
            )

    def check_client(self, client_id: str | None, client_secret: str | None) -> None:
        """Where only certain clients may bring passwords: is it one? Looked at before all else.

        Raises:
            InvalidClient
        """
        known, secret = self.settings.client_id, self.settings.client_secret
        if known is None or secret is None:
            return
        # Both always, and as digests: the time says neither which is wrong nor how long it is.
        fits = (
            same(digest_of(client_id or "", purpose="client"), digest_of(known, purpose="client")),
            same(
                digest_of(client_secret or "", purpose="client"),
                digest_of(secret, purpose="client"),
            ),
        )
        if not all(fits):
            raise InvalidClient(note="client_id or client_secret")

    async def sign_in(self, *, email: str, password: str) -> User:
        """Check address and password.

        Returns:
            The user as read *before* the password was checked; its epoch is the one that a
            session begins under (I-01).

        Raises:
            InvalidCredentials: unknown, wrong, or disabled with a wrong password: one answer,
                one price.
        """
        async with self.attempts.trying("login", account=self.users.key_of(email)) as tried:
            user: User | None = await self.users.by_email(email)
            stored = await self._stored(user)
            verdict = await self._checked(password, stored)
            tried.is_right = user is not None and stored is not None and verdict.ok
            if user is None or stored is None or not verdict.ok:
                reason = "unknown_user" if user is None else "wrong_password"
                await self.sign_ins.failed(user, reason)
                raise InvalidCredentials(note=reason)
        if verdict.upgrade and user.is_active:  # else its work would tell of the right password
            await self._upgrade(stored, password)
        return user

    async def prove(self, user: User, presented: str) -> bool:
        """Is this the user's password?"""
        _, verdict = await self._proven(user, presented)
        return verdict.ok

    async def _proven(self, user: User, presented: str) -> tuple[Password | None, Verdict]:
        """Check the password of who is known already; as much an attempt as a sign-in is."""
        async with self.attempts.trying("login", account=user.email_key) as tried:
            stored = await self._stored(user)
            verdict = await self._checked(presented, stored)
            tried.is_right = verdict.ok
            if not verdict.ok:
                await self.sign_ins.failed(user, "wrong_password")
        return stored, verdict

    async def change(self, user: User, *, current: str, new: str, keep_session: str | None) -> None:
        """Set another password for who knows the present one; other sessions end.

        Raises:
            InvalidCredentials: `current` is wrong, or was changed meanwhile.
            InvalidInput: `new` breaks the policy.
        """
        self.check_policy(new, field="new_password")
        stored, verdict = await self._proven(user, current)
        if stored is None or not verdict.ok:
            raise InvalidCredentials(note="password change")
        hashed = await self.hasher.hash(normal(new))
        try:
            await self._replace(user, stored, hashed, keep_session)
        except Conflict as error:
            raise InvalidCredentials(note="changed meanwhile") from error

    async def _replace(
        self, user: User, stored: Password, hashed: str, keep_session: str | None
    ) -> None:
        """Only over the epoch and the hash that were checked: of two changes at once one fails."""
        async with self.store.transaction() as tx:
            async with self.users.ending(
                user.id, why="password_changed", was=user.epoch, within=tx
            ) as ending:
                changed = await tx.update(
                    Password,
                    where(user_id=user.id, hash=stored.hash),
                    hash=hashed,
                    set_at=self.clock.now(),
                )
                if changed is None:
                    raise Conflict("hash")
            await self._announce_change(tx, user.id, "change")
            if keep_session is not None:
                await self._keep(keep_session, user, ending, tx)

    async def _keep(self, session_id: str, user: User, ending: Ending, tx: Store) -> None:
        others = ending.epoch != user.epoch + ending.raises
        if others or not await self.sessions.keep(
            session_id, was=user.epoch, epoch=ending.epoch, within=tx
        ):
            raise RevokedToken(note="ended while the password was changed")

    async def hashed(self, password: str, *, field: str = "password") -> str:
        """Check a new password against the policy and hash it; outside any transaction.

        Raises:
            InvalidInput: every fault, naming `field`.
        """
        self.check_policy(password, field=field)
        return await self.hasher.hash(normal(password))

    async def put(self, tx: Store, user_id: str, hashed: str, *, why: str) -> None:
        """Set the password to what `hashed` returned, in the caller's transaction.

        The caller does so inside `Users.ending`.
        """
        await tx.put(self._record(user_id, hashed))
        await self._announce_change(tx, user_id, why)

    async def withdraw(self, tx: Store, user_id: str, hashed: str) -> None:
        """Take a password back that `put` set, if it is still this one; the way in is a reset."""
        if await tx.take(Password, user_id=user_id, hash=hashed) is None:
            return
        with contextlib.suppress(UserNotFound):  # whoever signed in with it is out
            await self.users.end_all(user_id, why="password_withdrawn", within=tx)

    async def set(self, user_id: str, password: str) -> None:
        """Set a user's password as an operator; every session ends.

        Raises:
            InvalidInput, UserNotFound
        """
        hashed = await self.hashed(password)
        try:
            async with (
                self.store.transaction() as tx,
                self.users.ending(user_id, why="password_set", within=tx),
            ):
                await self.put(tx, user_id, hashed, why="operator")
        except UserNotFound:  # deleted meanwhile
            await self.withdraw(self.store, user_id, hashed)
            raise

    async def create_user(self, *, email: str, password: str, **fields: Any) -> User:
        """Make a user with a password, as an operator: both or neither.

        Raises:
            InvalidInput, UserAlreadyExists
        """
        hashed = await self.hashed(password)
        return await self._create(hashed, email=email, **fields)

    async def forget(self, transaction: Store, user_id: str) -> None:
        """Remove the password; the way in is then a reset (I-13)."""
        await transaction.take(Password, user_id=user_id)

    async def forget_user(self, tx: Store, event: UserDeleted) -> None:
        """A user was deleted: so is their password."""
        await self.forget(tx, event.user_id)

    def check_policy(self, password: str, *, field: str) -> None:
        """Raises InvalidInput with every reason at once."""
        if faults := faults_of(password, self.settings, field=field):
            raise InvalidInput(faults)

    async def _stored(self, user: User | None) -> Password | None:
        # Asked for nobody too: an unknown address costs the same look-ups.
        return await self.store.get(Password, user_id=user.id if user else _NOBODY)

    async def _checked(self, presented: str, stored: Password | None) -> Verdict:
        """Check a password as we hash it, then as it came: other systems hashed it like that.

        Whose password is not in NFC pays for two hashes, whether there is such a user or not. What
        is longer than any password costs as much as a wrong one, and is not read.
        """
        if len(presented) > 4 * MAX_BYTES:
            presented, stored = "", None
        hashed = stored.hash if stored else None
        text = normal(presented)
        verdict = await self.hasher.verify(text, hashed)
        if verdict.ok or text == presented:
            return verdict
        return await self.hasher.verify(presented, hashed)

    async def _upgrade(self, stored: Password, password: str) -> None:
        hashed = await self.hasher.hash(normal(password))
        # Only over the hash that was checked: a change that came between stays.
        await self.store.update(
            Password, where(user_id=stored.user_id, hash=stored.hash), hash=hashed
        )

    async def _announce_change(self, tx: Store, user_id: str, why: str) -> None:
        await tx.announce(
            PasswordChanged(realm=tx.realm, at=self.clock.now(), user_id=user_id, why=why)
        )

    def _record(self, user_id: str, hashed: str) -> Password:
        return Password(
            realm=self.store.realm, user_id=user_id, hash=hashed, set_at=self.clock.now()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordProof:
    """The password, where somebody who is signed in proves it again (I-15)."""

    passwords: Passwords

    method: str = "password"
    field: str = "password"

    @property
    def amr(self) -> str:
        """As a sign-in with it says."""
        return self.passwords.method

    async def prove(self, user: User, presented: str) -> bool:
        """Is this the user's password?"""
        return await self.passwords.prove(user, presented)
