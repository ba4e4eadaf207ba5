"""Cookies: their attributes, how they are read, and those of the application's own."""

import logging
import time
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response

from tests.told import (
    ADA,
    ORIGIN,
    PRODUCTION,
    SITE,
    Story,
    browser,
    cookie_session,
    csrf_of,
    problem,
    telling,
)
from watchword import CurrentUser, OptionalUser, Watchword
from watchword.crypto.keys import generate_secret
from watchword.crypto.signing import SignatureRefused, Signer
from watchword.http.cookies import LONGEST, Cookies, cookies_for, jar_of, read_cookie
from watchword.kernel.errors import ConfigurationError
from watchword.kernel.settings import CookieSettings

HOST = "Path=/; SameSite=lax; Secure"
TABLE = {  # name: attributes that it is set and cleared with
    "__Host-session": f"HttpOnly; {HOST}",
    "__Host-csrf": HOST,
    "__Secure-refresh": "HttpOnly; Path=/auth; SameSite=strict; Secure",
    "__Host-access": f"HttpOnly; {HOST}",
    "__Host-device": f"HttpOnly; {HOST}",
}


def attributes(text: str) -> tuple[str, str, str]:
    """Name, value and the attributes of a Set-Cookie, but for its age."""
    pair, *rest = text.split("; ")
    name, _, value = pair.partition("=")
    kept = sorted(each for each in rest if not each.startswith("Max-Age="))
    return name, value, "; ".join(kept)


def made(settings: CookieSettings | None = None, *, secure: bool = True) -> Cookies:
    return cookies_for(settings or CookieSettings(), prefix="/auth", secure=secure)


def each(cookies: Cookies) -> list[Any]:
    return [getattr(cookies, name) for name in ("session", "csrf", "refresh", "access", "device")]


@pytest.mark.invariant("I-03")
@pytest.mark.capability("S0-51", "S0-52", "S0-76", "S4-06", "S4-07", "DEF-34")
@pytest.mark.standard("3.3.1, 3.3.3", "3.3.2, 3.3.4-5", "6265bis §4.1.3", "3.5.4")
@pytest.mark.parametrize("secure", [True, False])
def test_a_cookie_is_taken_back_as_it_was_set(secure: bool) -> None:
    answer = Response()
    for cookie in each(made(secure=secure)):
        cookie.set(answer, "x", lives=timedelta(minutes=5))
        cookie.clear(answer)
    given = [attributes(text) for text in answer.headers.getlist("set-cookie")]
    wanted = [
        (
            name if secure else name.partition("-")[2],
            kept if secure else kept.replace("; Secure", ""),
        )
        for name, kept in TABLE.items()
    ]
    assert [(name, kept) for name, _, kept in given[::2]] == wanted
    assert [(name, kept) for name, _, kept in given[1::2]] == wanted
    for text in answer.headers.getlist("set-cookie")[1::2]:
        assert '=""; ' in text
        assert "Max-Age=0" in text
    assert "Domain" not in str(answer.headers)


@pytest.mark.capability("S0-51", "S0-52", "S0-76", "S4-07", "DEF-34")
@pytest.mark.parametrize(
    ("settings", "origin"),
    [
        (PRODUCTION, SITE),
        ({}, ORIGIN),
        ({"public_url": "https://localhost:8000"}, "https://localhost:8000"),
    ],
    ids=["production", "development", "development-https"],
)
async def test_after_signing_out_the_jar_holds_no_way_in(
    settings: dict[str, Any], origin: str
) -> None:
    async with telling(**settings) as story, browser(story.app, origin) as ada:
        await story.join()
        await story.log_in(transport="cookie", client=ada)
        named = {cookie.name for cookie in ada.cookies.jar}
        prefix = "__Host-" if origin.startswith("https") else ""
        assert {f"{prefix}session", f"{prefix}csrf"} <= named
        for cookie in ada.cookies.jar:
            assert cookie.secure == origin.startswith("https")
            assert cookie.domain_specified is False
            assert cookie.expires is not None
            assert cookie.expires <= time.time() + LONGEST.total_seconds() + 60
        assert (await ada.get("/auth/me")).json()["email"] == ADA
        assert (await ada.post("/auth/logout", headers=csrf_of(ada))).status_code == 204
        assert {cookie.name for cookie in ada.cookies.jar} <= {f"{prefix}device"}


