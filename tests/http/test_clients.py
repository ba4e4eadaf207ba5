"""Where a request comes from: trusted proxies, and what a session may be bound to."""

from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.told import ADA, PASSWORD, Story, csrf_of, problem, telling
from watchword import CurrentUser, Watchword
from watchword.crypto.keys import RootSecrets, generate_secret
from watchword.crypto.signing import Signer
from watchword.http.client import Clients, trusted_networks
from watchword.http.cookies import cookies_for
from watchword.kernel.errors import ConfigurationError
from watchword.kernel.settings import BindingSettings, CookieSettings
from watchword.testing.story import ORIGIN, bearer

SIGNER = Signer(RootSecrets(generate_secret()), "address")


def clients(*trusted: str, **settings: Any) -> Clients:
    return Clients(
        trusted=trusted_networks(trusted),
        device=cookies_for(CookieSettings(), prefix="/auth", secure=True).device,
        settings=BindingSettings(**settings),
        signer=SIGNER,
    )


def scope(peer: str | None, *forwarded: str | bytes) -> dict[str, Any]:
    values = [each.encode("latin-1") if isinstance(each, str) else each for each in forwarded]
    return {
        "type": "http",
        "client": None if peer is None else (peer, 1),
        "headers": [(b"x-forwarded-for", value) for value in values],
    }


