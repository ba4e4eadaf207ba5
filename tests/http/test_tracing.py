"""Spans for OpenTelemetry: what they tell, and what they never do."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.told import ADA, EVE, PASSWORD, Story, telling


class Spans:
    """What was exported."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def ours(self) -> list[ReadableSpan]:
        return [
            span
            for span in self._exporter.get_finished_spans()
            if span.name.startswith("watchword.")
        ]

    def names(self) -> set[str]:
        return {span.name for span in self.ours()}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """A provider as an app sets one, for this test alone."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield Spans(exporter)
    provider.shutdown()


async def walk(story: Story) -> list[str]:
    """Sign up and in, and be wrong; the secrets that were in play."""
    await story.join()
    tokens = await story.log_in()
    assert (await story.me(tokens["access_token"])).status_code == 200
    wrong = {"email": EVE, "password": "canary of a wrong password"}
    assert (await story.client.post("/auth/login", json=wrong)).status_code == 401
    mailed = story.outbox.token(ADA, "wwv")
    return [PASSWORD, wrong["password"], tokens["access_token"], tokens["refresh_token"], mailed]


@pytest.mark.standard("16.2.5")
async def test_spans_tell_of_the_work_and_of_nobody(spans: Spans, sqlite_url: str) -> None:
    async with telling(sqlite_url) as story:
        secrets = await walk(story)
    assert spans.names() >= {
        "watchword.sign_in",
        "watchword.hash",
        "watchword.gate.miss",
        "watchword.mail.send",
        "watchword.store.insert",
        "watchword.store.commit",
    }
    for span in spans.ours():
        told = span.to_json()
        for canary in (*secrets, ADA, EVE, "127.0.0.1", "example.com"):
            assert canary not in told, span.name
        assert not span.events  # nobody's words


async def test_a_sign_in_holds_its_hash(spans: Spans, sqlite_url: str) -> None:
    async with telling(sqlite_url) as story:
        await story.join()
        await story.log_in()
    sign_ins = {
        span.context.span_id
        for span in spans.ours()
        if span.name == "watchword.sign_in" and span.context is not None
    }
    hashes = [span for span in spans.ours() if span.name == "watchword.hash"]
    assert any(span.parent is not None and span.parent.span_id in sign_ins for span in hashes)


async def test_a_hit_makes_no_span(spans: Spans, sqlite_url: str) -> None:
    async with telling(sqlite_url) as story:
        await story.join()
        token = (await story.log_in())["access_token"]
        await story.me(token)
        misses = [span.name for span in spans.ours()].count("watchword.gate.miss")
        for _ in range(3):
            assert (await story.me(token)).status_code == 200
        assert [span.name for span in spans.ours()].count("watchword.gate.miss") == misses


async def test_an_error_is_named_and_not_quoted(spans: Spans, sqlite_url: str) -> None:
    async with telling(sqlite_url) as story:
        await story.me("canary.of.nobody")
    misses = [span for span in spans.ours() if span.name == "watchword.gate.miss"]
    assert [(span.attributes or {}).get("error.type") for span in misses] == ["invalid_token"]
    assert all("canary" not in span.to_json() for span in spans.ours())


async def test_no_spans_where_they_are_off(spans: Spans, sqlite_url: str) -> None:
    async with telling(sqlite_url, tracing=False) as story:
        await walk(story)
    assert not spans.ours()


async def test_nothing_is_asked_of_an_app_that_sets_no_provider(sqlite_url: str) -> None:
    async with telling(sqlite_url) as story:
        assert not story.auth.tracing.is_heard
        await walk(story)
        assert not story.auth.store.watch.times
