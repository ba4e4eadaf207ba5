"""What is kept of what happens: who, what, when, from where, with what result, on which request."""

import base64
import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import text

from tests.told import (
    ADA,
    ANOTHER,
    EVE,
    PASSWORD,
    Story,
    browser,
    cookie_session,
    neighbour,
    problem,
    telling,
    texts_of,
)
from watchword.features.audit import AuditEntry, AuditErasure, AuthAction, audit, line_of
from watchword.features.audit.refusals import Refusals
from watchword.features.lockout import lockout
from watchword.kernel.errors import InvalidInput
from watchword.kernel.events import Event
from watchword.kernel.secrets import Secret
from watchword.presets import standard
from watchword.storage.store import Paging
from watchword.testing.story import bearer, without_limits

pytestmark = pytest.mark.slow  # scripts/test runs them

AGENT = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"
PROXY: dict[str, Any] = {"trusted_proxies": ["127.0.0.1"]}  # whose request ids are believed
HOME = "203.0.113.7"

KEYS = {
    **dict.fromkeys(("id", "at", "realm", "action", "event", "result", "actor"), (str,)),
    **dict.fromkeys(("user_id", "session_id", "request_id", "app"), (str, type(None))),
    **dict.fromkeys(("account", "address", "user_agent"), (str, type(None))),
    "details": (dict,),
    "seal": (int, type(None)),
}


def with_audit(**options: Any) -> list[Any]:
    """All features, audit with these settings."""
    return [*(each for each in without_limits() if each.name != "audit"), audit(**options)]


async def entries(story: Story, **conditions: object) -> list[AuditEntry]:
    """All, the oldest first."""
    paging = Paging(order=("at", "id"), limit=500)
    return list((await story.auth.store.find(AuditEntry, paging, **conditions)).items)


async def last(story: Story, action: str) -> AuditEntry:
    """The newest of this action."""
    return (await story.auth.audit.recent(action=action)).items[0]


def fits_the_schema(line: str) -> dict[str, Any]:
    """One line, one object, always the same keys (16.2.2)."""
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert line.rstrip("\n").isprintable()
    view: dict[str, Any] = json.loads(line)
    assert set(view) == set(KEYS)
    for name, kinds in KEYS.items():
        assert isinstance(view[name], kinds), (name, view[name])
    assert datetime.fromisoformat(view["at"]).utcoffset() == timedelta(0)
    assert view["result"] in ("success", "failure")
    assert len(line) < 5000
    return view


