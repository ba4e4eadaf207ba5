"""How often anything may be tried: over HTTP, wherever it is counted."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.features.limits.conftest import (
    SHARED,
    Place,
    at,
    counting,
    limited_features,
    until_refused,
    wrong,
)
from tests.servers import Redis, in_thread
from tests.told import (
    ADA,
    EVE,
    PASSWORD,
    Story,
    Work,
    hashes,
    neighbour,
    plain,
    problem,
    telling,
    texts_of,
)
from watchword.features.limits import LimitReached
from watchword.kernel.errors import TooManyAttempts
from watchword.kernel.principal import Client
from watchword.storage.store import Paging
from watchword.storage.windows import AttemptWindow
from watchword.testing.story import bearer

pytestmark = pytest.mark.slow  # scripts/test runs them

FORM = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "http://localhost:8000"}


async def right(client: httpx.AsyncClient, email: str = ADA) -> httpx.Response:
    body = {"email": email, "password": PASSWORD, "transport": "cookie"}
    return await client.post("/auth/login", json=body)


def same_browser(story: Story, address: str, browser: httpx.AsyncClient) -> httpx.AsyncClient:
    """A browser that has moved, and is signed out."""
    moved = at(story, address)
    moved.cookies.set("device", browser.cookies["device"])
    return moved


def refused(answer: httpx.Response, seconds: int) -> dict[str, Any]:
    """A 429 that says exactly how long to wait."""
    body = problem(answer, 429, "too_many_attempts")
    assert answer.headers["retry-after"] == str(seconds)
    assert body["retry_after"] == seconds
    return body


@pytest.mark.capability("S0-85", "S0-89", "S0-90", "S1-23", "S2-35", "S2-37", "DEF-09")
@pytest.mark.standard("6.3.1")
@pytest.mark.invariant("I-20")
async def test_the_sixth_try_waits_for_exactly_as_long_as_it_is_told(place: Place) -> None:
    async with counting(place) as story:
        await story.auth.users.create(email=ADA)
        for _ in range(5):
            problem(await wrong(story.client), 401, "invalid_credentials")
            story.move(seconds=10)
        answer = await wrong(story.client)
        refused(answer, 250)
        name = '"login per account+address"'
        assert answer.headers["ratelimit-policy"] == f"{name};q=5;w=300"
        assert answer.headers["ratelimit"] == f"{name};r=0;t=250"
        story.move(seconds=249)
        refused(await wrong(story.client), 1)
        story.move(seconds=1)  # the first has left, and those that were refused never counted
        problem(await wrong(story.client), 401, "invalid_credentials")
        refused(await wrong(story.client), 10)
        counts = story.auth.limits.counts
        assert (counts["login", "allowed"], counts["login", "refused"]) == (6, 3)


@pytest.mark.capability("S0-88", "DEF-09")
@pytest.mark.standard("6.3.1", "15")
@pytest.mark.invariant("I-20")
async def test_of_fifty_at_once_five_are_looked_at(place: Place) -> None:
    async with counting(place) as story:
        answers = await asyncio.gather(*(wrong(story.client) for _ in range(50)))
        assert Counter(answer.status_code for answer in answers) == {401: 5, 429: 45}
        # Neither does the right password help, nor do the refused ones make it worse.
        answers = await asyncio.gather(*(right(story.client) for _ in range(5)))
        assert {answer.headers["retry-after"] for answer in answers} == {"300"}


@pytest.mark.capability("S0-91", "S0-17")
async def test_a_right_one_makes_room_for_five_more_at_this_account_alone(place: Place) -> None:
    async with counting(place) as story:
        await story.join()
        for _ in range(4):
            await wrong(story.client)
        assert (await right(story.client)).status_code == 200
        assert await until_refused(story.client) == 5
        # Its address goes on counting, whatever account was signed in to in between.
        (standing,) = await story.auth.limits.peek("login", address="127.0.0.1")
        used = standing.quota.tries - standing.left
        assert used >= 4 + 1 + 5
        assert await until_refused(story.client, EVE) == 5
        left = 20 - used - 5
        assert await until_refused(story.client, "max@example.com") == left < 5


@pytest.mark.capability("DEF-09", "S4-38")
@pytest.mark.standard("15", "CVE row 23")
async def test_json_form_and_odd_spellings_share_one_bucket(sqlite_url: str) -> None:
    async with counting(sqlite_url) as story:
        client = story.client
        fields = {"username": ADA, "password": "not the password of anybody"}
        tries = [
            await wrong(client),
            await wrong(client, "ADA@example.com"),
            await wrong(client, "Ada@EXAMPLE.com"),
            await client.post("/auth/login", data=fields, headers=FORM),
            await client.post(
                "/auth/login", data=fields | {"username": "aDa@Example.Com"}, headers=FORM
            ),
        ]
        assert [answer.status_code for answer in tries] == [401] * 5
        assert (await wrong(client)).status_code == 429
        answer = await client.post("/auth/login", data=fields, headers=FORM)
        assert answer.status_code == 429
        body = {"email": ADA, "password": PASSWORD}
        for path in (
            "//auth/login",
            "/auth//login",
            "/auth/login/",
            "/auth/login;x=1",
            "/AUTH/login",
        ):
            found = await client.post(path, json=body, follow_redirects=True)
            assert found.status_code in (404, 405, 429), path


@pytest.mark.capability("DEF-09")
@pytest.mark.standard("15", "CVE row 15")
async def test_what_a_client_says_of_its_address_means_nothing(sqlite_url: str) -> None:
    async with counting(sqlite_url) as story:
        seen = Counter[int]()
        for n in range(8):
            headers = {
                "X-Forwarded-For": f"203.0.113.{n}",
                "Forwarded": f"for=203.0.113.{n}",
                "X-Real-IP": f"203.0.113.{n}",
            }
            body = {"email": ADA, "password": "not the password of anybody"}
            answer = await story.client.post("/auth/login", json=body, headers=headers)
            seen[answer.status_code] += 1
        assert seen == {401: 5, 429: 3}
    core = {"trusted_proxies": ["10.0.0.0/8"]}
    async with counting(f"{sqlite_url}2", core=core) as story:
        one = at(story, "10.0.0.1", x_forwarded_for="203.0.113.1")
        two = at(story, "10.0.0.1", x_forwarded_for="203.0.113.2")
        lying = at(story, "10.0.0.1", x_forwarded_for="198.51.100.7, 203.0.113.1")
        assert await until_refused(one) == 5
        assert await until_refused(lying) == 0
        assert await until_refused(two) == 5


@pytest.mark.standard("15", "CVE row 22")
async def test_a_network_of_ipv6_is_one_client_and_ipv4_is_itself(sqlite_url: str) -> None:
    async with counting(sqlite_url) as story:
        tries = [await wrong(at(story, f"2001:db8:1:2:{n:x}::{n:x}")) for n in (1, 0xFFFF, 3)]
        tries += [
            await wrong(at(story, each)) for each in ("2001:DB8:1:2::", "2001:db8:1:2::1%eth0")
        ]
        assert [answer.status_code for answer in tries] == [401] * 5
        assert await until_refused(at(story, "2001:db8:1:2:ffff:ffff:ffff:ffff")) == 0
        assert await until_refused(at(story, "2001:db8:1:3::1")) == 5
        for address in ("192.0.2.7", "::ffff:192.0.2.7", "::ffff:c000:207", "64:ff9b::192.0.2.7"):
            assert (await wrong(at(story, address))).status_code == 401
        assert await until_refused(at(story, "192.0.2.7")) == 1
        assert await until_refused(at(story, "192.0.2.8")) == 5


@pytest.mark.capability("DEF-04", "DEF-09", "S4-38")
@pytest.mark.standard("6.1.1")
@pytest.mark.invariant("I-20")
async def test_a_crowd_fills_the_accounts_ceiling_and_its_owner_gets_in_all_the_same(
    place: Place,
) -> None:
    ceiling = "5/5m per account+address, 20/5m per address, 12/1h per account"
    async with counting(place, login=ceiling) as story:
        await story.join()
        home = at(story, "192.0.2.1")
        assert (await right(home)).status_code == 200  # it has a device cookie from here on
        before = (await story.auth.limits.peek("login", account=ADA))[0]
        assert before.quota.tries == 12
        crowd = [await wrong(at(story, f"198.51.100.{n}")) for n in range(before.left)]
        assert {answer.status_code for answer in crowd} == {401}
        stranger = await wrong(at(story, "203.0.113.9"))
        refused(stranger, 3600)
        assert stranger.headers["ratelimit-policy"] == '"login per account";q=12;w=3600'
        # A browser of somebody else's is a stranger here.
        await story.auth.passwords.register(email=EVE, password=PASSWORD)
        eve = at(story, "203.0.113.10")
        assert (await right(eve, EVE)).status_code == 200
        assert (await wrong(same_browser(story, "203.0.113.10", eve))).status_code == 429
        # The owner's may come from anywhere, and has a ceiling of its own.
        abroad = same_browser(story, "203.0.113.77", home)
        assert (await right(abroad)).status_code == 200
        answers = [
            (await wrong(same_browser(story, f"203.0.113.{n}", home))).status_code
            for n in range(100, 115)
        ]
        assert answers == [401] * 11 + [429] * 4


@pytest.mark.standard("6.3.8")
@pytest.mark.invariant("I-20")
async def test_an_address_that_is_nobodys_is_refused_in_the_same_words(sqlite_url: str) -> None:
    ceiling = "3/5m per account+address, 7/1h per account"
    nobody = "nobody@example.com"
    async with counting(sqlite_url, login=ceiling) as story:
        await story.auth.users.create(email=ADA)
        await story.auth.passwords.register(email=EVE, password=PASSWORD)
        eve = at(story, "192.0.2.50")
        assert (await right(eve, EVE)).status_code == 200
        said: dict[str, list[Any]] = {ADA: [], nobody: []}
        for email, answers in said.items():
            for n in range(4):
                client = same_browser(story, f"192.0.2.{n}", eve)
                answers += [plain(await wrong(client, email)) for _ in range(4)]
        assert said[ADA] == said[nobody]
        assert [status for status, *_ in said[ADA]] == [
            *(401, 401, 401, 429),
            *(401, 401, 401, 429),
            *(401, 429, 429, 429),
            *(429, 429, 429, 429),
        ]


async def test_an_address_that_is_nobodys_costs_the_same_look_ups(
    sqlite_url: str, work: Work
) -> None:
    """With the ceiling full and a browser's cookie at hand the users are asked: for both alike."""
    async with counting(sqlite_url, login="2/1h per account") as story:
        await story.auth.users.create(email=ADA)
        await story.auth.passwords.register(email=EVE, password=PASSWORD)
        eve = at(story, "192.0.2.50")
        await right(eve, EVE)
        done: list[Counter[str]] = []
        for email in (ADA, "nobody@example.com"):
            for n in range(2):
                await wrong(at(story, f"192.0.2.{n}"), email)
            # The limit is announced at its first refusal; then it is quiet.
            await wrong(at(story, "192.0.2.3"), email)
            with work.watched() as counter:
                refused(await wrong(same_browser(story, "192.0.2.4", eve), email), 3600)
            del counter["insert AuditEntry"]  # of refused requests it keeps a few, whoever's
            done.append(counter)
        assert done[0] == done[1]
        assert done[0]["get User"] == done[0]["get Device"] == 1
        assert hashes(done[0]) == 0


