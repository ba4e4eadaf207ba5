"""Everything that must end, ends: each declared row is done, and every column looked at.

The rows are declared by the features (`Feature.ends`) and printed as docs/what-ends.md. A row that
nobody does here fails; so does something done here that no row declares.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from tests.attacks.owing import Owing
from tests.told import ANOTHER, ENVIRON, PASSWORD, Story, browser, neighbour, telling
from watchword import requires
from watchword.features.passwords import Password
from watchword.kernel.feature import Ends, Reach
from watchword.presets import CATALOGUE
from watchword.storage.store import where
from watchword.testing import cheap_hashing
from watchword.testing.story import bearer, without_limits

ROWS = {row.name: row for make in CATALOGUE for row in make().ends}
HEARD_WITHIN = 10.0  # seconds of real time; milliseconds as a rule
BOUND = 2.0  # seconds of the other worker's clock: feed_bound on SQL, cache_max_age elsewhere
MOST = 3  # sessions of one user: what everybody here has
SETTINGS = {
    "WATCHWORD_SESSIONS__MAX_SESSIONS": str(MOST),
    "WATCHWORD_TOKENS__REFRESH_GRACE": "1s",
    "WATCHWORD_KEYS__JWKS_MAX_AGE": "1s",
}


@dataclass
class Session:
    """One of somebody's sessions, carried by tokens or by a cookie."""

    id: str = ""
    access: str = ""
    refresh: str = ""
    cookie: str = ""
    csrf: str = ""

    @property
    def header(self) -> dict[str, str]:
        return {"Cookie": f"session={self.cookie}"} if self.cookie else bearer(self.access)


@dataclass
class Person:
    """Somebody who has one of everything, some of it twice."""

    email: str
    id: str = ""
    sessions: list[Session] = field(default_factory=list[Session])  # the oldest first
    keys: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])  # id and key
    challenge: str = ""

    @property
    def acting(self) -> Session:
        """The session that does what is done: the newest."""
        return self.sessions[-1]


@dataclass
class Scene:
    """Two workers over one database, somebody to whom it happens, and somebody else."""

    here: Story
    there: Story
    owing: Owing
    ada: Person
    eve: Person
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    service: str = ""  # a token of it
    role: str = "editor"

    def move(self, **by: float) -> None:
        """Time passes at both workers."""
        self.here.move(**by)
        self.there.move(**by)

    async def call(
        self, method: str, path: str, headers: dict[str, str], at: Story | None = None, **body: Any
    ) -> httpx.Response:
        async with browser((at or self.here).app) as client:
            return await client.request(method, path, headers=headers, json=body or None)

    async def post(self, path: str, by: Session | None = None, **body: Any) -> httpx.Response:
        """Do something that must succeed."""
        headers = {} if by is None else by.header
        if by is not None and by.cookie:
            headers["X-CSRF-Token"] = by.csrf
        answer = await self.call("POST", f"/auth/{path}", headers, **body)
        assert answer.status_code < 300, answer.text
        return answer

    async def mailed(self, address: str, prefix: str) -> str:
        await self.here.mails()
        return self.here.outbox.token(address, prefix)

    async def sign_in(
        self, person: Person, transport: str, cookie: str = "", password: str = PASSWORD
    ) -> Session:
        self.move(seconds=1)  # no two begin at one instant
        body: dict[str, Any] = {
            "email": person.email,
            "password": password,
            "transport": transport,
        }
        headers = {"Cookie": f"session={cookie}"} if cookie else {}
        answer = await self.call("POST", "/auth/login", headers, **body)
        assert answer.status_code == 200, answer.text
        given = answer.json()
        session = Session(
            access=given.get("access_token", ""),
            refresh=given.get("refresh_token", ""),
            cookie=answer.cookies.get("session") or "",
            csrf=answer.cookies.get("csrf") or "",
        )
        listed = (await self.call("GET", "/auth/sessions", session.header)).json()["items"]
        session.id = next(each["id"] for each in listed if each["current"])
        return session

    async def begin(self, *, is_verified: bool) -> None:
        """Somebody new with everything, and a service of a new name."""
        number, services = next(self.numbers), self.here.auth.services
        self.ada = Person(f"ada{number}@example.com")
        await self.furnish(self.ada, is_verified=is_verified)
        await services.grant(self.slug, audience=services.audience)
        self.service = await services.token(self.slug, audience=services.audience)

    @property
    def slug(self) -> str:
        return self.ada.email.partition("@")[0]

    async def furnish(self, person: Person, *, is_verified: bool = True) -> None:
        auth = self.here.auth
        user = await auth.passwords.create_user(
            email=person.email, password=PASSWORD, is_verified=is_verified, roles=(self.role,)
        )
        person.id = user.id
        for transport in ("bearer", "cookie", "bearer"):
            person.sessions.append(await self.sign_in(person, transport))
        for name in ("first", "second"):
            made = (await self.post("api-keys", person.acting, name=name)).json()
            person.keys.append((made["id"], made["key"]))
        self.owing.debtors.add(user.id)
        body: dict[str, Any] = {"email": person.email, "password": PASSWORD}
        owed = await self.call("POST", "/auth/login", {}, **body)
        person.challenge = owed.json()["challenge"]
        self.owing.debtors.discard(user.id)

    async def is_known(self, at: Story, headers: dict[str, str], kind: str = "session") -> bool:
        answer = await self.call("GET", f"/probe/{kind}", headers, at)
        assert answer.status_code in (200, 401), answer.text
        return answer.status_code == 200


