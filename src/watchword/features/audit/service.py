"""The verbs on audit: what happened is written with it, found again, and held against its seals."""

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address
from typing import Any, Final, Literal

from watchword.features.audit.actions import AuthAction
from watchword.features.audit.entries import HASHED, Writer, view_of
from watchword.features.audit.records import AuditEntry, AuditErasure
from watchword.features.audit.refusals import Refusals
from watchword.features.audit.seals import Seals, Verified
from watchword.features.audit.settings import AuditSettings
from watchword.features.users import User, UserDeleted, Users
from watchword.kernel.clock import Clock
from watchword.kernel.errors import Fault, InvalidInput, StoreUnavailable
from watchword.kernel.events import Event, RequestRefused
from watchword.kernel.occasion import occasion
from watchword.kernel.quotas import network_of
from watchword.storage.errors import Conflict
from watchword.storage.store import (
    Comparison,
    Page,
    Paging,
    Store,
    cursor_of,
    ge,
    le,
    lt,
    other_than,
)
from watchword.storage.store import where as matching

_log = logging.getLogger("watchword.audit")

DAY: Final = timedelta(hours=24)
WEEK: Final = timedelta(hours=168)
MOST: Final = 1000  # entries of one page

_ORDER: Final = ("at", "id")
_BATCH: Final = 200
_LATE: Final = timedelta(minutes=5)  # by then whatever was under way about a user is written
_REFRESHED: Final = "token_refreshed"
_ERASED: Final[dict[str, Any]] = {
    "account": None,
    "address": None,
    "user_agent": None,
    "salt": None,
}

COLUMNS: Final = (
    *("at", "action", "result", "user_id", "actor", "session_id", "request_id", "app"),
    *("account", "address", "user_agent", "event", "details", "id", "realm", "seal"),
)
"""Of an export as CSV, in this order."""

# The last four are the first in full width, as some countries' keyboards have them.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How much happened since then."""

    since: datetime
    total: int
    failures: int
    actions: dict[str, int]  # those that happened, by name