@pytest.mark.capability("S0-85", "S4-38")
@pytest.mark.standard("15")
async def test_three_accounts_an_hour_from_one_address_and_three_tries_at_one(
    place: Place,
) -> None:
    async with counting(place) as story:
        for n in range(3):
            assert (await story.register(f"user{n}@example.com")).status_code == 201
            story.move(minutes=1)
        refused(await story.register("user3@example.com"), 57 * 60)
        tries = [
            await at(story, f"192.0.2.{n}").post(
                "/auth/register", json={"email": ADA, "password": PASSWORD}
            )
            for n in range(4)
        ]
        assert [answer.status_code for answer in tries] == [201, 409, 409, 429]
        refused(tries[3], 3600)


MAILED = {
    "password_reset_request": ("/auth/password-reset-request", 202),
    "verify_email_request": ("/auth/verify-email-request", 202),
}


@pytest.mark.capability("S4-38")
@pytest.mark.standard("15")
@pytest.mark.parametrize("action", MAILED)
async def test_mail_is_limited_by_pair_by_address_and_by_account(
    action: str, sqlite_url: str
) -> None:
    path, status = MAILED[action]
    async with counting(sqlite_url) as story:
        await story.auth.users.create(email=ADA)

        async def ask(client: httpx.AsyncClient, email: str) -> int:
            return (await client.post(path, json={"email": email})).status_code

        for email in (ADA, "nobody@example.com"):
            answers = [await ask(story.client, email) for _ in range(6)]
            assert answers == [status] * 5 + [429], email
        answers = [await ask(story.client, f"user{n}@example.com") for n in range(11)]
        assert answers == [status] * 10 + [429]
        answers = [await ask(at(story, f"192.0.2.{n}"), EVE) for n in range(51)]
        assert answers == [status] * 50 + [429]
        story.move(minutes=5)
        assert await ask(story.client, ADA) == status


