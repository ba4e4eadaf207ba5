"""Mails about sessions: a new device, a session too many. They open nothing (I-12)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from watchword.features.sessions.agents import agent_of
from watchword.features.sessions.records import Session
from watchword.features.sessions.settings import SessionSettings
from watchword.features.users import User, Users
from watchword.kernel.errors import MailUnavailable, StoreUnavailable, WatchwordError
from watchword.kernel.ports import ComposedMail, MailRequest, Postbox
from watchword.storage.store import Store

NEW_DEVICE = "new_device"
LIMIT = "session_limit"

_log = logging.getLogger("watchword.sessions")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMails:
    """Tells users of their sessions, where mail can leave and their address is proven."""

    store: Store
    users: Users[Any]
    settings: SessionSettings
    postboxes: Sequence[Postbox]

    async def queue(self, tx: Store, user: User, purpose: str, session_id: str) -> None:
        """Ask for a mail in the transaction of what it tells. Fails no sign-in."""
        if not user.is_verified:  # perhaps somebody else's, who has nothing to do with it
            return
        for postbox in self.postboxes:
            try:
                postbox.ensure_available()
                await postbox.queue(tx, purpose=purpose, address=user.email, challenge=session_id)
            except MailUnavailable:
                pass
            except StoreUnavailable:
                raise
            except WatchwordError as error:
                _log.warning("no mail %r to user %s: %s", purpose, user.id, error.code)

    async def compose(self, purpose: str, request: MailRequest) -> ComposedMail | None:
        """Say which device it was, and when; None if the session or its user is gone."""
        session = await self.store.get(Session, id=request.challenge or "")
        user: User | None = None if session is None else await self.users.get(session.user_id)
        if session is None or user is None or not user.is_active:
            return None
        return ComposedMail(
            # Who got in may have changed the address since: its owner then is the one to tell.
            recipient=request.address,
            template=purpose,
            package="watchword.features.sessions",
            context={
                "email": request.address,
                "device": agent_of(session.user_agent).spoken,
                "started": f"{session.started_at:%d %B %Y, %H:%M} UTC".removeprefix("0"),
                "most": self.settings.max_sessions,
                "link": self.settings.page,
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMail:
    """One of these mails, as the outbox asks for it."""

    mails: SessionMails
    purpose: str

    async def compose(self, request: MailRequest) -> ComposedMail | None:
        """What it says."""
        return await self.mails.compose(self.purpose, request)
