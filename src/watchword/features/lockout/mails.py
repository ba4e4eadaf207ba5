"""Mails about failures: an account that is locked, a sign-in after many. They open nothing."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from watchword.features.users import User, Users
from watchword.kernel.errors import MailUnavailable, StoreUnavailable, WatchwordError
from watchword.kernel.ports import ComposedMail, MailRequest, Postbox
from watchword.storage.store import Store

LOCKED = "account_locked"
SUSPICIOUS = "suspicious_sign_in"

_log = logging.getLogger("watchword.lockout")


@dataclass(frozen=True, slots=True, kw_only=True)
class LockoutMails:
    """Tells owners, where mail can leave and their address is proven."""

    users: Users[Any]
    postboxes: Sequence[Postbox]

    async def queue(self, tx: Store, purpose: str, address: str) -> None:
        """Ask for a mail to whoever has this address, perhaps nobody (I-12). Fails no sign-in."""
        for postbox in self.postboxes:
            try:
                postbox.ensure_available()
                await postbox.queue(tx, purpose=purpose, address=address)
            except MailUnavailable:
                pass
            except StoreUnavailable:
                raise
            except WatchwordError as error:  # what was tried is no address
                _log.info("no mail %r: %s", purpose, error.code)

    async def compose(self, purpose: str, request: MailRequest) -> ComposedMail | None:
        """Say when it was; None where the address is nobody's, or nobody has proven it."""
        user: User | None = await self.users.by_email(request.address)
        if user is None or not user.is_verified or not user.is_active:
            return None
        return ComposedMail(
            recipient=user.email,
            template=purpose,
            package="watchword.features.lockout",
            context={
                "email": user.email,
                "at": f"{request.requested_at:%d %B %Y, %H:%M} UTC".removeprefix("0"),
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LockoutMail:
    """One of these mails, as the outbox asks for it."""

    mails: LockoutMails
    purpose: str

    async def compose(self, request: MailRequest) -> ComposedMail | None:
        """What it says."""
        return await self.mails.compose(self.purpose, request)
