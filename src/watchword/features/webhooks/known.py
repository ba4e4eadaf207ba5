"""The endpoints that a process knows of, so that an event that nobody waits for costs no query."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from watchword.crypto.sealing import SealBroken, Sealer, SealKeyMissing
from watchword.features.webhooks.events import TOPIC
from watchword.features.webhooks.kinds import is_wanted
from watchword.features.webhooks.records import WebhookEndpoint
from watchword.kernel.clock import Clock
from watchword.kernel.principal import Subject
from watchword.storage.record import place_of
from watchword.storage.store import Paging, Store

READ_EVERY: Final = timedelta(seconds=10)
MOST: Final = 500  # endpoints of a realm


@dataclass(slots=True, kw_only=True)
class Known:
    """The active endpoints, read anew when the change feed says so, and every ten seconds.

    A list that is too old loses nothing but what happened just after an endpoint was added
    elsewhere: what is sent to one that is gone or off is dropped by whoever delivers.
    """

    clock: Clock
    sealer: Sealer
    _endpoints: tuple[WebhookEndpoint, ...] = ()
    _until: float = -1.0  # of the clock; until then the list counts
    _changes: int = 0
    can_seal: bool = True  # are the secrets of the servers ours?

    def evict(self, subjects: tuple[Subject, ...]) -> None:
        """Read the list anew at the next event, if an endpoint is among these."""
        if any(topic == TOPIC for topic, _ in subjects):
            self._changes += 1
            self._until = -1.0

    async def who_wants(self, store: Store, name: str) -> list[WebhookEndpoint]:
        """The endpoints that wait for this kind; one query at most, and that rarely."""
        began = self.clock.monotonic()
        if began >= self._until:
            changes = self._changes
            paging = Paging(order=("created_at", "id"), limit=MOST)
            page = await store.find(WebhookEndpoint, paging, is_active=True)
            self._endpoints = page.items
            self.can_seal = all(map(self._opens, page.items))
            if changes == self._changes:  # a change that came meanwhile may not be in it
                self._until = began + READ_EVERY.total_seconds()
        return [each for each in self._endpoints if is_wanted(each.events, name)]

    def wants(self, name: str) -> bool:
        """Does any of those that were read last wait for this kind?"""
        return any(is_wanted(each.events, name) for each in self._endpoints)

    def _opens(self, endpoint: WebhookEndpoint) -> bool:
        try:
            self.sealer.open(endpoint.secret, **place_of(endpoint, "secret"))
        except (SealKeyMissing, SealBroken):
            return False
        return True
