"""The outbox: takes requests in the caller's transaction, and delivers them at least once."""

import asyncio
import logging
import random
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from watchword.features.mail.errors import AddressRefused, SendFailed
from watchword.features.mail.events import MailQueued, MailUndeliverable
from watchword.features.mail.message import EmailSender, Message
from watchword.features.mail.records import OutboxMail
from watchword.features.mail.settings import MailSettings
from watchword.features.mail.templates import Templates, plain_locale
from watchword.kernel.address import is_one_address
from watchword.kernel.bell import Bell
from watchword.kernel.clock import Clock
from watchword.kernel.errors import MailUnavailable
from watchword.kernel.ids import new_id
from watchword.kernel.moment import refuse_in_transaction
from watchword.kernel.ports import ComposedMail, MailPurpose
from watchword.kernel.tracing import OFF, Tracing
from watchword.storage.store import Page, Paging, Store, le, plus, where

_log = logging.getLogger("watchword.mail")

_LEASE_FOR = timedelta(seconds=60)  # longer than `timeout` may be; guards nothing (I-24)
_LONGEST_BACKOFF = timedelta(minutes=30)
_BATCH = 20
_JITTER = (0.8, 1.2)  # mails that failed together do not come back together


class UnknownPurpose(Exception):
    """No slice composes such mails here; a newer worker beside this one may."""


class TooOld(Exception):
    """Nobody could send it in time."""


