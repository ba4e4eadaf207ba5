"""Bent tokens over HTTP, for each algorithm: none is believed, none costs, none breaks anything."""

import hashlib
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import jwt
import pytest
import pytest_asyncio

from tests.attacks import forge as bends
from tests.attacks.forge import Bent, Forge, answered, b64, headers_of
from tests.told import ADA, ANOTHER, EVE, PASSWORD, Story, browser, neighbour, problem, telling
from watchword.crypto import base64url
from watchword.features.sessions import Session
from watchword.storage.store import Paging
from watchword.testing import cheap_hashing
from watchword.testing.story import bearer

ALGORITHMS = ("ES256", "RS256", "EdDSA", "HS256")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=ALGORITHMS)
async def story(request: pytest.FixtureRequest) -> AsyncGenerator[Story, None]:
    """One App for each algorithm, since nothing here changes it."""
    with cheap_hashing():
        environ = {
            "WATCHWORD_KEYS__ALGORITHM": request.param,
            "WATCHWORD_SESSIONS__MAX_SESSIONS": "100",  # one for each test
        }
        async with telling(environ=environ) as told:
            await told.join(ADA)
            await told.join(EVE)
            yield told


_connections: list[str] = []
_is_watching = [False]


def _hook(event: str, arguments: Any) -> None:
    if not _is_watching[0]:
        return
    is_named = event == "open" and str(arguments[0]).startswith(("/etc", "/dev/null", ".."))
    if is_named or event in ("socket.connect", "socket.getaddrinfo"):
        _connections.append(f"{event} {arguments}")


sys.addaudithook(_hook)


@contextmanager
def nothing_fetched() -> Generator[None]:
    """Nobody in this process opens a connection, asks for a name, or reads a file it was told."""
    _connections.clear()
    _is_watching[0] = True
    try:
        yield
    finally:
        _is_watching[0] = False
    assert not _connections


async def rows(story: Story) -> list[Any]:
    """Every session, whole."""
    page = await story.auth.store.find(Session, Paging(order=("started_at", "id"), limit=200))
    return list(page.items)


async def refusals(story: Story, bent: Iterator[Bent]) -> int:
    """Offer each; all that were not refused as they should be, at once."""
    before, wrong, count = await rows(story), list[str](), 0
    with nothing_fetched():
        for what, token in bent:
            count += 1
            answer = await answered(story, token)
            shown = f"{answer.status_code} {answer.text[:100]}"
            if answer.status_code != 401 or answer.json()["code"] != "invalid_token":
                wrong.append(f"{what}: {shown}")
                continue
            problem(answer, 401, "invalid_token")
            challenge = answer.headers["www-authenticate"]
            if not challenge.startswith('Bearer error="invalid_token"'):
                wrong.append(f"{what}: {challenge}")
            octets = token if isinstance(token, bytes) else token.encode("utf-8", "surrogatepass")
            if octets and octets[:60] in answer.content:
                wrong.append(f"{what}: told back")
    assert not wrong, "\n".join(wrong[:30])
    assert await rows(story) == before  # nobody's session was touched, let alone ended
    return count


TABLE: tuple[tuple[Callable[[Forge], Iterator[Bent]], tuple[str, ...]], ...] = (
    (bends.flipped_bits, ("8: 9.1.1",)),
    (bends.algorithms, ("8: 9.1.2", "RFC 8725 §3.1", "RFC 8725 §3.2")),
    (bends.public_keys, ("8: 9.1.2", "CVE row 1")),
    (bends.foreign_keys, ("8: 9.1.3", "CVE row 4")),
    (bends.hostile_kids, ("8: 9.1.3", "RFC 8725 §3.10")),
    (bends.critical_headers, ("RFC 7515 §4.1.11", "RFC 8725 §3.6", "CVE row 3")),
    (bends.claims_of_another_sort, ("8: 9.2.1", "RFC 7519 §4.1")),
    (bends.issuers_and_audiences, ("8: 9.2.3-4", "CVE row 2")),
    (bends.kinds_of_jwt, ("8: 9.2.2", "RFC 8725 §3.11", "CVE row 5")),
    (bends.forms, ("RFC 8725 §3.7", "CVE row 11")),
    (bends.odd_json, ("RFC 8725 §3.7", "CVE row 11")),
    (bends.encrypted, ("RFC 8725 §3.6", "CVE row 9", "CVE row 10")),
)


