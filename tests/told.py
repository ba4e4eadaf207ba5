"""Words that the stories share: browsers, forms, problems, and a watch on what a request costs."""

from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from watchword import Watchword, testing
from watchword.crypto.hashing import HashPool
from watchword.storage.record import schema_of
from watchword.storage.store import Store
from watchword.testing import Story
from watchword.testing.story import ORIGIN, PASSWORD

ENVIRON: dict[str, str] = {}  # filled by fixtures, for as long as a test takes

SITE = "https://accounts.example.com"
PRODUCTION: dict[str, Any] = {
    "environment": "production",
    "public_url": SITE,
    "accept_missing": ("limiter", "events"),  # stories run without limits
}
ADA, EVE = "ada@example.com", "eve@example.com"
ANOTHER = "another fine horse battery"

_VERBS = (
    *("insert", "get", "find", "count", "update", "take", "erase"),
    *("increment", "expire", "transaction"),
)


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that this is a problem as RFC 9457 has it; its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = cast("dict[str, Any]", answer.json())
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["type"] == f"urn:watchword:error:{code}"
    assert body["title"]
    assert body["detail"]
    assert len(body["request_id"]) == 26
    assert answer.headers["cache-control"] == "no-store"
    challenge = answer.headers.get("www-authenticate")
    if status == 401:
        assert challenge is not None
        assert challenge.startswith("Bearer")
    else:
        assert challenge is None
    return body


def fields_of(body: dict[str, Any]) -> set[tuple[str, str]]:
    """Field and code of each error of a 422."""
    return {(error["field"], error["code"]) for error in body["errors"]}


def plain(answer: httpx.Response) -> tuple[int, dict[str, Any], dict[str, str]]:
    """An answer without what differs at every request."""
    body = dict(answer.json()) if answer.content else {}
    body.pop("request_id", None)
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    return answer.status_code, body, headers


def texts_of(record: object) -> str:
    """Every stored value of a record, as text."""
    names = schema_of(type(record)).columns
    return "\n".join(str(getattr(record, name)) for name in names)


def browser(app: FastAPI | Any, origin: str = ORIGIN, **headers: str) -> httpx.AsyncClient:
    """A client with cookies of its own, at this origin."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app),
        base_url=origin,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


async def cookie_session(story: Story, client: httpx.AsyncClient, **named: Any) -> dict[str, str]:
    """Sign in with a cookie; the header that proves where a request comes from."""
    await story.log_in(transport="cookie", client=client, **named)
    return csrf_of(client)


def csrf_of(client: httpx.AsyncClient) -> dict[str, str]:
    """The header that a script of ours would send."""
    token = client.cookies.get("__Host-csrf") or client.cookies.get("csrf") or ""
    return {"X-CSRF-Token": token}


@asynccontextmanager
async def telling(database: str = "sqlite://", **options: Any) -> AsyncGenerator[Story, None]:
    """A story, with the settings of the environment that a fixture chose."""
    options.setdefault("environ", ENVIRON)
    async with testing.telling(database, **options) as story:
        yield story


@asynccontextmanager
async def neighbour(story: Story, database: str, **options: Any) -> AsyncGenerator[Story, None]:
    """Another process, as it were: an App of its own over the same database and secret."""
    options.setdefault("secret", story.auth.core.secret)
    async with telling(database, **options) as other:
        yield other


_watched: ContextVar[Counter[str] | None] = ContextVar("watched", default=None)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> "Work":
    """Counts hashes and verbs of the store, of the watching task only."""
    return Work(monkeypatch)


class Work:
    """What a request makes the process do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def counted(kind: type, name: str, entry: str) -> None:
            before = getattr(kind, name)

            def after(self: Any, *given: Any, **named: Any) -> Any:
                counter = _watched.get()
                if counter is not None:
                    subject = given[0] if given else None
                    record = getattr(subject, "__name__", type(subject).__name__)
                    counter[f"{entry} {record}" if entry else name] += 1
                return before(self, *given, **named)

            monkeypatch.setattr(kind, name, after)

        for name in _VERBS:
            counted(Store, name, name)
        counted(HashPool, "run", "")

    @contextmanager
    def watched(self) -> Generator[Counter[str]]:
        """What is done inside the block."""
        counter: Counter[str] = Counter()
        token = _watched.set(counter)
        try:
            yield counter
        finally:
            _watched.reset(token)


def hashes(counter: Counter[str]) -> int:
    """How many passwords were hashed or checked."""
    return counter["run"]


__all__ = [
    "ADA",
    "ANOTHER",
    "EVE",
    "ORIGIN",
    "PASSWORD",
    "PRODUCTION",
    "SITE",
    "Story",
    "Watchword",
    "browser",
    "cookie_session",
    "csrf_of",
    "fields_of",
    "hashes",
    "neighbour",
    "plain",
    "problem",
    "telling",
    "texts_of",
    "work",
]
