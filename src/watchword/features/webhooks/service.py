"""The verbs on webhooks: who hears of what, and the outbox of what is on its way to them."""

import asyncio
import json
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from watchword.crypto.sealing import SealBroken, Sealer, SealKeyMissing
from watchword.features.webhooks.errors import (
    DeliveryFailed,
    TargetRefused,
    WebhookEndpointNotFound,
    WebhookEndpointsLimited,
    WebhooksUnsealable,
)
from watchword.features.webhooks.events import (
    WebhookEndpointAdded,
    WebhookEndpointDisabled,
    WebhookEndpointEnabled,
    WebhookEndpointRemoved,
    WebhookSecretRotated,
    WebhookUndeliverable,
)
from watchword.features.webhooks.kinds import TEST, data_of, is_pattern, kind_of
from watchword.features.webhooks.known import Known
from watchword.features.webhooks.records import WebhookDelivery, WebhookEndpoint
from watchword.features.webhooks.sender import Sender
from watchword.features.webhooks.settings import WebhookSettings
from watchword.features.webhooks.signing import new_signing_secret, signed_headers
from watchword.features.webhooks.targets import literal, refusal_of, target_of
from watchword.kernel.bell import Bell
from watchword.kernel.clock import Clock
from watchword.kernel.errors import Fault, InvalidInput, StoreUnavailable
from watchword.kernel.events import Event
from watchword.kernel.ids import new_id
from watchword.kernel.secrets import Secret
from watchword.storage.record import place_of
from watchword.storage.store import Page, Paging, Store, le, plus, where

_log = logging.getLogger("watchword.webhooks")

_LEASE_FOR: Final = timedelta(seconds=60)  # longer than `timeout` may be; guards nothing (I-24)
_LONGEST_BACKOFF: Final = timedelta(hours=6)
_BATCH: Final = 20
_JITTER: Final = (0.8, 1.2)  # what failed together does not come back together
_LOOK_AGAIN: Final = 1.0  # seconds; while some deliveries take long, others become due
_MOST_PATTERNS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedEndpoint:
    """An endpoint and its secret. This is the one time that anybody sees it."""

    endpoint: WebhookEndpoint
    secret: Secret