@pytest.mark.parametrize(
    "bend",
    [
        pytest.param(bend, id=bend.__name__, marks=pytest.mark.standard(*marks))
        for bend, marks in TABLE
    ],
)
async def test_no_bent_token_is_believed(
    story: Story, bend: Callable[[Forge], Iterator[Bent]]
) -> None:
    made = await Forge.of(story)
    assert (await answered(story, made.token)).status_code == 200
    assert await refusals(story, bend(made)) > 10
    assert (await answered(story, made.token)).status_code == 200


async def test_what_the_forge_signs_would_be_believed_if_nothing_were_bent(story: Story) -> None:
    made = await Forge.of(story)
    for good in (
        made.signed(),
        made.changed(aud=[made.issuer]),
        made.changed(more="x"),
        made.headed(typ="application/at+jwt"),
        made.headed(typ="AT+JWT"),
    ):
        assert (await answered(story, good)).status_code == 200
    # An independent reader agrees that the forge's tokens are whole.
    if made.jwk is not None:
        read = jwt.decode(
            made.signed(),
            jwt.PyJWK(made.jwk).key,
            algorithms=[made.key.algorithm],
            audience=made.issuer,
            options={"verify_exp": False, "verify_iat": False},
        )
        assert read == made.claims


@pytest.mark.standard("8: 9.2.1")
async def test_a_token_that_is_over_says_so_and_no_more(story: Story) -> None:
    made = await Forge.of(story)
    for exp in (1, made.now - 3600, made.now):
        answer = await answered(story, made.changed(exp=exp))
        problem(answer, 401, "expired_token")
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.invariant("I-02", "I-21")
@pytest.mark.standard("8: 9.2.2", "RFC 8725 §3.8")
async def test_user_and_session_must_be_those_of_one_row(story: Story) -> None:
    made = await Forge.of(story)
    before = await rows(story)
    eve = (await story.log_in(EVE))["access_token"]
    theirs = jwt.decode(eve, options={"verify_signature": False})
    for change in (
        {"sub": theirs["sub"]},
        {"sid": theirs["sid"]},
        {"sub": "0" * 26},
        {"sub": "\ud800"},
        {"sub": "a\x00b"},
        {"sub": made.claims["sid"]},
        {"sub": made.claims["sub"] + " "},
        {"sub": "*"},
        {"sid": "0" * 26},
        {"sid": "x" * 1500},
        {"sid": "' OR 1=1 --"},
        {"sid": "\ud800"},
        {"sid": "a\x00b"},
        {"sid": "é" * 26},
        {"sid": made.claims["sub"]},
        {"sid": made.claims["sid"].swapcase(), "jti": "x"},
        {"sid": made.claims["sid"] + " "},
    ):
        answer = await answered(story, made.changed(**change))
        assert answer.status_code == 401, (change, answer.text)
        assert answer.json()["code"] in ("invalid_token", "revoked_token"), change
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert [row for row in await rows(story) if row.id != theirs["sid"]] == before


@pytest.mark.invariant("I-11")
@pytest.mark.standard("8: 9.2.3-4", "RFC 8725 §3.8")
async def test_a_token_of_another_pool_realm_or_audience_is_refused(sqlite_url: str) -> None:
    with cheap_hashing():
        async with telling(sqlite_url) as here:
            await here.join(ADA)
            ours = (await here.log_in(ADA))["access_token"]
            for other in (
                {"realm": "another"},
                {"audience": "https://api.example.com"},
                {"public_url": "http://localhost:8001"},
            ):
                async with neighbour(here, sqlite_url, **other) as there:
                    if "realm" in other:
                        await there.join(ADA, ANOTHER)
                    password = ANOTHER if "realm" in other else PASSWORD
                    theirs = (await there.log_in(ADA, password))["access_token"]
                    problem(await here.me(theirs), 401, "invalid_token")
                    problem(await there.me(ours), 401, "invalid_token")
                    assert (await there.me(theirs)).status_code == 200
            assert (await here.me(ours)).status_code == 200


