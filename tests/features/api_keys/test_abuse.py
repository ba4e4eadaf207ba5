"""API keys under attack: raced, out of place, in the wrong hands."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from tests.features.api_keys.owner import get, listed, made, reporting, signed_in
from tests.told import ADA, EVE, Story, browser, neighbour, problem, telling
from watchword.features.api_keys import ApiKey, api_keys
from watchword.testing.story import bearer, without_limits

MOST = 5


@pytest.mark.invariant("I-18")
async def test_at_once_or_not_nobody_has_one_key_too_many(database_url: str) -> None:
    features = [each for each in without_limits() if each.name not in ("api_keys", "users")]
    features.append(api_keys(max_keys=MOST))
    async with telling(database_url, features=features, app=reporting()) as story:
        await story.register()
        headers = await signed_in(story)

        async def create() -> Any:
            return await story.client.post("/auth/api-keys", json={"name": "x"}, headers=headers)

        for _ in range(MOST - 2):
            assert (await create()).status_code == 201
        answers = await asyncio.gather(*(create() for _ in range(8)))
        assert {answer.status_code for answer in answers} <= {201, 409}
        for answer in answers:
            if answer.status_code == 409:
                problem(answer, 409, "api_keys_limited")
        assert await story.auth.store.count(ApiKey) <= MOST
        while len(found := await listed(story, headers)) < MOST:  # all who raced may have lost
            assert (await create()).status_code == 201
        problem(await create(), 409, "api_keys_limited")
        # A rotation takes a place that is taken already; an ending gives one back.
        path = f"/auth/api-keys/{found[0]['id']}"
        assert (await story.client.post(f"{path}/rotate", headers=headers)).status_code == 201
        problem(await create(), 409, "api_keys_limited")
        await story.client.delete(f"/auth/api-keys/{found[1]['id']}", headers=headers)
        assert (await create()).status_code == 201


@pytest.mark.invariant("I-05")
@pytest.mark.standard("CVE row 34")
async def test_of_two_that_rotate_at_once_one_gets_the_successor(database_url: str) -> None:
    async with (
        telling(database_url, app=reporting()) as story,
        neighbour(story, database_url, app=reporting()) as other,
    ):
        await story.register()
        headers = await signed_in(story)
        shown = await made(story, headers)
        path = f"/auth/api-keys/{shown['id']}/rotate"
        answers = await asyncio.gather(
            *(told.client.post(path, headers=headers) for told in (story, other) * 4)
        )
        assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 7}
        (winner,) = (answer.json() for answer in answers if answer.status_code == 201)
        found = {item["id"] for item in await listed(story, headers)}
        assert found == {shown["id"], winner["id"]}
        assert await story.auth.store.count(ApiKey) == 2


def routes_of(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Every method and path that the app answers, by its own description."""
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            yield method.upper(), re.sub(r"\{[^}]*\}", "x", path)


@pytest.mark.capability("DEF-12")
@pytest.mark.invariant("I-02", "I-25")
@pytest.mark.parametrize("check", ["cached", "stateless"])
async def test_no_route_of_ours_gives_a_key_more_than_a_stranger_gets(check: Any) -> None:
    async with telling(token_check=check) as story:
        await story.register()
        user = await story.auth.users.find(ADA)
        issued = await story.auth.api_keys.create(user, name="x", scopes=["admin"])
        asked = Counter[str]()
        for method, path in routes_of(story.app):
            nobody = await story.client.request(method, path)
            keyed = await story.client.request(method, path, headers=bearer(issued.key.reveal()))
            if keyed.status_code in (401, 403):
                asked["refused"] += 1
            else:
                assert keyed.status_code == nobody.status_code, (method, path, keyed.text)
                assert nobody.status_code not in (401, 403), (method, path)
                asked["public"] += 1
        assert asked["refused"] >= 8
        assert asked["public"] >= 5
        assert await story.auth.users.find(ADA) == user


@pytest.mark.standard("CVE row 26", "CVE row 32")
@pytest.mark.capability("S1-38")
@pytest.mark.invariant("I-02", "I-03")
async def test_a_key_is_nothing_but_a_bearer_credential() -> None:
    async with telling(app=reporting()) as story:
        await story.join()
        shown = await made(story, await signed_in(story))
        key = shown["key"]
        for name in ("session", "access", "refresh", "device"):
            async with browser(story.app, Cookie=f"{name}={key}") as client:
                assert (await client.get("/reports")).status_code == 401
        for path, field, more in (
            ("refresh", "refresh_token", {}),
            ("logout", "refresh_token", {}),
            ("password-reset", "token", {"new_password": "another fine horse battery"}),
            ("verify-email", "token", {}),
            ("email/confirm", "token", {}),
            ("email/undo", "token", {}),
        ):
            answer = await story.client.post(f"/auth/{path}", json={field: key, **more})
            problem(answer, 401, "invalid_token")
        for query in (f"?token={key}", f"?access_token={key}", f"?api_key={key}"):
            problem(await story.client.get(f"/reports{query}"), 401, "not_authenticated")
        for header in ("X-API-Key", "X-Auth-Token"):
            answer = await story.client.get("/reports", headers={header: key})
            problem(answer, 401, "not_authenticated")
        basic = await story.client.get("/reports", headers={"Authorization": f"Basic {key}"})
        problem(basic, 401, "not_authenticated")
        out = await story.client.post("/auth/logout", headers=bearer(key))
        problem(out, 401, "not_authenticated")
        for named in (shown["id"], shown["hint"], f"wwk_{shown['id']}"):
            assert (await get(story, named)).status_code == 401
        assert (await get(story, key)).status_code == 200


@pytest.mark.invariant("I-10")
async def test_a_key_beside_a_cookie_must_be_the_same_users() -> None:
    async with telling(app=reporting()) as story:
        await story.register()
        await story.register(EVE)
        key = (await made(story, await signed_in(story)))["key"]
        for email, status in ((ADA, 200), (EVE, 401)):
            async with browser(story.app) as client:
                await story.log_in(email, transport="cookie", client=client)
                answer = await client.get("/reports", headers=bearer(key))
                assert answer.status_code == status
                if status == 401:
                    problem(answer, 401, "conflicting_credentials")


@pytest.mark.invariant("I-11")
async def test_a_key_of_one_realm_is_nothing_in_another(sqlite_url: str) -> None:
    async def key_of(story: Story) -> str:
        await story.register()
        return str((await made(story, await signed_in(story)))["key"])

    async with (
        telling(sqlite_url, app=reporting()) as story,
        neighbour(story, sqlite_url, app=reporting(), realm="other") as other,
    ):
        for here, there in ((story, other), (other, story)):
            key = await key_of(here)
            assert (await get(here, key)).status_code == 200
            problem(await get(there, key), 401, "invalid_token")
