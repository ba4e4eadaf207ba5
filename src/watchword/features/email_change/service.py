"""The verbs on a change of address: ask, confirm, undo."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from watchword.features.email_change.events import (
    EmailChanged,
    EmailChangeRequested,
    EmailChangeUndone,
)
from watchword.features.email_change.records import EmailChange, EmailUndo
from watchword.features.email_change.settings import EmailChangeSettings
from watchword.features.passwords import Passwords
from watchword.features.sessions import Sessions
from watchword.features.users import User, UserDeleted, UserRegistered, Users
from watchword.kernel.address import Address
from watchword.kernel.attempts import Attempts
from watchword.kernel.clock import Clock
from watchword.kernel.errors import (
    ExpiredToken,
    InvalidCredentials,
    InvalidToken,
    NotAuthenticated,
    UserAlreadyExists,
    UserNotFound,
    WatchwordError,
)
from watchword.kernel.ids import new_id
from watchword.kernel.ports import ComposedMail, Credential, MailRequest, Postbox
from watchword.kernel.secrets import digest_of, new_secret
from watchword.kernel.settings import spoken
from watchword.storage.errors import Conflict
from watchword.storage.store import Store, gt, where

CONFIRM_PREFIX = "wwe_"
UNDO_PREFIX = "wwu_"
CONFIRM = "confirm_email"
UNDO = "undo_email"
PACKAGE = "watchword.features.email_change"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailChanges:
    """Changes of address, in one realm. Also the `confirm_email` mail."""

    store: Store
    settings: EmailChangeSettings
    clock: Clock
    users: Users[Any]
    passwords: Passwords
    sessions: Sessions
    postbox: Postbox
    credentials: Sequence[Credential]
    attempts: Attempts

    purpose: str = CONFIRM

    async def request(
        self, user: User, *, new_email: str, current_password: str, session_id: str | None
    ) -> None:
        """Queue a mail to the new address. Says nothing of whether it is somebody's.

        Raises:
            InvalidCredentials: the password is wrong.
            InvalidInput: no address.
            MailUnavailable
        """
        address = self.users.address(new_email)
        self.postbox.ensure_available()
        if not await self.passwords.prove(user, current_password):
            raise InvalidCredentials(note="e-mail change")
        await self.attempts.count("email_change", account=address.key)  # it gets the mail
        now = self.clock.now()
        wish = EmailChange(
            realm=self.store.realm,
            user_id=user.id,
            id=new_id(now),
            email=address.email,
            epoch=user.epoch,
            session_id=session_id,
            expires_at=now + self.settings.ttl,
        )
        async with self.store.transaction() as tx:
            await tx.put(wish)  # two wishes at once: whichever comes last voids the other
            await self.postbox.queue(tx, purpose=CONFIRM, address=address.key, challenge=wish.id)
            await tx.announce(EmailChangeRequested(realm=tx.realm, at=now, user_id=user.id))

    async def compose(self, request: MailRequest) -> ComposedMail | None:
        """Mint the token that confirms, unless the address is somebody's by now."""
        wish = await self.store.get(EmailChange, id=request.challenge or "")
        if wish is None:
            return None
        holder: User | None = await self.users.by_email(wish.email)
        if holder is not None and holder.id != wish.user_id:
            return None  # somebody else's by now; who only changes its case may go on
        user: User | None = await self.users.get(wish.user_id)
        if user is None or not user.is_active or user.epoch != wish.epoch:
            return None
        token = new_secret(CONFIRM_PREFIX)
        minted = await self.store.update(
            EmailChange,
            where(id=wish.id, expires_at=gt(self.clock.now())),
            digest=digest_of(token, purpose=CONFIRM),
        )
        if minted is None:
            return None
        return self._mail(wish.email, CONFIRM, token.reveal())

    async def compose_undo(self, request: MailRequest) -> ComposedMail | None:
        """Mint the token that takes a change back, for the address that was."""
        undo = await self.store.get(EmailUndo, id=request.challenge or "")
        if undo is None:
            return None
        token = new_secret(UNDO_PREFIX)
        minted = await self.store.update(
            EmailUndo,
            where(id=undo.id, expires_at=gt(self.clock.now())),
            digest=digest_of(token, purpose=UNDO),
        )
        return None if minted is None else self._mail(undo.email, UNDO, token.reveal())

    def _mail(self, recipient: str, template: str, token: str) -> ComposedMail:
        page = self.settings.page
        return ComposedMail(
            recipient=recipient,
            template=template,
            package=PACKAGE,
            context={
                "token": token,
                "link": None if page is None else f"{page}#{template}={token}",
                "email": recipient,
                "ttl": spoken(self.settings.ttl if template == CONFIRM else self.settings.undo_ttl),
            },
        )

    async def confirm(
        self, token: str, *, acting: str | None = None, password: str | None = None
    ) -> None:
        """Make the change. Every session but the one that asked ends.

        The token shows that the new address is reached; it does not show whose account it is
        for. So the account's session or password must come with it: a stranger's confirmation,
        lured out of the owner of an address, gives nobody an account (I-13).

        Args:
            token: from the mail to the new address.
            acting: the id of the user whose session came with the request.
            password: the account's, where no session came.

        Raises:
            NotAuthenticated: neither came; nothing was spent.
            InvalidCredentials: the password is wrong; nothing was spent.
            InvalidToken: unknown, spent, or the account or either address changed meanwhile.
            ExpiredToken
        """
        await self.attempts.count("verify_email")
        digest = digest_of(token, purpose=CONFIRM)
        now = self.clock.now()
        wish = await self.store.get(EmailChange, digest=digest)
        if wish is None:
            raise InvalidToken(note="unknown confirmation token")
        if wish.expires_at <= now:
            raise ExpiredToken(note="confirmation token")
        user: User | None = await self.users.get(wish.user_id)
        if user is None or not user.is_active or user.epoch != wish.epoch:
            raise InvalidToken(note="the account changed")
        if acting != user.id:
            if password is None:
                raise NotAuthenticated
            if not await self.passwords.prove(user, password):
                raise InvalidCredentials(note="confirmation with a wrong password")
        address = self.users.address(wish.email)
        try:
            async with self.store.transaction() as tx:
                held = await self.users.hold(user, within=tx)
                taken = held and await tx.take(
                    EmailChange, digest=digest, epoch=user.epoch, expires_at=gt(now)
                )
                if not taken:
                    raise InvalidToken(note="spent, or the account changed")
                # An address that was never proven is nobody's to take back, or to reserve.
                undo = await self._reserve(tx, user) if user.is_verified else None
                if undo is not None:
                    # Before the change: a stop in between must not leave one that its former
                    # owner never hears of. A mail whose undo is gone is not sent.
                    await self.postbox.queue(
                        tx, purpose=UNDO, address=undo.email_key, challenge=undo.id
                    )
                changed = await self._readdress(tx, user, address, undo)
                if wish.session_id is not None:
                    await self.sessions.keep(
                        wish.session_id, was=user.epoch, epoch=changed.epoch, within=tx
                    )
                await tx.announce(EmailChanged(realm=tx.realm, at=now, user_id=user.id))
        except (Conflict, UserAlreadyExists) as error:
            raise InvalidToken(note="the new address is somebody's by now") from error

    async def _reserve(self, tx: Store, user: User) -> EmailUndo:
        """Keep the present address for its owner, before it is given up."""
        now = self.clock.now()
        undo = EmailUndo(
            realm=tx.realm,
            id=new_id(now),
            user_id=user.id,
            email=user.email,
            email_key=user.email_key,
            epoch=user.epoch + 1,
            expires_at=now + self.settings.undo_ttl,
        )
        await tx.insert(undo)
        return undo

    async def _readdress(
        self, tx: Store, user: User, address: Address, undo: EmailUndo | None
    ) -> User:
        """Make the change, or leave everything as it was."""
        changed: User | None = None
        try:
            changed = await self.users.readdress(user, address, within=tx)
            if changed is None:
                raise InvalidToken(note="the account changed")
            # After the address is ours: whoever gave it up has reserved it by then.
            await self._refuse_reserved(tx, address.key, but_for=user.id)
        except (Conflict, WatchwordError):
            if not tx.is_transactional:
                if changed is not None:
                    await self.users.give_back(changed, user, within=tx)
                if undo is not None:
                    await tx.take(EmailUndo, id=undo.id)
            raise
        return changed

    async def undo(self, token: str) -> None:
        """Give the address back to its owner: sessions end, ways in are removed, a reset is due.

        Raises:
            InvalidToken, ExpiredToken
        """
        await self.attempts.count("verify_email")
        digest = digest_of(token, purpose=UNDO)
        now = self.clock.now()
        undo = await self.store.get(EmailUndo, digest=digest)
        if undo is None:
            raise InvalidToken(note="unknown undo token")
        if undo.expires_at <= now:
            raise ExpiredToken(note="undo token")
        address = self.users.address(undo.email)
        try:
            async with self.store.transaction() as tx:
                async with self.users.ending(undo.user_id, why="email_undone", within=tx):
                    for credential in self.credentials:
                        await credential.forget(tx, undo.user_id)
                    # Whoever changed it on from there must not take it back with a later undo.
                    await tx.erase(EmailUndo, user_id=undo.user_id, epoch=gt(undo.epoch))
                    await tx.take(EmailChange, user_id=undo.user_id)
                restored = await self.users.restore_address(undo.user_id, address, within=tx)
                if restored is None:
                    raise InvalidToken(note="the user is gone")
                # The token last: where there is no transaction, a stop before it lets the owner
                # try again; all that comes before may happen twice.
                if await tx.take(EmailUndo, digest=digest, expires_at=gt(now)) is None:
                    raise InvalidToken(note="spent")
                await tx.announce(EmailChangeUndone(realm=tx.realm, at=now, user_id=undo.user_id))
        except UserNotFound as error:
            raise InvalidToken(note="the user is gone") from error
        except Conflict as error:
            raise InvalidToken(note="the old address is somebody's by now") from error

    async def registered(self, tx: Store, event: UserRegistered) -> None:
        """An address that may still be taken back is not free for others.

        Raises:
            UserAlreadyExists
        """
        await self._refuse_reserved(tx, self.users.address(event.email).key, but_for=None)

    async def _refuse_reserved(self, tx: Store, email_key: str, *, but_for: str | None) -> None:
        conditions: dict[str, Any] = {
            "email_key": email_key,
            "expires_at": gt(self.clock.now()),
        }
        everyone = await tx.count(EmailUndo, **conditions)
        own = 0 if but_for is None else await tx.count(EmailUndo, user_id=but_for, **conditions)
        if everyone > own:
            raise UserAlreadyExists(note="reserved for an undo")

    async def forget_user(self, tx: Store, event: UserDeleted) -> None:
        """A user was deleted: so are their changes."""
        await tx.take(EmailChange, user_id=event.user_id)
        await tx.erase(EmailUndo, user_id=event.user_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoMail:
    """The mail to the old address."""

    changes: EmailChanges

    purpose: str = UNDO

    async def compose(self, request: MailRequest) -> ComposedMail | None:
        """Say what happened, and how to take it back."""
        return await self.changes.compose_undo(request)
