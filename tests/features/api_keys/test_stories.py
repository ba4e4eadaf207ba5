"""API keys over HTTP: made, shown once, used, rotated, ended."""

import asyncio
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.features.api_keys.owner import get, listed, made, reporting, signed_in
from tests.told import (
    ADA,
    ANOTHER,
    EVE,
    PASSWORD,
    browser,
    cookie_session,
    fields_of,
    neighbour,
    problem,
    telling,
    texts_of,
)
from watchword.features.api_keys import ApiKey, ApiKeyCreated, ApiKeyEnded, ApiKeyRotated, api_keys
from watchword.storage.store import Paging
from watchword.testing.story import bearer, without_limits

HEARD_WITHIN = 5.0  # seconds of real time; milliseconds as a rule
SHOWN = {
    *("id", "name", "hint", "scopes", "created_at", "expires_at", "last_used_at"),
    "successor_id",
}


@pytest.mark.capability("S3-23")
@pytest.mark.standard("CVE row 55")
async def test_a_key_is_shown_once_and_kept_as_a_digest(database_url: str) -> None:
    async with telling(database_url, app=reporting()) as story:
        heard: list[ApiKeyCreated] = []

        @story.auth.on(ApiKeyCreated)
        async def hear(event: ApiKeyCreated) -> None:
            heard.append(event)

        await story.register()
        headers = await signed_in(story)
        asked = {"name": "nightly", "scopes": ["reports:read", "reports:read"]}
        answer = await story.client.post("/auth/api-keys", json=asked, headers=headers)
        assert answer.status_code == 201
        assert answer.headers["cache-control"] == "no-store"
        shown = answer.json()
        key = shown["key"]
        assert set(shown) == {*SHOWN, "key"}
        assert key.startswith("wwk_")
        assert len(key) == 4 + 43  # 256 bits
        assert key[4:8] == shown["hint"]
        assert shown["scopes"] == ["reports:read"]
        assert (await get(story, key)).json() == ADA

        (record,) = (await story.auth.store.find(ApiKey, Paging(order=("id",)))).items
        assert key[8:] not in texts_of(record)
        (item,) = await listed(story, headers)
        assert set(item) == SHOWN
        assert item["last_used_at"] is not None
        for path in ("/auth/api-keys", "/auth/me", "/openapi.json"):
            assert key[8:] not in (await story.client.get(path, headers=headers)).text
        assert [(event.key_id, event.name) for event in heard] == [(shown["id"], "nightly")]
        assert key not in repr(heard)
        user = await story.auth.users.find(ADA)
        issued = await story.auth.api_keys.create(user, name="another")
        assert issued.key.reveal() not in repr(issued)


@pytest.mark.capability("S3-23", "DEF-12")
@pytest.mark.invariant("I-02", "I-15")
async def test_a_key_may_what_its_scopes_say_and_only_where_a_route_takes_keys() -> None:
    async with telling(app=reporting()) as story:
        await story.register()
        headers = await signed_in(story)
        key = (await made(story, headers))["key"]
        narrow = (await made(story, headers, scopes=["other"]))["key"]
        for path in ("/reports", "/open"):
            assert (await get(story, key, path)).json() == ADA
        problem(await get(story, narrow), 403, "forbidden")
        assert (await get(story, narrow, "/open")).status_code == 200
        problem(await get(story, key, "/private"), 403, "forbidden")
        problem(await get(story, key, "/fresh"), 401, "insufficient_user_authentication")
        assert (await story.client.get("/reports", headers=headers)).json() == ADA
        for wrong in (key[:-1], key + "A", key.upper(), "wwk_", "wwk_" + "A" * 43, f"{key} "):
            problem(await get(story, wrong), 401, "invalid_token")


@pytest.mark.capability("S3-23")
@pytest.mark.invariant("I-15")
async def test_keys_are_made_rotated_and_ended_by_a_fresh_session_only() -> None:
    async with telling(app=reporting()) as story:
        await story.register()
        headers = await signed_in(story)
        shown = await made(story, headers)
        path = f"/auth/api-keys/{shown['id']}"
        story.move(minutes=6)
        for method, where, body in (
            ("POST", "/auth/api-keys", {"name": "x"}),
            ("POST", f"{path}/rotate", None),
            ("DELETE", path, None),
        ):
            stale = await story.client.request(method, where, json=body, headers=headers)
            refused = problem(stale, 401, "insufficient_user_authentication")
            assert refused["max_age"] == 300
            nobody = await story.client.request(method, where, json=body)
            problem(nobody, 401, "not_authenticated")
            by_key = await story.client.request(
                method, where, json=body, headers=bearer(shown["key"])
            )
            problem(by_key, 403, "forbidden")
        problem(await get(story, shown["key"], "/auth/api-keys"), 403, "forbidden")
        assert len(await listed(story, headers)) == 1
        async with browser(story.app) as client:
            csrf = await cookie_session(story, client)
            body = {"name": "by cookie"}
            problem(await client.post("/auth/api-keys", json=body), 403, "csrf_refused")
            answer = await client.post("/auth/api-keys", json=body, headers=csrf)
            assert answer.status_code == 201