@asynccontextmanager
async def _scene(database: str) -> AsyncGenerator[Scene, None]:
    owing, options = Owing(), {"environ": {**ENVIRON, **SETTINGS}}
    features = [*without_limits(), owing.feature()]
    apps = [FastAPI(), FastAPI()]
    for app in apps:
        for kind in ("session", "api_key", "service"):
            app.get(f"/probe/{kind}", dependencies=[requires(accepts=[kind])])(_probed)
        app.get("/probe/role", dependencies=[requires(role="editor")])(_probed)
    async with (
        telling(database, features=features, app=apps[0], **options) as here,
        neighbour(here, database, features=features, app=apps[1], **options) as there,
    ):
        scene = Scene(here, there, owing, Person(""), Person("eve@example.com"))
        await scene.furnish(scene.eve)
        yield scene


async def _probed() -> str:
    return "known"


# What happens. Each is done as whoever does it would: over HTTP where there is a route, else with
# the verb behind the command.

Doing = Callable[[Scene], Awaitable[None]]
DOINGS: dict[str, Doing] = {}


def does(name: str) -> Callable[[Doing], Doing]:
    def register(doing: Doing) -> Doing:
        DOINGS[name] = doing
        return doing

    return register


@does("user_disabled")
async def disable(scene: Scene) -> None:
    await scene.here.auth.users.disable(scene.ada.id)


@does("user_deleted")
async def delete(scene: Scene) -> None:
    answer = await scene.call("DELETE", "/auth/me", scene.ada.acting.header)
    assert answer.status_code == 204, answer.text


@does("role_removed")
async def remove_role(scene: Scene) -> None:
    for at in (scene.here, scene.there):
        assert await scene.is_known(at, scene.ada.acting.header, "role")
    await scene.here.auth.users.change(scene.ada.id, roles=())

    async def is_refused() -> bool:
        answer = await scene.call("GET", "/probe/role", scene.ada.acting.header, scene.there)
        return answer.status_code == 403

    answer = await scene.call("GET", "/probe/role", scene.ada.acting.header)
    assert answer.status_code == 403
    await heard(scene, is_refused)


@does("password_changed")
async def change_password(scene: Scene) -> None:
    body: dict[str, Any] = {"current_password": PASSWORD, "new_password": ANOTHER}
    await scene.post("password/change", scene.ada.acting, **body)


@does("password_set")
async def set_password(scene: Scene) -> None:
    await scene.here.auth.passwords.set(scene.ada.id, ANOTHER)


@does("password_distrusted")
async def ask_for_another_password(scene: Scene) -> None:
    await scene.here.auth.passwords.require_change(scene.ada.id)


