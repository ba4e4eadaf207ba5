"""`/metrics`: what one worker knows of itself, in the form that Prometheus reads.

An app of your own has it too: `app.include_router(metrics(auth))`. No label ever holds what a
person sent: actions, results, codes and the names of events are words of the code.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final, cast

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from starlette.responses import Response

import watchword
from watchword.kernel.errors import StoreUnavailable
from watchword.kernel.events import Event, RequestRefused
from watchword.kernel.tally import Durations
from watchword.presets import Watchword
from watchword.server.probes import may_know

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

_ASKED_EVERY: Final = 15.0  # seconds between queries for what only the database knows
_MOST: Final = 500  # values of one label; what comes after is `other`
_TRIED: Final = ("login", "mfa")
_SIGN_INS: Final = {
    "SessionStarted": "success",
    "SignInFailed": "failure",
    "SignInOwed": "owed",
}


def metrics(auth: Watchword) -> APIRouter:
    """The route `/metrics`: for this machine, or for who sends the probe token (I-22).

    Whoever makes it before the App starts has everything in it: it counts from then on.
    """
    worker = _Worker(auth)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(worker)
    auth.store.watch.is_on = True
    router = APIRouter(tags=["server"])

    @router.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        """Counters of this worker; ask each of several."""
        if not may_know(request, auth.core.probe_token):
            return Response(status_code=404, headers={"Cache-Control": "no-store"})
        await worker.ask()
        return Response(
            generate_latest(registry),
            media_type=CONTENT_TYPE_LATEST,
            headers={"Cache-Control": "no-store"},
        )

    return router


class _Worker(Collector):
    def __init__(self, auth: Watchword) -> None:
        self._auth = auth
        self._events: Counter[str] = Counter()
        self._actions: Counter[str] = Counter()
        self._refusals: Counter[tuple[str, str]] = Counter()
        self._asked_at = -math.inf
        self._asking = asyncio.Lock()
        self._figures: dict[str, float] = {}
        auth.events.on(Event, self._note)

    async def _note(self, event: Event) -> None:
        _add(self._events, type(event).__name__, "other")
        action = event.audited_as()
        if action is not None:
            _add(self._actions, action, "other")
        if isinstance(event, RequestRefused):
            _add(self._refusals, (str(event.status), event.code), ("other", "other"))

    async def ask(self) -> None:
        """Ask the database for what only it knows, now and then; without it, say nothing of it."""
        async with self._asking:
            if time.monotonic() - self._asked_at < _ASKED_EVERY:
                return
            self._asked_at = time.monotonic()
            try:
                self._figures = await self._figures_now()
            except StoreUnavailable:
                self._figures = {}

    async def _figures_now(self) -> dict[str, float]:
        figures: dict[str, float] = {}
        if self._auth.has("mail"):
            waiting, overdue = await self._auth.mail.standing()
            figures["mail_waiting"] = waiting
            figures["mail_overdue"] = overdue.total_seconds()
        if self._auth.has("audit"):
            unsealed = await self._auth.audit.unsealed_for()
            figures["audit_unsealed"] = unsealed.total_seconds()
        return figures

    def collect(self) -> Iterable[Family]:
        """Everything, read now."""
        info = GaugeMetricFamily("watchword_info", "What runs", labels=["version"])
        info.add_metric([watchword.__version__], 1)
        yield info
        yield from self._sign_ins()
        yield from self._gate()
        yield from self._hashes()
        yield from self._feed()
        yield _histograms(
            "watchword_store_seconds",
            "How long the store takes",
            ("verb", "outcome"),
            self._auth.store.watch.times,
        )
        yield from self._mail()
        yield from self._guards()

    def _sign_ins(self) -> Iterable[Family]:
        tried = self._auth.attempts.counts
        sign_ins = {result: self._events[name] for name, result in _SIGN_INS.items()}
        sign_ins["attempt"] = sum(tried[action, "tried"] for action in _TRIED)
        yield _counters(
            "watchword_sign_ins", "Sign-ins, begun and by their end", ("result",), sign_ins
        )
        yield _counters(
            "watchword_attempts",
            "Tries of whatever may be guessed or overused",
            ("action", "result"),
            tried,
        )
        yield _counters("watchword_events", "Events", ("event",), self._events)
        yield _counters(
            "watchword_auth_actions", "Events as the audit names them", ("action",), self._actions
        )
        yield _counters(
            "watchword_refusals",
            "Requests that should not have come",
            ("status", "code"),
            self._refusals,
        )

    def _gate(self) -> Iterable[Family]:
        cache = self._auth.cache
        yield _counter("watchword_gate_hits", "Requests answered from the cache", cache.hits)
        yield _counter("watchword_gate_misses", "Requests that asked the store", cache.misses)
        yield GaugeMetricFamily("watchword_gate_entries", "Identities kept", value=len(cache))

    def _hashes(self) -> Iterable[Family]:
        pool = self._auth.hash_pool
        yield GaugeMetricFamily("watchword_hashes_running", "At work", value=pool.running)
        yield GaugeMetricFamily("watchword_hashes_waiting", "Waiting", value=pool.waiting)
        yield _counter("watchword_hashes_refused", "Refused, the queue being full", pool.refused)
        yield _histograms("watchword_hash_seconds", "How long one hash takes", (), {(): pool.times})

    def _feed(self) -> Iterable[Family]:
        following = self._auth.following
        status = None if following is None else following.status
        yield _gauge(
            "watchword_feed_fresh",
            "1 while the change feed is read in time",
            None if status is None else status.is_fresh,
        )
        yield _gauge(
            "watchword_feed_woken",
            "How many wakers are heard; 0 polls",
            None if status is None else len(status.wakers),
        )
        yield _gauge(
            "watchword_feed_age_seconds",
            "Since the start of the last read of the change feed that succeeded",
            None if status is None else status.age,
        )
        yield _histograms(
            "watchword_feed_lag_seconds",
            "From the writing of a change to its eviction here",
            (),
            {} if status is None else {(): status.lags},
        )

    def _mail(self) -> Iterable[Family]:
        sent = self._auth.mail.counts if self._auth.has("mail") else Counter[str]()
        yield _counters("watchword_mails", "Mails, by what became of them", ("result",), sent)
        yield _gauge(
            "watchword_mail_waiting", "Mails in the outbox", self._figures.get("mail_waiting")
        )
        yield _gauge(
            "watchword_mail_overdue_seconds",
            "For how long the first of them has been due",
            self._figures.get("mail_overdue"),
        )

    def _guards(self) -> Iterable[Family]:
        yield _counters(
            "watchword_limits",
            "What the limiter let through and what it refused",
            ("action", "result"),
            self._counted("limits"),
        )
        yield _counters(
            "watchword_lockouts",
            "Lockouts, by what happened",
            ("result",),
            self._counted("lockout"),
        )
        yield _counters(
            "watchword_webhooks",
            "Deliveries, by what became of them",
            ("result",),
            self._counted("webhooks"),
        )
        yield _gauge(
            "watchword_audit_unsealed_seconds",
            "For how long the oldest entry without a seal has waited for it",
            self._figures.get("audit_unsealed"),
        )
        background = self._auth.background
        yield _counters(
            "watchword_background_failures",
            "Background work that failed and is tried again",
            ("work",),
            {} if background is None else background.failures,
        )

    def _counted(self, feature: str) -> Mapping[Any, int]:
        if not self._auth.has(feature):
            return {}
        counts: Any = getattr(self._auth, feature).counts
        return cast("Mapping[Any, int]", counts) if isinstance(counts, dict) else asdict(counts)


def _add(counter: Counter[Any], key: object, other: object) -> None:
    counter[key if key in counter or len(counter) < _MOST else other] += 1


def _gauge(name: str, text: str, value: float | None) -> GaugeMetricFamily:
    """A gauge, or its name alone where nothing is known."""
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: int) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)


def _counters(
    name: str, text: str, labels: tuple[str, ...], counts: Mapping[Any, int]
) -> CounterMetricFamily:
    """One counter a key; a key is the values of the labels."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, count in sorted(counts.items()):
        family.add_metric([key] if isinstance(key, str) else list(key), count)
    return family


def _histograms(
    name: str,
    text: str,
    labels: tuple[str, ...],
    times: Mapping[tuple[str, ...], Durations],
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, durations in sorted(times.items()):
        family.add_metric(
            list(key),
            [
                ("+Inf" if math.isinf(edge) else str(edge), count)
                for edge, count in durations.buckets()
            ],
            durations.total,
        )
    return family