@pytest.mark.capability("S3-23", "S1-42")
@pytest.mark.invariant("I-09", "I-10")
async def test_a_key_that_was_ended_is_refused_here_and_at_the_neighbour(database_url: str) -> None:
    async with (
        telling(database_url, app=reporting()) as story,
        neighbour(story, database_url, app=reporting()) as other,
    ):
        heard: list[str] = []

        @story.auth.on(ApiKeyEnded)
        async def hear(event: ApiKeyEnded) -> None:
            heard.append(event.why)

        await story.register()
        await story.register(EVE)
        headers, eve = await signed_in(story), await signed_in(story, EVE)
        shown = await made(story, headers)
        for told in (story, other):
            for _ in range(3):
                assert (await get(told, shown["key"])).status_code == 200
            assert told.auth.cache.hits > 0
        path = f"/auth/api-keys/{shown['id']}"
        for asked in (path, "/auth/api-keys/unknown"):
            answer = await story.client.delete(asked, headers=eve)
            problem(answer, 404, "api_key_not_found")
        rotated = await story.client.post(f"{path}/rotate", headers=eve)
        problem(rotated, 404, "api_key_not_found")
        assert (await get(story, shown["key"])).status_code == 200

        assert (await story.client.delete(path, headers=headers)).status_code == 204
        problem(await get(story, shown["key"]), 401, "revoked_token")
        until = time.monotonic() + HEARD_WITHIN  # its clock stands still: only the feed tells it
        while (answer := await get(other, shown["key"])).status_code == 200:
            assert time.monotonic() < until, "still believed"
            await asyncio.sleep(0.001)
        problem(answer, 401, "revoked_token")
        assert heard == ["by_owner"]
        assert await listed(story, headers) == []
        problem(await story.client.delete(path, headers=headers), 404, "api_key_not_found")


@pytest.mark.capability("S3-23")
@pytest.mark.invariant("I-05")
async def test_rotation_leaves_both_working_until_the_overlap_is_over(database_url: str) -> None:
    async with telling(database_url, app=reporting()) as story:
        heard: list[tuple[str, str]] = []

        @story.auth.on(ApiKeyRotated)
        async def hear(event: ApiKeyRotated) -> None:
            heard.append((event.key_id, event.successor_id))

        await story.register()
        headers = await signed_in(story)
        first = await made(story, headers, expires_in="30d")
        assert (await get(story, first["key"])).status_code == 200
        path = f"/auth/api-keys/{first['id']}/rotate"
        answer = await story.client.post(path, json={"overlap": "2h"}, headers=headers)
        assert answer.status_code == 201, answer.text
        second = answer.json()
        assert second["key"] != first["key"]
        assert (second["name"], second["scopes"]) == (first["name"], first["scopes"])
        assert heard == [(first["id"], second["id"])]
        again = await story.client.post(path, headers=headers)
        problem(again, 409, "api_key_replaced")
        for key in (first["key"], second["key"]):
            assert (await get(story, key)).status_code == 200
        by_id = {item["id"]: item for item in await listed(story, headers)}
        assert by_id[first["id"]]["successor_id"] == second["id"]
        story.move(hours=2)
        problem(await get(story, first["key"]), 401, "expired_token")
        assert (await get(story, second["key"])).status_code == 200
        story.move(days=29)
        assert (await get(story, second["key"])).status_code == 200

        headers = await signed_in(story)
        path = f"/auth/api-keys/{second['id']}/rotate"
        answer = await story.client.post(path, json={"overlap": "0s"}, headers=headers)
        third = answer.json()
        problem(await get(story, second["key"]), 401, "expired_token")
        fourth = await story.client.post(
            f"/auth/api-keys/{third['id']}/rotate", json={}, headers=headers
        )
        fifth = await story.client.post(
            f"/auth/api-keys/{fourth.json()['id']}/rotate", json={}, headers=headers
        )
        problem(await get(story, third["key"]), 401, "revoked_token")  # never three of one
        for answer in (fourth, fifth):
            assert (await get(story, answer.json()["key"])).status_code == 200