class Visitor:
    """Somebody at home, with a browser, whose requests have ids."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.requests = 0

    async def send(
        self, path: str, body: object = None, *, method: str = "POST", **headers: str
    ) -> httpx.Response:
        self.requests += 1
        self.story.move(seconds=0.001)  # what happens at one instant is in no order
        named = {
            "User-Agent": AGENT,
            "X-Forwarded-For": HOME,
            "X-Request-ID": self.request_id,
            **headers,
        }
        async with self.story.another_client() as client:
            return await client.request(method, path, json=body, headers=named)

    @property
    def request_id(self) -> str:
        """Of the last request."""
        return f"request{self.requests:019d}"

    async def sees(
        self, action: AuthAction, result: str = "success", *, actor: str = "anonymous", **about: Any
    ) -> AuditEntry:
        """The newest entry of this action is of the last request."""
        entry = await last(self.story, action)
        home = self.story.auth.audit.writer.hashed("address", HOME)
        assert (entry.result, entry.request_id) == (result, self.request_id)
        assert (entry.address, entry.user_agent, entry.app) == (home, AGENT, "watchword")
        assert entry.at == self.story.clock.now()
        assert entry.actor == actor
        for name, value in about.items():
            assert getattr(entry, name) == value, name
        fits_the_schema(line_of(entry, "jsonl"))
        return entry


@pytest.mark.capability("S0-93", "S0-94", "S0-96", "S1-39", "DEF-31", "DEF-32", "S3-04")
@pytest.mark.standard("14: 16.2.1", "14: 16.2.4", "14: 16.3.1")
async def test_each_flow_leaves_its_entry(database_url: str) -> None:
    async with telling(database_url, **PROXY) as story:
        ada, auth = Visitor(story), story.auth
        (await ada.send("/auth/register", {"email": ADA, "password": PASSWORD})).raise_for_status()
        user = await auth.users.by_email(ADA)
        assert user is not None
        of_ada = {"user_id": user.id}
        await ada.sees(AuthAction.REGISTER, **of_ada)
        await story.mails()
        body = {"token": story.outbox.token(ADA, "wwv"), "password": PASSWORD}
        (await ada.send("/auth/verify-email", body)).raise_for_status()
        await ada.sees(AuthAction.ADDRESS_PROVEN, **of_ada)

        pair = (await ada.send("/auth/login", {"email": ADA, "password": PASSWORD})).json()
        entry = await ada.sees(AuthAction.LOGIN_SUCCESS, **of_ada)
        assert entry.details == {"amr": ("pwd",), "transport": "bearer"}
        session_id, signed_in = entry.session_id, f"user:{user.id}"
        answer = await ada.send("/auth/login", {"email": ADA, "password": ANOTHER})
        problem(answer, 401, "invalid_credentials")
        wrong = {"reason": "wrong_password", "factor": "pwd"}
        entry = await ada.sees(AuthAction.LOGIN_FAILED, "failure", details=wrong, **of_ada)
        assert entry.account == auth.audit.writer.hashed("account", ADA)
        await ada.send("/auth/login", {"email": EVE, "password": ANOTHER})
        entry = await ada.sees(AuthAction.LOGIN_FAILED, "failure", user_id=None)
        assert entry.account == auth.audit.writer.hashed("account", EVE)

        story.move(seconds=1)
        body = {"refresh_token": pair["refresh_token"]}
        pair = (await ada.send("/auth/refresh", body)).json()
        await ada.sees(AuthAction.TOKEN_REFRESHED, session_id=session_id, **of_ada)
        headers = bearer(pair["access_token"])
        body = {"current_password": PASSWORD, "new_password": ANOTHER}
        (await ada.send("/auth/password/change", body, **headers)).raise_for_status()
        await ada.sees(AuthAction.PASSWORD_CHANGED, actor=signed_in, session_id=session_id)
        (await ada.send("/auth/logout", **headers)).raise_for_status()
        await ada.sees(AuthAction.LOGOUT, actor=signed_in, session_id=session_id, **of_ada)

        for email in (ADA, EVE):
            await ada.send("/auth/password-reset-request", {"email": email})
            entry = await ada.sees(AuthAction.PASSWORD_RESET_REQUESTED, user_id=None)
            assert entry.account == auth.audit.writer.hashed("account", email)
        await story.mails()
        body = {"token": story.outbox.token(ADA, "wwp"), "new_password": PASSWORD}
        (await ada.send("/auth/password-reset", body)).raise_for_status()
        await ada.sees(AuthAction.PASSWORD_RESET_COMPLETED, **of_ada)

        pair = (await ada.send("/auth/login", {"email": ADA, "password": PASSWORD})).json()
        body = {"refresh_token": pair["refresh_token"]}
        (await ada.send("/auth/refresh", body)).raise_for_status()
        story.move(minutes=1)  # a thief has the token too
        answer = await ada.send("/auth/refresh", body)
        problem(answer, 401, "refresh_token_reused")
        entry = await ada.sees(AuthAction.SUSPICIOUS_ACTIVITY, "failure", **of_ada)
        assert entry.event == "refresh_token_replayed"
        assert (await last(story, AuthAction.SESSION_ENDED)).details[
            "why"
        ] == "refresh_token_reused"

        pair = (await ada.send("/auth/login", {"email": ADA, "password": PASSWORD})).json()
        await auth.tokens.revoke(pair["access_token"])
        revoked = await last(story, AuthAction.TOKEN_REVOKED)
        assert (revoked.actor, revoked.address, revoked.user_id) == ("system", None, user.id)
        pair = (await ada.send("/auth/login", {"email": ADA, "password": PASSWORD})).json()
        story.move(days=60)
        body = {"refresh_token": pair["refresh_token"]}
        for _ in range(3):
            problem(await ada.send("/auth/refresh", body), 401, "expired_token")
        assert len(await entries(story, action="token_expired")) == 1, "as often as they like"

        await auth.users.change(user.id, roles=("editor", "reader"))
        assert (await last(story, AuthAction.ROLE_GRANTED)).details["roles"] == ("editor", "reader")
        await auth.users.change(user.id, roles=("reader", "writer"))
        revoked = await last(story, AuthAction.ROLE_REVOKED)
        assert revoked.details["old_roles"] == ("editor", "reader")
        assert revoked.details["new_roles"] == ("reader", "writer")
        assert revoked.details["roles"] == ("editor",)

        everything = [texts_of(entry) for entry in await entries(story)]
        for secret in (PASSWORD, ANOTHER, ADA, EVE, HOME, *pair_of(pair)):
            assert not [each for each in everything if secret in each], secret
        assert auth.audit.counts["login_success"] == 4
        assert auth.audit.counts["login_failed"] == 2


def pair_of(pair: Mapping[str, Any]) -> tuple[str, str]:
    return pair["access_token"], pair["refresh_token"]


@pytest.mark.capability("S0-96", "S3-06")
@pytest.mark.standard("14: 16.3.3")
async def test_locked_accounts_and_limits_leave_entries() -> None:
    features = [*(each for each in standard() if each.name != "lockout"), lockout()]
    async with telling(features=features) as story:
        await story.join()
        user = await the_user(story)
        for _ in range(5):
            await story.client.post("/auth/login", json={"email": ADA, "password": ANOTHER})
        answer = await story.client.post("/auth/login", json={"email": ADA, "password": PASSWORD})
        body = problem(answer, 429, "too_many_attempts")
        locked = await last(story, AuthAction.ACCOUNT_LOCKED)
        assert (locked.result, locked.user_id) == ("failure", user.id)
        refused = await last(story, AuthAction.REQUEST_REFUSED)
        assert (refused.request_id, refused.details["status"]) == (body["request_id"], 429)
        await story.auth.lockout.clear(email=ADA)
        assert (await last(story, AuthAction.ACCOUNT_UNLOCKED)).user_id == user.id

        for number in range(20):
            answer = await story.register(f"{number}@example.com")
            if answer.status_code == 429:
                break
        limited = await last(story, AuthAction.RATE_LIMIT_EXCEEDED)
        assert (limited.result, limited.user_id, limited.account) == ("failure", None, None)
        assert limited.details["action"] == "register"
        assert limited.request_id is not None


@pytest.mark.standard("14: 16.3.2")
@pytest.mark.invariant("I-04")
async def test_refusals_are_kept_once_a_minute_and_never_without_bound(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.join()
        await cookie_session(story, client)
        for _ in range(4):
            await client.post("/auth/logout-all")
        body = problem(await client.post("/auth/logout-all"), 403, "csrf_refused")
        (entry,) = await entries(story, action=AuthAction.REQUEST_REFUSED)
        assert entry.result == "failure"
        assert entry.details["code"] == "csrf_refused"
        assert (entry.details["method"], entry.details["path"]) == ("POST", "/auth/logout-all")
        assert entry.request_id != body["request_id"], "the first is kept"
        story.move(minutes=1)
        body = problem(await client.post("/auth/logout-all"), 403, "csrf_refused")
        entry = (await entries(story, action=AuthAction.REQUEST_REFUSED))[-1]
        assert entry.details["repeated"] == 4
        assert entry.request_id == body["request_id"]
        assert story.auth.audit.counts["request_refused"] == 6


def test_however_many_are_unlike_one_process_keeps_300_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusals = Refusals()
    kept = [refusals.admit(("csrf_refused", f"2001:db8::{n:x}"), 0.5) for n in range(1000)]
    assert [each for each in kept if each is not None] == [0] * 300
    assert caplog.text.count("only counted") == 1
    assert refusals.admit(("csrf_refused", "2001:db8::0"), 59.9) is None
    assert refusals.admit(("csrf_refused", "2001:db8::0"), 61.0) == 1
    assert refusals.admit(("csrf_refused", "2001:db8::1"), 61.0) == 0
    assert len(refusals._seen) + len(refusals._before) < 600


@pytest.mark.standard("14: 16.4.1")
@pytest.mark.capability("S0-93")
async def test_what_strangers_send_is_one_escaped_line(database_url: str) -> None:
    evil = "x\r\nlogin_success\x1b[2J\u2028\u202e=cmd"
    async with telling(database_url) as story, browser(story.app) as client:
        await story.join()
        await cookie_session(story, client)
        headers = {"User-Agent": "=cmd|'/C calc'!A0\tx\x7f" + "y" * 5000}
        answer = await client.delete(f"/auth/sessions/{quote(evil)}", headers=headers)
        problem(answer, 403, "csrf_refused")
        await client.post("/auth/login", json={"email": f"{evil}@example.com", "password": evil})
        await story.auth.store.announce(
            Odd(realm="main", at=story.clock.now(), said=evil, many=(evil,) * 500, hidden=evil)
        )
        odd = await last(story, "odd_thing_seen")
        assert odd.event == "odd"
        assert "hidden" not in odd.details
        assert "\n" not in str(odd.details["said"])
        lines = [line async for line in story.auth.audit.export()]
        for line in lines:
            fits_the_schema(line)
        refused = await last(story, AuthAction.REQUEST_REFUSED)
        assert refused.details["path"].startswith("/auth/sessions/x\\r\\nlogin_success\\x1b[2J")
        assert len(refused.user_agent or "") <= 256
        table = "".join([line async for line in story.auth.audit.export("csv")])
        rows = list(csv.DictReader(io.StringIO(table)))
        assert len(rows) == len(lines)
        agent = next(row["user_agent"] for row in rows if row["action"] == "request_refused")
        assert agent.startswith("'=cmd|")
        for row in rows:
            assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row.values())
            assert all(cell.isprintable() for cell in row.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Odd(Event):
    """A third party's event."""

    audited: ClassVar[tuple[str, ...]] = ("said", "many", "key")

    said: str
    many: tuple[str, ...]
    hidden: str
    key: Secret = field(default_factory=lambda: Secret("wwk_never"))

    def audited_as(self) -> str:
        return "odd_thing_seen"