@pytest.mark.capability("S4-38")
@pytest.mark.standard("15")
async def test_codes_and_tokens_are_limited_too(sqlite_url: str) -> None:
    async with counting(sqlite_url) as story:

        async def tries(path: str, body: dict[str, Any], most: int) -> int:
            for n in range(most + 1):
                answer = await story.client.post(path, json=body)
                if answer.status_code == 429:
                    assert answer.headers["retry-after"]
                    return n
                assert answer.status_code == 401, answer.text
            return most + 1

        token = "ww{}_" + "x" * 43
        body = {"token": token.format("p"), "new_password": PASSWORD}
        assert await tries("/auth/password-reset", body, 30) == 30
        assert await tries("/auth/verify-email", {"token": token.format("v")}, 30) == 30
        # Factors come later: what they call is counted already, by client and account.
        attempts = story.auth.attempts
        for _ in range(50):
            await attempts.count("mfa", account=ADA)
        with pytest.raises(TooManyAttempts) as caught:
            await attempts.count("mfa", account=ADA)
        assert caught.value.retry_after == 3600
        await attempts.count("mfa", account=EVE)


@pytest.mark.capability("S0-17")
async def test_fifty_tabs_refresh_and_the_three_hundred_and_first_waits(sqlite_url: str) -> None:
    async with counting(sqlite_url, store="memory:") as story:
        await story.join()
        token = (await story.log_in())["refresh_token"]
        answers = await asyncio.gather(
            *(story.client.post("/auth/refresh", json={"refresh_token": token}) for _ in range(50))
        )
        assert {answer.status_code for answer in answers} == {200}
        here = Client(address="127.0.0.1", user_agent="")
        for _ in range(249):
            await story.auth.attempts.count("refresh", client=here)
        body = {"refresh_token": token}
        later = [await story.client.post("/auth/refresh", json=body) for _ in range(2)]
        assert [answer.status_code for answer in later] == [200, 429]
        refused(later[-1], 60)