@pytest.mark.invariant("I-22")
@pytest.mark.capability("S0-53", "DEF-10")
@pytest.mark.standard("CVE row 15")
@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # nobody's proxy
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),  # the left one was sent along
        ("10.0.0.1", ["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1,203.0.113.9,10.0.0.2 ,\t10.9.9.9"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.9, garbage"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9,"], "10.0.0.1"),
        ("10.0.0.1", ["unknown, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 10.0.0.2, x"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9:"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9:99:1"], "10.0.0.1"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
        ("10.0.0.1", ["[2001:db8::1"], "10.0.0.1"),
        ("10.0.0.1", ["2001:DB8:0::1"], "2001:db8::1"),
        ("10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["::ffff:10.0.0.2, 203.0.113.9, ::ffff:10.0.0.3"], "203.0.113.9"),
        ("10.0.0.1", ["fe80::1%eth0"], "fe80::1"),
        ("10.0.0.1", ["0xCB.0.113.9"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.09"], "10.0.0.1"),
        ("10.0.0.1", ["3405803785"], "10.0.0.1"),
        ("10.0.0.1", [b"\xff\xfe"], "10.0.0.1"),
        ("10.0.0.1", ["\u0662\u0660\u0663.0.113.9".encode()], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9" + ", 10.0.0.2" * 10], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9" + ", 10.0.0.2" * 500], "10.0.0.2"),
        ("10.0.0.1", [b"x" * 1_000_000], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9", *["10.0.0.2"] * 500], "10.0.0.2"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", [], "10.0.0.1"),
        ("2001:db8:ffff::1", ["203.0.113.9"], "203.0.113.9"),
        ("2001:db8:fffe::1", ["203.0.113.9"], "2001:db8:fffe::1"),
        ("fe80::5%eth0", [], "fe80::5"),
        ("testclient", ["203.0.113.9"], "testclient"),
        (None, ["203.0.113.9"], None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_address_is_the_peers_or_what_a_trusted_proxy_says(
    peer: str | None, forwarded: list[str | bytes], address: str | None
) -> None:
    ours = clients("10.0.0.0/8", "2001:db8:ffff::/48")
    assert ours.address_of(scope(peer, *forwarded)) == address
    assert clients().address_of(scope("10.0.0.1", "203.0.113.9")) == "10.0.0.1"


@pytest.mark.invariant("I-22")
@pytest.mark.parametrize("wrong", ["0.0.0.0/0", "::/0", "x", "", "10.0.0.1/8", "10.0.0.0/33", "*"])
def test_a_network_that_is_none_or_everybody_stops_the_start(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="WATCHWORD_TRUSTED_PROXIES"):
        Watchword(
            "sqlite://",
            environ={"WATCHWORD_TRUSTED_PROXIES": f"10.0.0.0/8,{wrong or ' x y'}"},
            environment="development",
            secret=generate_secret(),
        )


def test_a_network_of_both_families_is_one() -> None:
    assert trusted_networks(("::ffff:10.0.0.0/104",)) == (ip_network("10.0.0.0/8"),)


@pytest.mark.capability("S0-53", "DEF-10")
def test_a_binding_is_to_the_address_or_to_its_network_and_tells_neither() -> None:
    def bound(peer: str, **settings: Any) -> str | None:
        made = clients(**settings)
        return made.binding_of(made.of(scope(peer))).address

    assert bound("203.0.113.9") is None
    assert bound("203.0.113.9", address="address") != bound("203.0.113.8", address="address")
    assert bound("203.0.113.9", address="network") == bound("203.0.113.8", address="network")
    assert bound("203.0.113.9", address="network") != bound("203.0.112.9", address="network")
    six = ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1")
    assert len({bound(each, address="network") for each in six}) == 2
    assert bound("::ffff:203.0.113.9", address="address") == bound("203.0.113.9", address="address")
    assert bound("fe80::1%eth0", address="network") == bound("fe80::2", address="network")
    assert "203.0" not in str(bound("203.0.113.9", address="address"))


def whoami() -> FastAPI:
    app = FastAPI()

    @app.get("/me")
    @app.post("/me")
    async def me(user: CurrentUser) -> str:
        return user.email

    return app


def at(story: Story, address: str, **headers: str) -> httpx.AsyncClient:
    """A client whose peer address is this."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    transport = httpx.ASGITransport(app=story.app, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=named)


@pytest.mark.invariant("I-10")
@pytest.mark.capability("S0-53", "S0-55", "DEF-10")
@pytest.mark.parametrize("transport", ["bearer", "cookie"])
async def test_a_session_bound_to_an_address_is_refused_elsewhere(transport: str) -> None:
    options: dict[str, Any] = {
        "binding": {"address": "address"},
        "trusted_proxies": ("10.0.0.0/8",),
    }
    async with telling(app=whoami(), **options) as story:
        await story.join()
        home, away = at(story, "203.0.113.9"), at(story, "198.51.100.7")
        answer = await story.log_in(transport=transport, client=home)
        auth = bearer(answer["access_token"]) if transport == "bearer" else csrf_of(home)
        away.cookies = home.cookies
        for _ in range(3):  # misses and hits alike
            for method in ("GET", "POST"):
                assert (await home.request(method, "/me", headers=auth)).json() == ADA
                answer = await away.request(method, "/me", headers=auth)
                problem(answer, 403, "session_bound_elsewhere")
                # Whoever is no proxy of ours may say what he likes.
                for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Client-IP"):
                    spoofed = {**auth, name: "203.0.113.9"}
                    answer = await away.request(method, "/me", headers=spoofed)
                    problem(answer, 403, "session_bound_elsewhere")
        proxied = at(story, "10.0.0.1", X_Forwarded_For="198.51.100.7, 203.0.113.9")
        proxied.cookies = home.cookies
        assert (await proxied.get("/me", headers=auth)).json() == ADA
        spoofing = at(story, "10.0.0.1", X_Forwarded_For="203.0.113.9, 198.51.100.7")
        spoofing.cookies = home.cookies
        problem(await spoofing.get("/me", headers=auth), 403, "session_bound_elsewhere")
        # They may prove a factor again, and nothing else; that moves the binding.
        proof = {"method": "password", "password": PASSWORD}
        wrong = {**proof, "password": "a wrong guess"}
        answer = await away.post("/auth/reauthenticate", json=wrong, headers=auth)
        problem(answer, 401, "invalid_credentials")
        if transport == "cookie":
            answer = await away.post("/auth/reauthenticate", json=proof)
            problem(answer, 403, "csrf_refused")
        problem(await away.get("/me", headers=auth), 403, "session_bound_elsewhere")
        answer = await away.post("/auth/reauthenticate", json=proof, headers=auth)
        assert answer.status_code == 204, answer.text
        assert (await away.get("/me", headers=auth)).json() == ADA
        home.cookies = away.cookies  # the session's cookie was replaced
        problem(await home.get("/me", headers=auth), 403, "session_bound_elsewhere")


@pytest.mark.capability("S0-53", "S0-54", "DEF-10")
async def test_a_network_may_be_moved_in_and_a_fingerprint_may_be_held_to() -> None:
    options: dict[str, Any] = {"binding": {"address": "network", "fingerprint": "reject"}}
    async with telling(app=whoami(), **options) as story:
        await story.join()
        home = at(story, "203.0.113.9", User_Agent="Firefox", Accept_Language="de")
        auth = bearer((await story.log_in(client=home))["access_token"])
        near = at(story, "203.0.113.200", User_Agent="Firefox", Accept_Language="de")
        for client in (home, near, home):
            assert (await client.get("/me", headers=auth)).json() == ADA
        elsewhere, another = (403, "session_bound_elsewhere"), (401, "browser_changed")
        for address, agent, language, refused in (
            ("203.0.114.9", "Firefox", "de", elsewhere),
            ("203.0.114.9", "curl", "de", elsewhere),
            ("203.0.113.9", "curl", "de", another),
            ("203.0.113.9", "Firefox", "en", another),
            ("203.0.113.9", "", "", another),
        ):
            client = at(story, address, User_Agent=agent, Accept_Language=language)
            problem(await client.get("/me", headers=auth), *refused)