@pytest.mark.standard("CVE row 32")
async def test_what_we_sign_for_other_ends_is_no_session(story: Story) -> None:
    made = await Forge.of(story)
    for typ in ("at+jwt", "JWT"):
        for claims in (made.claims, {"nonce": "n", "exp": made.now + 60}, {"state": "s"}):
            value = made.signed(claims, {**made.header, "typ": typ})
            async with browser(story.app, Cookie=f"session={value}") as client:
                problem(await client.get("/auth/me"), 401, "invalid_token")


# How much is read, not how long it takes: machines are noisy. The algorithm is all one here.

ONE = pytest.mark.parametrize("story", ["ES256"], indirect=True, scope="module")

MOST = 16 * 1024  # octets that one call may hash or decode


@pytest.fixture
def weighed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of everything that our modules hash or decode."""
    sizes: list[int] = []

    def weighing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            sizes.extend(len(each) for each in given if isinstance(each, str | bytes))
            return real(*given, **named)

        return call

    watched = {id(real): weighing(real) for real in (hashlib.sha256, base64url.decoded)}
    monkeypatch.setattr(hashlib, "sha256", watched[id(hashlib.sha256)])
    for name, module in list(sys.modules.items()):
        if name.startswith("watchword."):
            for attribute, value in list(vars(module).items()):
                if id(value) in watched:
                    monkeypatch.setattr(module, attribute, watched[id(value)])
    return sizes


@ONE
@pytest.mark.standard("8: size", "CVE row 8", "8: bis §3.13")
async def test_an_oversize_token_is_refused_before_it_is_read(
    story: Story, weighed: list[int]
) -> None:
    made = await Forge.of(story)
    assert weighed, "nothing was weighed: the test means nothing"
    weighed.clear()
    await refusals(story, bends.oversize(made))
    assert max(weighed, default=0) <= MOST


@ONE
@pytest.mark.standard("8: size")
@pytest.mark.parametrize("name", ["session", "device", "csrf", "refresh", "access", "other"])
async def test_an_oversize_cookie_is_refused_before_it_is_read(
    story: Story, name: str, weighed: list[int]
) -> None:
    for value in ("x" * 10_000_000, "wwc_" + "x" * 5_000_000, ";" * 1_000_000, "a=b;" * 200_000):
        weighed.clear()
        async with browser(story.app, Cookie=f"{name}={value}") as client:
            answer = await client.get("/auth/me")
            assert answer.status_code in (400, 401, 431), answer.text
            for path in ("/auth/refresh", "/auth/logout"):
                answer = await client.post(path)
                assert 400 <= answer.status_code < 500, answer.text
        assert max(weighed, default=0) <= MOST


@ONE
@pytest.mark.standard("8: size")
async def test_oversize_headers_and_fields_are_refused_before_they_are_read(
    story: Story, weighed: list[int]
) -> None:
    long = "x" * 5_000_000
    async with browser(story.app) as client:
        await story.log_in(transport="cookie", client=client)
        weighed.clear()
        for headers in (
            {"X-CSRF-Token": long},
            {"Origin": long},
            {"Sec-Fetch-Site": long},
            {"X-CSRF-Token": f"{long}.1.{long}"},
        ):
            problem(await client.post("/auth/logout", headers=headers), 403, "csrf_refused")
        for headers in ({"User-Agent": long}, {"X-Forwarded-For": "1," * 2_000_000}):
            assert (await client.get("/auth/me", headers=headers)).status_code == 200
        assert max(weighed, default=0) <= MOST
    for path, field in (("refresh", "refresh_token"), ("logout", "refresh_token")):
        weighed.clear()
        answer = await story.client.post(f"/auth/{path}", json={field: long})
        assert answer.status_code in (413, 422), answer.text
        assert max(weighed, default=0) <= MOST


@ONE
async def test_a_scheme_without_end_is_nobody(story: Story) -> None:
    for value in ("x" * 1_000_000, "Bearer" + "x" * 1_000_000, "Bearer\t" + "x" * 100, "bearer"):
        answer = await story.client.get("/auth/me", headers={"Authorization": value})
        assert answer.status_code == 401
    made = await Forge.of(story)
    twice = headers_of(made.token) * 2
    problem(await story.client.get("/auth/me", headers=twice), 401, "invalid_token")
    other = [*headers_of(made.token), *headers_of(b64("x"))]
    problem(await story.client.get("/auth/me", headers=other), 401, "invalid_token")
    assert (await story.client.get("/auth/me", headers=bearer(made.token))).status_code == 200