async def test_what_a_key_is_asked_to_be_has_bounds() -> None:
    features = [each for each in without_limits() if each.name not in ("api_keys", "users")]
    mine = api_keys(scopes=["reports:read"], max_ttl="30d", max_overlap="1d")
    async with telling(features=[*features, mine], app=reporting()) as story:
        await story.register()
        headers = await signed_in(story)
        now = story.clock.now()

        async def wrong(path: str = "", **body: Any) -> set[tuple[str, str]]:
            answer = await story.client.post(f"/auth/api-keys{path}", json=body, headers=headers)
            return fields_of(problem(answer, 422, "validation_failed"))

        assert await wrong() == {("name", "missing")}
        assert await wrong(name="") == {("name", "name_invalid")}
        assert await wrong(name="a\nb") == {("name", "name_invalid")}
        assert ("name", "string_too_long") in await wrong(name="x" * 101)
        assert await wrong(name="x", key="wwk_x") == {("key", "unknown_field")}
        assert await wrong(name="x", user_id="y") == {("user_id", "unknown_field")}
        assert await wrong(name="x", scopes=["admin"]) == {("scopes.0", "scope_unknown")}
        assert await wrong(name="x", scopes=["a b"]) == {("scopes.0", "scope_invalid")}
        assert ("scopes", "too_long") in await wrong(name="x", scopes=["a"] * 51)
        for field, value, code in (
            ("expires_in", "31d", "expiry_limited"),
            ("expires_in", "0s", "expiry_past"),
            ("expires_in", "9" * 30 + "d", "value_error"),
            ("expires_in", 90, "value_error"),
            ("expires_at", now.replace(year=9999).isoformat(), "expiry_limited"),
            ("expires_at", "2001-01-01T00:00:00Z", "expiry_past"),
            ("expires_at", "2001-01-01T00:00:00", "timezone_aware"),
        ):
            body: dict[str, Any] = {"name": "x", field: value}
            assert await wrong(**body) == {(field, code)}
        both = {"expires_in": "1d", "expires_at": now.replace(year=9999).isoformat()}
        assert await wrong(name="x", **both) == {("expires_in", "given_twice")}
        shown = await made(story, headers)  # `ttl` is longer than the longest
        assert (await made(story, headers, scopes=[]))["scopes"] == []
        path = f"/{shown['id']}/rotate"
        for overlap, code in (("2d", "overlap_limited"), ("9" * 30 + "d", "value_error")):
            assert await wrong(path, overlap=overlap) == {("overlap", code)}
        story.move(days=30)
        problem(await get(story, shown["key"]), 401, "expired_token")
        assert await listed(story, await signed_in(story)) == []


@pytest.mark.capability("S3-23", "S2-08", "S2-10")
@pytest.mark.invariant("I-01")
async def test_whatever_ends_all_ends_keys_too(database_url: str) -> None:
    async with telling(database_url, app=reporting()) as story:
        await story.join()
        user = await story.auth.users.find(ADA)

        async def change() -> None:
            body = {"current_password": PASSWORD, "new_password": ANOTHER}
            headers = await signed_in(story)
            answer = await story.client.post("/auth/password/change", json=body, headers=headers)
            assert answer.status_code == 204

        async def reset() -> None:
            await story.client.post("/auth/password-reset-request", json={"email": ADA})
            await story.mails()
            body = {"token": story.outbox.token(ADA, "wwp"), "new_password": PASSWORD}
            answer = await story.client.post("/auth/password-reset", json=body)
            assert answer.status_code == 204

        async def disable() -> None:
            await story.auth.users.disable(user.id)

        async def delete() -> None:
            await story.auth.users.delete(user.id)

        for end, code in (
            (change, "revoked_token"),
            (reset, "revoked_token"),
            (disable, "revoked_token"),
            (delete, "invalid_token"),
        ):
            issued = await story.auth.api_keys.create(
                await story.auth.users.find(ADA), name="x", scopes=["reports:read"]
            )
            key = issued.key.reveal()
            assert (await get(story, key)).status_code == 200
            await end()
            problem(await get(story, key), 401, code)
            if end is disable:
                off = await story.auth.users.find(ADA)
                late = await story.auth.api_keys.create(off, name="x", scopes=["reports:read"])
                problem(await get(story, late.key.reveal()), 401, "revoked_token")
                await story.auth.users.enable(user.id)
                problem(await get(story, key), 401, code)
        assert await story.auth.store.count(ApiKey) == 0