@does("password_replaced")
async def set_the_password_that_is_owed(scene: Scene) -> None:
    await scene.here.auth.store.update(Password, where(user_id=scene.ada.id), change_owed="common")
    body: dict[str, Any] = {"email": scene.ada.email, "password": PASSWORD}
    owed = await scene.call("POST", "/auth/login", {}, **body)
    assert owed.json()["code"] == "password_change_required"
    body = {"challenge": owed.json()["challenge"], "new_password": ANOTHER}
    await scene.post("password/change-required", **body)


@does("password_reset")
async def reset_password(scene: Scene) -> None:
    await scene.post("password-reset-request", email=scene.ada.email)
    token = await scene.mailed(scene.ada.email, "wwp")
    await scene.post("password-reset", token=token, new_password=ANOTHER)


@does("email_changed")
async def change_address(scene: Scene) -> None:
    new = f"new.{scene.ada.email}"
    body: dict[str, Any] = {"new_email": new, "current_password": PASSWORD}
    await scene.post("email/change", scene.ada.acting, **body)
    await scene.post("email/confirm", token=await scene.mailed(new, "wwe"), password=PASSWORD)


@does("email_undone")
async def undo_address(scene: Scene) -> None:
    old = scene.ada.email
    await change_address(scene)
    # All that was there is over; so there is something to end, there is all of it again.
    scene.ada.email = f"new.{old}"
    scene.ada.sessions[:2] = [await scene.sign_in(scene.ada, each) for each in ("bearer", "cookie")]
    scene.ada.keys.clear()
    for name in ("first", "second"):
        made = (await scene.post("api-keys", scene.ada.acting, name=name)).json()
        scene.ada.keys.append((made["id"], made["key"]))
    await scene.post("email/undo", token=await scene.mailed(old, "wwu"))


@does("address_proven")
async def prove_address(scene: Scene) -> None:
    await scene.post("verify-email-request", email=scene.ada.email)
    await scene.post("verify-email", token=await scene.mailed(scene.ada.email, "wwv"))


@does("logout")
async def log_out(scene: Scene) -> None:
    await scene.post("logout", scene.ada.acting)


@does("logout_all")
async def log_out_everywhere(scene: Scene) -> None:
    await scene.post("logout-all", scene.ada.acting)


@does("logout_others")
async def log_out_elsewhere(scene: Scene) -> None:
    await scene.post("logout-all", scene.ada.acting, keep_current=True)


@does("session_ended")
async def end_session(scene: Scene) -> None:
    path = f"/auth/sessions/{scene.ada.acting.id}"
    other = scene.ada.sessions[0]
    assert (await scene.call("DELETE", path, other.header)).status_code == 204


async def _admin(scene: Scene) -> dict[str, str]:
    email = f"admin.{scene.ada.email}"
    await scene.here.auth.passwords.create_user(
        email=email, password=PASSWORD, is_verified=True, roles=("admin",)
    )
    return (await scene.sign_in(Person(email), "bearer")).header


@does("session_ended_by_admin")
async def end_anyones_session(scene: Scene) -> None:
    path = f"/auth/admin/sessions/{scene.ada.acting.id}"
    assert (await scene.call("DELETE", path, await _admin(scene))).status_code == 204


@does("sessions_ended_by_admin")
async def end_anyones_sessions(scene: Scene) -> None:
    path = f"/auth/admin/users/{scene.ada.id}/sessions/end"
    assert (await scene.call("POST", path, await _admin(scene))).status_code == 204


@does("sessions_ended_since")
async def end_since(scene: Scene) -> None:
    while scene.eve.sessions:  # she is not signed in by then, and keeps her API keys
        await scene.post("logout", scene.eve.sessions.pop())
    scene.move(seconds=1)
    since = scene.here.clock.now()
    assert [each async for each in scene.here.auth.sessions.end_since(since)]


@does("too_many_sessions")
async def sign_in_once_more(scene: Scene) -> None:
    await scene.sign_in(scene.ada, "bearer")