@pytest.mark.capability("S0-85")
async def test_keys_and_changes_of_address_are_limited(sqlite_url: str) -> None:
    async with counting(sqlite_url, api_keys="2/1h per account", store="memory:") as story:
        await story.join()
        tokens = bearer((await story.log_in())["access_token"])
        made = [
            await story.client.post("/auth/api-keys", json={"name": f"key {n}"}, headers=tokens)
            for n in range(3)
        ]
        assert [answer.status_code for answer in made][2] == 429
        changes = [
            await story.client.post(
                "/auth/email/change",
                json={"new_email": EVE, "current_password": PASSWORD},
                headers=tokens,
            )
            for _ in range(6)
        ]
        assert [answer.status_code for answer in changes] == [202] * 5 + [429]


@pytest.mark.invariant("I-11")
async def test_realms_never_share_a_count(place: Place) -> None:
    async with counting(place) as story:
        assert await until_refused(story.client) == 5
        features = limited_features()
        there = neighbour(story, place.url, features=features, environ=place.environ, realm="other")
        async with there as other:
            assert await until_refused(other.client) == 5
            await other.auth.limits.clear(ADA, address="127.0.0.1")
            assert await until_refused(other.client) == 5
        assert await until_refused(story.client) == 0


@pytest.mark.capability("S0-88")
@pytest.mark.parametrize("place", SHARED, indirect=True)
async def test_two_workers_share_the_count(place: Place) -> None:
    async with counting(place) as story:
        near = neighbour(
            story, place.url, features=limited_features(), environ=place.environ, background=False
        )
        async with near as other:
            answers = await asyncio.gather(
                *(wrong(each.client) for _ in range(10) for each in (story, other))
            )
            assert Counter(answer.status_code for answer in answers) == {401: 5, 429: 15}


async def test_what_is_kept_names_nobody(sqlite_url: str) -> None:
    async with counting(sqlite_url) as story:
        await wrong(at(story, "198.51.100.77"))
        page = await story.auth.store.find(AttemptWindow, Paging(order=("key",)))
        assert len(page.items) == 3
        kept = "\n".join(texts_of(row) for row in page.items)
        for word in ("ada", "example", "198.51", "login"):
            assert word not in kept.lower()
        assert len({len(row.key) for row in page.items}) == 1