@pytest.mark.capability("S0-92", "S0-93")
async def test_an_event_of_others_is_kept_by_its_name_and_no_more_than_it_lets(
    database_url: str,
) -> None:
    async with telling(database_url) as story:
        event = Odd(realm="main", at=story.clock.now(), said="a", many=("b",), hidden="c")
        async with story.auth.store.transaction() as tx:
            await tx.announce(event)
        (entry,) = await entries(story, action="odd_thing_seen")
        assert entry.details == {"said": "a", "many": ("b",)}
        assert (entry.actor, entry.result, entry.request_id) == ("system", "success", None)
        assert "wwk_never" not in texts_of(entry)
        story.move(days=91)
        while await story.auth._tidy():
            pass
        assert await entries(story, action="odd_thing_seen") == []


@pytest.mark.capability("DEF-31")
@pytest.mark.invariant("I-04")
async def test_what_cannot_be_kept_does_not_happen_unless_it_may(sql_database_url: str) -> None:
    async with telling(sql_database_url) as story:
        await story.join()
        pair = await story.log_in()
        await drop_entries(story)
        token = {"refresh_token": pair["refresh_token"]}
        for path, body in (
            ("refresh", token),
            ("login", {"email": ADA, "password": PASSWORD}),
            ("login", {"email": ADA, "password": ANOTHER}),
            ("register", {"email": EVE, "password": PASSWORD}),
            ("password-reset-request", {"email": ADA}),
        ):
            problem(await story.client.post(f"/auth/{path}", json=body), 503, "store_unavailable")
        assert await story.auth.users.by_email(EVE) is None
        story.move(minutes=1)
        answer = await story.client.post("/auth/refresh", json=token)
        problem(answer, 503, "store_unavailable")  # and not taken for a thief's
        answer = await story.client.get("/auth/me", headers=bearer(pair["access_token"]))
        assert answer.status_code == 200, "what leaves no entry goes on"


