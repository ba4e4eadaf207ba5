"""Every kind of token that we hand out, offered to everything that takes one.

What is handed out and what takes something is found in the code (`found.py`). Whoever adds a kind
teaches this test to mint it; whoever adds a place where one is presented, to offer it there.
"""

import contextlib
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Response

from tests.attacks.found import consumers, kinds
from tests.attacks.owing import Owing
from tests.told import ANOTHER, ENVIRON, PASSWORD, Story, browser, cookie_session, csrf_of, telling
from watchword import requires
from watchword.crypto.keys import generate_secret
from watchword.features.passwords import Password
from watchword.storage.store import where
from watchword.testing.story import ORIGIN, bearer, without_limits

SETTINGS = {
    "WATCHWORD_SESSIONS__MAX_SESSIONS": "100",
    "WATCHWORD_TOKENS__COOKIE_PAIR": "true",
}


@dataclass
class Holder:
    """Somebody of whom we have one specimen, with a browser of their own."""

    story: Story
    owing: Owing
    number: int
    browser: httpx.AsyncClient
    access: str = ""
    session: str = ""  # the cookie of another browser of theirs
    csrf: str = ""  # that goes with it
    user_id: str = ""
    email: str = ""

    async def begin(self, *, is_verified: bool) -> None:
        self.email = f"holder{self.number}@example.com"
        user = await self.story.auth.passwords.create_user(
            email=self.email, password=PASSWORD, is_verified=is_verified
        )
        self.user_id = user.id
        await self.begin_again()

    async def begin_again(self) -> None:
        self.access = (await self.log_in())["access_token"]
        async with browser(self.story.app) as other:
            await cookie_session(self.story, other, email=self.email)
            self.session, self.csrf = other.cookies["session"], other.cookies["csrf"]

    async def log_in(self, transport: str = "bearer", **more: Any) -> dict[str, Any]:
        body = {"email": self.email, "password": PASSWORD, "transport": transport, **more}
        answer = await self.browser.post("/auth/login", json=body)
        answer.raise_for_status()
        return answer.json()  # type: ignore[no-any-return]

    async def mailed(self, path: str, prefix: str, **body: str) -> str:
        answer = await self.browser.post(f"/auth/{path}", json=body, headers=bearer(self.access))
        assert answer.status_code < 300, answer.text
        await self.story.mails()
        return self.story.outbox.token(body.get("new_email", self.email), prefix)

    async def owes(self, path: str, **body: str) -> str:
        """What a refusal says is owed; from then on nothing is."""
        self.owing.debtors.add(self.user_id)
        headers = bearer(self.access) if path == "reauthenticate" else {}
        answer = await self.browser.post(f"/auth/{path}", json=body, headers=headers)
        self.owing.debtors.discard(self.user_id)
        assert answer.status_code == 403, answer.text
        return str(answer.json()["challenge"])


# How each kind is minted, by the running system.


async def access_token(holder: Holder) -> str:
    return str((await holder.log_in())["access_token"])


async def refresh_token(holder: Holder) -> str:
    return str((await holder.log_in())["refresh_token"])


async def remembered_refresh_token(holder: Holder) -> str:
    return str((await holder.log_in(remember=True))["refresh_token"])


async def refresh_cookie(holder: Holder) -> str:
    await holder.log_in("hybrid")
    return holder.browser.cookies["refresh"]


async def access_cookie(holder: Holder) -> str:
    await holder.log_in("cookie_pair")
    return holder.browser.cookies["access"]


async def session_cookie(holder: Holder) -> str:
    await holder.log_in("cookie")
    return holder.browser.cookies["session"]


async def device_cookie(holder: Holder) -> str:
    await holder.log_in("cookie")
    return holder.browser.cookies["device"]


async def csrf_token(holder: Holder) -> str:
    return holder.csrf


async def reset_token(holder: Holder) -> str:
    return await holder.mailed("password-reset-request", "wwp", email=holder.email)


async def verification_token(holder: Holder) -> str:
    return await holder.mailed("verify-email-request", "wwv", email=holder.email)


async def confirmation_token(holder: Holder) -> str:
    new = f"new.{holder.email}"
    return await holder.mailed("email/change", "wwe", new_email=new, current_password=PASSWORD)