@pytest.mark.invariant("I-01")
async def test_a_key_made_under_the_epoch_before_is_dead_at_birth(database_url: str) -> None:
    async with telling(database_url, app=reporting()) as story:
        await story.register()
        user = await story.auth.users.find(ADA)
        await story.auth.users.end_all(user.id, why="meanwhile")
        issued = await story.auth.api_keys.create(user, name="late", scopes=["reports:read"])
        problem(await get(story, issued.key.reveal()), 401, "revoked_token")


async def test_a_list_goes_on_where_a_page_ended(database_url: str, work: Any) -> None:
    async with telling(database_url) as story:
        await story.register()
        headers = await signed_in(story)
        names = [f"key {number}" for number in range(5)]
        for name in names:
            await made(story, headers, name=name)
            story.move(seconds=1)
        found, after = list[str](), None
        while True:
            params = {"limit": 2} | ({} if after is None else {"after": after})
            with work.watched() as done:
                answer = await story.client.get("/auth/api-keys", params=params, headers=headers)
            assert done["find ApiKey"] == 1
            assert not done["count ApiKey"]
            page = answer.json()
            found += [item["name"] for item in page["items"]]
            after = page["next"]
            if after is None:
                break
        assert found == names[::-1]
        wrong = await story.client.get("/auth/api-keys", params={"after": "x"}, headers=headers)
        assert fields_of(problem(wrong, 422, "validation_failed")) == {("after", "cursor_invalid")}


@pytest.mark.invariant("I-10")
async def test_use_is_noted_once_in_five_minutes(work: Any) -> None:
    async with telling(app=reporting()) as story:
        await story.register()
        key = (await made(story, await signed_in(story)))["key"]

        async def use() -> Counter[str]:
            with work.watched() as done:
                assert (await get(story, key)).status_code == 200
            return done

        assert await use() == {"get ApiKey": 1, "get User": 1, "update ApiKey": 1}
        for _ in range(5):
            assert not await use()  # a hit asks nobody
        for minutes, written in ((2, 0), (2, 0), (2, 1), (4, 0), (1, 1)):
            story.move(minutes=minutes)
            done = await use()
            assert done["get ApiKey"] == 1
            assert done["update ApiKey"] == written
        user = await story.auth.users.find(ADA)
        (record,) = (await story.auth.api_keys.page(user)).items
        assert record.last_used_at == story.clock.now()


async def test_a_database_that_cannot_write_fails_no_request(tmp_path: Path) -> None:
    file = tmp_path / "app.db"
    async with telling(f"sqlite:///{file}?busy_timeout=0.1", app=reporting()) as story:
        await story.register()
        headers = await signed_in(story)
        key = (await made(story, headers))["key"]
        with closing(sqlite3.connect(file)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            assert (await get(story, key)).status_code == 200
            writer.rollback()
        (item,) = await listed(story, headers)
        assert item["last_used_at"] is None
        story.move(minutes=1)
        assert (await get(story, key)).status_code == 200
        (item,) = await listed(story, headers)
        assert item["last_used_at"] is not None


@pytest.mark.parametrize("check", ["stateful", "stateless"])
@pytest.mark.invariant("I-02", "I-25")
async def test_whatever_tokens_are_believed_a_key_is_read(check: Any) -> None:
    async with telling(app=reporting(), token_check=check) as story:
        await story.register()
        headers = await signed_in(story)
        shown = await made(story, headers)
        assert (await get(story, shown["key"])).json() == ADA
        path = f"/auth/api-keys/{shown['id']}"
        assert (await story.client.delete(path, headers=headers)).status_code == 204
        problem(await get(story, shown["key"]), 401, "revoked_token")


@pytest.mark.capability("S1-01", "S3-23")
@pytest.mark.invariant("I-02")
async def test_stateful_reads_keys_at_every_request_too(database_url: str) -> None:
    """At a neighbour that has just taken it, and has not heard of its end."""
    asked: Any = {"token_check": "stateful"}
    async with (
        telling(database_url, app=reporting(), **asked) as story,
        neighbour(story, database_url, app=reporting(), **asked) as other,
    ):
        await story.register()
        headers = await signed_in(story)
        shown = await made(story, headers)
        assert (await get(other, shown["key"])).status_code == 200
        path = f"/auth/api-keys/{shown['id']}"
        assert (await story.client.delete(path, headers=headers)).status_code == 204
        problem(await get(other, shown["key"]), 401, "revoked_token")
        assert other.auth.cache.hits == 0
