"""The gate's cache: how it forgets, what it never keeps, and what it tells apart."""

import asyncio
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta

import pytest

from tests.told import ADA, browser, problem, telling
from watchword import CurrentPrincipal, CurrentUser
from watchword.features.users import User
from watchword.http.cache import IdentityCache
from watchword.kernel.errors import InvalidToken, StoreUnavailable
from watchword.kernel.principal import Client, Identity, Principal
from watchword.storage.record import Frozen
from watchword.testing import MovableClock
from watchword.testing.story import bearer

NOW = datetime(2030, 1, 1, tzinfo=UTC)
KEY, OTHER = b"key", b"other"


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock(NOW)


def cache(clock: MovableClock, *, size: int = 10, seconds: float = 2) -> IdentityCache:
    return IdentityCache(clock=clock, size=size, max_age=timedelta(seconds=seconds))


def identity(name: str = "ada", *, lives: float = 3600) -> Identity:
    return Identity(
        principal=Principal(
            realm="main",
            kind="user",
            id=name,
            session_id=f"s-{name}",
            client_id="watchword",
            roles=frozenset(),
            scopes=frozenset(),
            amr=("pwd",),
            auth_time=NOW,
        ),
        user=None,
        is_verified=True,
        carriage="bearer",
        valid_until=NOW + timedelta(seconds=lives),
        subjects=(("session", f"s-{name}"), ("user", name)),
    )


async def kept(made: IdentityCache, key: bytes = KEY, found: Identity | None = None) -> None:
    async def read() -> Identity:
        return found or identity()

    await made.miss(key, read)


def later(clock: MovableClock, seconds: float) -> None:
    clock.advance(timedelta(seconds=seconds))


@pytest.mark.invariant("I-06")
async def test_an_entry_dies_two_seconds_after_its_read_began(clock: MovableClock) -> None:
    made = cache(clock)

    async def slow() -> Identity:
        later(clock, 1.5)
        return identity()

    await made.miss(KEY, slow)
    later(clock, 0.4)
    assert made.hit(KEY)
    later(clock, 0.1)
    assert made.hit(KEY) is None
    assert len(made) == 0


@pytest.mark.invariant("I-06")
async def test_a_read_as_long_as_an_entry_lives_is_never_hit(clock: MovableClock) -> None:
    made = cache(clock)

    async def slow() -> Identity:
        later(clock, 2)
        return identity()

    await made.miss(KEY, slow)
    assert made.hit(KEY) is None


@pytest.mark.invariant("I-10")
async def test_an_entry_dies_with_whatever_it_rests_on(clock: MovableClock) -> None:
    made = cache(clock)
    await kept(made, found=identity(lives=1))
    later(clock, 0.9)
    assert made.hit(KEY)
    later(clock, 0.1)
    assert made.hit(KEY) is None


@pytest.mark.invariant("I-09")
@pytest.mark.parametrize("subject", [("session", "s-ada"), ("user", "ada")])
async def test_a_read_that_an_ending_overtook_is_not_kept(
    clock: MovableClock, subject: tuple[str, str]
) -> None:
    made = cache(clock)
    began, go = asyncio.Event(), asyncio.Event()

    async def held() -> Identity:
        began.set()
        await go.wait()
        return identity()

    reading = asyncio.create_task(made.miss(KEY, held))
    await began.wait()
    made.evict((subject,))
    go.set()
    assert (await reading).principal.id == "ada"
    assert made.hit(KEY) is None
    await kept(made)
    assert made.hit(KEY)


@pytest.mark.invariant("I-09")
async def test_an_ending_of_another_lets_a_read_be_kept(clock: MovableClock) -> None:
    made = cache(clock)

    async def read() -> Identity:
        made.evict((("user", "eve"), ("session", "s-eve")))
        return identity()

    await made.miss(KEY, read)
    assert made.hit(KEY)