async def undo_token(holder: Holder) -> str:
    token, old = await confirmation_token(holder), holder.email
    body = {"token": token, "password": PASSWORD}
    answer = await holder.browser.post(
        "/auth/email/confirm", json=body, headers=bearer(holder.access)
    )
    assert answer.status_code == 204, answer.text
    await holder.story.mails()
    holder.email = f"new.{old}"
    await holder.begin_again()
    return holder.story.outbox.token(old, "wwu")


async def sign_in_challenge(holder: Holder) -> str:
    return await holder.owes("login", email=holder.email, password=PASSWORD)


async def password_change_challenge(holder: Holder) -> str:
    """Of a sign-in that owes another password; its holder's sessions live."""
    await holder.story.auth.store.update(
        Password, where(user_id=holder.user_id), change_owed="common"
    )
    body = {"email": holder.email, "password": PASSWORD}
    answer = await holder.browser.post("/auth/login", json=body)
    assert answer.status_code == 401, answer.text
    return str(answer.json()["challenge"])


async def reauthentication_challenge(holder: Holder) -> str:
    return await holder.owes("reauthenticate", method="password", password=PASSWORD)


async def api_key(holder: Holder) -> str:
    answer = await holder.browser.post(
        "/auth/api-keys", json={"name": "probe"}, headers=bearer(holder.access)
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


async def service_token(holder: Holder) -> str:
    name, services = f"service{holder.number}", holder.story.auth.services
    await services.grant(name, audience=services.audience)
    return await services.token(name, audience=services.audience)


async def root_secret(holder: Holder) -> str:
    return holder.story.auth.core.secret.reveal()  # type: ignore[union-attr]


async def fresh_root_secret(holder: Holder) -> str:
    return generate_secret().reveal()


async def bare_service_token(holder: Holder) -> str:
    return (await service_token(holder)).removeprefix("wwx_")


async def hashed_address(holder: Holder) -> str:
    return holder.story.auth.clients.hashed("192.0.2.1")


async def key_of_a_limit(holder: Holder) -> str:
    return holder.story.auth.limits.signer.mac(holder.email.encode())


async def key_of_a_lock(holder: Holder) -> str:
    return holder.story.auth.lockout.signer.mac(holder.email.encode())


async def signed_value(holder: Holder) -> str:
    auth = holder.story.auth
    return auth.signer("probe").sign(
        holder.user_id, expires_at=auth.clock.now() + timedelta(minutes=5)
    )


async def signed_cookie(holder: Holder) -> str:
    made, response = holder.story.auth.signed_cookie("own", lives=timedelta(hours=1)), Response()
    made.set(response, holder.user_id)
    return response.headers["set-cookie"].partition("=")[2].partition(";")[0].strip('"')


async def session_id(holder: Holder) -> str:
    page = await holder.browser.get("/auth/sessions", headers=bearer(holder.access))
    return str(page.json()["items"][0]["id"])


async def user_id(holder: Holder) -> str:
    return holder.user_id


USER = "Authorization where session counts"
REFRESH = "POST /auth/refresh refresh_token"
LOGOUT = "POST /auth/logout refresh_token"


@dataclass(frozen=True)
class Kind:
    """One thing that we hand out: what of the code it is, and the doors that it opens."""

    found: str  # as `kinds()` names it
    mint: Callable[[Holder], Awaitable[str]]
    opens: tuple[str, ...] = ()
    is_verified: bool = True  # its holder

    @property
    def name(self) -> str:
        return self.mint.__name__


KINDS = (
    Kind("at+jwt", access_token, (USER, "cookie access")),
    Kind("at+jwt", access_cookie, (USER, "cookie access")),
    Kind("wwr_", refresh_token, (REFRESH, LOGOUT)),
    Kind("wwr_", refresh_cookie, (REFRESH, LOGOUT, "cookie refresh")),
    Kind("wwm_", remembered_refresh_token, (REFRESH, LOGOUT)),
    Kind("wwc_", session_cookie, ("cookie session",)),
    Kind("wwd_", device_cookie, ("cookie device",)),
    Kind("signed:csrf", csrf_token, ("header x-csrf-token", "form field csrf_token")),
    Kind("wwp_", reset_token, ("POST /auth/password-reset token",)),
    Kind("wwv_", verification_token, ("POST /auth/verify-email token",), is_verified=False),
    Kind("wwe_", confirmation_token, ("POST /auth/email/confirm token",)),
    Kind("wwu_", undo_token, ("POST /auth/email/undo token",)),
    Kind("wwh_", sign_in_challenge, ("POST /auth/login/continue challenge",)),
    Kind("wwh_", password_change_challenge, ("POST /auth/password/change-required challenge",)),
    Kind("wwh_", reauthentication_challenge, ("POST /auth/reauthenticate/continue challenge",)),
    Kind("wwk_", api_key, ("Authorization where api_key counts",)),
    Kind("wwx_", service_token, ("Authorization where service counts",)),
    Kind("service+jwt", bare_service_token),
    Kind("wws_", root_secret),
    Kind("wws_", fresh_root_secret),
    Kind("signed:address", hashed_address),
    Kind("signed:limits", key_of_a_limit),
    Kind("signed:lockout", key_of_a_lock),
    Kind("signed:app:", signed_value),
    Kind("signed:app-cookie:", signed_cookie),
    Kind("", session_id),
    Kind("", user_id),
)


@dataclass(frozen=True)
class Offer:
    """One specimen on its way to one consumer."""

    story: Story
    holder: Holder
    token: str

    async def anonymous(self, method: str, path: str, **given: Any) -> httpx.Response:
        async with browser(self.story.app, Origin=ORIGIN) as client:
            return await client.request(method, path, **given)

    async def body(self, consumer: dict[str, Any]) -> bool:
        """In a field of JSON, with whatever else the route asks for, and by its rightful owner."""
        others = {"password": PASSWORD, "new_password": ANOTHER, "current_password": PASSWORD}
        body = {name: text for name, text in others.items() if name in consumer["fields"]}
        body[consumer["field"]] = self.token
        headers = bearer(self.holder.access) if consumer["needs_session"] else {}
        answer = await self.holder.browser.request(
            consumer["method"], consumer["path"], json=body, headers=headers
        )
        return _judged(answer)

    async def authorization(self, kind: str) -> bool:
        path = f"/probe/{kind}"
        answer = await self.anonymous("GET", path, headers=bearer(self.token))
        for scheme in ("Basic", "DPoP", "ApiKey") if kind == "session" else ():
            other = await self.anonymous(
                "GET", path, headers={"Authorization": f"{scheme} {self.token}"}
            )
            assert not _judged(other)
        return _judged(answer)

    async def cookie(self, name: str) -> bool:
        """Each at the route that reads it."""
        cookie = {"Cookie": f"{name}={self.token}"}
        match name:
            case "session" | "access":
                return _judged(await self.anonymous("GET", "/probe/session", headers=cookie))
            case "refresh":
                # With the CSRF token of whatever session the holder's browser has.
                headers = {**cookie, **csrf_of(self.holder.browser)}
                return _judged(await self.anonymous("POST", "/auth/refresh", headers=headers))
            case "device":
                body = {"email": self.holder.email, "password": PASSWORD, "transport": "cookie"}
                answer = await self.anonymous("POST", "/auth/login", json=body, headers=cookie)
                # Its holder may owe another password: that sign-in is bound to the device as well.
                owes = answer.json().get("code") == "password_change_required"
                assert answer.status_code == (401 if owes else 200), answer.text
                # One that is not ours is replaced, or it would name a device of the attacker's.
                return answer.cookies.get("device") in (None, self.token)
            case "csrf":
                return await self.proven({"Cookie": cookie["Cookie"]})
            case _:
                raise LookupError(f"teach this test to offer the cookie {name}")

    async def proven(self, headers: dict[str, str], **given: Any) -> bool:
        """As proof of where a request comes from that is made with the holder's session cookie."""
        session = f"session={self.holder.session}"
        held = headers.pop("Cookie", None)
        together = session if held is None else f"{session}; {held}"
        answer = await self.anonymous(
            "POST", "/probe/post", headers={"Cookie": together, **headers}, **given
        )
        return _judged(answer)

    async def to(self, name: str, consumer: dict[str, Any]) -> bool:
        """Is it taken there?"""
        kind, _, rest = name.partition(" ")
        if "path" in consumer:
            return await self.body(consumer)
        if kind == "Authorization":
            return await self.authorization(name.split()[2])
        if kind == "cookie":
            return await self.cookie(rest)
        if name == "header x-csrf-token":
            return await self.proven({"X-CSRF-Token": self.token})
        if name == "form field csrf_token":
            return await self.proven({}, data={"csrf_token": self.token})
        raise LookupError(f"teach this test to offer something as {name}")


def _judged(answer: httpx.Response) -> bool:
    if answer.status_code < 400:
        return True
    assert answer.status_code in (400, 401, 403, 422), answer.text
    return False


Makes = Callable[[Kind], Awaitable[Holder]]


@pytest.fixture(params=["cached", "stateless"])
async def holders(request: pytest.FixtureRequest) -> AsyncGenerator[Makes, None]:
    """Makes somebody new at each call."""
    owing, numbers, app = Owing(), itertools.count(1), FastAPI()
    for kind in ("session", "api_key", "service"):
        app.get(f"/probe/{kind}", dependencies=[requires(accepts=[kind])])(_probed)
    app.post("/probe/post", dependencies=[requires()])(_probed)
    async with contextlib.AsyncExitStack() as stack:
        story = await stack.enter_async_context(
            telling(
                environ={**ENVIRON, **SETTINGS},
                token_check=request.param,
                features=[*without_limits(), owing.feature()],
                app=app,
            )
        )

        async def another(kind: Kind) -> Holder:
            client = await stack.enter_async_context(browser(story.app))
            holder = Holder(story=story, owing=owing, number=next(numbers), browser=client)
            await holder.begin(is_verified=kind.is_verified)
            return holder

        yield another


async def _probed() -> str:
    return "taken"


def test_everything_that_we_hand_out_is_known_here() -> None:
    taught = {kind.found for kind in KINDS} - {""}
    assert kinds() == taught, f"teach this test to mint {kinds() ^ taught}"


@pytest.mark.capability("S2-14")
@pytest.mark.invariant("I-02", "I-03", "I-25")
@pytest.mark.standard("8: 9.2.2", "CVE row 26", "CVE row 32", "CVE row 36")
async def test_every_kind_opens_its_own_doors_and_no_other(
    holders: Makes, say: Callable[[str], None]
) -> None:
    doors: dict[str, dict[str, Any]] = {}
    held: list[tuple[Kind, Holder, str]] = []
    for kind in KINDS:
        holder = await holders(kind)
        token = await kind.mint(holder)
        doors = doors or consumers(holder.story.app.openapi())
        held.append((kind, holder, token))
    unknown = {door for kind in KINDS for door in kind.opens} - doors.keys()
    assert not unknown, f"these doors are gone: {unknown}"
    # First every wrong door, then the right ones: so no wrong one has spent or ended anything.
    wrong: list[str] = []
    offers = 0
    for kind, holder, token in held:
        for door in doors.keys() - set(kind.opens):
            offers += 1
            if await Offer(holder.story, holder, token).to(door, doors[door]):
                wrong.append(f"{kind.name} opened {door}")
    assert not wrong, "\n".join(wrong)
    accepted = 0
    for kind, first, token in held:
        holder = first
        for place, door in enumerate(kind.opens):
            if place:  # some are used up: another one, of somebody else
                holder = await holders(kind)
                token = await kind.mint(holder)  # noqa: PLW2901
            offers += 1
            taken = await Offer(holder.story, holder, token).to(door, doors[door])
            assert taken, f"{kind.name} does not open {door}"
            accepted += 1
    opened = {door for kind in KINDS for door in kind.opens}
    say(
        f"matrix: {len(KINDS)} kinds x {len(doors)} consumers = {offers} offers, "
        f"{accepted} accepted on the diagonal"
    )
    # The CSRF cookie is read by scripts only: the server believes no value of it.
    assert doors.keys() - opened == {"cookie csrf"}