def test_a_cookie_is_no_larger_and_no_older_than_browsers_keep() -> None:
    answer = Response()
    session = made().session
    session.set(answer, "x", lives=timedelta(days=4000))
    assert "Max-Age=34560000;" in answer.headers["set-cookie"]
    with pytest.raises(ValueError, match="4096"):
        session.set(answer, "x" * 4090, lives=None)
    answer = Response()
    session.set(answer, "x" * 4000, lives=None)
    assert "Max-Age" not in answer.headers["set-cookie"]


@pytest.mark.capability("S0-51")
async def test_names_are_settings_and_prefixes_are_not() -> None:
    named = {"session": "app_session", "csrf": "app_csrf", "session_same_site": "strict"}
    async with telling(**PRODUCTION, cookies=named) as story, browser(story.app, SITE) as ada:
        await story.join()
        await story.log_in(transport="cookie", client=ada)
        assert "__Host-app_session" in ada.cookies
        assert "__Host-app_csrf" in ada.cookies
        assert (await ada.get("/auth/me")).status_code == 200
        elsewhere = browser(story.app, SITE)
        cookie = {"Cookie": f"__Host-session={ada.cookies['__Host-app_session']}"}
        problem(await elsewhere.get("/auth/me", headers=cookie), 401, "not_authenticated")


@pytest.mark.parametrize(
    "names",
    [
        {"session": "csrf"},
        {"access": "Session"},
        {"device": "x", "refresh": "x"},
        {"session": "__Host-session"},
        {"session": "__Secure-session"},
        {"session": ""},
        {"session": "a b"},
        {"session": "a;b"},
        {"session": "a=b"},
        {"session": "é"},
        {"session": "x" * 65},
        {"session": "x\n"},
        {"session_same_site": "none"},
        {"sesion": "x"},
    ],
    ids=str,
)
def test_names_that_cannot_be_stop_the_start(names: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="cookies"):
        Watchword(
            "sqlite://",
            environ={},
            environment="development",
            secret=generate_secret(),
            cookies=names,  # type: ignore[arg-type]
        )


def whoami() -> FastAPI:
    app = FastAPI()

    @app.get("/me")
    async def me(user: CurrentUser) -> str:
        return user.email

    @app.get("/perhaps")
    async def perhaps(user: OptionalUser) -> str:
        return user.email if user else "nobody"

    return app


@pytest.mark.invariant("I-21")
@pytest.mark.capability("DEF-06")
@pytest.mark.standard("6265bis §4.1.3")
async def test_what_a_sub_domain_may_toss_is_not_read() -> None:
    async with telling(app=whoami(), **PRODUCTION) as story:
        await story.join()
        ada, eve = browser(story.app, SITE), browser(story.app, SITE)
        await story.join("eve@example.com")
        await story.log_in(transport="cookie", client=ada)
        await story.log_in("eve@example.com", transport="cookie", client=eve)
        mine, theirs = (one.cookies["__Host-session"] for one in (ada, eve))
        for tossed in (
            f"session={theirs}",
            f"__Secure-session={theirs}",
            f"__host-session={theirs}",
            f"__HOST-SESSION={theirs}",
            f"__Host-session ={theirs}",
            f"x__Host-session={theirs}",
            f"=__Host-session={theirs}",
            f"__Host-session%3D{theirs}",
            f"\x0b__Host-session={theirs}",
            f"\xa0__Host-session={theirs}",
            f"\xe2\x80\x80__Host-session={theirs}",
            f'$Version=1,__Host-session="{theirs}"',
            f"__Host-session{theirs}",
            "__Host-session",
        ):
            for cookie in (f"{tossed}; __Host-session={mine}", f"__Host-session={mine};{tossed}"):
                sent = [(b"cookie", cookie.encode("latin-1"))]
                answer = await browser(story.app, SITE).get("/me", headers=sent)
                assert (answer.status_code, answer.json()) == (200, ADA), tossed
            alone = [(b"cookie", tossed.encode("latin-1"))]
            answer = await browser(story.app, SITE).get("/me", headers=alone)
            problem(answer, 401, "not_authenticated")
        # Where a browser lets one through under the very name, it stands twice: nobody's.
        for cookie in (f"__Host-session={theirs}; __Host-session={mine}",):
            answer = await browser(story.app, SITE).get("/me", headers={"Cookie": cookie})
            problem(answer, 401, "invalid_token")
        for value in (f'"{mine}"', f" {mine}", f"{mine} x", f"{mine},", f"{mine[:-1]}", f"{mine}="):
            sent = {"Cookie": f"__Host-session={value}"}
            answer = await browser(story.app, SITE).get("/me", headers=sent)
            problem(answer, 401, "invalid_token")
            answer = await browser(story.app, SITE).get("/perhaps", headers=sent)
            assert answer.json() == "nobody"
            assert answer.headers["set-cookie"].startswith('__Host-session=""; HttpOnly; Max-Age=0')