@pytest.mark.invariant("I-09")
async def test_a_read_longer_than_marks_are_kept_is_not_kept(clock: MovableClock) -> None:
    made = IdentityCache(clock=clock, size=10, max_age=timedelta(minutes=5))

    async def slow() -> Identity:
        made.evict((("user", "ada"),))
        later(clock, 31)
        made.evict((("user", "eve"),))  # lets go of the mark
        return identity()

    await made.miss(KEY, slow)
    assert made.hit(KEY) is None


@pytest.mark.invariant("I-10")
async def test_eviction_reaches_all_of_a_subject_and_nobody_else(clock: MovableClock) -> None:
    made = cache(clock)
    for number in range(3):
        await kept(made, b"a%d" % number)
    await kept(made, OTHER, identity("eve"))
    made.evict((("user", "ada"),))
    assert [made.hit(b"a%d" % number) for number in range(3)] == [None] * 3
    assert made.hit(OTHER)
    made.empty()
    assert made.hit(OTHER) is None
    assert len(made) == 0


@pytest.mark.invariant("I-10")
async def test_it_is_bounded_and_the_longest_unused_goes_first(clock: MovableClock) -> None:
    made = cache(clock, size=3)
    for number in range(3):
        await kept(made, b"%d" % number, identity(f"u{number}"))
    assert made.hit(b"0")
    await kept(made, b"3", identity("u3"))
    assert len(made) == 3
    assert made.hit(b"1") is None
    assert made.hit(b"0")
    for number in range(1000):
        await kept(made, b"n%d" % number, identity(f"n{number}"))
    assert len(made) == 3
    assert len(made._by_subject) == 6
    assert not made._reads


async def test_size_nothing_keeps_nothing(clock: MovableClock) -> None:
    made = cache(clock, size=0)
    await kept(made)
    assert made.hit(KEY) is None


@pytest.mark.invariant("I-10")
async def test_misses_of_one_key_share_one_read(clock: MovableClock) -> None:
    made = cache(clock)
    reads = 0

    async def read() -> Identity:
        nonlocal reads
        reads += 1
        await asyncio.sleep(0.01)
        return identity()

    found = await asyncio.gather(*(made.miss(KEY, read) for _ in range(50)))
    assert reads == 1
    assert len({id(each) for each in found}) == 1