class TooManyAttempts(Exception):
    """Each try ended without a word, as when the process dies of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """Mail that survives a crash, and a server that fails."""

    store: Store
    settings: MailSettings
    clock: Clock
    sender: EmailSender | None  # None: no mail can leave
    sender_address: str
    purposes: Sequence[MailPurpose]  # live: complete once everything has started
    templates: Templates = field(default_factory=Templates)
    bell: Bell = field(default_factory=Bell)
    tracing: Tracing = OFF
    counts: Counter[str] = field(default_factory=Counter[str])
    """Mails of this process that were `sent` or `given_up`, and tries that were `put_off`."""

    def ensure_available(self) -> None:
        """Say at once, to everybody alike, when no mail can leave.

        Raises:
            MailUnavailable: ask before looking anybody up, or the answer tells who is known.
        """
        if self.sender is None:
            raise MailUnavailable(note="WATCHWORD_MAIL is not set")

    async def queue(
        self,
        transaction: Any,
        *,
        purpose: str,
        address: str,
        challenge: str | None = None,
        locale: str = "en",
    ) -> None:
        """Write a request in the caller's transaction; the same work for whoever it names.

        It is kept even where no mail can leave now: if that is mended in time, it is sent.

        Raises:
            AddressRefused: not exactly one plain address.
        """
        if not is_one_address(address):
            raise AddressRefused
        now = self.clock.now()
        outbox: Store = transaction
        row = OutboxMail(
            realm=outbox.realm,
            id=new_id(now),
            purpose=purpose,
            address=address,
            challenge=challenge,
            locale=plain_locale(locale),
            requested_at=now,
            due_at=now,
            expires_at=now + self.settings.retry_for + self.settings.keep_failed_for,
        )
        await outbox.insert(row)
        await outbox.announce(
            MailQueued(realm=row.realm, at=now, outbox_id=row.id, purpose=purpose)
        )

    async def notice(self, queued: MailQueued) -> None:
        """After the commit: wake this process's worker. Others look once a second."""
        if queued.realm == self.store.realm:
            self.bell.ring()

    async def undeliverable(
        self, *, limit: int = 100, after: str | None = None
    ) -> Page[OutboxMail]:
        """Mails that were given up, in the order of their last try."""
        paging = Paging(order=("due_at", "id"), limit=limit, after=after)
        return await self.store.find(OutboxMail, paging, is_given_up=True)

    async def standing(self) -> tuple[int, timedelta]:
        """How many mails wait, and for how long the first of them has been due."""
        paging = Paging(order=("due_at", "id"), limit=1)
        waiting = await self.store.count(OutboxMail, is_given_up=False)
        now = self.clock.now()
        due = await self.store.find(OutboxMail, paging, is_given_up=False, due_at=le(now))
        return waiting, now - due.items[0].due_at if due.items else timedelta(0)

    async def deliver_due(self) -> bool:
        """Deliver one batch of what is due.

        At least once: a stop between sending and noting it sends again, and so may two
        workers when one is slower than its lease. Each mail carries a token of its own.

        Returns:
            True if there is more.
        """
        if self.sender is None:
            return False
        paging = Paging(order=("due_at", "id"), limit=_BATCH)
        page = await self.store.find(
            OutboxMail, paging, is_given_up=False, due_at=le(self.clock.now())
        )
        lanes = asyncio.Semaphore(self.settings.parallel)

        async def deliver(row: OutboxMail) -> None:
            async with lanes:  # the lease begins when sending does
                await self._deliver(row)

        ends = await asyncio.gather(*map(deliver, page.items), return_exceptions=True)
        for end in ends:  # one that the store failed does not stop the others
            if end is not None:
                raise end
        return page.next is not None

    async def _deliver(self, row: OutboxMail) -> None:
        now = self.clock.now()
        claimed = await self.store.update(
            OutboxMail,
            where(id=row.id, due_at=row.due_at),
            due_at=now + _LEASE_FOR,
            attempts=plus(1),
        )
        if claimed is None:
            return  # another worker has it, or had
        try:
            await self._send(claimed)
        except Exception as error:  # noqa: BLE001  whatever it is, the outbox goes on
            await self._failed(claimed, error)
        else:
            await self.store.take(OutboxMail, id=claimed.id)

    async def _send(self, row: OutboxMail) -> None:
        refuse_in_transaction("sending mail")
        assert self.sender is not None
        if self.clock.now() > row.requested_at + self.settings.retry_for:
            raise TooOld
        if row.attempts > self.settings.attempts:
            raise TooManyAttempts
        purpose = next((p for p in self.purposes if p.purpose == row.purpose), None)
        if purpose is None:
            raise UnknownPurpose
        async with asyncio.timeout(self.settings.timeout.total_seconds()):
            composed = await purpose.compose(row.request())
            if composed is None:
                return
            with self.tracing.span("mail.send", purpose=row.purpose):
                await self.sender.send(self._written(composed, locale=row.locale))
            self.counts["sent"] += 1

    def _written(self, composed: ComposedMail, *, locale: str) -> Message:
        if not is_one_address(composed.recipient):
            raise AddressRefused
        rendered = self.templates.render(composed, locale=locale)
        return Message(
            recipient=composed.recipient,
            subject=rendered.subject,
            text=rendered.text,
            html=rendered.html,
            sender=self.sender_address,
            sender_name=self.settings.sender_name,
        )

    async def _failed(self, row: OutboxMail, error: Exception) -> None:
        now = self.clock.now()
        next_at = now + self._pause_after(row.attempts)
        hopeless = isinstance(error, TooOld | TooManyAttempts | AddressRefused) or (
            isinstance(error, SendFailed) and error.permanent
        )
        late = next_at > row.requested_at + self.settings.retry_for
        if hopeless or late or row.attempts >= self.settings.attempts:
            await self._give_up(row, error)
            return
        self.counts["put_off"] += 1
        _log.warning(
            "mail %s (%s), attempt %d: %s", row.id, row.purpose, row.attempts, _told(error)
        )
        await self.store.update(
            OutboxMail,
            where(id=row.id, due_at=row.due_at),  # still ours?
            due_at=next_at,
            last_error=_name(error),
        )

    async def _give_up(self, row: OutboxMail, error: Exception) -> None:
        """Keep who and what for, for an operator to see; nothing else."""
        async with self.store.transaction() as transaction:
            given_up = await transaction.update(
                OutboxMail,
                where(id=row.id, due_at=row.due_at),
                is_given_up=True,
                challenge=None,
                last_error=_name(error),
            )
            if given_up is None:
                return
            await transaction.announce(
                MailUndeliverable(
                    realm=row.realm,
                    at=self.clock.now(),
                    outbox_id=row.id,
                    purpose=row.purpose,
                    attempts=row.attempts,
                    reason=_name(error),
                )
            )
        self.counts["given_up"] += 1
        _log.error(
            "mail %s (%s) given up after attempt %d: %s",
            row.id,
            row.purpose,
            row.attempts,
            _told(error),
        )

    def _pause_after(self, attempts: int) -> timedelta:
        doublings = min(attempts - 1, 16)
        pause = min(self.settings.backoff * 2**doublings, _LONGEST_BACKOFF)
        return pause * random.uniform(*_JITTER)  # noqa: S311  spreads load, hides nothing


def _name(error: Exception) -> str:
    """The class of what went wrong, of its cause where it only passes that on."""
    known = error.__cause__ if isinstance(error, SendFailed) and error.__cause__ else error
    return type(known).__name__


def _told(error: Exception) -> str:
    """For the log: what and where, never the words, which may hold an address or a link."""
    if isinstance(error, SendFailed):
        return f"{_name(error)} {error.note}".rstrip()
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{_name(error)}{place}"