@dataclass(slots=True)
class _State:
    """What one process knows."""

    counts: Counter[str] = field(default_factory=Counter[str])
    refusals: Refusals = field(default_factory=Refusals)
    of_strangers: Refusals = field(default_factory=Refusals)  # their noise hides nobody else's
    erased_to: datetime | None = None  # with ip_mode=plain, what is older is erased


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What happened in one realm."""

    store: Store
    settings: AuditSettings
    clock: Clock
    users: Users[Any]
    writer: Writer
    seals: Seals
    _state: _State = field(default_factory=_State)

    @property
    def counts(self) -> Counter[str]:
        """How often each action happened in this process since its start, kept or not."""
        return self._state.counts

    # Writing

    async def keep(self, transaction: Store, event: Event) -> None:
        """Write an entry in the transaction of what happened.

        Raises:
            StoreUnavailable: it cannot be written, so that it does not happen either; but with
                `audit.failure="log"` it goes on without.
        """
        if isinstance(event, RequestRefused):
            return  # `note` keeps it
        repeated = 0
        if event.is_failure and event.audited_as() == AuthAction.TOKEN_EXPIRED:
            # Whoever holds it may send it for ever.
            key = (type(event).__name__, str(getattr(event, "session_id", "")))
            admitted = self._state.refusals.admit(key, self.clock.monotonic())
            if admitted is None:
                return
            repeated = admitted
        await self._write(transaction, event, repeated)

    async def note(self, event: RequestRefused) -> None:
        """Keep a refusal, in a transaction of its own; of many alike in a minute, one.

        It is refused all the same if that fails.
        """
        now = occasion()
        principal = None if now is None else now.principal
        address = None if now is None or now.client is None else now.client.address
        if principal is None:  # of IPv6 anybody has as many addresses as they like
            refusals, who = self._state.of_strangers, network_of(address or "")
        else:
            refusals, who = self._state.refusals, f"{principal.kind}:{principal.id}"
        key = (type(event).__name__, event.code, who, "" if now is None else now.path)
        admitted = refusals.admit(key, self.clock.monotonic(), who=who)
        if admitted is not None:
            await self._write(self.store, event, admitted)

    async def count(self, event: Event) -> None:
        """Count what happened; after the commit."""
        action = event.audited_as()
        if action is not None:
            self._state.counts[action] += 1

    async def _write(self, store: Store, event: Event, repeated: int) -> None:
        if not self.settings.refreshes and event.audited_as() == _REFRESHED:
            return
        entry = self.writer.entry_of(event, repeated=repeated)
        if entry is None:
            return
        failed: Exception
        try:
            await store.insert(entry)
        except Exception as error:  # noqa: BLE001  whatever it is, no 401 becomes a 500 by it
            failed = error
        else:
            return
        if self.settings.failure == "log":
            _log.error(
                "no entry of %s, request %s: %s",
                entry.action,
                entry.request_id,
                type(failed).__name__,
            )
            return
        if isinstance(failed, StoreUnavailable):
            raise failed
        raise StoreUnavailable(note=f"the audit entry was not written: {type(failed).__name__}")

    # Finding

    async def recent(
        self,
        *,
        within: timedelta = DAY,
        action: str | None = None,
        success: bool | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[AuditEntry]:
        """What happened lately, the newest first.

        Args:
            within: how far back.
            action: only this one; an `AuthAction` or the name of another event.
            success: only what went well, or only what did not.
            limit: entries of a page, at most 1000.
            after: the `next` of the page before.

        Raises:
            InvalidInput: `after` is no cursor of this list, or a limit that cannot be.
        """
        asked: dict[str, object] = {} if action is None else {"action": str(action)}
        if success is not None:
            asked["result"] = "success" if success else "failure"
        return await self._page(within, limit, after, asked)

    async def failed_logins(
        self,
        *,
        email: str | None = None,
        address: str | None = None,
        within: timedelta = DAY,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[AuditEntry]:
        """Sign-ins that failed, the newest first; for an address of mail also if it is nobody's.

        Raises:
            InvalidInput: as `recent`.
        """
        about = self._about(email, address)
        failed = {"action": str(AuthAction.LOGIN_FAILED)}
        return await self._page(within, limit, after, *({**failed, **each} for each in about))

    async def count_failed_logins(
        self,
        *,
        within: timedelta = timedelta(hours=1),
        email: str | None = None,
        address: str | None = None,
    ) -> int:
        """How many sign-ins failed."""
        action, since = str(AuthAction.LOGIN_FAILED), ge(self.clock.now() - within)
        many = 0
        for each in self._about(email, address):
            many += await self.store.count(AuditEntry, action=action, at=since, **each)
        return many

    async def user_activity(
        self,
        user: str,
        *,
        within: timedelta = WEEK,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[AuditEntry]:
        """What happened to a user, the newest first.

        Args:
            user: an id, or an address of mail: then also what was tried with it and names nobody,
                such as the request for a reset.
            within: how far back.
            limit: entries of a page, at most 1000.
            after: the `next` of the page before.

        Raises:
            InvalidInput: as `recent`.
        """
        asked = [{"user_id": user}]
        if "@" in user:
            known: User | None = await self.users.by_email(user)
            asked = self._about(user, None) + ([] if known is None else [{"user_id": known.id}])
        return await self._page(within, limit, after, *asked)

    async def address_activity(
        self,
        address: str,
        *,
        within: timedelta = DAY,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[AuditEntry]:
        """What came from an address of the network, the newest first.

        Raises:
            InvalidInput: as `recent`.
        """
        return await self._page(within, limit, after, *self._about(None, address))

    async def security_summary(self, *, within: timedelta = DAY) -> Summary:
        """How much of what happened: each a count over an index."""
        since = self.clock.now() - within
        actions: dict[str, int] = {}
        for action in AuthAction:
            many = await self.store.count(AuditEntry, action=str(action), at=ge(since))
            if many:
                actions[str(action)] = many
        return Summary(
            since=since,
            total=await self.store.count(AuditEntry, at=ge(since)),
            failures=await self.store.count(AuditEntry, at=ge(since), result="failure"),
            actions=actions,
        )

    def _about(self, email: str | None, address: str | None) -> list[dict[str, str]]:
        """What to ask for, one after the other: each is one range of an index."""
        asked: list[dict[str, str]] = [{}]
        if email is not None:
            key = self.users.key_of(email) or email
            forms = self.writer.forms("account", key)
            asked = [{**each, "account": form} for each in asked for form in forms]
        if address is not None:
            forms = self.writer.forms("address", _canonical(address))
            asked = [{**each, "address": form} for each in asked for form in forms]
        return asked

    async def _page(
        self, within: timedelta, limit: int, after: str | None, *asked: Mapping[str, object]
    ) -> Page[AuditEntry]:
        """One list of all that fits one of these."""
        if not 1 <= limit <= MOST:
            raise InvalidInput([Fault("limit", "out_of_range", f"is not from 1 to {MOST}")])
        paging = Paging(order=_ORDER, descending=True, limit=limit, after=after)
        since = ge(self.clock.now() - within)
        pages = [await self.store.find(AuditEntry, paging, at=since, **each) for each in asked]
        if len(pages) == 1:
            return pages[0]
        each_once = {entry.id: entry for page in pages for entry in page.items}
        found = sorted(each_once.values(), key=lambda entry: (entry.at, entry.id), reverse=True)
        items = tuple(found[:limit])
        more = len(found) > limit or any(page.next is not None for page in pages)
        return Page(items, cursor_of(items[-1], paging) if more else None)

    async def export(
        self,
        form: Literal["jsonl", "csv"] = "jsonl",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> AsyncGenerator[str]:
        """Every entry as a line of text, the oldest first; for whoever keeps them elsewhere.

        Args:
            form: a JSON object a line, or CSV with a head.
            since: none older than this.
            until: none younger than this; by default none that comes meanwhile.
        """
        if form == "csv":
            yield _row(COLUMNS)
        until = self.clock.now() if until is None else until
        asked: dict[str, Comparison] = {} if since is None else {"at": ge(since)}
        after: str | None = None
        while True:
            paging = Paging(order=_ORDER, limit=_BATCH, after=after)
            page = await self.store.find(AuditEntry, paging, **asked)
            for entry in page.items:
                if entry.at > until:
                    return
                yield line_of(entry, form)
            after = page.next
            if after is None:
                return

    # Seals

    async def unsealed_for(self) -> timedelta:
        """For how long the oldest entry without a seal has waited for it."""
        if not (self.settings.enabled and self.settings.seal):
            return timedelta(0)
        paging = Paging(order=("at", "id"), limit=1)
        now = self.clock.now()
        page = await self.store.find(AuditEntry, paging, seal=0, at=le(now))
        return now - page.items[0].at if page.items else timedelta(0)

    async def seal(self) -> bool:
        """Seal one batch of what is a minute old; True if there is more. Correct when two do it."""
        return await self.seals.seal()

    async def verify(self, *, heads: Sequence[str] = ()) -> Verified:
        """Hold every entry against its seal.

        Args:
            heads: digests of seals known from elsewhere, such as the log.

        Raises:
            StoreUnavailable
        """
        return await self.seals.verify(heads=heads)

    # What is personal

    async def forget_user(self, tx: Store, event: UserDeleted) -> None:
        """A user was deleted: entries keep the id; the rest is erased by the background work."""
        with suppress(Conflict):  # one of this id was deleted before, and that is not done yet
            await tx.insert(AuditErasure(realm=tx.realm, user_id=event.user_id, at=event.at))

    async def erase(self) -> bool:
        """Erase what entries say of persons that are gone, or for too long; True if there is more.

        The seals hold: what is erased enters them by a salted digest, and the salt goes too.

        Raises:
            StoreUnavailable
        """
        after: str | None = None
        more = False
        while True:  # all of them: one that is done waits here for what comes late
            paging = Paging(order=("at", "user_id"), limit=_BATCH, after=after)
            page = await self.store.find(AuditErasure, paging)
            for gone in page.items:
                wanted: dict[str, object] = {"user_id": gone.user_id, "salt": other_than(None)}
                left = await self._erased(wanted)
                more = more or left
                if not left and gone.at < self.clock.now() - _LATE:
                    await self.store.take(AuditErasure, user_id=gone.user_id, at=gone.at)
            after = page.next
            if after is None:
                break
        if self.settings.ip_mode == "plain":
            return await self._erase_old() or more
        # What was kept plain under another setting: all such addresses are less than `hmac:`.
        old = le(self.clock.now() - self.settings.ip_retention)
        order = ("address", "at", "id")
        return await self._erased({"address": lt(HASHED), "at": old}, order) or more

    async def _erased(self, asked: dict[str, object], order: tuple[str, ...] = _ORDER) -> bool:
        page = await self.store.find(AuditEntry, Paging(order=order, limit=_BATCH), **asked)
        for entry in page.items:
            await self.store.update(AuditEntry, matching(id=entry.id), **_ERASED)
        return page.next is not None

    async def _erase_old(self) -> bool:
        """Older than `ip_retention`; from where this process left off."""
        old = self.clock.now() - self.settings.ip_retention
        reached = self._state.erased_to
        asked = {"at": le(old) if reached is None else ge(reached), "salt": other_than(None)}
        page = await self.store.find(AuditEntry, Paging(order=_ORDER, limit=_BATCH), **asked)
        due = [entry for entry in page.items if entry.at <= old]
        for entry in due:
            await self.store.update(AuditEntry, matching(id=entry.id), **_ERASED)
        if due:
            self._state.erased_to = due[-1].at
        return len(due) == _BATCH


def _canonical(address: str) -> str:
    """An address of the network as entries have it, however it was typed."""
    try:
        known = ip_address(address.strip().partition("%")[0])
    except ValueError:
        return address
    mapped = known.ipv4_mapped if isinstance(known, IPv6Address) else None
    return str(known if mapped is None else mapped)


def line_of(entry: AuditEntry, form: Literal["jsonl", "csv"]) -> str:
    """An entry as one line, with its end."""
    view = view_of(entry)
    if form == "jsonl":
        # ASCII: no letter of a stranger's moves a terminal's cursor or ends a line.
        return json.dumps(view, ensure_ascii=True, separators=(",", ":")) + "\n"
    view["details"] = json.dumps(view["details"], ensure_ascii=True, separators=(",", ":"))
    return _row(["" if view[name] is None else str(view[name]) for name in COLUMNS])


def _row(cells: Sequence[str]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerow([_harmless(cell) for cell in cells])
    return written.getvalue()


def _harmless(cell: str) -> str:
    """A spreadsheet takes what begins like this for a formula (CWE-1236)."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