@pytest.mark.standard("16.3.3")
async def test_a_limit_that_is_reached_is_announced_once_a_window(sqlite_url: str) -> None:
    async with counting(sqlite_url) as story:
        heard: list[LimitReached] = []

        @story.auth.on(LimitReached)
        async def hear(event: LimitReached) -> None:
            heard.append(event)

        await asyncio.gather(*(wrong(story.client) for _ in range(30)))
        assert [(each.action, each.limit) for each in heard] == [
            ("login", "5/5m per account+address")
        ]
        assert "ada" not in str(heard)
        story.move(minutes=5)
        await asyncio.gather(*(wrong(story.client) for _ in range(30)))
        assert len(heard) == 2
        assert heard[0].key == heard[1].key
        assert heard[0].account == heard[1].account


@pytest.mark.capability("S3-19")
async def test_an_operator_sees_and_clears_what_an_account_has_used(place: Place) -> None:
    async with counting(place) as story:
        limits = story.auth.limits
        assert await limits.status(ADA, address="127.0.0.1") == ()
        assert await until_refused(story.client, "ADA@example.com") == 5
        pair, account = await limits.status(ADA, address="::ffff:127.0.0.1")
        assert (pair.action, str(pair.quota), pair.left) == ("login", "5/5m per account+address", 0)
        assert pair.opens == timedelta(minutes=5)
        assert (account.quota.by, account.left) == ("account", 45)
        assert [each.quota.by for each in await limits.status(ADA)] == ["account"]
        await limits.clear(ADA, address="127.0.0.1")
        assert await limits.status(ADA, address="127.0.0.1") == ()
        assert await until_refused(story.client) == 5
        await limits.reset("login", address="127.0.0.1")
        (address,) = await limits.peek("login", address="127.0.0.1")
        assert address.left == 20


async def test_an_app_counts_tries_of_its_own(place: Place) -> None:
    async with counting(place) as story:
        limits = story.auth.limits
        named: dict[str, Any] = {"limits": "2/1m per address", "address": "192.0.2.1"}
        await limits.take("vote", **named)
        (standing,) = await limits.take("vote", **named)
        assert standing.left == 0
        with pytest.raises(TooManyAttempts) as caught:
            await limits.take("vote", **named)
        assert caught.value.retry_after == 60
        await limits.take("vote", limits="2/1m per address", address="192.0.2.2")
        await limits.reset("vote", **named)
        assert (await limits.peek("vote", **named))[0].left == 2
        with pytest.raises(ValueError, match="is no limit"):
            await limits.take("vote", limits="often", address="192.0.2.1")


@pytest.mark.standard("16.5.2")
@pytest.mark.invariant("I-20")
@pytest.mark.slow
async def test_with_the_store_of_limits_away_nobody_guesses(sqlite_url: str) -> None:
    server = Redis.start(shared=False)
    try:
        url = f"{server.url}?command_timeout=1&pool_timeout=1"
        async with (
            counting(sqlite_url, store=url) as story,
            neighbour(
                story, sqlite_url, features=limited_features(store=url, failure="allow")
            ) as lenient,
        ):
            await story.join()
            assert (await right(story.client)).status_code == 200
            await in_thread(server.halt)
            for answer in (await right(story.client), await wrong(story.client)):
                body = problem(answer, 503, "store_unavailable")
                assert "redis" not in str(body).lower()
            assert (await right(lenient.client)).status_code == 200
            assert lenient.auth.limits.counts["login", "uncounted"] == 1
            await in_thread(server.resume)
            assert (await right(story.client)).status_code == 200
    finally:
        await in_thread(server.stop)


async def test_limits_that_are_off_count_nothing(sqlite_url: str) -> None:
    async with counting(sqlite_url, enabled=False) as story:
        assert await until_refused(story.client, most=25) == 25
        assert await story.auth.store.count(AttemptWindow) == 0
        assert await story.auth.limits.take("vote", limits="1/1m per global") == ()
    async with counting(f"{sqlite_url}2", login="off") as story:
        assert await until_refused(story.client, most=25) == 25


@pytest.mark.invariant("I-06")
async def test_limits_in_redis_leave_the_cache_as_it_is(sqlite_url: str, redis_url: str) -> None:
    async with counting(sqlite_url, store=redis_url) as story:
        assert story.auth._cache_max_age() == timedelta(seconds=30)
    sessions = {"WATCHWORD_SESSIONS__STORE": redis_url}
    async with telling(f"{sqlite_url}2", environ=sessions) as story:
        assert story.auth._cache_max_age() == timedelta(seconds=2)
