"""The verbs on passwords: register, sign in, set, check, change."""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from watchword.crypto.hashing import Hasher, Verdict
from watchword.features.passwords import context
from watchword.features.passwords.breaches import BreachChecker, BreachesUnknown, BreachTally
from watchword.features.passwords.common import is_common
from watchword.features.passwords.events import PasswordChanged, PasswordDistrusted
from watchword.features.passwords.policy import compromised, faults_of, is_oversize, normal
from watchword.features.passwords.records import Password
from watchword.features.passwords.settings import PasswordSettings
from watchword.features.sessions import Sessions
from watchword.features.sign_in import Pending, SignIns
from watchword.features.users import Ending, RegistrationRepeated, User, UserDeleted, Users
from watchword.kernel.attempts import Attempts
from watchword.kernel.clock import Clock
from watchword.kernel.errors import (
    BreachCheckUnavailable,
    Fault,
    InvalidClient,
    InvalidCredentials,
    InvalidInput,
    InvalidToken,
    PasswordChangeRequired,
    RegistrationClosed,
    RevokedToken,
    UserAlreadyExists,
    UserNotFound,
    WatchwordError,
)
from watchword.kernel.ids import new_id
from watchword.kernel.ports import Owed, Registrations
from watchword.kernel.secrets import digest_of, same
from watchword.storage.errors import Conflict
from watchword.storage.store import Store, where

_log = logging.getLogger("watchword.passwords")

_NOBODY = "-"  # no user's id
_SHORT = 12  # code points; less than that is worth a word at the start
_BY_OPERATOR = "operator"  # why another password is owed


