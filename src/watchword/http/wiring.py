"""What a feature is built from, and where it puts its routes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter

from watchword.crypto.hashing import HashPool
from watchword.crypto.keys import RootSecrets
from watchword.crypto.sealing import Sealer
from watchword.crypto.signing import Signer
from watchword.http.cache import IdentityCache
from watchword.http.client import Clients
from watchword.http.cookies import Cookies
from watchword.http.csrf import Csrf
from watchword.kernel.attempts import Attempts
from watchword.kernel.clock import Clock
from watchword.kernel.events import Events
from watchword.kernel.settings import CoreSettings
from watchword.kernel.tracing import Tracing
from watchword.storage.store import Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """What a feature is built from. One App's; nothing in it is global."""

    core: CoreSettings
    settings: Any  # the feature's own model
    store: Store
    clock: Clock
    events: Events
    hash_pool: HashPool
    secrets: RootSecrets
    sealer: Sealer
    cookies: Cookies
    csrf: Csrf
    clients: Clients
    cache: IdentityCache
    attempts: Attempts
    tracing: Tracing
    resolved_public_url: str
    issuer: str
    audience: str
    development: bool
    service_of: Callable[[type[Any]], Any]
    answers_to: Callable[[type[Any]], Sequence[Any]]

    def get(self, service: type[T]) -> T:
        """The service of a feature that this one needs."""
        return self.service_of(service)

    def every(self, port: type[T]) -> Sequence[T]:
        """All that answer a port; a live list, complete once the App is built."""
        return self.answers_to(port)

    def one(self, port: type[T]) -> T:
        """What answers a port that a feature in `needs` offers."""
        return self.every(port)[0]

    def signer(self, purpose: str) -> Signer:
        """A signer of a purpose of its own."""
        return Signer(self.secrets, purpose)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounting:
    """Where a feature puts its routes."""

    wiring: Wiring
    router: APIRouter  # under the prefix, `/auth`
    root: APIRouter  # for what has a fixed place, `/.well-known/…`
