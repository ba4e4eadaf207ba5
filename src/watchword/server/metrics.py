"""`/metrics`: what one worker knows of itself, in the form that Prometheus reads."""

import math
from collections.abc import Iterable

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from starlette.responses import Response

from watchword.presets import Watchword
from watchword.server.probes import may_know

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


def metrics(auth: Watchword) -> APIRouter:
    """The route `/metrics`: for this machine, or for who sends the probe token (I-22)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Worker(auth))
    router = APIRouter(tags=["server"])

    @router.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        """Counters of this worker; ask each of several."""
        if not may_know(request, auth.core.probe_token):
            return Response(status_code=404, headers={"Cache-Control": "no-store"})
        return Response(
            generate_latest(registry),
            media_type=CONTENT_TYPE_LATEST,
            headers={"Cache-Control": "no-store"},
        )

    return router


class _Worker(Collector):
    def __init__(self, auth: Watchword) -> None:
        self._auth = auth

    def collect(self) -> Iterable[Family]:
        """Everything, read now."""
        cache = self._auth.cache
        yield _counter("watchword_gate_hits", "Requests answered from the cache", cache.hits)
        yield _counter("watchword_gate_misses", "Requests that asked the store", cache.misses)
        yield GaugeMetricFamily("watchword_gate_entries", "Identities kept", value=len(cache))
        pool = self._auth.hash_pool
        yield GaugeMetricFamily("watchword_hashes_running", "At work", value=pool.running)
        yield GaugeMetricFamily("watchword_hashes_waiting", "Waiting", value=pool.waiting)
        following = self._auth.following
        if following is None:
            return
        status = following.status
        yield GaugeMetricFamily(
            "watchword_feed_fresh", "1 while the change feed is read in time", value=status.is_fresh
        )
        yield GaugeMetricFamily(
            "watchword_feed_woken", "How many wakers are heard; 0 polls", value=len(status.wakers)
        )
        if status.age is not None:
            yield GaugeMetricFamily(
                "watchword_feed_age_seconds",
                "Since the start of the last read of the change feed that succeeded",
                value=status.age,
            )
        yield HistogramMetricFamily(
            "watchword_feed_lag_seconds",
            "From the writing of a change to its eviction here",
            buckets=[
                ("+Inf" if math.isinf(edge) else str(edge), count)
                for edge, count in status.lags.buckets()
            ],
            sum_value=status.lags.total,
        )


def _counter(name: str, text: str, value: int) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)