def test_reading_is_bounded_and_exact() -> None:
    headers = [(b"cookie", b"a=1; b=2"), (b"Cookie", b"a=9"), (b"cookie", b" a=3;a = 4;a;=a=5")]
    assert read_cookie(headers, b"a") == [b"1", b"3"]
    assert read_cookie(headers, b"c") == []
    assert read_cookie([(b"cookie", b"a=1;" + b"x" * 20_000)], b"a") == []
    assert read_cookie([(b"cookie", b"a=1")] * 20_000, b"a") == []
    assert jar_of(b"a=1=2; a=; b", (b"a", b"b")) == {b"a": [b"1=2", b""]}


# Cookies and values of the application's own


def signing(story: Story, **named: Any) -> FastAPI:
    """Routes that give, read and take back a cookie of the application's own."""
    cart = story.auth.signed_cookie("cart", lives=timedelta(hours=1), **named)

    @story.app.get("/give")
    async def give(value: str, response: Response) -> None:
        cart.set(response, value)

    @story.app.get("/shop/show")
    @story.app.get("/show")
    async def show(request: Request) -> str | None:
        return cart.read(request)

    @story.app.get("/drop")
    async def drop(response: Response) -> None:
        cart.clear(response)

    return story.app


@pytest.mark.capability("S3-11", "S3-21")
async def test_a_signed_cookie_comes_back_as_it_was_or_not_at_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "watchword.http")
    async with telling() as story, browser(signing(story)) as ada:
        for value in ("3 apples", "", "é; ü=\x00\n", "x" * 2000):
            answer = await ada.get("/give", params={"value": value})
            text = answer.headers["set-cookie"]
            assert attributes(text)[2] == "HttpOnly; Path=/; SameSite=lax"
            assert "Max-Age=3600" in text
            assert (await ada.get("/show")).json() == value
        await ada.get("/give", params={"value": "3 apples"})
        good = ada.cookies["cart"]
        value, until, mac = good.split(".")
        other = story.auth.signed_cookie("other", lives=timedelta(hours=1))
        below = story.auth.signed_cookie("cart", lives=timedelta(hours=1), path="/shop")
        answer = Response()
        for each_cookie in (other, below):
            each_cookie.set(answer, "3 apples")
        foreign = [attributes(text)[1] for text in answer.headers.getlist("set-cookie")]
        later = (story.clock.now() + timedelta(hours=1)).replace(microsecond=0)
        for wrong, why in (
            (f"{value}x.{until}.{mac}", "wrong signature"),
            (f"{value}.{int(until) + 1}.{mac}", "wrong signature"),
            (f"{value}..{mac}", "wrong signature"),
            (f"{value}.{until}.{mac[::-1]}", "wrong signature"),
            (f"{value}.{until}", "not a signed value"),
            ("3 apples", "not a signed value"),
            ("", "not a signed value"),
            (foreign[0], "wrong signature"),
            (foreign[1], "wrong signature"),
            (story.auth.signer("cart").sign("x", expires_at=later), "wrong signature"),
            (Signer(story.auth.secrets, "csrf").sign("x", expires_at=later), "wrong signature"),
            (f"{good}; cart={good}", "given twice"),
        ):
            caplog.clear()
            sent = {"Cookie": f"cart={wrong}"}
            answer_ = await browser(story.app).get("/show", headers=sent)
            assert answer_.json() is None, wrong
            assert [each.message for each in caplog.records] == [f"signed cookie cart: {why}"]
            assert value not in caplog.text
        caplog.clear()
        assert (await browser(story.app).get("/show")).json() is None
        assert caplog.text == ""
        story.move(hours=1)
        sent = {"Cookie": f"cart={good}"}
        assert (await browser(story.app).get("/show", headers=sent)).json() is None
        assert "signed cookie cart: expired" in caplog.text
        taken = (await ada.get("/drop")).headers["set-cookie"]
        assert taken == 'cart=""; HttpOnly; Max-Age=0; Path=/; SameSite=lax'