@pytest.mark.invariant("I-10")
async def test_a_caller_that_goes_away_takes_nothing_from_the_others(clock: MovableClock) -> None:
    made = cache(clock)
    go = asyncio.Event()

    async def read() -> Identity:
        await go.wait()
        return identity()

    first, second = (asyncio.create_task(made.miss(KEY, read)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    go.set()
    assert (await second).principal.id == "ada"


@pytest.mark.invariant("I-10")
@pytest.mark.parametrize("error", [InvalidToken, StoreUnavailable])
async def test_a_refusal_is_not_kept(clock: MovableClock, error: type[Exception]) -> None:
    made = cache(clock)

    async def refuse() -> Identity:
        raise error

    for _ in range(2):
        with pytest.raises(error):
            await made.miss(KEY, refuse)
    assert len(made) == 0
    await kept(made)
    assert made.hit(KEY)


@pytest.mark.invariant("I-10")
async def test_what_a_handler_gets_it_cannot_change_for_others(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        token = (await story.log_in())["access_token"]
        change = {"user_settings": {"theme": {"dark": [1]}}}
        await story.client.patch("/auth/me", json=change, headers=bearer(token))
        seen: list[User] = []

        @story.app.get("/bend")
        async def bend(user: CurrentUser, principal: CurrentPrincipal) -> str:
            seen.append(user)
            settings = user.user_settings
            assert isinstance(settings, Frozen)
            for attempt in (
                lambda: settings.update(x=1),
                settings.clear,
                lambda: settings.pop("theme"),
                lambda: settings["theme"].setdefault("x", 1),
                lambda: settings["theme"]["dark"].append(2),
                lambda: user.roles.append("admin"),  # type: ignore[attr-defined]
                lambda: principal.roles.add("admin"),  # type: ignore[attr-defined]
            ):
                with pytest.raises((TypeError, AttributeError)):
                    attempt()
            for record, name in ((user, "email"), (principal, "id")):
                with pytest.raises((FrozenInstanceError, AttributeError)):
                    setattr(record, name, "x")
            return user.email

        hits = story.auth.cache.hits
        while story.auth.cache.hits == hits:  # its own change may still come through the feed
            assert (await story.client.get("/bend", headers=bearer(token))).json() == ADA
        assert seen[-2] is seen[-1]  # the second was a hit
        me = (await story.me(token)).json()
        assert me["user_settings"] == change["user_settings"]


@pytest.mark.invariant("I-10")
async def test_a_hit_is_still_asked_where_it_comes_from_and_how_fresh_it_is(
    database_url: str,
) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.register()
        await story.log_in(transport="cookie", client=client)
        assert (await client.get("/auth/me")).status_code == 200
        assert (await client.get("/auth/me")).status_code == 200
        problem(await client.post("/auth/logout"), 403, "csrf_refused")
        story.move(minutes=5, seconds=1)
        assert (await client.get("/auth/me")).status_code == 200
        headers = {"X-CSRF-Token": client.cookies["csrf"]}
        answer = await client.delete("/auth/me", headers=headers)
        problem(answer, 401, "insufficient_user_authentication")


@pytest.mark.invariant("I-09")
async def test_an_ending_between_read_and_answer_is_not_brought_back(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with telling(database_url) as story:
        await story.register()
        token = (await story.log_in())["access_token"]
        kind = type(story.auth.tokens)
        authenticate = kind.authenticate

        async def held(self: object, presented: str, client: Client) -> Identity:
            found = await authenticate(self, presented, client)  # type: ignore[arg-type]
            monkeypatch.setattr(kind, "authenticate", authenticate)
            session = found.principal.session_id or ""
            await story.auth.sessions.end(session, why="meanwhile")
            return found

        monkeypatch.setattr(kind, "authenticate", held)
        assert (await story.me(token)).status_code == 200  # it was, when it was read
        problem(await story.me(token), 401, "revoked_token")


@pytest.mark.invariant("I-08")
async def test_a_stale_feed_empties_the_cache_and_bypasses_it(clock: MovableClock) -> None:
    made = cache(clock, seconds=30)
    made.fresh(clock.monotonic() + 2)
    await kept(made)
    await kept(made, OTHER)
    later(clock, 1.9)
    assert made.hit(KEY)
    later(clock, 0.1)
    assert made.hit(KEY) is None
    assert len(made) == 0
    await kept(made)
    assert len(made) == 0, "kept although nobody would hear that it became untrue"
    made.fresh(clock.monotonic() + 2)
    assert made.hit(OTHER) is None
    await kept(made)
    assert made.hit(KEY)


@pytest.mark.invariant("I-08", "I-09")
async def test_a_read_that_ends_after_the_feed_went_stale_is_not_kept(clock: MovableClock) -> None:
    made = cache(clock, seconds=30)
    made.fresh(clock.monotonic() + 2)

    async def slow() -> Identity:
        later(clock, 3)
        return identity()

    await made.miss(KEY, slow)
    assert len(made) == 0


@pytest.mark.invariant("I-10")
@pytest.mark.parametrize("topic", ["role", "policy", "key", "app"])
async def test_what_bears_on_everybody_empties_all(clock: MovableClock, topic: str) -> None:
    made = cache(clock)
    await kept(made)
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> Identity:
        began.set()
        await go_on.wait()
        return identity("eve")

    late = asyncio.create_task(made.miss(OTHER, slow))
    await began.wait()
    made.evict(((topic, "any"),))
    go_on.set()
    await late
    assert len(made) == 0


async def test_hits_and_misses_are_counted(clock: MovableClock) -> None:
    made = cache(clock)
    await kept(made)
    made.hit(KEY)
    made.hit(KEY)
    assert (made.hits, made.misses) == (2, 1)