@does("signed_in_again")
async def sign_in_again(scene: Scene) -> None:
    # `this` is the acting one, so the browser's is made to be it.
    scene.ada.sessions.append(scene.ada.sessions.pop(1))
    await scene.sign_in(scene.ada, "cookie", cookie=scene.ada.acting.cookie)


@does("refresh_token_reused")
async def replay(scene: Scene) -> None:
    stolen = scene.ada.acting.refresh
    given = (await scene.post("refresh", refresh_token=stolen)).json()
    scene.ada.acting.access = given["access_token"]
    scene.ada.acting.refresh = given["refresh_token"]
    scene.move(seconds=2)
    answer = await scene.call("POST", "/auth/refresh", {}, refresh_token=stolen)
    assert answer.json()["code"] == "refresh_token_reused"


@does("token_revoked")
async def revoke_token(scene: Scene) -> None:
    assert await scene.here.auth.tokens.revoke(scene.ada.acting.access)


@does("key_rotated")
async def rotate_key(scene: Scene) -> None:
    keys = scene.here.auth.keys
    before = keys.active().kid
    for _ in range(2):  # publish the next, then promote it
        await keys.rotate()
        scene.move(seconds=30)
    await keys.retire(before)
    assert keys.active().kid != before


@does("key_revoked")
async def revoke_key(scene: Scene) -> None:
    await scene.here.auth.keys.rotate(compromised=True)


@does("api_key_ended")
async def end_api_key(scene: Scene) -> None:
    path = f"/auth/api-keys/{scene.ada.keys[-1][0]}"
    assert (await scene.call("DELETE", path, scene.ada.acting.header)).status_code == 204


@does("service_ended")
async def end_service(scene: Scene) -> None:
    await scene.here.auth.services.end(scene.slug)


# What is over.


def over(reach: Reach, many: int) -> list[bool]:
    """Of so many, the oldest first and the acting one last: which are over?"""
    last = many - 1
    return [
        {
            "all": True,
            "others": place != last,
            "this": place == last,
            "oldest": place == 0,
            "none": False,
        }[reach]
        for place in range(many)
    ]