@pytest.mark.capability("S3-11")
async def test_a_signed_cookie_outlives_its_secret_for_as_long_as_that_is_listed() -> None:
    old, new = generate_secret(), generate_secret()
    async with telling(secret=old) as story, browser(signing(story)) as ada:
        await ada.get("/give", params={"value": "3 apples"})
        cookie = {"Cookie": f"cart={ada.cookies['cart']}"}
    for olds, found in (((old,), "3 apples"), ((), None)):
        async with telling(secret=new, old_secrets=olds) as story:
            answer = await browser(signing(story)).get("/show", headers=cookie)
            assert answer.json() == found


@pytest.mark.capability("S3-11")
async def test_a_signed_cookie_stays_below_its_path() -> None:
    async with telling(**PRODUCTION) as story:
        app = signing(story, path="/shop")
        async with browser(app, SITE) as ada:
            text = (await ada.get("/give", params={"value": "x"})).headers["set-cookie"]
            assert attributes(text)[::2] == (
                "__Secure-cart",
                "HttpOnly; Path=/shop; SameSite=lax; Secure",
            )
            assert (await ada.get("/shop/show")).json() == "x"
            assert (await ada.get("/show")).json() is None
            sent = {"Cookie": text.partition(";")[0].replace("__Secure-", "__Host-")}
            assert (await ada.get("/show", headers=sent)).json() is None


@pytest.mark.standard("CVE row 27", "CVE row 32")
@pytest.mark.capability("S3-11")
async def test_what_the_application_signs_is_nothing_of_ours() -> None:
    async with telling(app=whoami()) as story, browser(story.app) as ada:
        await story.join()
        headers = await cookie_session(story, ada)
        session = headers["X-CSRF-Token"]
        for purpose in ("csrf", "address", "x", "session", "app:csrf"):
            mine, ours = story.auth.signer(purpose), Signer(story.auth.secrets, purpose)
            with pytest.raises(SignatureRefused):
                mine.check(ours.sign("x"), now=story.clock.now())
            with pytest.raises(SignatureRefused):
                ours.check(mine.sign("x"), now=story.clock.now())
            assert not ours.mac_ok(b"x", mine.mac(b"x"))
            assert not mine.mac_ok(b"x", ours.mac(b"x"))
            signed = mine.sign(session, expires_at=story.clock.now() + timedelta(minutes=1))
            assert mine.check(signed, now=story.clock.now()) == session
            with pytest.raises(SignatureRefused):
                mine.check(signed, now=story.clock.now() + timedelta(minutes=1))
        with pytest.raises(ValueError, match="name what"):
            story.auth.signer("")


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "session"},
        {"name": "CSRF"},
        {"name": "device"},
        {"name": "__Host-x"},
        {"name": ""},
        {"name": "a b"},
        {"name": "x\n"},
        {"path": ""},
        {"path": "x"},
        {"path": "/a;Domain=example.com"},
        {"path": "/a\r\nX: y"},
        {"lives": timedelta(0)},
        {"lives": timedelta(days=401)},
    ],
    ids=str,
)
def test_a_cookie_of_ones_own_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    auth = Watchword("sqlite://", environ={}, environment="development", secret=generate_secret())
    right: dict[str, Any] = {"name": "cart", "lives": timedelta(hours=1)}
    with pytest.raises(ValueError, match="cookie"):
        auth.signed_cookie(**right | wrong)
