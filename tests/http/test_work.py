"""What a request makes the process do: verbs of the store, statements of SQL, signature checks.

Rates depend on the machine and stand in docs/benchmarks.md; these counts do not.
"""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, event

from tests.told import ADA, PASSWORD, Story, Work, browser, cookie_session, hashes, telling
from watchword.crypto.signatures import SigningKey
from watchword.features.tokens import tokens
from watchword.stores.sql.direct import PostgresReader, SqliteReader
from watchword.testing.story import bearer, without_limits

NOTHING: dict[str, int] = {}
MARKS = {"BEGIN", "COMMIT", "PRAGMA", "SAVEPOINT", "RELEASE"}  # what asks for no row
_heard: ContextVar[Counter[str] | None] = ContextVar("heard", default=None)


def heard(what: str) -> None:
    counter = _heard.get()
    if counter is not None:
        counter[what] += 1


@pytest.fixture(autouse=True)
def listening(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Hear of every statement that a driver is given, and of every signature that is checked."""

    def before(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        first = statement.split(None, 1)[0].upper()
        if first not in MARKS:
            heard("statement")

    def counted(kind: type, name: str, what: str) -> None:
        original = getattr(kind, name)

        def after(self: Any, *given: Any, **named: Any) -> Any:
            heard(what)
            return original(self, *given, **named)

        monkeypatch.setattr(kind, name, after)

    for reader in (SqliteReader, PostgresReader):
        counted(reader, "fetch", "statement")
    counted(SigningKey, "signed", "signature")
    event.listen(Engine, "before_cursor_execute", before)
    yield
    event.remove(Engine, "before_cursor_execute", before)


@contextmanager
def hearing() -> Generator[Counter[str]]:
    """What drivers and keys are asked inside the block, by this task and what it starts."""
    counter: Counter[str] = Counter()
    token = _heard.set(counter)
    try:
        yield counter
    finally:
        _heard.reset(token)


async def presenting(story: Story, client: httpx.AsyncClient, how: str) -> dict[str, str]:
    """Sign in; the headers to send."""
    if how == "bearer":
        return bearer((await story.log_in(client=client))["access_token"])
    return await cookie_session(story, client)


@pytest.mark.invariant("I-02", "I-10")
@pytest.mark.capability("S4-35")
@pytest.mark.parametrize("how", ["bearer", "cookie"])
async def test_a_hit_of_the_gate_asks_no_store_and_checks_no_signature(
    database_url: str, work: Work, how: str
) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.join()
        headers = await presenting(story, client, how)
        with work.watched() as done, hearing() as said:
            first = await client.get("/auth/me", headers=headers)
        assert first.status_code == 200, first.text
        assert done == {"get Session": 1, "get User": 1}, "a miss asks, so the watch works"
        assert said["signature"] == (how == "bearer")
        for _ in range(3):
            with work.watched() as done, hearing() as said:
                again = await client.get("/auth/me", headers=headers)
            assert again.json() == first.json()
            assert (done, said) == (NOTHING, NOTHING)


@pytest.mark.invariant("I-02", "I-03", "I-10")
async def test_a_hit_by_the_access_cookie_asks_no_store_either(work: Work) -> None:
    features = [tokens(cookie_pair=True), *(f for f in without_limits() if f.name != "tokens")]
    async with telling(features=features) as story, browser(story.app) as client:
        await story.join()
        await story.log_in(transport="cookie_pair", client=client)
        with hearing() as said:
            assert (await client.get("/auth/me")).status_code == 200
        assert said["signature"] == 1
        with work.watched() as done, hearing() as said:
            assert (await client.get("/auth/me")).status_code == 200
        assert (done, said) == (NOTHING, NOTHING)


@pytest.mark.invariant("I-14")
async def test_a_refresh_is_at_most_one_read_and_one_conditional_update(
    database_url: str, work: Work
) -> None:
    async with telling(database_url) as story:
        await story.join()
        token = (await story.log_in())["refresh_token"]
        for _ in range(2):
            story.move(seconds=1)
            with work.watched() as done, hearing() as said:
                answer = await story.client.post("/auth/refresh", json={"refresh_token": token})
            assert answer.status_code == 200, answer.text
            token = answer.json()["refresh_token"]
            assert done.pop("update Session") == 1
            # And the entry of the audit, in a transaction of its own.
            assert (done.pop("insert AuditEntry"), done.pop("transaction NoneType")) == (1, 1)
            assert sum(done.values()) <= 1, done
            assert said["statement"] == (0 if "mongodb" in database_url else 3)


@pytest.mark.capability("S0-24")
async def test_a_list_of_sessions_is_one_query(database_url: str, work: Work) -> None:
    async with telling(database_url) as story:
        await story.join()
        for _ in range(2):
            await story.log_in()
        token = (await story.log_in())["access_token"]
        await story.me(token)  # the gate knows it
        with work.watched() as done, hearing() as said:
            answer = await story.client.get("/auth/sessions", headers=bearer(token))
        assert len(answer.json()["items"]) == 3, answer.text
        assert done == {"find Session": 1}
        assert said == ({} if "mongodb" in database_url else {"statement": 1})


async def test_what_a_sign_in_asks_of_the_store(sql_database_url: str, work: Work) -> None:
    async with telling(sql_database_url) as story:
        await story.join()
        body = {"email": ADA, "password": PASSWORD}
        await story.client.post("/auth/login", json=body)
        with work.watched() as done, hearing() as said:
            answer = await story.client.post("/auth/login", json=body)
        assert answer.status_code == 200, answer.text
        assert hashes(done) == 1
        # Who it is and what fits; whether another password is owed; then in one transaction: the
        # device, which was seen before, the session, its entry in the audit, and whether there
        # are too many.
        verbs = ("get User", "get Password", "update Device", "insert Session", "find Session")
        audited = "insert AuditEntry"
        once = dict.fromkeys((*verbs, audited, "transaction NoneType", "run"), 1)
        assert done == {**once, "get Password": 2}
        assert said == {"statement": 7}