@pytest.mark.capability("DEF-31")
async def test_with_failure_log_it_happens_and_the_log_says_what_is_missing(
    sql_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with telling(sql_database_url, features=with_audit(failure="log")) as story:
        await story.join()
        await drop_entries(story)
        await story.log_in()
        assert "no entry of login_success, request 01" in caplog.text


async def drop_entries(story: Story) -> None:
    """A real table that is really gone."""
    driver: Any = story.auth.driver
    async with driver._pool.transaction() as connection:
        await connection.execute(text("DROP TABLE watchword_audit_entry"))


@pytest.mark.capability("S3-04")
@pytest.mark.parametrize("mode", ["plain", "off"])
async def test_addresses_are_kept_as_the_setting_says(database_url: str, mode: str) -> None:
    features = with_audit(ip_mode=mode, ip_retention="7d")
    async with telling(database_url, features=features, **PROXY) as story:
        await Visitor(story).send("/auth/login", {"email": EVE, "password": ANOTHER})
        entry = await last(story, AuthAction.LOGIN_FAILED)
        assert entry.address == (HOME if mode == "plain" else None)
        found = await story.auth.audit.address_activity(HOME)
        assert len(found.items) == (1 if mode == "plain" else 0)
        story.move(minutes=2)
        while await story.auth.audit.seal():
            pass
        story.move(days=8)
        while await story.auth.audit.erase():
            pass
        entry = await last_of_all(story, AuthAction.LOGIN_FAILED)
        erased = (entry.address, entry.user_agent, entry.account, entry.salt)
        assert (erased == (None,) * 4) == (mode == "plain")
        assert entry.details["reason"] == "unknown_user"
        assert (await story.auth.audit.verify()).is_whole


async def last_of_all(story: Story, action: str) -> AuditEntry:
    return (await entries(story, action=action))[-1]


async def the_user(story: Story, email: str = ADA) -> Any:
    return await story.auth.users.by_email(email)


@pytest.mark.capability("S0-95")
async def test_the_queries_find_what_was_seeded(database_url: str) -> None:
    async with telling(database_url, **PROXY) as story:
        audit, visitor = story.auth.audit, Visitor(story)
        await story.join()
        story.move(hours=30)
        for email, address in ((ADA, HOME), (ADA, "203.0.113.8"), (EVE, HOME), (EVE, HOME)):
            body = {"email": email, "password": ANOTHER}
            await visitor.send("/auth/login", body, **{"X-Forwarded-For": address})
        await visitor.send("/auth/login", {"email": ADA, "password": PASSWORD})
        hour = timedelta(hours=1)

        assert len((await audit.failed_logins()).items) == 4
        assert len((await audit.failed_logins(email=ADA.upper())).items) == 2
        assert len((await audit.failed_logins(email=EVE, address=HOME)).items) == 2
        assert len((await audit.failed_logins(address="203.0.113.8")).items) == 1
        assert await audit.count_failed_logins() == 4
        assert await audit.count_failed_logins(email=EVE) == 2
        assert len((await audit.address_activity(HOME)).items) == 4
        both = [await audit.address_activity(HOME, limit=3)]
        both.append(await audit.address_activity(HOME, limit=3, after=both[0].next))
        assert [len(page.items) for page in both] == [3, 1]
        assert (*both[0].items, *both[1].items) == (await audit.address_activity(HOME)).items
        user = await the_user(story)
        week = await audit.user_activity(ADA)
        assert week == await audit.user_activity(user.id)
        assert {"register", "login_failed"} <= {each.action for each in week.items}
        assert "register" not in {
            each.action for each in (await audit.user_activity(ADA, within=hour)).items
        }
        assert len((await audit.user_activity(EVE)).items) == 2, "nobody's, and still asked for"
        failures = await audit.recent(success=False)
        assert {each.result for each in failures.items} == {"failure"}
        assert len((await audit.recent(action=AuthAction.LOGIN_SUCCESS)).items) == 1

        summary = await audit.security_summary(within=hour)
        recent = (await audit.recent(within=hour)).items
        assert summary.total == len(recent)
        assert summary.failures == 4
        assert summary.actions == Counter(each.action for each in recent)

        seen: list[str] = []
        after: str | None = None
        while True:
            page = await audit.recent(within=timedelta(days=7), limit=2, after=after)
            seen += [each.id for each in page.items]
            after = page.next
            if after is None:
                break
        assert sorted(seen) == sorted(each.id for each in await entries(story))
        assert len(set(seen)) == len(seen)


@pytest.mark.standard("CVE row 47")
async def test_a_forged_cursor_is_refused(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        audit = story.auth.audit
        page = await audit.recent(limit=1)
        forged = base64.urlsafe_b64encode(b'[["id","at"],["x",1]]').decode()
        other = base64.urlsafe_b64encode(b'[["at","id"],[{"$gt":0},"x"]]').decode()
        for cursor in ("x", "", "../..", "AAAA", forged, other, "' OR 1=1 --", "\x00"):
            with pytest.raises(InvalidInput) as refused:
                await audit.recent(after=cursor)
            assert refused.value.status == 422
        for limit in (0, -1, 1001):
            with pytest.raises(InvalidInput):
                await audit.recent(limit=limit)
        assert page.next is not None
        assert (await audit.user_activity("x' OR '1'='1", after=page.next)).items == ()


@pytest.mark.capability("S0-93")
@pytest.mark.invariant("I-23")
async def test_of_a_user_who_is_gone_only_the_id_stays(database_url: str) -> None:
    async with telling(database_url, **PROXY) as story:
        await story.join()
        visitor = Visitor(story)
        await visitor.send("/auth/login", {"email": ADA, "password": ANOTHER})
        pair = (await visitor.send("/auth/login", {"email": ADA, "password": PASSWORD})).json()
        user = await the_user(story)
        story.move(minutes=2)
        assert await story.auth.audit.seal() is False
        answer = await visitor.send("/auth/me", method="DELETE", **bearer(pair["access_token"]))
        assert answer.status_code == 204, answer.text
        for _ in range(2):
            while await story.auth.audit.erase():
                pass
            story.move(minutes=6)
        assert await story.auth.store.count(AuditErasure) == 0
        theirs = await entries(story, user_id=user.id)
        assert {"login_failed", "login_success", "user_deleted"} <= {each.action for each in theirs}
        for entry in theirs:
            left = (entry.account, entry.address, entry.user_agent, entry.salt)
            assert left == (None, None, None, None)
            assert entry.user_id == user.id
        while await story.auth.audit.seal():
            pass
        verified = await story.auth.audit.verify()
        assert verified.is_whole
        assert verified.erased == len(theirs)


@pytest.mark.invariant("I-11")
async def test_realms_do_not_see_what_happens_in_others(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        async with neighbour(story, database_url, realm="other") as other:
            await other.join()
            for each in (story, other):
                realms = {entry.realm for entry in await entries(each)}
                assert realms == {each.auth.store.realm}
                each.move(minutes=2)
                assert await each.auth.audit.seal() is False
                assert (await each.auth.audit.verify()).seals == 1
            hashed = [each.auth.audit.writer.hashed("address", HOME) for each in (story, other)]
            assert hashed[0] != hashed[1]


@pytest.mark.capability("S0-92")
async def test_switched_off_it_keeps_nothing_and_counts_all_the_same() -> None:
    async with telling(features=with_audit(enabled=False)) as story:
        await story.join()
        await story.log_in()
        assert await entries(story) == []
        assert story.auth.audit.counts["login_success"] == 1


async def test_refreshes_need_not_be_kept() -> None:
    async with telling(features=with_audit(refreshes=False)) as story:
        await story.join()
        pair = await story.log_in()
        body = {"refresh_token": pair["refresh_token"]}
        (await story.client.post("/auth/refresh", json=body)).raise_for_status()
        assert await entries(story, action="token_refreshed") == []
        assert story.auth.audit.counts["token_refreshed"] == 1