@dataclass(frozen=True, slots=True, kw_only=True)
class Passwords:
    """Passwords of one realm. Also a step of sign-in: one that is known to others must change."""

    store: Store
    settings: PasswordSettings
    clock: Clock
    users: Users[Any]
    sessions: Sessions
    hasher: Hasher
    sign_ins: SignIns
    registrations: Sequence[Registrations]
    attempts: Attempts
    app_words: tuple[str, ...] = ()  # that no password may contain
    breaches: BreachChecker | None = None  # asked where `check_breaches` is on
    tally: BreachTally = field(default_factory=BreachTally)

    method: str = "pwd"  # RFC 8176 §2
    step: str = "password_change"
    after: tuple[str, ...] = ("verified_address", "mfa")

    async def open(self) -> None:
        """Say at the start what is weaker than it should be; measure what a hash takes (I-20)."""
        await self.hasher.measure()
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
        username = fields.get("username")
        faults = self.validate(password, email=email, username=username)
        if faults:
            raise InvalidInput(faults)
        await self.attempts.count("register", account=self.users.address(email).key)
        await self._refuse_breached(password, field="password")
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
                await self.sign_ins.failed(
                    user, reason, factor=self.method, account=self.users.key_of(email)
                )
                raise InvalidCredentials(note=reason)
        if user.is_active:  # else its work would tell of the right password
            await self._distrust_if_known(stored, password)
            if verdict.upgrade:
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
                await self.sign_ins.failed(user, "wrong_password", factor=self.method)
        return stored, verdict

    async def change(self, user: User, *, current: str, new: str, keep_session: str | None) -> None:
        """Set another password for who knows the present one; other sessions end.

        Raises:
            InvalidCredentials: `current` is wrong, or was changed meanwhile.
            InvalidInput: `new` breaks the policy.
            BreachCheckUnavailable
        """
        if faults := self.validate(new, user=user, field="new_password"):
            raise InvalidInput(faults)
        stored, verdict = await self._proven(user, current)
        if stored is None or not verdict.ok:
            raise InvalidCredentials(note="password change")
        await self._refuse_breached(new, field="new_password")
        hashed = await self.hasher.hash(normal(new))
        try:
            async with self.store.transaction() as tx:
                async with self.users.ending(
                    user.id, why="password_changed", was=user.epoch, within=tx
                ) as ending:
                    await self._replace(tx, stored, hashed)
                await self._announce_change(tx, user.id, "change")
                if keep_session is not None:
                    await self._keep(keep_session, user, ending, tx)
        except Conflict as error:
            raise InvalidCredentials(note="changed meanwhile") from error

    async def _replace(self, tx: Store, stored: Password, hashed: str) -> None:
        """Only over the hash that was checked: of two changes at once one fails."""
        changed = await tx.update(
            Password,
            where(user_id=stored.user_id, hash=stored.hash),
            hash=hashed,
            set_at=self.clock.now(),
            change_owed="",
        )
        if changed is None:
            raise Conflict("hash")

    async def _keep(self, session_id: str, user: User, ending: Ending, tx: Store) -> None:
        others = ending.epoch != user.epoch + ending.raises
        if others or not await self.sessions.keep(
            session_id, was=user.epoch, epoch=ending.epoch, within=tx
        ):
            raise RevokedToken(note="ended while the password was changed")

    # What a password must be

    def validate(
        self,
        password: str,
        *,
        user: User | None = None,
        email: str | None = None,
        username: str | None = None,
        field: str = "password",
    ) -> tuple[Fault, ...]:
        """Everything that is wrong with a new password, but for breaches: nothing is asked.

        Args:
            password: as it came.
            user: whose it would be, if they exist.
            email: theirs, if they do not yet.
            username: theirs, likewise.
            field: what it is called in the request.
        """
        if user is not None:
            email, username = email or user.email, username or user.username
        theirs = context.normal_words(context.words_of_user(email=email, username=username))
        words = (*self.app_words, *theirs)
        return tuple(faults_of(password, self.settings, field=field, words=words))

    async def check(
        self,
        password: str,
        *,
        user: User | None = None,
        email: str | None = None,
        username: str | None = None,
        field: str = "password",
    ) -> tuple[Fault, ...]:
        """As `validate`; then, where nothing is wrong and `check_breaches` is on, ask for breaches.

        What is refused anyway is no business of the service's.

        Raises:
            BreachCheckUnavailable: where `breach_failure` is `deny`.
        """
        faults = self.validate(password, user=user, email=email, username=username, field=field)
        if not faults and await self._is_breached(password, strict=True):
            return (compromised(field),)
        return faults

    async def _refuse_breached(self, password: str, *, field: str) -> None:
        if await self._is_breached(password, strict=True):
            raise InvalidInput([compromised(field)])

    async def _is_breached(self, password: str, *, strict: bool) -> bool:
        """Was it seen in a breach? No, where nobody is asked or `breach_failure` lets it pass."""
        if self.breaches is None or not self.settings.check_breaches:
            return False
        self.tally.asked += 1
        try:
            is_found = await self.breaches.is_breached(password)
        except BreachesUnknown as unknown:
            self.tally.failed += 1
            _log.warning("whether a password was breached is not known: %s", unknown)
            if strict and self.settings.breach_failure == "deny":
                raise BreachCheckUnavailable(note=str(unknown)) from unknown
            return False
        self.tally.found += is_found
        return is_found

    async def hashed(
        self,
        password: str,
        *,
        user: User | None = None,
        email: str | None = None,
        username: str | None = None,
        field: str = "password",
    ) -> str:
        """Check a new password against the policy and hash it; outside any transaction.

        Raises:
            InvalidInput: every fault, naming `field`.
            BreachCheckUnavailable
        """
        faults = await self.check(password, user=user, email=email, username=username, field=field)
        if faults:
            raise InvalidInput(faults)
        return await self.hasher.hash(normal(password))

    # When another is owed

    async def owed(self, user: User, *, proven: tuple[str, ...], purpose: str) -> Owed | None:
        """As a sign-in step: whoever came with a password that others know sets another."""
        if purpose != "sign_in" or self.method not in proven:
            return None
        stored = await self._stored(user)
        if stored is None or not stored.change_owed:
            return None
        return Owed(error=PasswordChangeRequired(extra={"reason": stored.change_owed}))

    async def change_owed(self, pending: Pending, *, new: str) -> Pending:
        """Set the password that a sign-in owes. All that the old one began is over.

        Args:
            pending: from `SignIns.challenge`, which counted the try.
            new: another password.

        Returns:
            The sign-in, which goes on.

        Raises:
            InvalidInput: `new` breaks the policy, or is the old one.
            InvalidToken: no change is owed, or the account changed meanwhile.
            BreachCheckUnavailable
            WatchwordError: what is owed before, with the same challenge.
        """
        await self.sign_ins.reach(pending, self.step)
        user, stored = pending.user, await self._stored(pending.user)
        if stored is None or await self._owes(pending) is None:
            raise InvalidToken(note="no change of the password is owed")
        if faults := await self.check(new, user=user, field="new_password"):
            raise InvalidInput(faults)
        if (await self._checked(new, stored)).ok:
            detail = "is the one that must change"
            raise InvalidInput([Fault("new_password", "password_unchanged", detail)])
        hashed = await self.hasher.hash(normal(new))
        try:
            async with self.store.transaction() as tx:
                async with self.users.ending(
                    user.id, why="password_replaced", was=user.epoch, within=tx
                ) as ending:
                    await self._replace(tx, stored, hashed)
                await self._announce_change(tx, user.id, "owed")
                if ending.epoch != user.epoch + ending.raises:
                    raise Conflict("epoch")
                return await self.sign_ins.carry(pending, epoch=ending.epoch, within=tx)
        except Conflict as error:
            raise InvalidToken(note="the account changed") from error

    async def _owes(self, pending: Pending) -> Owed | None:
        challenge = pending.challenge
        return await self.owed(pending.user, proven=challenge.amr, purpose=challenge.purpose)

    async def require_change(self, user_id: str) -> None:
        """Ask for another password at the next sign-in, as an operator; every session ends.

        Raises:
            UserNotFound
        """
        async with (
            self.store.transaction() as tx,
            self.users.ending(user_id, why="password_distrusted", within=tx),
        ):
            await tx.update(Password, where(user_id=user_id), change_owed=_BY_OPERATOR)
            await self._announce_distrust(tx, user_id, _BY_OPERATOR)

    async def _distrust_if_known(self, stored: Password, password: str) -> None:
        """The password is right. Do others know it?"""
        if not self.settings.check_at_login or stored.change_owed:
            return
        if self.settings.check_common and is_common(password):
            why = "common"
        elif await self._is_breached(password, strict=False):
            why = "compromised"
        else:
            return
        async with self.store.transaction() as tx:
            # Only of the hash that was checked: one that was set meanwhile is another password.
            marked = await tx.update(
                Password,
                where(user_id=stored.user_id, hash=stored.hash, change_owed=""),
                change_owed=why,
            )
            if marked is not None:
                await self._announce_distrust(tx, stored.user_id, why)

    async def _announce_distrust(self, tx: Store, user_id: str, why: str) -> None:
        await tx.announce(
            PasswordDistrusted(realm=tx.realm, at=self.clock.now(), user_id=user_id, why=why)
        )

    # Setting

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
        hashed = await self.hashed(password, user=await self.users.get(user_id))
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
        hashed = await self.hashed(password, email=email, username=fields.get("username"))
        return await self._create(hashed, email=email, **fields)

    async def forget(self, transaction: Store, user_id: str) -> None:
        """Remove the password; the way in is then a reset (I-13)."""
        await transaction.take(Password, user_id=user_id)

    async def forget_user(self, tx: Store, event: UserDeleted) -> None:
        """A user was deleted: so is their password."""
        await self.forget(tx, event.user_id)

    async def _stored(self, user: User | None) -> Password | None:
        # Asked for nobody too: an unknown address costs the same look-ups.
        return await self.store.get(Password, user_id=user.id if user else _NOBODY)

    async def _checked(self, presented: str, stored: Password | None) -> Verdict:
        """Check a password as we hash it, then as it came: other systems hashed it like that.

        Whose password is not in NFC pays for two hashes, whether there is such a user or not. What
        is longer than any password costs as much as a wrong one, and is not read.
        """
        if is_oversize(presented):
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