async def heard(scene: Scene, is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the other worker knows, within the bound of its own clock."""
    began, moved = time.monotonic(), 0.0
    while not await is_so():
        assert time.monotonic() - began < HEARD_WITHIN, "still believed at the other worker"
        await asyncio.sleep(0.005)
        # Where no feed tells, entries die of age (I-06); beyond the bound nothing is waited for.
        if time.monotonic() - began > 0.5 and moved < BOUND:
            scene.there.move(seconds=0.2)
            moved += 0.2


async def kept_at_both(scene: Scene, headers: list[tuple[str, dict[str, str]]]) -> None:
    """Everything is believed, and answered from the cache."""
    for at in (scene.here, scene.there):
        for _ in range(2):
            for kind, header in headers:
                assert await scene.is_known(at, header, kind)


def expected(row: Ends, person: Person, service: str) -> list[tuple[str, dict[str, str], bool]]:
    """Kind, header, and whether it is over, of all that the gate is asked about."""
    access = row.sessions if row.access_tokens is None else row.access_tokens
    told: list[tuple[str, dict[str, str], bool]] = []
    for place, session in enumerate(person.sessions):
        reach = row.sessions if session.cookie else access
        told.append(("session", session.header, over(reach, len(person.sessions))[place]))
    for (_, key), is_over in zip(person.keys, over(row.api_keys, len(person.keys)), strict=True):
        told.append(("api_key", bearer(key), is_over))
    told.append(("service", bearer(service), over(row.services, 1)[0]))
    return told


async def _check(scene: Scene, row: Ends) -> None:
    told = expected(row, scene.ada, scene.service)
    for kind, header, is_over in told:
        what = f"{row.name}: {kind} {header}"
        assert await scene.is_known(scene.here, header, kind) is not is_over, what
    for kind, header, is_over in told:

        async def is_so(kind: str = kind, header: Any = header, over: bool = is_over) -> bool:
            return await scene.is_known(scene.there, header, kind) is not over

        await heard(scene, is_so)
    refreshed = over(row.refresh_tokens, len(scene.ada.sessions))
    for session, is_over in zip(scene.ada.sessions, refreshed, strict=True):
        if session.refresh:
            body: dict[str, Any] = {"refresh_token": session.refresh}
            answer = await scene.call("POST", "/auth/refresh", {}, scene.there, **body)
            assert answer.status_code == (401 if is_over else 200), (row.name, answer.text)
    body: dict[str, Any] = {"challenge": scene.ada.challenge}
    answer = await scene.call("POST", "/auth/login/continue", {}, scene.there, **body)
    wanted = 401 if row.challenges == "all" else 200
    assert answer.status_code == wanted, (row.name, answer.text)


async def _others_are_left_alone(scene: Scene, row: Ends) -> None:
    everybodys = row.services == "all"  # a key's end is not one user's
    for session in scene.eve.sessions:
        if session.cookie or not everybodys:
            assert await scene.is_known(scene.here, session.header)
            assert await scene.is_known(scene.there, session.header)
    for _, key in scene.eve.keys:
        assert await scene.is_known(scene.there, bearer(key), "api_key")


async def _done(scene: Scene, row: Ends) -> None:
    await scene.begin(is_verified=row.name != "address_proven")
    before = expected(row, scene.ada, scene.service) + expected(row, scene.eve, scene.service)
    await kept_at_both(scene, [(kind, header) for kind, header, _ in before])
    await DOINGS[row.name](scene)
    await _check(scene, row)
    await _others_are_left_alone(scene, row)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Scene, None]:
    """Two workers for all rows that concern one user."""
    with cheap_hashing():
        async with _scene(f"sqlite:///{tmp_path_factory.mktemp('endings') / 'shared.db'}") as scene:
            yield scene


def test_every_declared_row_is_done_here_and_nothing_else() -> None:
    assert ROWS.keys() == DOINGS.keys(), f"teach this test {ROWS.keys() ^ DOINGS.keys()}"
    assert len(ROWS) == sum(len(make().ends) for make in CATALOGUE), "a name stands twice"


EVERYBODYS = ("key_rotated", "key_revoked", "sessions_ended_since")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.invariant("I-01", "I-02", "I-06", "I-08", "I-15")
@pytest.mark.capability("S1-32", "S0-31", "S0-32", "DEF-02", "DEF-27")
@pytest.mark.standard("6: 7.4.1", "6: 7.4.2", "6: 7.4.3", "6: 7.4.4-5", "CVE row 13")
@pytest.mark.parametrize("name", sorted(ROWS.keys() - set(EVERYBODYS)))
async def test_what_ends_is_over_at_every_worker_and_nothing_else_is(
    name: str, shared: Scene
) -> None:
    await _done(shared, ROWS[name])


@pytest.mark.invariant("I-02", "I-16", "I-19")
@pytest.mark.standard("6: 7.4.4-5")
@pytest.mark.parametrize("name", EVERYBODYS)
async def test_what_concerns_everybody_ends_what_its_row_says(name: str, sqlite_url: str) -> None:
    async with _scene(sqlite_url) as scene:
        await _done(scene, ROWS[name])


@pytest.mark.invariant("I-01", "I-06")
@pytest.mark.capability("S1-32", "DEF-27")
async def test_what_ends_is_over_on_every_store(database_or_redis_url: str) -> None:
    async with _scene(database_or_redis_url) as scene:
        for name in ("password_changed", "user_disabled", "logout", "password_reset"):
            await _done(scene, ROWS[name])


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.capability("S0-32", "DEF-03")
async def test_all_that_came_before_is_over_and_what_comes_after_lives(shared: Scene) -> None:
    await shared.begin(is_verified=True)
    await log_out_everywhere(shared)
    body: dict[str, Any] = {"email": shared.ada.email, "password": PASSWORD}
    new = (await shared.post("login", **body)).json()["access_token"]  # at the same instant
    for at in (shared.here, shared.there):
        assert await shared.is_known(at, bearer(new))