@dataclass(slots=True)
class Counts:
    """What became of deliveries in this process, since it began."""

    delivered: int = 0
    failed: int = 0  # tries
    dead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhooks:
    """Webhooks of one realm."""

    store: Store
    settings: WebhookSettings
    clock: Clock
    sealer: Sealer
    sender: Sender
    known: Known
    development: bool = False
    bell: Bell = field(default_factory=Bell)
    counts: Counts = field(default_factory=Counts)

    # Endpoints

    async def add(
        self, url: str, *, events: Sequence[str], with_email: bool = False
    ) -> IssuedEndpoint:
        """Let an endpoint hear of events.

        Running servers send there within 2 seconds; where workers hear of nothing, within 10.

        Args:
            url: `https://…`; in production nowhere but the public internet and `allow_networks`.
            events: `user.created`, `session.*`, or `*`.
            with_email: events of users carry the address where they know it.

        Raises:
            InvalidInput: naming `url` or `events`.
            WebhookEndpointsLimited
        """
        self._check(url, events)
        now = self.clock.now()
        secret = new_signing_secret()
        made = WebhookEndpoint(
            realm=self.store.realm,
            id=new_id(now),
            url=url,
            events=tuple(dict.fromkeys(events)),
            with_email=with_email,
            secret="",
            created_at=now,
        )
        made = replace(made, secret=self._sealed(made, "secret", secret))
        async with self.store.transaction() as tx:
            await tx.insert(made)
            await tx.announce(
                WebhookEndpointAdded(
                    realm=tx.realm, at=now, endpoint_id=made.id, url=url, events=made.events
                )
            )
        # Counted after: the last of any racers sees them all, so there is never one too many.
        if await self.store.count(WebhookEndpoint) > self.settings.max_endpoints:
            await self.remove(made.id)
            raise WebhookEndpointsLimited
        return IssuedEndpoint(endpoint=made, secret=secret)

    async def page(self, *, limit: int = 100, after: str | None = None) -> Page[WebhookEndpoint]:
        """All endpoints, the oldest first."""
        paging = Paging(order=("created_at", "id"), limit=limit, after=after)
        return await self.store.find(WebhookEndpoint, paging)

    async def get(self, endpoint_id: str) -> WebhookEndpoint:
        """One endpoint.

        Raises:
            WebhookEndpointNotFound
        """
        found = await self.store.get(WebhookEndpoint, id=endpoint_id)
        if found is None:
            raise WebhookEndpointNotFound
        return found

    async def rotate(self, endpoint_id: str) -> IssuedEndpoint:
        """Sign with a fresh secret; the former signs too until `overlap` is over.

        Raises:
            WebhookEndpointNotFound: or changed by another at the same moment.
        """
        found = await self.get(endpoint_id)
        now = self.clock.now()
        secret = new_signing_secret()
        former = self._opened(found, "secret")
        async with self.store.transaction() as tx:
            changed = await tx.update(
                WebhookEndpoint,
                where(id=found.id, secret=found.secret),
                secret=self._sealed(found, "secret", secret),
                former_secret=self._sealed(found, "former_secret", former),
                former_until=now + self.settings.overlap,
            )
            if changed is None:
                raise WebhookEndpointNotFound(note="it was changed meanwhile")
            await tx.announce(WebhookSecretRotated(realm=tx.realm, at=now, endpoint_id=found.id))
        return IssuedEndpoint(endpoint=changed, secret=secret)

    async def enable(self, endpoint_id: str) -> None:
        """Let an endpoint hear of events again.

        Raises:
            WebhookEndpointNotFound
        """
        await self._switch(endpoint_id, why=None)

    async def disable(self, endpoint_id: str) -> None:
        """Let an endpoint hear of nothing; what waits for it is given up.

        Raises:
            WebhookEndpointNotFound
        """
        await self._switch(endpoint_id, why="by_operator")

    async def _switch(self, endpoint_id: str, *, why: str | None) -> None:
        now = self.clock.now()
        async with self.store.transaction() as tx:
            changed = await tx.update(
                WebhookEndpoint, where(id=endpoint_id), is_active=why is None, disabled_why=why
            )
            if changed is None:
                raise WebhookEndpointNotFound
            about: dict[str, Any] = {"realm": tx.realm, "at": now, "endpoint_id": endpoint_id}
            await tx.announce(
                WebhookEndpointEnabled(**about)
                if why is None
                else WebhookEndpointDisabled(**about, why=why)
            )

    async def remove(self, endpoint_id: str) -> None:
        """Forget an endpoint, and all that waits for it.

        Raises:
            WebhookEndpointNotFound
        """
        async with self.store.transaction() as tx:
            if await tx.take(WebhookEndpoint, id=endpoint_id) is None:
                raise WebhookEndpointNotFound
            await tx.erase(WebhookDelivery, endpoint_id=endpoint_id)
            await tx.announce(
                WebhookEndpointRemoved(realm=tx.realm, at=self.clock.now(), endpoint_id=endpoint_id)
            )

    async def test(self, endpoint_id: str) -> int:
        """Send a `webhook.test` now, whether the endpoint is on or off; its status.

        Raises:
            WebhookEndpointNotFound
            DeliveryFailed, TargetRefused: what went wrong.
        """
        endpoint = await self.get(endpoint_id)
        now = self.clock.now()
        body = _body(TEST, now, {"endpoint_id": endpoint.id})
        headers = signed_headers(new_id(now), now, body, self._secrets(endpoint))
        return await self.sender.send(endpoint.url, body, headers)

    # The outbox

    async def keep(self, transaction: Any, event: Event) -> None:
        """In the transaction of an event: put it into the outbox for each that waits for it.

        Raises:
            WebhooksUnsealable: what is sealed with this process's secret no server could open.
        """
        kind = kind_of(event)
        if kind is None or event.realm != self.store.realm:
            return
        outbox: Store = transaction
        wanting = await self.known.who_wants(outbox, kind.name)
        if wanting and not self.known.can_seal:
            raise WebhooksUnsealable(
                note="set WATCHWORD_SECRET as for the servers, or name their folder with --data"
            )
        for endpoint in wanting:
            body = _body(kind.name, event.at, data_of(event, kind, with_email=endpoint.with_email))
            now = self.clock.now()
            row = WebhookDelivery(
                realm=outbox.realm,
                id=new_id(now),
                endpoint_id=endpoint.id,
                kind=kind.name,
                body=None,
                announced_at=event.at,
                due_at=now,
                expires_at=now + self.settings.retry_for + self.settings.keep_failed_for,
            )
            sealed = self.sealer.seal(body, **place_of(row, "body"))
            await outbox.insert(replace(row, body=sealed))

    async def notice(self, event: Event) -> None:
        """After the commit: wake this process's worker. Others look once a second."""
        kind = kind_of(event)
        if kind is not None and self.known.wants(kind.name):
            self.bell.ring()

    async def undeliverable(
        self, *, limit: int = 100, after: str | None = None
    ) -> Page[WebhookDelivery]:
        """What was given up, in the order of the last tries."""
        paging = Paging(order=("due_at", "id"), limit=limit, after=after)
        return await self.store.find(WebhookDelivery, paging, is_given_up=True)

    async def waiting(self, endpoint_id: str | None = None) -> int:
        """How many wait: for this endpoint, or for all."""
        named = {} if endpoint_id is None else {"endpoint_id": endpoint_id}
        return await self.store.count(WebhookDelivery, is_given_up=False, **named)

    async def retry(self, endpoint_id: str) -> int:
        """Try all that waits for an endpoint now; how many. What was given up has no body.

        Raises:
            WebhookEndpointNotFound
        """
        await self.get(endpoint_id)
        now = self.clock.now()
        paging = Paging(order=("due_at", "id"), limit=_BATCH * 10)
        hurried = 0
        while True:
            page = await self.store.find(
                WebhookDelivery, paging, endpoint_id=endpoint_id, is_given_up=False
            )
            for row in page.items:
                if row.due_at > now and await self.store.update(
                    WebhookDelivery, where(id=row.id, due_at=row.due_at), due_at=now
                ):
                    hurried += 1
            if page.next is None:
                break
            paging = replace(paging, after=page.next)
        self.bell.ring()
        return hurried

    async def deliver_due(self) -> bool:
        """Deliver all that is due, each endpoint in a lane of its own.

        At least once: a stop between sending and noting it sends again, under the same id. An
        endpoint that is slow or away holds up nothing but its own: the others are looked at
        again every second while it is waited for.

        Returns:
            False: nothing is left that is due.
        """
        lanes: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                await self._open_lanes(lanes)
                if not lanes:
                    return False
                done, _ = await asyncio.wait(
                    lanes.values(), timeout=_LOOK_AGAIN, return_when=asyncio.FIRST_COMPLETED
                )
                for name in [name for name, lane in lanes.items() if lane in done]:
                    lanes.pop(name).result()
        finally:
            for lane in lanes.values():
                lane.cancel()
            await asyncio.gather(*lanes.values(), return_exceptions=True)

    async def _open_lanes(self, lanes: dict[str, asyncio.Task[None]]) -> None:
        """A lane for each endpoint that something is due for and that has none."""
        now = self.clock.now()
        first = await self.store.find(
            WebhookDelivery,
            Paging(order=("due_at", "id"), limit=1),
            is_given_up=False,
            due_at=le(now),
        )
        if not first.items:
            return
        endpoints: dict[str, WebhookEndpoint | None] = {
            each.id: each for each in (await self.page(limit=500)).items
        }
        for row in first.items:  # perhaps of an endpoint that is gone
            endpoints.setdefault(row.endpoint_id, None)
        for name, endpoint in endpoints.items():
            if name in lanes:
                continue
            due = await self._due(name, now)
            if due:
                lanes[name] = asyncio.create_task(self._lane(endpoint, due))

    async def _due(self, endpoint_id: str, now: datetime) -> tuple[WebhookDelivery, ...]:
        page = await self.store.find(
            WebhookDelivery,
            Paging(order=("due_at", "id"), limit=_BATCH),
            endpoint_id=endpoint_id,
            is_given_up=False,
            due_at=le(now),
        )
        return page.items

    async def _lane(self, endpoint: WebhookEndpoint | None, due: Sequence[WebhookDelivery]) -> None:
        lanes = asyncio.Semaphore(self.settings.parallel)

        async def deliver(row: WebhookDelivery) -> None:
            async with lanes:  # the lease begins when sending does
                await self._deliver(endpoint, row)

        ends = await asyncio.gather(*map(deliver, due), return_exceptions=True)
        for end in ends:  # one that the store failed does not stop the others
            if end is not None:
                raise end

    async def _deliver(self, endpoint: WebhookEndpoint | None, row: WebhookDelivery) -> None:
        if endpoint is None:
            await self.store.take(WebhookDelivery, id=row.id, due_at=row.due_at)
            return
        now = self.clock.now()
        claimed = await self.store.update(
            WebhookDelivery,
            where(id=row.id, due_at=row.due_at, is_given_up=False),
            due_at=now + _LEASE_FOR,
            attempts=plus(1),
        )
        if claimed is None:
            return  # another worker has it, or had
        if not endpoint.is_active:
            await self._give_up(claimed, f"endpoint {endpoint.disabled_why}")
            return
        try:
            await self._send(endpoint, claimed)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the outbox goes on
            self.counts.failed += 1
            await self._failed(claimed, error)
        else:
            self.counts.delivered += 1
            await self.store.take(WebhookDelivery, id=claimed.id)

    async def _send(self, endpoint: WebhookEndpoint, row: WebhookDelivery) -> None:
        if self.clock.now() > row.announced_at + self.settings.retry_for:
            raise DeliveryFailed("too old")
        if row.attempts > self.settings.attempts:
            raise DeliveryFailed("too many attempts")
        assert row.body is not None
        body = self.sealer.open(row.body, **place_of(row, "body"))
        headers = signed_headers(row.id, self.clock.now(), body, self._secrets(endpoint))
        await self.sender.send(endpoint.url, body, headers)

    async def _failed(self, row: WebhookDelivery, error: Exception) -> None:
        now = self.clock.now()
        why = _told(error)
        if isinstance(error, DeliveryFailed) and error.is_gone:
            await self._gone(row.endpoint_id)
            await self._give_up(row, why)
            return
        pause = self._pause_after(row.attempts)
        if isinstance(error, DeliveryFailed) and error.wait is not None:
            pause = max(pause, timedelta(seconds=error.wait))
        late = now + pause > row.announced_at + self.settings.retry_for
        # Sealed under a secret that nobody has: no later try opens it either, but the secret may
        # come back; it waits like one whose endpoint is away.
        if late or row.attempts >= self.settings.attempts:
            await self._give_up(row, why)
            return
        _log.warning(
            "webhook %s (%s) to endpoint %s, attempt %d: %s",
            *(row.id, row.kind, row.endpoint_id, row.attempts, why),
        )
        await self.store.update(
            WebhookDelivery,
            where(id=row.id, due_at=row.due_at),  # still ours?
            due_at=now + pause,
            last_error=why,
        )

    async def _gone(self, endpoint_id: str) -> None:
        """It answered 410: it wants nothing any more (Standard Webhooks)."""
        now = self.clock.now()
        async with self.store.transaction() as tx:
            disabled = await tx.update(
                WebhookEndpoint,
                where(id=endpoint_id, is_active=True),
                is_active=False,
                disabled_why="gone",
            )
            if disabled is None:
                return
            await tx.announce(
                WebhookEndpointDisabled(realm=tx.realm, at=now, endpoint_id=endpoint_id, why="gone")
            )
        _log.error("endpoint %s of webhooks answered 410: it is switched off", endpoint_id)

    async def _give_up(self, row: WebhookDelivery, why: str) -> None:
        """Keep to whom and what kind, for an operator to see; nothing else."""
        async with self.store.transaction() as tx:
            given_up = await tx.update(
                WebhookDelivery,
                where(id=row.id, due_at=row.due_at),
                is_given_up=True,
                body=None,
                last_error=why,
            )
            if given_up is None:
                return
            await tx.announce(
                WebhookUndeliverable(
                    realm=row.realm,
                    at=self.clock.now(),
                    delivery_id=row.id,
                    endpoint_id=row.endpoint_id,
                    kind=row.kind,
                    attempts=row.attempts,
                    reason=why,
                )
            )
        self.counts.dead += 1
        _log.error(
            "webhook %s (%s) to endpoint %s given up after attempt %d: %s",
            *(row.id, row.kind, row.endpoint_id, row.attempts, why),
        )

    def _pause_after(self, attempts: int) -> timedelta:
        steps = min(attempts - 1, 16)
        pause = min(self.settings.backoff * 4**steps, _LONGEST_BACKOFF)
        return pause * random.uniform(*_JITTER)  # noqa: S311  spreads load, hides nothing

    # Secrets

    def _secrets(self, endpoint: WebhookEndpoint) -> list[Secret]:
        """Those in force, the newest first."""
        secrets = [self._opened(endpoint, "secret")]
        until = endpoint.former_until
        if endpoint.former_secret is not None and until is not None and self.clock.now() < until:
            secrets.append(self._opened(endpoint, "former_secret"))
        return secrets

    def _sealed(self, endpoint: WebhookEndpoint, name: str, secret: Secret) -> str:
        plain = secret.reveal().encode("ascii")
        return self.sealer.seal(plain, **place_of(endpoint, name))

    def _opened(self, endpoint: WebhookEndpoint, name: str) -> Secret:
        sealed: str = getattr(endpoint, name)
        return Secret(self.sealer.open(sealed, **place_of(endpoint, name)).decode("ascii"))

    def _check(self, url: str, events: Sequence[str]) -> None:
        faults: list[Fault] = []
        try:
            target = target_of(url, development=self.development)
            address = literal(target.host)
            why = address and refusal_of(
                address, allowed=self.settings.networks, development=self.development
            )
            if why:
                raise TargetRefused(why)
        except TargetRefused as refused:
            faults.append(Fault("url", "url_refused", str(refused)))
        if not events or len(events) > _MOST_PATTERNS:
            faults.append(Fault("events", "events_missing", f"names 1 to {_MOST_PATTERNS} kinds"))
        faults.extend(
            Fault("events", "event_unknown", f"names {each!r:.80}: no such kind")
            for each in events[:_MOST_PATTERNS]
            if not is_pattern(each)
        )
        if faults:
            raise InvalidInput(faults)


def _body(name: str, at: datetime, data: dict[str, object]) -> bytes:
    """The payload of Standard Webhooks: what, when, and the least that tells of it."""
    message = {"type": name, "timestamp": _stamp(at), "data": data}
    return json.dumps(message, separators=(",", ":"), default=_stamp).encode("ascii")


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _told(error: Exception) -> str:
    """For the log and the row: a status or a class, never the words of a server."""
    if isinstance(error, DeliveryFailed):
        return error.note
    if isinstance(error, TargetRefused):
        return "address refused"
    if isinstance(error, SealKeyMissing | SealBroken):
        return "cannot be opened"
    return type(error).__name__
